//! Calls over plain HTTP beside servers that answer by hand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flwr_api::NodeId;
use flwr_api::fleet::{DeleteNode, Fleet, FleetClient, Heartbeat};
use flwr_compat_grpc::f1::ask::FleetAsker;
use flwr_compat_grpc::{RestCaller, RestConnector};
use flwr_transport::{Caller, Closed, Code, Connector, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{later, soon};

/// Says the same to every request, however many come over a connection.
struct Hand {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    _serving: AbortOnDropHandle<()>,
}

impl Hand {
    async fn answering(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&connections);
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer_all(tcp, answer.clone()));
            }
        });
        Self {
            addr,
            connections,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    async fn caller(&self) -> Arc<RestCaller<FleetAsker>> {
        let (host, port) = (self.addr.ip().to_string(), self.addr.port());
        let connector = RestConnector::new(host, port, None, FleetAsker);
        let caller = soon(Connector::<Fleet>::connect(&connector)).await;
        Arc::new(caller.unwrap())
    }
}

/// Requests here are small and come whole. The server ends the connection after `Connection: close`.
async fn answer_all(mut tcp: TcpStream, answer: String) {
    let mut request = [0; 4096];
    while tcp.read(&mut request).await.is_ok_and(|read| read > 0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if tcp.write_all(answer.as_bytes()).await.is_err() || answer.contains("close") {
            break;
        }
    }
}

