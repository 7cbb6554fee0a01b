//! A caller that connects when it is needed, connects again when its connection is lost, and repeats what may be
//! repeated.
//!
//! However many calls wait, there is one attempt to connect at a time, made by a task of the redial's own (`keeper.rs`);
//! calls wait for its outcome. A call is repeated if it is idempotent, carries no body, and failed with a code that says
//! so ([`Code::is_retryable`]); until its deadline, or until the bounds of the [`Policy`] are reached for this call.
//! Nothing is done while no call waits.

mod keeper;
mod policy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::call::{Call, Protocol, Reply};
use crate::counted::Made;
use crate::peer::{Identity, Peer};
use crate::serve::{Caller, Closed, Connector};
use crate::status::{Code, Status};

use keeper::{Attempts, Link, keep};
pub use policy::Policy;
use policy::{Bounds, Tries};

/// Calls over whatever connection there is; see the module.
pub struct Redial<P: Protocol, C: Connector<P>> {
    link: Arc<Link<C::Caller>>,
    policy: Policy,
    nobody: Peer,
    _keeper: AbortOnDropHandle<()>,
}

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// No call has been made yet.
    Idle,
    /// There is a connection to this address.
    Connected(SocketAddr),
    /// The connection ended, for this reason. The next call, or the one that waits, makes a new one.
    Lost(String),
    /// No connection came about.
    Retrying {
        /// What went wrong, for people.
        why: String,
        /// When the next attempt is made.
        after: Duration,
    },
}

impl<P: Protocol, C: Connector<P>> Redial<P, C> {
    /// Connects nowhere before the first call. `random` gives numbers from 0 to 1 and spreads attempts in time.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(
        connector: C,
        policy: Policy,
        random: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Self {
        let link = Arc::new(Link::new(Box::new(random)));
        let keeper = tokio::spawn(keep::<P, C>(connector, Arc::clone(&link), policy));
        Self {
            link,
            policy,
            nobody: Peer {
                identity: Identity::Anonymous,
                addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                transport: "none",
            },
            _keeper: AbortOnDropHandle::new(keeper),
        }
    }

    /// How the connection is, from now on. Changes are logged already.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.link.states()
    }

    /// The connection, waited for until `deadline` and within the bounds.
    async fn connected(
        &self,
        deadline: Instant,
        tries: &mut Tries,
    ) -> Result<Arc<C::Caller>, Status> {
        let mut attempts = self.link.wait();
        let until = tries.ends_at().map_or(deadline, |end| end.min(deadline));
        let waited = timeout_at(until, async {
            loop {
                if self.link.closing.is_cancelled() {
                    return Err(closed());
                }
                if let Some(caller) = attempts.caller()
                    && !is_over::<P, _>(&*caller)
                {
                    return Ok(caller);
                }
                if let Some(why) = attempts.failed(tries) {
                    return Err(Status::new(Code::Unavailable, why));
                }
                tokio::select! {
                    biased;
                    () = self.link.closing.cancelled() => {}
                    () = attempts.changed() => {}
                }
            }
        });
        let waited = waited.await;
        waited.unwrap_or_else(|_| Err(too_late(&attempts, until == deadline)))
    }
}

impl<P: Protocol, C: Connector<P>> Caller<P> for Redial<P, C> {
    /// Who was reached first; an anonymous peer at no address before that.
    fn peer(&self) -> &Peer {
        self.link.peer.get().unwrap_or(&self.nobody)
    }

    async fn call(&self, mut call: Call<P>) -> Result<Reply<P>, Status> {
        let mut tries = Tries::new(self.policy);
        loop {
            let deadline = call.deadline;
            let caller = self.connected(deadline, &mut tries).await?;
            let again = call.again();
            let made = Made::begin(caller.peer().transport, &mut call);
            let failed = match made.end(caller.call(call).await) {
                Err(status) if status.code.is_retryable() => status,
                answered => {
                    self.link.proved();
                    return answered;
                }
            };
            let drains = failed.code == Code::Draining;
            if drains {
                self.link.forget(&caller);
            }
            let Some(again) = again else {
                return Err(failed);
            };
            if tries.failed(1, Bounds::Retryable) {
                return Err(failed);
            }
            // A new connection is waited for as long as it takes; the same one is given a rest.
            if !drains && !is_over::<P, _>(&*caller) {
                let rested = Instant::now() + tries.pause(&self.link.random);
                if rested >= deadline {
                    return Err(failed);
                }
                tokio::select! {
                    biased;
                    () = self.link.closing.cancelled() => return Err(closed()),
                    () = sleep_until(rested) => {}
                }
            }
            call = again;
        }
    }

    /// Completes once [`close`](Caller::close) was called; lost connections are replaced.
    async fn closed(&self) -> Closed {
        self.link.closing.cancelled().await;
        self.link.closed_as()
    }

    fn close(&self, reason: &'static str) {
        if let Some(caller) = self.link.close(reason) {
            caller.close(reason);
        }
    }
}

fn is_over<P: Protocol, C: Caller<P>>(caller: &C) -> bool {
    caller.closed().now_or_never().is_some()
}

fn closed() -> Status {
    Status::new(Code::Unavailable, "the connection is gone")
}

fn too_late<C>(attempts: &Attempts<'_, C>, deadline: bool) -> Status {
    let why = attempts.why();
    let why = why.unwrap_or_else(|| "connecting takes too long".to_owned());
    if deadline {
        return Status::new(Code::DeadlineExceeded, why);
    }
    Status::new(Code::Unavailable, why)
}

impl<P: Protocol, C: Connector<P>> fmt::Debug for Redial<P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redial")
            .field("state", &*self.link.states().borrow())
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
