//! Fleet F1: what `flower-supernode` 1.22 says.

use bytes::Bytes;
use flwr_api::RunId;
use flwr_api::fleet::{
    ConfirmMessage, CreateNode, DeleteNode, Fleet, GetFab, GetRun, Heartbeat, PullMessages,
    PullObject, PushMessages, PushObject, Request, Response,
};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Body, Reply, Status};

use super::{convert, parse, pushed};
use crate::dialect::{Answer, Dialect, Question, Split, Subject};
use crate::holds::Holds;

/// The dialect of `flower-supernode` 1.22.
#[derive(Clone, Copy, Debug)]
pub struct FleetF1 {
    /// How long calls are held.
    pub holds: Holds,
}

impl Dialect<Fleet> for FleetF1 {
    const SERVICE: &'static str = "flwr.proto.Fleet";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<Fleet>, Status> {
        let request = match method {
            "PullMessages" => self.pull_messages(parse(message)?),
            "SendNodeHeartbeat" => heartbeat(parse(message)?),
            "CreateNode" => create_node(&parse(message)?),
            "DeleteNode" => delete_node(parse(message)?),
            "PushMessages" => push_messages(parse(message)?)?,
            "GetRun" => get_run(parse(message)?),
            "GetFab" => get_fab(parse(message)?)?,
            "ConfirmMessageReceived" => confirm_message(parse(message)?)?,
            "PushObject" => return push_object(parse(message)?),
            "PullObject" => return self.pull_object(parse(message)?),
            _ => return Err(Status::unimplemented(method)),
        };
        Ok(Question::new(request))
    }

    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        pushed::split(method, seen, message_bytes)
    }

    fn encode(&self, reply: Reply<Fleet>) -> Answer {
        match reply.response {
            Response::CreateNode(id) => Answer::message(&pb::CreateNodeResponse {
                node: Some(convert::node(id)),
            }),
            Response::DeleteNode(()) => Answer::message(&pb::DeleteNodeResponse {}),
            Response::Heartbeat(success) => {
                Answer::message(&pb::SendNodeHeartbeatResponse { success })
            }
            Response::PullMessages(delivery) => {
                let (messages_list, message_object_trees) = convert::deliveries(delivery);
                Answer::message(&pb::PullMessagesResponse {
                    reconnect: None,
                    messages_list,
                    message_object_trees,
                })
            }
            Response::PushMessages(pushed) => {
                // Flower names a message that was not stored "None".
                let id = pushed
                    .stored
                    .map_or_else(|| "None".into(), |id| id.as_str().to_owned());
                Answer::message(&pb::PushMessagesResponse {
                    reconnect: Some(pb::Reconnect { reconnect: 5 }),
                    results: [(id, 0)].into(),
                    objects_to_push: convert::ids(&pushed.missing),
                })
            }
            Response::GetRun(run) => Answer::message(&pb::GetRunResponse {
                run: run.map(|run| convert::bare_run(run.id, run.fab, run.overrides)),
            }),
            Response::GetFab(fab) => Answer::message(&pb::GetFabResponse {
                fab: Some(convert::fab(fab)),
            }),
            Response::PushObject(stored) => Answer::message(&pb::PushObjectResponse { stored }),
            Response::PullObject(state) => convert::object(state, reply.tail),
            Response::ConfirmMessage(()) => Answer::message(&pb::ConfirmMessageReceivedResponse {}),
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
}

impl FleetF1 {
    fn pull_messages(&self, request: pb::PullMessagesRequest) -> Request {
        Request::PullMessages(PullMessages {
            node: convert::node_id(request.node),
            wait: self.holds.instruction,
        })
    }

    fn pull_object(&self, request: pb::PullObjectRequest) -> Result<Question<Fleet>, Status> {
        let object = convert::object_id(&request.object_id)?;
        let call = PullObject {
            node: convert::node_id(request.node),
            run: RunId(request.run_id),
            object,
            wait: self.holds.object,
        };
        Ok(Question::new(Request::PullObject(call)).about(Subject::Object(object)))
    }
}

fn create_node(request: &pb::CreateNodeRequest) -> Request {
    Request::CreateNode(CreateNode {
        heartbeat_interval: request.heartbeat_interval,
    })
}

fn delete_node(request: pb::DeleteNodeRequest) -> Request {
    Request::DeleteNode(DeleteNode {
        node: convert::node_id(request.node),
    })
}

fn heartbeat(request: pb::SendNodeHeartbeatRequest) -> Request {
    Request::Heartbeat(Heartbeat {
        node: convert::node_id(request.node),
        heartbeat_interval: request.heartbeat_interval,
    })
}

/// Flower 1.22 sends one message and reads no further than the first.
fn push_messages(request: pb::PushMessagesRequest) -> Result<Request, Status> {
    let first = request.messages_list.into_iter().next();
    Ok(Request::PushMessages(PushMessages {
        node: convert::node_id(request.node),
        message: first.map(convert::message).transpose()?,
        trees: convert::trees(request.message_object_trees)?,
    }))
}

fn get_run(request: pb::GetRunRequest) -> Request {
    Request::GetRun(GetRun {
        node: convert::node_id(request.node),
        run: RunId(request.run_id),
    })
}

fn get_fab(request: pb::GetFabRequest) -> Result<Request, Status> {
    Ok(Request::GetFab(GetFab {
        node: convert::node_id(request.node),
        run: RunId(request.run_id),
        hash: convert::fab_hash(&request.hash_str)?,
    }))
}

fn push_object(request: pb::PushObjectRequest) -> Result<Question<Fleet>, Status> {
    let object = convert::object_id(&request.object_id)?;
    let call = PushObject {
        node: convert::node_id(request.node),
        run: RunId(request.run_id),
        object,
    };
    let mut question = Question::new(Request::PushObject(call)).about(Subject::Object(object));
    question.body = Some(Body::from_bytes(request.object_content));
    Ok(question)
}

fn confirm_message(request: pb::ConfirmMessageReceivedRequest) -> Result<Request, Status> {
    Ok(Request::ConfirmMessage(ConfirmMessage {
        node: convert::node_id(request.node),
        run: RunId(request.run_id),
        message: convert::object_id(&request.message_object_id)?,
    }))
}
