//! The gRPC adapter of Flower 1.22: Fleet messages in envelopes, without node authentication
//! (Flower 1.22, `server/superlink/fleet/grpc_adapter`).

use bytes::{BufMut, Bytes, BytesMut};
use flwr_api::fleet::{Fleet, Response};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Reply, Status};
use futures_util::StreamExt;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::{FleetF1, malformed, parse};
use crate::dialect::{Answer, Dialect, Question, Subject};

/// [`FleetF1`] in envelopes.
#[derive(Clone, Copy, Debug)]
pub struct Adapter(pub FleetF1);

/// The release that answers, as far as clients are concerned.
pub(super) const RELEASE: &str = "1.22.0";

impl Dialect<Fleet> for Adapter {
    const SERVICE: &'static str = "flwr.proto.GrpcAdapter";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<Fleet>, Status> {
        if method != "SendReceive" {
            return Err(Status::unimplemented(method));
        }
        let envelope: pb::MessageContainer = parse(message)?;
        let name = envelope.grpc_message_name;
        let method = name
            .strip_suffix("Request")
            .ok_or_else(|| malformed(format!("`{name}` is no request")))?;
        self.0.decode(method, envelope.grpc_message_content)
    }

    fn encode(&self, reply: Reply<Fleet>) -> Answer {
        let (method, module) = name(&reply.response);
        let Answer::Message { head, tail } = self.0.encode(reply) else {
            return Answer::Stream(futures_util::stream::empty().boxed());
        };
        let name = format!("{method}Response");
        let metadata = [
            ("flower-package-name", "flwr".to_owned()),
            ("flower-package-version", RELEASE.to_owned()),
            ("flower-version", RELEASE.to_owned()),
            ("grpc-message-module", format!("flwr.proto.{module}_pb2")),
            ("grpc-message-qualname", name.clone()),
        ];
        let envelope = pb::MessageContainer {
            metadata: metadata.map(|(key, value)| (key.to_owned(), value)).into(),
            grpc_message_name: name,
            grpc_message_content: Bytes::new(),
        };
        let tail_bytes = tail
            .as_ref()
            .and_then(flwr_transport::Body::len)
            .unwrap_or(0);
        Answer::Message {
            head: seal(&envelope, &head, tail_bytes),
            tail,
        }
    }
}

/// The envelope up to the content, then the content's own head; the content's tail follows it.
pub(super) fn seal(envelope: &pb::MessageContainer, head: &[u8], tail_bytes: u64) -> Bytes {
    const CONTENT_FIELD: u32 = 3;
    let outer = prost::Message::encoded_len(envelope);
    let content = head.len() as u64 + tail_bytes;
    let framing = key_len(CONTENT_FIELD) + encoded_len_varint(content);
    let mut sealed = BytesMut::with_capacity(outer + framing + head.len());
    sealed.put_slice(&prost::Message::encode_to_vec(envelope));
    encode_key(CONTENT_FIELD, WireType::LengthDelimited, &mut sealed);
    encode_varint(content, &mut sealed);
    sealed.put_slice(head);
    sealed.freeze()
}

/// A response's method and the Python module its class lives in.
fn name(response: &Response) -> (&'static str, &'static str) {
    match response {
        Response::CreateNode(_) => ("CreateNode", "fleet"),
        Response::DeleteNode(()) => ("DeleteNode", "fleet"),
        Response::Heartbeat(_) => ("SendNodeHeartbeat", "heartbeat"),
        Response::PullMessages(_) => ("PullMessages", "fleet"),
        Response::PushMessages(_) => ("PushMessages", "fleet"),
        Response::GetRun(_) => ("GetRun", "run"),
        Response::GetFab(_) => ("GetFab", "fab"),
        Response::PushObject(_) => ("PushObject", "message"),
        Response::PullObject(_) => ("PullObject", "message"),
        Response::ConfirmMessage(()) => ("ConfirmMessageReceived", "message"),
        Response::WatchRun(_)
        | Response::GetReceived(_)
        | Response::ResumePush(_)
        | Response::ResumePull(_)
        | Response::Attend(_)
        | Response::PullParcel(_)
        | Response::PushParcel(_)
        | Response::GetAnnounced(_) => unreachable!("Flower has no such call"),
    }
}
