//! HTTP/1 as it comes from the network, well-meant or not.

use std::net::Ipv4Addr;
use std::time::Duration;

use flwr_transport::{Context, MemoryBudget};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;
use crate::dialect::Answer;

const BYTES_MAX: usize = 1_000;
const HEAD: &str = "POST /api/v0/fleet/get-run HTTP/1.1\r\nHost: x\r\n\
                    Content-Type: application/protobuf\r\nAccept: application/protobuf\r\n";

/// Answers with the method and the message; knows one message that it refuses, and one that is a bug.
struct Echo;

impl Exchange for Echo {
    const SERVICE: &'static str = "echo";
    const PROTOCOL: &'static str = "Echo";

    async fn exchange(
        &self,
        context: Context,
        method: &str,
        message: Bytes,
        _object: Option<flwr_transport::Body>,
    ) -> Result<Answer, tonic::Status> {
        assert_eq!(context.peer.identity, Identity::Anonymous);
        assert_ne!(message, "bug");
        if message == "refuse" {
            return Err(tonic::Status::permission_denied("Run is finished."));
        }
        Ok(Answer::Message {
            head: format!("{method} ").into(),
            tail: Some(message.into()),
        })
    }
}

/// What a peer that says this is told, until the connection ends.
async fn told(said: &[&str]) -> String {
    let limits = Limits {
        message_bytes_max: BYTES_MAX,
        ..Limits::default()
    };
    let rest = Rest {
        exchange: Arc::new(Echo),
        limits,
        buffers: Buffers::new(0, MemoryBudget::unbounded()),
    };
    let (mut client, server) = duplex(64 << 10);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let served = async { rest.converse(server, peer, Drain::new()).await };
    let talk = async {
        for said in said {
            client.write_all(said.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut told = String::new();
        client.read_to_string(&mut told).await.unwrap();
        told
    };
    tokio::join!(served, talk).1
}

fn sized(body: &str, more: &str) -> String {
    format!("{HEAD}{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn last(body: &str) -> String {
    sized(body, "Connection: close\r\n")
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_one_after_the_other() {
    let told = told(&[&sized("one", ""), &last("two")]).await;
    assert_eq!(told.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{told}");
    assert_eq!(told.matches("content-length: 10\r\n").count(), 2, "{told}");
    assert!(told.contains("\r\n\r\nGetRun one") && told.ends_with("\r\n\r\nGetRun two"));
}

#[tokio::test]
async fn a_request_is_read_however_it_is_cut() {
    let request = last("body");
    for cut in 1..request.len() {
        let told = told(&[&request[..cut], &request[cut..]]).await;
        assert!(told.ends_with("\r\n\r\nGetRun body"), "{cut}: {told}");
    }
    let chunked = format!(
        "{HEAD}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n"
    );
    assert!(told(&[&chunked]).await.ends_with("\r\n\r\nGetRun body"));
}

#[tokio::test]
async fn refusals_have_their_code_and_their_words() {
    let refused = told(&[&last("refuse")]).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(refused.contains("content-type: text/plain"), "{refused}");
    assert!(refused.ends_with("\r\n\r\nRun is finished."), "{refused}");
    let bug = told(&[&last("bug")]).await;
    assert!(bug.starts_with("HTTP/1.1 503 "), "{bug}");
}

#[tokio::test(start_paused = true)]
async fn bodies_are_bounded_announced_or_not() {
    let whole = "x".repeat(BYTES_MAX);
    assert!(told(&[&last(&whole)]).await.starts_with("HTTP/1.1 200 "));
    let announced = format!("{HEAD}Content-Length: {}\r\n\r\n", 1_u64 << 60);
    assert!(told(&[&announced]).await.starts_with("HTTP/1.1 413 "));
    assert!(
        told(&[&last(&format!("{whole}x"))])
            .await
            .starts_with("HTTP/1.1 413 ")
    );
    let chunk = format!("3e8\r\n{whole}\r\n1\r\nx\r\n0\r\n\r\n");
    let chunked = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{chunk}");
    assert!(told(&[&chunked]).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test(start_paused = true)]
async fn who_stops_sending_is_not_waited_for() {
    let idle = Limits::default().idle;
    let start = tokio::time::Instant::now();
    let body = format!("{HEAD}Content-Length: 10\r\n\r\nabc");
    assert!(told(&[&body]).await.starts_with("HTTP/1.1 503 "));
    assert!(start.elapsed() < idle * 3, "{:?}", start.elapsed());
    for silent in ["", "P", "POST /api", HEAD, &sized("one", "")] {
        let start = tokio::time::Instant::now();
        told(&[silent]).await;
        let waited = start.elapsed();
        assert!(
            waited <= idle + Duration::from_secs(1),
            "{silent}: {waited:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_http_is_not_answered() {
    for garbage in ["\x16\x03\x01\x02\0", "\0\0\0\0\0\0"] {
        assert_eq!(told(&[garbage]).await, "", "{garbage:?}");
    }
}
