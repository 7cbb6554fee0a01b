//! Connections: how they come about, how they end, and what is said when they do not.

use std::time::Duration;

use flwr_api::NodeId;
use flwr_api::fleet::{CreateNode, Fleet, GetRun, PullMessages, Request, Response};
use flwr_compat_grpc::Holds;
use flwr_compat_grpc::client::Settings;
use flwr_compat_grpc::f1::FleetF1;
use flwr_compat_grpc::f1::ask::FleetAsker;
use flwr_transport::{
    Call, Caller, Closed, Code, ConnectError, Connector, LinkState, Policy, Redial, Reply,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::{
    Machine, Over, Scripted, Server, connect, connector, fleet_call, later, serve, serve_at, soon,
};

fn create() -> Call<Fleet> {
    let heartbeat_interval = 30.0;
    fleet_call(Request::CreateNode(CreateNode { heartbeat_interval }))
}

fn pull(deadline: Instant) -> Call<Fleet> {
    let (node, wait) = (NodeId(7), Duration::ZERO);
    Call::new(Request::PullMessages(PullMessages { node, wait }), deadline)
}

/// Answers `CreateNode` at once and holds everything else until the drain; tells when a call begins and ends.
async fn holding() -> (Server, mpsc::Receiver<&'static str>) {
    let (tell, told) = mpsc::channel(64);
    let handler = Scripted::new(move |context: flwr_transport::Context, call: Call<Fleet>| {
        let tell = tell.clone();
        async move {
            if matches!(call.request, Request::CreateNode(_)) {
                return Ok(Reply::new(Response::CreateNode(NodeId(7))));
            }
            let _ended = OnDrop(tell.clone());
            tell.send("began").await.unwrap();
            context.drain.requested().await;
            Ok(Reply::new(Response::PullMessages(None)))
        }
    });
    let holds = Holds::default();
    (
        serve(Over::default(), FleetF1 { holds }, handler).await,
        told,
    )
}

struct OnDrop(mpsc::Sender<&'static str>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.try_send("ended").ok();
    }
}

#[tokio::test]
async fn a_deadline_ends_the_call_at_both_ends() {
    let (server, mut told) = holding().await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    let failed = soon(caller.call(pull(deadline))).await.unwrap_err();
    assert_eq!(failed.code, Code::DeadlineExceeded);
    assert_eq!(soon(told.recv()).await, Some("began"));
    assert_eq!(soon(told.recv()).await, Some("ended"));
    soon(caller.call(create())).await.unwrap();
}

#[tokio::test]
async fn dropping_a_call_ends_it_at_the_other_end() {
    let (server, mut told) = holding().await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    tokio::select! {
        answered = caller.call(pull(later())) => panic!("{answered:?}"),
        began = soon(told.recv()) => assert_eq!(began, Some("began")),
    }
    assert_eq!(soon(told.recv()).await, Some("ended"));
    soon(caller.call(create())).await.unwrap();
}

#[tokio::test]
async fn a_drain_answers_what_is_held_and_ends_the_connection() {
    let (server, mut told) = holding().await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let held = caller.call(pull(later()));
    let draining = async {
        assert_eq!(soon(told.recv()).await, Some("began"));
        server.drain.begin();
    };
    let (answered, ()) = tokio::join!(held, draining);
    assert_eq!(answered.unwrap().response, Response::PullMessages(None));
    assert_eq!(soon(Caller::<Fleet>::closed(&caller)).await, Closed::Peer);
    let failed = soon(caller.call(create())).await.unwrap_err();
    assert_eq!(failed.code, Code::Unavailable);
    let connector = connector(server.addr, FleetAsker);
    let failed = soon(Connector::<Fleet>::connect(&connector))
        .await
        .unwrap_err();
    assert!(failed.retryable, "{failed}");
}

#[tokio::test]
async fn closing_ends_calls_under_way() {
    let (server, mut told) = holding().await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let held = caller.call(pull(later()));
    let closing = async {
        assert_eq!(soon(told.recv()).await, Some("began"));
        Caller::<Fleet>::close(&caller, "enough");
    };
    let (failed, ()) = tokio::join!(held, closing);
    assert_eq!(failed.unwrap_err().code, Code::Unavailable);
    assert_eq!(soon(told.recv()).await, Some("ended"));
    Caller::<Fleet>::close(&caller, "too late");
    let closed = soon(Caller::<Fleet>::closed(&caller)).await;
    assert_eq!(closed, Closed::Here("enough"));
    let failed = soon(caller.call(create())).await.unwrap_err();
    assert_eq!(failed.code, Code::Unavailable);
}

