//! Objects both ways: of every size, streamed, and cut off.

use std::sync::Arc;

use bytes::Bytes;
use flwr_api::fleet::{Fleet, ObjectState, PullObject, PushObject, Request, Response};
use flwr_api::{NodeId, ObjectId, RunId};
use flwr_compat_grpc::Holds;
use flwr_compat_grpc::f1::ask::{AdapterAsker, FleetAsker};
use flwr_compat_grpc::f1::{Adapter, FleetF1};
use flwr_transport::{Body, BodyError, Call, Caller, Closed, Code, Reply, Status, Tail};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Machine, Over, Scripted, Server, connect, fleet_call, in_pieces, pattern, serve, soon,
};

const MIB: usize = 1 << 20;
const SIZES: [usize; 4] = [0, 1, 300_000, 20 * MIB];

fn dialect() -> FleetF1 {
    let holds = Holds::default();
    FleetF1 { holds }
}

/// Keeps what is pushed and gives it back in pieces, whatever the id.
fn store() -> Arc<Scripted<Fleet>> {
    let kept = Arc::new(std::sync::Mutex::new(Bytes::new()));
    Scripted::new(move |_, call: Call<Fleet>| {
        let kept = Arc::clone(&kept);
        async move {
            match call.request {
                Request::PushObject(_) => {
                    let pushed = call.body.unwrap().collect(u64::MAX).await.unwrap();
                    *kept.lock().unwrap() = pushed;
                    Ok(Reply::new(Response::PushObject(true)))
                }
                _ => Ok(Reply {
                    response: Response::PullObject(ObjectState::Available),
                    tail: Tail::Body(in_pieces(&kept.lock().unwrap(), 70_000)),
                }),
            }
        }
    })
}

fn push(body: Body) -> Call<Fleet> {
    let (node, run, object) = (NodeId(7), RunId(8), ObjectId::of(b"x"));
    fleet_call(Request::PushObject(PushObject { node, run, object })).with_body(body)
}

fn pull() -> Call<Fleet> {
    let (node, run, object) = (NodeId(7), RunId(8), ObjectId::of(b"x"));
    let wait = std::time::Duration::ZERO;
    fleet_call(Request::PullObject(PullObject {
        node,
        run,
        object,
        wait,
    }))
}

