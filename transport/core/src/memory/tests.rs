//! What the battery cannot ask of every transport: virtual time, queues, a failing network.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::body::{Body, BodyError};
use crate::call::Tail;
use crate::conformance::{Answer, Ask, Plan, Service, Toy};
use crate::drain::Drain;
use crate::serve::{Acceptor as _, Caller as _, Connector as _, Drained, ServeError};

const HOUR: Duration = Duration::from_secs(3600);
const HOLD: Ask = Ask::Hold { until_drain: false };
const HOLD_UNTIL_DRAIN: Ask = Ask::Hold { until_drain: true };

struct Served {
    connector: Connector<Toy>,
    service: Arc<Service>,
    drain: Drain,
    serving: JoinHandle<Result<Drained, ServeError>>,
}

fn serve(options: Options) -> Served {
    let (connector, acceptor) = pair(options);
    let (service, drain) = (Arc::new(Service::default()), Drain::new());
    let serving = tokio::spawn(acceptor.serve(Arc::clone(&service), drain.clone()));
    Served {
        connector,
        service,
        drain,
        serving,
    }
}

/// Fails a test in which nothing can happen any more: idle, the paused clock runs ahead.
async fn within(test: impl Future<Output = ()>) {
    let test = tokio::time::timeout(1000 * HOUR, test);
    test.await.expect("the test ends");
}

fn ask(request: Ask) -> Call<Toy> {
    Call::new(request, Instant::now() + 10 * HOUR)
}

fn echo() -> Call<Toy> {
    ask(Ask::Echo("hello".into()))
}

