//! Fleet F1, asked: what `flower-supernode` 1.22 sends.

use bytes::{BufMut, Bytes, BytesMut};
use flwr_api::fleet::{Fleet, Pushed, Request, Response};
use flwr_api::{FabHash, MessageId, NodeId, ObjectId, RunId};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Bearer, Protocol, Reply, Status};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::read::{self, parse};
use super::{object, words};
use crate::client::{Asked, Asking, Received};
use crate::f1::convert;

/// Asks as `flower-supernode` 1.22 does.
#[derive(Clone, Copy, Debug)]
pub struct FleetAsker;

const SERVICE: &str = "flwr.proto.Fleet";

impl Asking<Fleet> for FleetAsker {
    fn ask(
        &self,
        request: Request,
        _bearer: Option<&Bearer>,
        body_bytes: Option<u64>,
    ) -> Result<Asked<Fleet>, Status> {
        ask(request, body_bytes)
    }

    fn refused(&self, status: &tonic::Status) -> Status {
        words::refused(status)
    }
}

fn ask(request: Request, body_bytes: Option<u64>) -> Result<Asked<Fleet>, Status> {
    Ok(match request {
        Request::CreateNode(call) => create_node(call.heartbeat_interval),
        Request::DeleteNode(call) => {
            let node = some(call.node);
            asked("DeleteNode", &pb::DeleteNodeRequest { node }, |answer| {
                let pb::DeleteNodeResponse {} = parse(answer)?;
                Ok(Response::DeleteNode(()))
            })
        }
        Request::Heartbeat(call) => heartbeat(call.node, call.heartbeat_interval),
        Request::PullMessages(call) => {
            let message = pb::PullMessagesRequest {
                node: some(call.node),
                message_ids: Vec::new(),
            };
            asked("PullMessages", &message, pulled)
        }
        Request::PushMessages(call) => {
            let (messages_list, message_object_trees) = read::sent(call.message, call.trees);
            let message = pb::PushMessagesRequest {
                node: some(call.node),
                messages_list,
                message_object_trees,
            };
            asked("PushMessages", &message, pushed)
        }
        Request::GetRun(call) => get_run(call.node, call.run),
        Request::GetFab(call) => get_fab(call.node, call.run, call.hash),
        Request::PushObject(call) => {
            let node = some(call.node);
            push_object(
                SERVICE,
                node,
                call.run,
                call.object,
                body_bytes,
                Response::PushObject,
            )
        }
        Request::PullObject(call) => {
            let node = some(call.node);
            pull_object(SERVICE, node, call.run, call.object, Response::PullObject)
        }
        Request::ConfirmMessage(call) => confirm(call.node, call.run, call.message),
        Request::WatchRun(_) => return Err(Status::unimplemented("WatchRun")),
        Request::GetReceived(_) => return Err(Status::unimplemented("GetReceived")),
        Request::ResumePush(_) => return Err(Status::unimplemented("ResumePush")),
        Request::ResumePull(_) => return Err(Status::unimplemented("ResumePull")),
        Request::Attend(_) => return Err(Status::unimplemented("Attend")),
        Request::PullParcel(_) => return Err(Status::unimplemented("PullParcel")),
        Request::PushParcel(_) => return Err(Status::unimplemented("PushParcel")),
        Request::GetAnnounced(_) => return Err(Status::unimplemented("GetAnnounced")),
    })
}

fn asked(
    method: &'static str,
    message: &impl Message,
    answer: impl FnOnce(Bytes) -> Result<Response, Status> + Send + 'static,
) -> Asked<Fleet> {
    Asked::new(SERVICE, method, message, |message| {
        answer(message).map(Reply::new)
    })
}

fn some(node: NodeId) -> Option<pb::Node> {
    Some(convert::node(node))
}

fn create_node(heartbeat_interval: f64) -> Asked<Fleet> {
    let message = pb::CreateNodeRequest { heartbeat_interval };
    asked("CreateNode", &message, |answer| {
        let answer: pb::CreateNodeResponse = parse(answer)?;
        read::node(answer.node).map(Response::CreateNode)
    })
}

