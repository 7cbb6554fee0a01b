//! Servers that break the rules of gRPC: each call fails with a code that says what to do, and nothing panics.

use bytes::Bytes;
use flwr_api::fleet::{Fleet, PullObject, Request};
use flwr_api::{NodeId, ObjectId, RunId};
use flwr_compat_grpc::client::Settings;
use flwr_compat_grpc::f1::ask::FleetAsker;
use flwr_transport::{BodyError, Caller, Code, Connector, Status, Tail};
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::support::{connector, fleet_call, soon};

type Pairs = &'static [(&'static str, &'static str)];
type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

fn data(bytes: &'static [u8]) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(bytes)))
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::trailers(headers(pairs)))
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.insert(*name, value.parse().unwrap());
    }
    map
}

fn reset() -> Result<Frame<Bytes>, std::io::Error> {
    Err(std::io::Error::other("the server breaks off"))
}

/// Answers one call with this head and these frames.
async fn answered(
    status: u16,
    head: &[(&'static str, &'static str)],
    frames: Frames,
) -> Result<Result<Bytes, BodyError>, Status> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let head = headers(head);
    let frames = std::sync::Mutex::new(Some(frames));
    let server = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let service = service_fn(|_| {
            let frames = frames.lock().unwrap().take().unwrap();
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let mut response: Response<BoxBody<Bytes, std::io::Error>> =
                Response::new(body.boxed());
            *response.status_mut() = status.try_into().unwrap();
            *response.headers_mut() = head.clone();
            std::future::ready(Ok::<_, std::convert::Infallible>(response))
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(tcp), service);
        served.await.ok();
    });
    let settings = Settings {
        message_bytes_max: 1 << 20,
        ..Settings::default()
    };
    let connector = connector(addr, FleetAsker).with_settings(settings);
    let caller = soon(Connector::<Fleet>::connect(&connector)).await.unwrap();
    let (node, run, object) = (NodeId(1), RunId(2), ObjectId::of(b""));
    let wait = std::time::Duration::ZERO;
    let call = fleet_call(Request::PullObject(PullObject {
        node,
        run,
        object,
        wait,
    }));
    let reply = soon(caller.call(call)).await;
    let read = match reply {
        Err(status) => Err(status),
        Ok(reply) => match reply.tail {
            Tail::Body(body) => Ok(soon(body.collect(u64::MAX)).await),
            _ => Ok(Ok(Bytes::new())),
        },
    };
    server.abort();
    read
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc")];
const OK: &[(&str, &str)] = &[("grpc-status", "0")];

#[tokio::test]
async fn a_good_answer_is_read_however_it_is_cut() {
    let object = b"\0\0\0\0\x0a\x08\x01\x10\x01\x1a\x04abcd";
    for at in 0..object.len() {
        let (first, second) = object.split_at(at);
        let frames = vec![data(first), data(second), trailers(OK)];
        let read = answered(200, GRPC, frames).await.unwrap().unwrap();
        assert_eq!(read, "abcd", "{at}");
    }
    // Fields in another order, and one that is unknown.
    for object in [
        &b"\0\0\0\0\x0a\x1a\x04abcd\x08\x01\x10\x01"[..],
        b"\0\0\0\0\x0c\x08\x01\x10\x01\x20\x01\x1a\x04abcd",
    ] {
        let frames = vec![data(object), trailers(OK)];
        assert_eq!(answered(200, GRPC, frames).await.unwrap().unwrap(), "abcd");
    }
}

#[tokio::test]
async fn statuses_without_a_message_are_refusals() {
    let denied = &[("grpc-status", "7"), ("grpc-message", "Run%20is pending.")];
    let head = &[GRPC, denied].concat();
    let in_head = answered(200, head, vec![]).await.unwrap_err();
    let in_trailers = answered(200, GRPC, vec![trailers(denied)])
        .await
        .unwrap_err();
    assert_eq!(in_head, in_trailers);
    assert_eq!(in_head.code, Code::PermissionDenied);
    assert_eq!(
        flwr_api::Reason::of(&in_head),
        Some(flwr_api::Reason::RunPending)
    );
    for (http, code) in [
        (503, Code::Unavailable),
        (502, Code::Unavailable),
        (429, Code::Unavailable),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (401, Code::Unauthenticated),
        (400, Code::Internal),
        (500, Code::Internal),
    ] {
        let failed = answered(http, &[("content-type", "text/html")], vec![data(b"<p>")]).await;
        assert_eq!(failed.unwrap_err().code, code, "{http}");
    }
}

