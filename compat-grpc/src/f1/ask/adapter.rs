//! The gRPC adapter of Flower 1.22, asked: Fleet messages in envelopes (`client/grpc_rere_client/grpc_adapter.py`).

use bytes::Bytes;
use flwr_api::fleet::{Fleet, Request};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Bearer, Code, Status};
use tokio_util::sync::CancellationToken;

use super::read::unusable;
use super::{FleetAsker, object, words};
use crate::client::{Asked, Asking, Received};
use crate::f1::adapter::{RELEASE, seal};

/// [`FleetAsker`] in envelopes.
#[derive(Clone, Debug)]
pub struct AdapterAsker {
    exit: CancellationToken,
}

impl AdapterAsker {
    /// Cancels `exit` when the other end tells this program to end, which a stock node does at once and with status 0.
    #[must_use]
    pub fn new(exit: CancellationToken) -> Self {
        Self { exit }
    }
}

impl Asking<Fleet> for AdapterAsker {
    fn ask(
        &self,
        request: Request,
        bearer: Option<&Bearer>,
        body_bytes: Option<u64>,
    ) -> Result<Asked<Fleet>, Status> {
        let inner = FleetAsker.ask(request, bearer, body_bytes)?;
        let (method, answer) = (inner.method, inner.answer);
        let name = format!("{method}Request");
        let metadata = [
            ("flower-package-name", "flwr".to_owned()),
            ("flower-package-version", RELEASE.to_owned()),
            ("flower-version", RELEASE.to_owned()),
            (
                "grpc-message-module",
                format!("flwr.proto.{}_pb2", module(method)),
            ),
            ("grpc-message-qualname", name.clone()),
        ];
        let envelope = pb::MessageContainer {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
            grpc_message_name: name,
            grpc_message_content: Bytes::new(),
        };
        let exit = self.exit.clone();
        Ok(Asked {
            service: "flwr.proto.GrpcAdapter",
            method: "SendReceive",
            head: seal(&envelope, &inner.head, body_bytes.unwrap_or(0)),
            tells_deadline: inner.tells_deadline,
            peek: inner.peek.map(|_| object::peek_in_envelope as _),
            answer: Box::new(move |received| answer(opened(method, received, &exit)?)),
        })
    }

    fn refused(&self, status: &tonic::Status) -> Status {
        words::refused(status)
    }
}

/// The content of an answer's envelope.
fn opened(method: &str, received: Received, exit: &CancellationToken) -> Result<Received, Status> {
    let (envelope, content) = object::open(received)?;
    if envelope
        .metadata
        .get("should-exit")
        .is_some_and(|value| value == "true")
    {
        exit.cancel();
        return Err(Status::new(
            Code::Cancelled,
            "the server tells this node to exit",
        ));
    }
    let name = envelope.grpc_message_name;
    if name.strip_suffix("Response") != Some(method) {
        return Err(unusable(format_args!("`{name}` does not answer {method}")));
    }
    Ok(content)
}

/// The Python module that a request's class lives in.
fn module(method: &str) -> &'static str {
    match method {
        "SendNodeHeartbeat" => "heartbeat",
        "GetRun" => "run",
        "GetFab" => "fab",
        "PushObject" | "PullObject" | "ConfirmMessageReceived" => "message",
        _ => "fleet",
    }
}