fn get_run(node: NodeId, run: RunId) -> Asked<Fleet> {
    let message = pb::GetRunRequest {
        node: some(node),
        run_id: run.0,
    };
    asked("GetRun", &message, |answer| {
        let answer: pb::GetRunResponse = parse(answer)?;
        let run = answer.run.map(read::node_run).transpose()?;
        Ok(Response::GetRun(run))
    })
}

fn get_fab(node: NodeId, run: RunId, hash: FabHash) -> Asked<Fleet> {
    let message = pb::GetFabRequest {
        node: some(node),
        hash_str: hash.to_string(),
        run_id: run.0,
    };
    asked("GetFab", &message, |answer| {
        let answer: pb::GetFabResponse = parse(answer)?;
        read::fab(answer.fab).map(Response::GetFab)
    })
}

fn confirm(node: NodeId, run: RunId, message: ObjectId) -> Asked<Fleet> {
    let message = pb::ConfirmMessageReceivedRequest {
        node: some(node),
        run_id: run.0,
        message_object_id: message.to_string(),
    };
    asked("ConfirmMessageReceived", &message, |answer| {
        let pb::ConfirmMessageReceivedResponse {} = parse(answer)?;
        Ok(Response::ConfirmMessage(()))
    })
}

/// The only call whose deadline stock nodes tell.
fn heartbeat(node: NodeId, heartbeat_interval: f64) -> Asked<Fleet> {
    let message = pb::SendNodeHeartbeatRequest {
        node: some(node),
        heartbeat_interval,
    };
    let mut asked = asked("SendNodeHeartbeat", &message, |answer| {
        let answer: pb::SendNodeHeartbeatResponse = parse(answer)?;
        Ok(Response::Heartbeat(answer.success))
    });
    asked.tells_deadline = true;
    asked
}

/// At most one message ever comes.
fn pulled(answer: Bytes) -> Result<Response, Status> {
    let answer: pb::PullMessagesResponse = parse(answer)?;
    let deliveries = read::deliveries(answer.messages_list, answer.message_object_trees)?;
    Ok(Response::PullMessages(deliveries.into_iter().next()))
}

/// A message that was not stored is named "None".
fn pushed(answer: Bytes) -> Result<Response, Status> {
    let answer: pb::PushMessagesResponse = parse(answer)?;
    let stored = answer.results.into_keys().next();
    Ok(Response::PushMessages(Pushed {
        stored: stored.filter(|id| id != "None").map(MessageId::new),
        missing: read::object_ids(&answer.objects_to_push)?,
    }))
}

/// `PushObjectRequest`: the object is its last field, so its bytes are appended as they come.
pub(super) fn push_object<P: Protocol>(
    service: &'static str,
    node: Option<pb::Node>,
    run: RunId,
    object: ObjectId,
    body_bytes: Option<u64>,
    respond: impl FnOnce(bool) -> P::Response + Send + 'static,
) -> Asked<P> {
    const CONTENT_FIELD: u32 = 4;
    let message = pb::PushObjectRequest {
        node,
        run_id: run.0,
        object_id: object.to_string(),
        object_content: Bytes::new(),
    };
    let mut head = BytesMut::with_capacity(message.encoded_len() + 16);
    head.put_slice(&message.encode_to_vec());
    if let Some(length) = body_bytes {
        encode_key(CONTENT_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint(length, &mut head);
    }
    Asked {
        head: head.freeze(),
        ..Asked::new(service, "PushObject", &(), |answer| {
            let answer: pb::PushObjectResponse = parse(answer)?;
            Ok(Reply::new(respond(answer.stored)))
        })
    }
}

/// `PullObjectRequest`, whose answer is handed on while it arrives.
pub(super) fn pull_object<P: Protocol>(
    service: &'static str,
    node: Option<pb::Node>,
    run: RunId,
    object_id: ObjectId,
    respond: impl FnOnce(flwr_api::fleet::ObjectState) -> P::Response + Send + 'static,
) -> Asked<P> {
    let message = pb::PullObjectRequest {
        node,
        run_id: run.0,
        object_id: object_id.to_string(),
    };
    Asked {
        service,
        method: "PullObject",
        head: message.encode_to_vec().into(),
        tells_deadline: false,
        peek: Some(object::peek),
        answer: Box::new(|received: Received| object::read(received, respond)),
    }
}
