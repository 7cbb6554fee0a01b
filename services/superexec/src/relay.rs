//! Makes the calls of one app to the daemon, over whatever reaches it.
//!
//! The app is launched with a token that is good for its relay only. The relay knows the real one
//! once the app is bound to a run, and presents it with every call. So what the list of processes
//! shows opens nothing, and an app can be started before there is a run for it.

use std::sync::Arc;

use flwr_api::appio::{AppIo, Request};
use flwr_api::{Reason, RunId, Token};
use flwr_transport::{Bearer, Call, Code, Context, DynCaller, Handler, Reply, Status};
use tokio::sync::watch;

use crate::config::Kind;

/// Answers the calls of one app by making them.
#[derive(Debug)]
pub struct Relay {
    kind: Kind,
    caller: Arc<dyn DynCaller<AppIo>>,
    /// What the app presents.
    placeholder: Token,
    bound: watch::Sender<Option<Bound>>,
}

/// The run that an app works for, and the claim it holds on it.
#[derive(Clone, Debug)]
struct Bound {
    run: RunId,
    token: Bearer,
}

impl Relay {
    pub(crate) fn new(kind: Kind, caller: Arc<dyn DynCaller<AppIo>>, placeholder: Token) -> Self {
        Self {
            kind,
            caller,
            placeholder,
            bound: watch::Sender::new(None),
        }
    }

    /// What the app is launched with.
    pub(crate) fn placeholder(&self) -> &Token {
        &self.placeholder
    }

    /// Gives the app its run. Happens once.
    pub(crate) fn bind(&self, run: RunId, token: &Token) {
        let token = Bearer::new(token.expose());
        let before = self.bound.send_replace(Some(Bound { run, token }));
        assert!(before.is_none(), "an app works for one run");
    }

    /// Whether the call is one that this app may make.
    fn admit(&self, bearer: Option<&Bearer>, request: &Request) -> Result<(), Status> {
        let needs = needs(request);
        let claims = match (bearer, needs) {
            (_, Needs::Launcher) => {
                return Err(Status::new(
                    Code::PermissionDenied,
                    "this call is for launchers",
                ));
            }
            (Some(bearer), _) => bearer.expose() == self.placeholder.expose(),
            (None, Needs::Token) => false,
            // A ClientApp presents its token with every call that can carry one.
            (None, Needs::AppRun(_)) if self.kind == Kind::ClientApp => false,
            (None, Needs::AppRun(runs) | Needs::Run(runs)) => {
                let bound = self.bound.borrow().as_ref().map(|bound| bound.run);
                bound.is_some_and(|bound| runs.iter().all(|run| *run == bound))
            }
        };
        if claims {
            return Ok(());
        }
        Err(Reason::TokenInvalid.refuse("the app's token is not valid"))
    }

    /// The run, waited for where the call can wait.
    async fn bound(&self, context: &Context, may_wait: bool) -> Result<Bound, Status> {
        let mut bound = self.bound.subscribe();
        if may_wait {
            tokio::select! {
                biased;
                () = context.drain.requested() => return Err(Context::draining()),
                // The sender lives as long as this relay.
                _bound = bound.wait_for(Option::is_some) => {}
            }
        }
        let bound = bound.borrow().clone();
        bound.ok_or_else(|| Reason::TokenInvalid.refuse("the app has no run yet"))
    }
}

impl Handler<AppIo> for Relay {
    async fn handle(&self, context: Context, call: Call<AppIo>) -> Result<Reply<AppIo>, Status> {
        self.admit(context.bearer.as_ref(), &call.request)?;
        let is_first = matches!(call.request, Request::PullInputs(_));
        let bound = self.bound(&context, is_first).await?;
        let call = Call {
            bearer: Some(bound.token),
            deadline: context.deadline,
            ..call
        };
        self.caller.call(call).await
    }
}

/// What a call needs so that it is known to be the app's own.
enum Needs<'a> {
    /// Nothing: it is a launcher's.
    Launcher,
    /// The token.
    Token,
    /// The token, or the app's run where the app is one for the whole run.
    AppRun(&'a [RunId]),
    /// The token, or the app's run. Flower 1.22 has no token in these.
    Run(&'a [RunId]),
}

fn needs(request: &Request) -> Needs<'_> {
    use std::slice::from_ref;
    match request {
        Request::ListAppsToLaunch(_)
        | Request::RequestToken(_)
        | Request::WatchApp(_)
        | Request::ReportAppExit(_) => Needs::Launcher,
        Request::PullInputs(_) | Request::PushOutputs(_) => Needs::Token,
        Request::GetNodes(call) => Needs::AppRun(from_ref(&call.run)),
        Request::PushMessages(call) => Needs::AppRun(from_ref(&call.run)),
        Request::PullMessages(call) => Needs::AppRun(from_ref(&call.run)),
        Request::GetRun(call) => Needs::AppRun(from_ref(&call.run)),
        Request::GetRunStatus(call) => Needs::AppRun(&call.runs),
        Request::UpdateRunStatus(call) => Needs::AppRun(from_ref(&call.run)),
        // The hash of a bundle is known to those it was told to.
        Request::GetFab(_) => Needs::AppRun(&[]),
        Request::PushLogs(call) => Needs::AppRun(from_ref(&call.run)),
        Request::Heartbeat(call) => Needs::AppRun(from_ref(&call.run)),
        Request::GetFederationOptions(call) => Needs::AppRun(from_ref(&call.run)),
        Request::PushObject(call) => Needs::Run(from_ref(&call.run)),
        Request::PullObject(call) => Needs::Run(from_ref(&call.run)),
        Request::ConfirmMessage(call) => Needs::Run(from_ref(&call.run)),
    }
}