async fn check_both_ways(caller: &impl Caller<Fleet>) {
    for size in SIZES {
        let bytes = pattern(size);
        let bodies = [
            Body::from_bytes(bytes.clone()),
            in_pieces(&bytes, 100_000),
            Body::from_stream(None, in_pieces(&bytes, 100_000).into_stream()),
        ];
        for body in bodies {
            let pushed = soon(caller.call(push(body))).await.unwrap();
            assert_eq!(pushed.response, Response::PushObject(true));
            let reply = soon(caller.call(pull())).await.unwrap();
            assert_eq!(reply.response, Response::PullObject(ObjectState::Available));
            let Tail::Body(body) = reply.tail else {
                panic!("no body")
            };
            assert_eq!(body.len(), Some(size as u64));
            assert!(
                soon(body.collect(u64::MAX)).await.unwrap() == bytes,
                "{size}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_size_go_both_ways() {
    let server = serve(Over::default(), dialect(), store()).await;
    check_both_ways(&connect::<Fleet, _>(server.addr, FleetAsker).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_every_size_go_both_ways_in_envelopes() {
    let server = serve(Over::default(), Adapter(dialect()), store()).await;
    let asker = AdapterAsker::new(CancellationToken::new());
    check_both_ways(&connect::<Fleet, _>(server.addr, asker).await).await;
}

/// Serves an object whose pieces the test sends.
async fn trickling(len: u64) -> (Server, mpsc::Sender<Result<Bytes, BodyError>>) {
    let (pieces, received) = mpsc::channel(64);
    let received = std::sync::Mutex::new(Some(received));
    let handler = Scripted::new(move |_, _: Call<Fleet>| {
        let mut received = received.lock().unwrap().take().unwrap();
        let chunks = stream::poll_fn(move |cx| received.poll_recv(cx));
        std::future::ready(Ok(Reply {
            response: Response::PullObject(ObjectState::Available),
            tail: Tail::Body(Body::from_stream(Some(len), chunks)),
        }))
    });
    (serve(Over::default(), dialect(), handler).await, pieces)
}

#[tokio::test]
async fn an_object_is_handed_on_while_it_arrives() {
    let (server, pieces) = trickling(6).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    pieces.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    let reply = soon(caller.call(pull())).await.unwrap();
    let Tail::Body(mut body) = reply.tail else {
        panic!("no body")
    };
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), "abc");
    // It outlives the caller.
    drop(caller);
    pieces.send(Ok(Bytes::from_static(b"def"))).await.unwrap();
    drop(pieces);
    assert_eq!(soon(body.next()).await.unwrap().unwrap(), "def");
    assert!(soon(body.next()).await.is_none());
}

#[tokio::test]
async fn an_object_that_breaks_off_does_not_look_whole() {
    for broken in [Some(Err(BodyError::Interrupted)), None] {
        let (server, pieces) = trickling(6).await;
        let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
        pieces.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
        let reply = soon(caller.call(pull())).await.unwrap();
        let Tail::Body(body) = reply.tail else {
            panic!("no body")
        };
        match broken {
            Some(broken) => pieces.send(broken).await.unwrap(),
            None => drop(pieces),
        }
        let read = soon(body.collect(u64::MAX)).await;
        assert_eq!(read, Err(BodyError::Interrupted));
    }
}

#[tokio::test]
async fn an_object_whose_server_dies_does_not_look_whole() {
    let machine = Machine::new();
    let (server, pieces) = machine.run(trickling(6)).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    pieces.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    let reply = soon(caller.call(pull())).await.unwrap();
    let Tail::Body(body) = reply.tail else {
        panic!("no body")
    };
    machine.die();
    let read = soon(body.collect(u64::MAX)).await;
    assert_eq!(read, Err(BodyError::Interrupted));
    assert_eq!(soon(Caller::<Fleet>::closed(&caller)).await, Closed::Peer);
}

#[tokio::test]
async fn closing_breaks_an_object_under_way() {
    let (server, pieces) = trickling(6).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    pieces.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    let reply = soon(caller.call(pull())).await.unwrap();
    let Tail::Body(body) = reply.tail else {
        panic!("no body")
    };
    Caller::<Fleet>::close(&caller, "enough");
    assert_eq!(
        soon(body.collect(u64::MAX)).await,
        Err(BodyError::Interrupted)
    );
    soon(pieces.closed()).await;
}

#[tokio::test]
async fn dropping_an_object_stops_its_sender() {
    let (server, pieces) = trickling(6).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    pieces.send(Ok(Bytes::from_static(b"abc"))).await.unwrap();
    drop(soon(caller.call(pull())).await.unwrap());
    soon(pieces.closed()).await;
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender() {
    let (server, pieces) = trickling(64 * MIB as u64).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    pieces.send(Ok(pattern(MIB))).await.unwrap();
    let reply = soon(caller.call(pull())).await.unwrap();
    let Tail::Body(body) = reply.tail else {
        panic!("no body")
    };
    let mut sent = 1;
    // The queue of the test itself holds 64, but nobody takes more from it than windows have room for.
    while sent < 64
        && tokio::time::timeout(
            std::time::Duration::from_millis(300),
            pieces.send(Ok(pattern(MIB))),
        )
        .await
        .is_ok()
    {
        sent += 1;
    }
    let waiting = pieces.max_capacity() - pieces.capacity();
    assert!(sent - waiting < 40, "{} MiB were taken", sent - waiting);
    drop(pieces);
    let read = body
        .into_stream()
        .map(|piece| piece.unwrap().len())
        .collect::<Vec<_>>();
    assert_eq!(soon(read).await.into_iter().sum::<usize>(), sent * MIB);
}

#[tokio::test]
async fn states_of_objects_that_are_not_there() {
    for state in [ObjectState::Pending, ObjectState::Unknown] {
        for adapter in [false, true] {
            let handler = Scripted::<Fleet>::saying(Response::PullObject(state));
            let reply = if adapter {
                let server = serve(Over::default(), Adapter(dialect()), handler).await;
                let asker = AdapterAsker::new(CancellationToken::new());
                let caller = connect::<Fleet, _>(server.addr, asker).await;
                soon(caller.call(pull())).await.unwrap()
            } else {
                let server = serve(Over::default(), dialect(), handler).await;
                let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
                soon(caller.call(pull())).await.unwrap()
            };
            assert_eq!(reply.response, Response::PullObject(state));
            assert!(matches!(reply.tail, Tail::None));
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_here_fails_its_call_only() {
    let server = serve(Over::default(), dialect(), store()).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let piece = || Ok(Bytes::from_static(b"abc"));
    let bodies = [
        (Some(6), vec![piece(), Err(BodyError::Interrupted)]),
        (Some(6), vec![piece()]),
        (Some(2), vec![piece()]),
        (None, vec![piece(), Err(BodyError::Interrupted)]),
    ];
    for (len, pieces) in bodies {
        let body = Body::from_stream(len, stream::iter(pieces.clone()));
        let failed = soon(caller.call(push(body))).await.unwrap_err();
        assert_eq!(failed.code, Code::Cancelled, "{len:?} {pieces:?}: {failed}");
    }
    let pushed = soon(caller.call(push(Bytes::from_static(b"abc").into()))).await;
    assert_eq!(pushed.unwrap().response, Response::PushObject(true));
}

#[tokio::test]
async fn a_server_may_refuse_before_the_body_has_ended() {
    let handler =
        Scripted::new(|_, _: Call<Fleet>| async { Err(Status::new(Code::PermissionDenied, "no")) });
    let server = serve(Over::default(), dialect(), handler).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let failed = soon(caller.call(push(Body::from_bytes(pattern(MIB))))).await;
    assert_eq!(failed.unwrap_err().code, Code::PermissionDenied);
}