const LATE: Pairs = &[("grpc-status", "14"), ("grpc-message", "later")];
const BAD_DETAILS: Pairs = &[("grpc-status", "5"), ("grpc-status-details-bin", "!!!")];

/// What it is, the head and the frames of the answer, and the code of the failure.
fn garbage() -> Vec<(&'static str, Pairs, Frames, Code)> {
    vec![
        (
            "no gRPC",
            &[("content-type", "text/plain")],
            vec![data(b"hello")],
            Code::Internal,
        ),
        (
            "no content type",
            &[],
            vec![data(b"\0\0\0\0\0"), trailers(OK)],
            Code::Internal,
        ),
        ("nothing", GRPC, vec![], Code::Unavailable),
        ("no message", GRPC, vec![trailers(OK)], Code::Internal),
        ("cut prefix", GRPC, vec![data(b"\0\0\0")], Code::Unavailable),
        (
            "cut message",
            GRPC,
            vec![data(b"\0\0\0\0\x09ab"), trailers(OK)],
            Code::Internal,
        ),
        (
            "cut off",
            GRPC,
            vec![data(b"\0\0\0\0\x09\x08"), reset()],
            Code::Unavailable,
        ),
        (
            "no trailers",
            GRPC,
            vec![data(b"\0\0\0\0\x02\x08\x01")],
            Code::Unavailable,
        ),
        (
            "compressed",
            GRPC,
            vec![data(b"\x01\0\0\0\x01a")],
            Code::Internal,
        ),
        (
            "too large",
            GRPC,
            vec![data(b"\0\xff\xff\xff\xff")],
            Code::Internal,
        ),
        (
            "two messages",
            GRPC,
            vec![data(b"\0\0\0\0\0\0\0\0\0\0"), trailers(OK)],
            Code::Internal,
        ),
        (
            "no protobuf",
            GRPC,
            vec![data(b"\0\0\0\0\x02\xff\xff"), trailers(OK)],
            Code::Internal,
        ),
        (
            "late refusal",
            GRPC,
            vec![data(b"\0\0\0\0\x02\x08\x01"), trailers(LATE)],
            Code::Unavailable,
        ),
        (
            "bad details",
            GRPC,
            vec![trailers(BAD_DETAILS)],
            Code::NotFound,
        ),
        (
            "no number",
            GRPC,
            vec![trailers(&[("grpc-status", "x")])],
            Code::Internal,
        ),
    ]
}

#[tokio::test]
async fn garbage_fails_the_call() {
    for (name, head, frames, code) in garbage() {
        let failed = answered(200, head, frames).await.unwrap_err();
        assert_eq!(failed.code, code, "{name}: {failed}");
    }
}

#[tokio::test]
async fn an_object_that_is_not_what_was_announced_fails_its_reader() {
    let begun = b"\0\0\0\0\x0a\x08\x01\x10\x01\x1a\x04ab";
    let refused = &[("grpc-status", "13"), ("grpc-message", "no")];
    let cases: Vec<(Frames, BodyError)> = vec![
        (vec![data(begun)], BodyError::Interrupted),
        (vec![data(begun), trailers(OK)], BodyError::Interrupted),
        (
            vec![data(begun), data(b"cd"), trailers(refused)],
            BodyError::Interrupted,
        ),
        (vec![data(begun), data(b"cd")], BodyError::Interrupted),
        (
            vec![data(begun), data(b"cde"), trailers(OK)],
            BodyError::TooLong { max: 4 },
        ),
    ];
    for (frames, expected) in cases {
        assert_eq!(answered(200, GRPC, frames).await.unwrap(), Err(expected));
    }
    // A reset can overtake what was sent before it.
    let read = answered(200, GRPC, vec![data(begun), reset()]).await;
    let code = read.as_ref().map_err(|status| status.code);
    assert!(
        matches!(
            code,
            Ok(Err(BodyError::Interrupted)) | Err(Code::Unavailable)
        ),
        "{read:?}"
    );
}