async fn beat(caller: &Arc<RestCaller<FleetAsker>>) -> Result<bool, Status> {
    let call = Heartbeat {
        node: NodeId(7),
        heartbeat_interval: 30.0,
    };
    let client = FleetClient::new(Arc::clone(caller) as _);
    soon(client.heartbeat(call, later())).await
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

const PROTOBUF: &str = "Content-Type: application/protobuf\r\n";
const TEXT: &str = "content-type: text/plain; charset=utf-8\r\n";
const YES: &str = "\x08\x01";

#[tokio::test]
async fn calls_follow_each_other_over_one_connection_and_none_waits_for_another() {
    let server = Hand::answering(response("200 OK", PROTOBUF, YES)).await;
    let caller = server.caller().await;
    for _ in 0..3 {
        assert_eq!(beat(&caller).await, Ok(true));
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let beats = tokio::join!(beat(&caller), beat(&caller), beat(&caller));
    assert_eq!(beats, (Ok(true), Ok(true), Ok(true)));
    assert_eq!(server.connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn connections_that_a_server_ends_are_replaced_unseen() {
    let headers = format!("{PROTOBUF}Connection: close\r\n");
    let server = Hand::answering(response("200 OK", &headers, YES)).await;
    let caller = server.caller().await;
    for _ in 0..3 {
        assert_eq!(beat(&caller).await, Ok(true));
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn an_answer_may_be_empty_or_come_in_chunks() {
    let server = Hand::answering(response("200 OK", PROTOBUF, "")).await;
    let client = FleetClient::new(server.caller().await);
    let call = DeleteNode { node: NodeId(7) };
    assert_eq!(soon(client.delete_node(call, later())).await, Ok(()));
    let chunks = "1\r\n\x08\r\n1\r\n\x01\r\n0\r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\n{PROTOBUF}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    let server = Hand::answering(answer).await;
    assert_eq!(beat(&server.caller().await).await, Ok(true));
}

#[tokio::test]
async fn statuses_of_http_are_understood() {
    let long = "x".repeat(100_000);
    for (status, headers, words, code, says) in [
        (
            "500 Internal Server Error",
            TEXT,
            "Internal Server Error",
            Code::Internal,
            "Internal",
        ),
        (
            "400 Bad Request",
            TEXT,
            "Missing header",
            Code::InvalidArgument,
            "Missing header",
        ),
        (
            "403 Forbidden",
            TEXT,
            "Run is finished.",
            Code::PermissionDenied,
            "Run is",
        ),
        (
            "404 Not Found",
            TEXT,
            "Not Found",
            Code::Unimplemented,
            "404",
        ),
        (
            "404 Not Found",
            TEXT,
            "no such app",
            Code::NotFound,
            "no such app",
        ),
        (
            "413 Content Too Large",
            TEXT,
            "too long",
            Code::ResourceExhausted,
            "too long",
        ),
        ("502 Bad Gateway", "", "<html>", Code::Unavailable, "502"),
        (
            "503 Service Unavailable",
            TEXT,
            &long,
            Code::Unavailable,
            "xxx",
        ),
        ("504 Gateway Timeout", "", "", Code::DeadlineExceeded, "504"),
        ("418 I'm a teapot", TEXT, "short", Code::Internal, "short"),
        ("302 Found", "Location: /\r\n", "", Code::Internal, "302"),
    ] {
        let server = Hand::answering(response(status, headers, words)).await;
        let refused = beat(&server.caller().await).await.unwrap_err();
        assert_eq!(refused.code, code, "{status}: {refused}");
        assert!(refused.message.contains(says), "{status}: {refused}");
        assert!(refused.message.len() < 5_000, "{status}");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_said_to_be_none() {
    for (answer, code, says) in [
        (
            response("200 OK", TEXT, YES),
            Code::Internal,
            "check the address",
        ),
        (
            response("200 OK", PROTOBUF, "\x08"),
            Code::Internal,
            "cannot be used",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{PROTOBUF}Connection: close\r\n\r\n{YES}"),
            Code::Internal,
            "no length",
        ),
        (
            "SSH-2.0-OpenSSH\r\n\r\n".to_owned(),
            Code::Internal,
            "not HTTP/1",
        ),
        (
            format!(
                "HTTP/1.1 200 OK\r\n{PROTOBUF}Content-Length: 9\r\nConnection: close\r\n\r\n{YES}"
            ),
            Code::Unavailable,
            "broke",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{PROTOBUF}Content-Length: 4000000000\r\n\r\n"),
            Code::Internal,
            "allowed",
        ),
        ("close".to_owned(), Code::Internal, "not HTTP/1"),
    ] {
        let server = Hand::answering(answer.clone()).await;
        let failed = beat(&server.caller().await).await.unwrap_err();
        assert_eq!(failed.code, code, "{answer}: {failed}");
        assert!(failed.message.contains(says), "{answer}: {failed}");
    }
}

#[tokio::test]
async fn a_caller_whose_server_is_gone_is_over() {
    let headers = format!("{PROTOBUF}Connection: close\r\n");
    let server = Hand::answering(response("200 OK", &headers, YES)).await;
    let caller = server.caller().await;
    assert_eq!(beat(&caller).await, Ok(true));
    drop(server);
    let failed = beat(&caller).await.unwrap_err();
    assert_eq!(failed.code, Code::Unavailable, "{failed}");
    let closed = soon(Caller::<Fleet>::closed(&*caller)).await;
    assert_eq!(closed, Closed::Lost);
}

#[tokio::test]
async fn closing_ends_the_calls_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connector = RestConnector::new(addr.ip().to_string(), addr.port(), None, FleetAsker);
    let caller = soon(Connector::<Fleet>::connect(&connector)).await;
    let caller = Arc::new(caller.unwrap());
    let (mut silent, _) = listener.accept().await.unwrap();
    let closing = async {
        let mut request = [0; 4096];
        assert!(silent.read(&mut request).await.unwrap() > 0);
        Caller::<Fleet>::close(&*caller, "the test is over");
        while silent.read(&mut request).await.is_ok_and(|read| read > 0) {}
    };
    let (failed, ()) = tokio::join!(beat(&caller), async { soon(closing).await });
    assert_eq!(failed.unwrap_err().code, Code::Unavailable);
    let closed = soon(Caller::<Fleet>::closed(&*caller)).await;
    assert_eq!(closed, Closed::Here("the test is over"));
}
