//! What an app may ask through its relay, and what comes of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{
    AppIo, ConfirmMessage, GetNodes, GetRunStatus, ListAppsToLaunch, PullInputs, PullMessages,
    PullObject, PushObject, PushOutputs, ReportAppExit, Request, RequestToken, WatchApp,
};
use flwr_api::{NodeId, ObjectId, Reason, RunId};
use flwr_superexec::{Kind, Relay, Warm};
use flwr_transport::{
    Bearer, Body, Call, Code, Context, Drain, Handler as _, Identity, Peer, Reply, Status, Tail,
};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::time::Instant;

use crate::world::{Plan, World};

/// A world whose app was bound to run 7, the app's relay, and what it presents.
async fn bound(kind: Kind) -> (World, Arc<Relay>, Bearer) {
    let mut plan = Plan::shell("echo \"token $5\"; exec sleep 300");
    plan.kind = kind;
    plan.is_relayed = true;
    let world = plan.start().await;
    world.daemon.submit([7]);
    let token = Bearer::new(world.hears(7, "token ").await);
    let relay = world.endpoint.relay(0);
    (world, relay, token)
}

/// Makes a call as an app would.
async fn ask(
    relay: &Relay,
    bearer: Option<&Bearer>,
    request: Request,
    body: Option<Body>,
) -> Result<Reply<AppIo>, Status> {
    let deadline = Instant::now() + Duration::from_secs(3600);
    let mut call = Call::new(request, deadline);
    call.body = body;
    relay.handle(context(bearer, Drain::new()), call).await
}

fn context(bearer: Option<&Bearer>, drain: Drain) -> Context {
    Context {
        peer: Arc::new(Peer {
            identity: Identity::Anonymous,
            addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            transport: "test",
        }),
        bearer: bearer.cloned(),
        deadline: Instant::now() + Duration::from_secs(3600),
        drain,
        gone: tokio_util::sync::CancellationToken::new(),
        presence: None,
        is_native: true,
    }
}

fn pull_inputs() -> Request {
    let wait = Duration::ZERO;
    Request::PullInputs(PullInputs { wait })
}

fn nodes(run: u64) -> Request {
    Request::GetNodes(GetNodes { run: RunId(run) })
}

fn push_object(run: u64) -> Request {
    Request::PushObject(PushObject {
        node: NodeId(3),
        run: RunId(run),
        object: ObjectId::of(b""),
    })
}

fn pull_object(run: u64) -> Request {
    Request::PullObject(PullObject {
        node: NodeId(3),
        run: RunId(run),
        object: ObjectId::of(b""),
        wait: Duration::ZERO,
    })
}

fn is_refused(answer: &Result<Reply<AppIo>, Status>) -> bool {
    let reason = answer.as_ref().err().and_then(Reason::of);
    reason == Some(Reason::TokenInvalid)
}

#[tokio::test]
async fn the_real_token_is_presented_and_never_shown() {
    let (mut world, relay, shown) = bound(Kind::ClientApp).await;
    assert_eq!(shown.expose().len(), 256);
    assert_ne!(shown.expose(), crate::daemon::token(7).expose());
    assert!(
        shown
            .expose()
            .bytes()
            .all(|digit| b"0123456789abcdef".contains(&digit))
    );
    let answer = ask(&relay, Some(&shown), pull_inputs(), None).await;
    assert_eq!(answer.unwrap_err().message, "there are no inputs");
    let confirm = ConfirmMessage {
        run: RunId(7),
        message: ObjectId::of(b""),
    };
    ask(&relay, None, Request::ConfirmMessage(confirm), None)
        .await
        .unwrap();
    let calls = world.daemon.read(|state| state.calls.clone());
    let by_run_7 = |name| (name, Some(RunId(7)), 0);
    assert_eq!(
        calls,
        [by_run_7("pull_inputs"), by_run_7("confirm_message")]
    );
    world.end().await;
}