#[tokio::test(start_paused = true)]
async fn deadlines_pass_in_virtual_time() {
    within(async {
        let served = serve(Options::default());
        let caller = served.connector.connect().await.unwrap();
        let begun = Instant::now();
        let mut call = ask(HOLD);
        call.deadline = begun + HOUR;
        let failed = caller.call(call).await.unwrap_err();
        assert_eq!(failed.code, Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), HOUR.as_secs());
        let context = served.service.last_context().unwrap();
        assert_eq!(context.deadline, begun + HOUR);
        served.service.left.reaches(1).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn grace_passes_in_virtual_time() {
    within(async {
        let served = serve(Options {
            grace: HOUR,
            ..Options::default()
        });
        let caller = served.connector.connect().await.unwrap();
        let held = tokio::spawn(async move { caller.call(ask(HOLD)).await });
        served.service.entered.reaches(1).await;
        assert_eq!(served.drain.in_flight(), 1);
        let begun = Instant::now();
        served.drain.begin();
        let drained = served.serving.await.unwrap().unwrap();
        assert_eq!(drained, Drained { cut: 1 });
        assert_eq!(begun.elapsed().as_secs(), HOUR.as_secs());
        assert_eq!(served.drain.in_flight(), 0);
        assert_eq!(held.await.unwrap().unwrap_err().code, Code::Unavailable);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn further_calls_wait_for_room() {
    within(async {
        let served = serve(Options {
            calls_max: 2,
            ..Options::default()
        });
        let caller = served.connector.connect().await.unwrap();
        let mut first = Box::pin(caller.call(ask(HOLD)));
        let mut second = Box::pin(caller.call(ask(HOLD_UNTIL_DRAIN)));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        served.service.entered.reaches(2).await;

        // More than the queue holds, so some wait at their caller.
        let mut waiting = Box::pin(join_all((0..100).map(|_| caller.call(echo()))));
        let early = tokio::time::timeout(HOUR, &mut waiting).await;
        assert!(early.is_err(), "a call was answered beyond the bound");
        assert_eq!(served.service.entered.value(), 2);

        drop(first);
        for answered in waiting.await {
            assert_eq!(answered.unwrap().response, Answer::Echo("hello".into()));
        }
        served.drain.begin();
        assert_eq!(second.await.unwrap().response, Answer::Released);
        assert_eq!(served.serving.await.unwrap().unwrap().cut, 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_calls_that_wait() {
    within(async {
        let served = serve(Options {
            calls_max: 1,
            ..Options::default()
        });
        let caller = served.connector.connect().await.unwrap();
        let held = caller.call(ask(HOLD_UNTIL_DRAIN));
        let waiting = async {
            served.service.entered.reaches(1).await;
            let waiting = join_all((0..100).map(|_| caller.call(echo())));
            let (answered, ()) = tokio::join!(waiting, async { served.drain.begin() });
            answered
        };
        let (held, refused) = tokio::join!(held, waiting);
        assert_eq!(held.unwrap().response, Answer::Released);
        for refused in refused {
            // Those that did not fit into the queue may find nobody any more.
            let code = refused.unwrap_err().code;
            assert!(
                matches!(code, Code::Draining | Code::Unavailable),
                "{code:?}"
            );
        }
        assert_eq!(served.service.entered.value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_in_the_queue_reaches_no_handler() {
    within(async {
        let (connector, acceptor) = pair::<Toy>(Options::default());
        let caller = connector.connect().await.unwrap();
        assert!(caller.call(ask(HOLD)).now_or_never().is_none());
        let service = Arc::new(Service::default());
        tokio::spawn(acceptor.serve(Arc::clone(&service), Drain::new()));
        caller.call(echo()).await.unwrap();
        assert_eq!(service.entered.value(), 1);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_acceptor_that_never_serves_answers_nobody() {
    within(async {
        let (connector, acceptor) = pair::<Toy>(Options::default());
        let caller = connector.connect().await.unwrap();
        let mut waiting = Box::pin(caller.call(echo()));
        assert!((&mut waiting).now_or_never().is_none());
        drop(acceptor);
        assert_eq!(waiting.await.unwrap_err().code, Code::Unavailable);
        assert_eq!(caller.closed().await, Closed::Peer);
        assert!(connector.connect().await.unwrap_err().retryable);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_network_ends_what_was_open() {
    within(async {
        let served = serve(Options::default());
        let caller = served.connector.connect().await.unwrap();
        let source = ask(Ask::Source(Plan::unannounced(64 << 20)));
        let Tail::Body(mut body) = caller.call(source).await.unwrap().tail else {
            panic!("a body was asked for");
        };
        let losing = async {
            served.service.entered.reaches(2).await;
            served.connector.lose_connections();
        };
        let (held, ()) = tokio::join!(caller.call(ask(HOLD)), losing);
        assert_eq!(held.unwrap_err().code, Code::Unavailable);
        caller.close("too late to matter");
        assert_eq!(caller.closed().await, Closed::Lost);
        let flow = &served.service.downloads;
        let read = flow.read(&mut body, u64::MAX).await;
        assert_eq!(read, Err(BodyError::Interrupted));
        served.service.left.reaches(2).await;

        let next = served.connector.connect().await.unwrap();
        next.call(echo()).await.unwrap();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn each_connector_is_somebody() {
    within(async {
        let served = serve(Options {
            acceptor_identity: Identity::Account(crate::AccountId("server".into())),
            ..Options::default()
        });
        for name in ["one", "other"] {
            let identity = Identity::Account(crate::AccountId(name.into()));
            let connector = served.connector.with_identity(identity.clone());
            let caller = connector.clone().connect().await.unwrap();
            caller.call(echo()).await.unwrap();
            let context = served.service.last_context().unwrap();
            assert_eq!(context.peer.identity, identity);
            let server = Identity::Account(crate::AccountId("server".into()));
            assert_eq!(caller.peer().identity, server);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn pieces_are_cut_and_not_copied() {
    within(async {
        let served = serve(Options {
            piece_bytes_max: 10,
            ..Options::default()
        });
        let caller = served.connector.connect().await.unwrap();
        let bytes = Bytes::from(vec![7; 25]);
        let sent = [Ok(bytes.clone()), Ok(Bytes::new()), Ok(bytes.clone())];
        let body = Body::from_stream(Some(50), stream::iter(sent));
        let reply = caller.call(ask(Ask::Relay).with_body(body)).await.unwrap();
        let Tail::Body(body) = reply.tail else {
            panic!("a body was sent");
        };
        let came: Vec<_> = body.into_stream().map(Result::unwrap).collect().await;
        let lengths: Vec<_> = came.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [10, 10, 5, 10, 10, 5]);
        for (piece, at) in came.iter().zip([0, 10, 20].into_iter().cycle()) {
            assert_eq!(piece.as_ptr(), bytes[at..].as_ptr());
        }
    })
    .await;
}