#[tokio::test]
async fn a_server_that_dies_fails_its_calls_as_unavailable() {
    let machine = Machine::new();
    let (server, mut told) = machine.run(holding()).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let held = caller.call(pull(later()));
    let dying = async {
        assert_eq!(soon(told.recv()).await, Some("began"));
        machine.die();
    };
    let (failed, ()) = tokio::join!(held, dying);
    assert_eq!(failed.unwrap_err().code, Code::Unavailable);
    assert_eq!(soon(Caller::<Fleet>::closed(&caller)).await, Closed::Peer);
    let failed = soon(caller.call(create())).await.unwrap_err();
    assert_eq!(failed.code, Code::Unavailable);
}

#[tokio::test]
async fn a_redial_finds_a_server_that_is_restarted() {
    let dialect = || FleetF1 {
        holds: Holds::default(),
    };
    let machine = Machine::new();
    let (first, _told) = machine.run(holding()).await;
    let connector = connector(first.addr, FleetAsker);
    let redial = Redial::<Fleet, _>::new(connector, Policy::default(), || 0.5);
    let mut states = redial.states();
    let reply = soon(redial.call(create())).await.unwrap();
    assert_eq!(reply.response, Response::CreateNode(NodeId(7)));
    assert_eq!(
        *states.borrow_and_update(),
        LinkState::Connected(first.addr)
    );
    machine.die();
    soon(states.wait_for(|state| matches!(state, LinkState::Lost(_))))
        .await
        .unwrap();
    // What may be repeated waits for the server to come back.
    let run = flwr_api::RunId(1);
    let node = NodeId(7);
    let get = fleet_call(Request::GetRun(GetRun { node, run }));
    let asked = redial.call(get);
    let restarted = async {
        let retrying = |state: &LinkState| matches!(state, LinkState::Retrying { .. });
        soon(states.wait_for(retrying)).await.unwrap();
        let handler = Scripted::<Fleet>::saying(Response::GetRun(None));
        serve_at(first.addr, Over::default(), dialect(), handler).await
    };
    let (answered, second) = tokio::join!(asked, restarted);
    assert_eq!(answered.unwrap().response, Response::GetRun(None));
    drop(second);
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let (server, _told) = holding().await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let calls = (0..200).map(|_| caller.call(create()));
    for answered in soon(futures_util::future::join_all(calls)).await {
        assert_eq!(answered.unwrap().response, Response::CreateNode(NodeId(7)));
    }
}

async fn refused_by(answer: Option<&'static [u8]>) -> ConnectError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        tcp.read_exact(&mut preface).await.unwrap();
        match answer {
            Some(answer) => tcp.write_all(answer).await.unwrap(),
            None => std::future::pending().await,
        }
        tcp.shutdown().await.unwrap();
    });
    let settings = Settings {
        handshake: Duration::from_millis(300),
        ..Settings::default()
    };
    let connector = connector(addr, FleetAsker).with_settings(settings);
    let refused = soon(Connector::<Fleet>::connect(&connector))
        .await
        .unwrap_err();
    server.abort();
    refused
}

#[tokio::test]
async fn a_server_that_is_none_is_named() {
    let cases: [(Option<&[u8]>, &str, bool); 5] = [
        (Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "HTTP/1", false),
        (
            Some(b"\x15\x03\x01\0\x02\x02\x0a"),
            "without --insecure",
            false,
        ),
        (Some(b"SSH-2.0-OpenSSH_9.6\r\n"), "check the port", false),
        (Some(b""), "closed the connection at once", true),
        (None, "says nothing", true),
    ];
    for (answer, expected, retryable) in cases {
        let refused = refused_by(answer).await;
        assert!(refused.message.contains(expected), "{refused}");
        assert_eq!(refused.retryable, retryable, "{refused}");
    }
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let refused = soon(Connector::<Fleet>::connect(&connector(addr, FleetAsker))).await;
    let refused = refused.unwrap_err();
    assert!(
        refused.retryable && refused.message.contains(&addr.to_string()),
        "{refused}"
    );
}