#[tokio::test]
async fn only_the_app_is_let_through() {
    let (mut world, relay, shown) = bound(Kind::ServerApp).await;
    let other = Bearer::new("0".repeat(256));
    let real = Bearer::new(crate::daemon::token(7).expose());
    let outputs = || {
        Request::PushOutputs(PushOutputs {
            run: RunId(7),
            context: Bytes::new(),
        })
    };
    let statuses = |runs: &[u64]| {
        let runs = runs.iter().copied().map(RunId).collect();
        Request::GetRunStatus(GetRunStatus { runs })
    };
    // Flower 1.22 has no token in these, so the run tells.
    for request in [nodes(7), pull_object(7), statuses(&[7])] {
        ask(&relay, None, request, None).await.unwrap();
    }
    for request in [
        nodes(8),
        pull_object(8),
        statuses(&[7, 8]),
        pull_inputs(),
        outputs(),
    ] {
        let name = format!("{request:?}");
        assert!(
            is_refused(&ask(&relay, None, request, None).await),
            "{name}"
        );
    }
    for bearer in [&other, &real] {
        assert!(is_refused(
            &ask(&relay, Some(bearer), outputs(), None).await
        ));
        assert!(is_refused(&ask(&relay, Some(bearer), nodes(7), None).await));
    }
    ask(&relay, Some(&shown), outputs(), None).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn a_client_app_shows_its_token_wherever_it_can() {
    let (mut world, relay, shown) = bound(Kind::ClientApp).await;
    let pull = || {
        Request::PullMessages(PullMessages {
            run: RunId(7),
            instructions: Vec::new(),
            wait: Duration::ZERO,
            linger: Duration::ZERO,
        })
    };
    assert!(is_refused(&ask(&relay, None, pull(), None).await));
    ask(&relay, Some(&shown), pull(), None).await.unwrap();
    ask(&relay, None, pull_object(7), None).await.unwrap();
    world.end().await;
}

#[tokio::test]
async fn calls_of_launchers_are_refused() {
    let (mut world, relay, shown) = bound(Kind::ServerApp).await;
    let wait = Duration::ZERO;
    for request in [
        Request::ListAppsToLaunch(ListAppsToLaunch { wait }),
        Request::RequestToken(RequestToken { run: RunId(7) }),
        Request::WatchApp(WatchApp { wait }),
        Request::ReportAppExit(ReportAppExit { how: String::new() }),
    ] {
        let refused = ask(&relay, Some(&shown), request, None).await.unwrap_err();
        assert_eq!(refused.code, Code::PermissionDenied);
        assert_eq!(Reason::of(&refused), None);
    }
    world.end().await;
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let (mut world, relay, _) = bound(Kind::ClientApp).await;
    let (pieces, received) = tokio::sync::mpsc::channel(1);
    let received = stream::unfold(received, async |mut received| {
        let piece = received.recv().await?;
        Some((Ok(piece), received))
    });
    let body = Body::from_stream(Some(30), received);
    let pushing = ask(&relay, None, push_object(7), Some(body));
    let feeding = async {
        for count in 1..=3 {
            pieces.send(Bytes::from_static(&[0; 10])).await.unwrap();
            let seen = world
                .daemon
                .until("a piece before the next is sent", |state| {
                    (state.calls.len() == count).then_some(())
                });
            seen.await;
        }
        drop(pieces);
    };
    let (pushed, ()) = tokio::join!(pushing, feeding);
    pushed.unwrap();

    let pulled = ask(&relay, None, pull_object(7), None).await.unwrap();
    let Tail::Body(body) = pulled.tail else {
        panic!("the object was asked for");
    };
    let pieces: Vec<_> = body.into_stream().map(Result::unwrap).collect().await;
    assert_eq!(pieces, ["one", "two"]);
    world.end().await;
}

#[tokio::test]
async fn an_app_without_a_run_waits_for_it() {
    let mut plan = Plan::shell("echo \"token $5\"; exec sleep 300");
    plan.is_relayed = true;
    plan.warm = Warm::Prestart;
    plan.idle_max = 1;
    let mut world = plan.start().await;
    let said = || {
        world
            .said()
            .iter()
            .find_map(|line| line.strip_prefix("[no run yet] token ").map(Bearer::new))
    };
    crate::world::wait_until("started ahead", || said().is_some()).await;
    let shown = said().unwrap();
    let relay = world.endpoint.relay(0);

    assert!(is_refused(&ask(&relay, None, nodes(7), None).await));
    assert!(is_refused(&ask(&relay, Some(&shown), nodes(7), None).await));
    let drain = Drain::new();
    let call = Call::new(pull_inputs(), Instant::now());
    let mut cut = Box::pin(relay.handle(context(Some(&shown), drain.clone()), call));
    assert!(cut.as_mut().now_or_never().is_none());
    drain.begin();
    assert_eq!(cut.await.unwrap_err().code, Code::Draining);

    let mut pulling = Box::pin(ask(&relay, Some(&shown), pull_inputs(), None));
    assert!(pulling.as_mut().now_or_never().is_none());
    world.daemon.submit([7]);
    assert_eq!(pulling.await.unwrap_err().message, "there are no inputs");
    ask(&relay, Some(&shown), nodes(7), None).await.unwrap();
    let calls = world.daemon.read(|state| state.calls.clone());
    assert_eq!(calls[0], ("pull_inputs", Some(RunId(7)), 0));
    world.end().await;
}
