//! Flower 1.22's messages, from and to the contract's types.

use bytes::{Bytes, BytesMut};
use flwr_api::appio::{AppContext, AppStanding};
use flwr_api::fleet::ObjectState;
use flwr_api::{
    AppError, Delivery, Fab, FabHash, FabInfo, Message, MessageId, Metadata, NodeId, ObjectId,
    ObjectTree, Payload, Phase, Run, RunId, RunStatus, Scalar, SubStatus, UnixTime, UserConfig,
};
use flwr_certs::format_iso;
use flwr_proto::launcher::watch_app_response::Standing;
use flwr_proto::v1_22 as pb;
use flwr_transport::{Body, Protocol, Status, Tail};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::malformed;
use crate::dialect::Answer;

pub(super) fn node_id(node: Option<pb::Node>) -> NodeId {
    NodeId(node.map_or(0, |node| node.node_id))
}

pub(super) fn node(id: NodeId) -> pb::Node {
    pb::Node { node_id: id.0 }
}

pub(super) fn object_id(text: &str) -> Result<ObjectId, Status> {
    text.parse()
        .map_err(|why| malformed(format!("the object id is {why}")))
}

pub(super) fn fab_hash(text: &str) -> Result<FabHash, Status> {
    text.parse()
        .map_err(|why| malformed(format!("the hash of the app bundle is {why}")))
}

pub(super) fn message(message: pb::Message) -> Result<Message, Status> {
    let metadata = message
        .metadata
        .ok_or_else(|| malformed("a message has no metadata".into()))?;
    let payload = match (message.content, message.error) {
        (Some(content), None) => Payload::Content(content),
        (None, Some(error)) => Payload::Error(AppError {
            code: error.code,
            reason: Some(error.reason).filter(|reason| !reason.is_empty()),
        }),
        _ => {
            let why = "a message has exactly one of content and error";
            return Err(malformed(why.into()));
        }
    };
    Ok(Message {
        metadata: Metadata {
            run: RunId(metadata.run_id),
            id: MessageId::new(metadata.message_id),
            src: NodeId(metadata.src_node_id),
            dst: NodeId(metadata.dst_node_id),
            reply_to: MessageId::new(metadata.reply_to_message_id),
            group_id: metadata.group_id,
            ttl: metadata.ttl,
            message_type: metadata.message_type,
            created_at: UnixTime::new(metadata.created_at),
        },
        payload,
    })
}

pub(super) fn message_proto(message: Message) -> pb::Message {
    let Message { metadata, payload } = message;
    let (content, error) = match payload {
        Payload::Content(content) => (Some(content), None),
        Payload::Error(error) => {
            let error = pb::Error {
                code: error.code,
                reason: error.reason.unwrap_or_default(),
            };
            (None, Some(error))
        }
    };
    pb::Message {
        metadata: Some(pb::Metadata {
            run_id: metadata.run.0,
            message_id: metadata.id.as_str().to_owned(),
            src_node_id: metadata.src.0,
            dst_node_id: metadata.dst.0,
            reply_to_message_id: metadata.reply_to.as_str().to_owned(),
            group_id: metadata.group_id,
            ttl: metadata.ttl,
            message_type: metadata.message_type,
            created_at: metadata.created_at.seconds(),
        }),
        content,
        error,
    }
}

pub(super) fn trees(trees: Vec<pb::ObjectTree>) -> Result<Vec<ObjectTree>, Status> {
    trees.into_iter().map(tree).collect()
}

/// Depth is bounded by the decoder, which refuses more than 100 nested messages.
fn tree(tree: pb::ObjectTree) -> Result<ObjectTree, Status> {
    Ok(ObjectTree {
        id: object_id(&tree.object_id)?,
        children: trees(tree.children)?,
    })
}

pub(super) fn tree_proto(tree: ObjectTree) -> pb::ObjectTree {
    pb::ObjectTree {
        object_id: tree.id.to_string(),
        children: tree.children.into_iter().map(tree_proto).collect(),
    }
}

/// The parallel lists that deliveries are on the wire.
pub(super) fn deliveries(
    deliveries: impl IntoIterator<Item = Delivery>,
) -> (Vec<pb::Message>, Vec<pb::ObjectTree>) {
    deliveries
        .into_iter()
        .map(|delivery| (message_proto(delivery.message), tree_proto(delivery.tree)))
        .unzip()
}

pub(super) fn ids(ids: &[ObjectId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

pub(super) fn fab(fab: Fab) -> pb::Fab {
    pb::Fab {
        hash_str: fab.hash.to_string(),
        content: fab.content,
    }
}

/// What an app starts with, encoded.
pub(super) fn app_context(run: RunId, context: AppContext) -> Bytes {
    match context {
        AppContext::Kept(encoded) => encoded,
        AppContext::Fresh {
            node,
            node_config,
            run_config,
        } => {
            let fresh = pb::Context {
                run_id: run.0,
                node_id: node.0,
                node_config: config_proto(node_config),
                state: Some(pb::RecordDict::default()),
                run_config: config_proto(run_config),
            };
            prost::Message::encode_to_vec(&fresh).into()
        }
    }
}

pub(super) fn config(
    config: impl IntoIterator<Item = (String, pb::Scalar)>,
) -> Result<UserConfig, Status> {
    use pb::scalar::Scalar as Wire;
    config
        .into_iter()
        .map(|(key, value)| {
            let value = match value.scalar {
                Some(Wire::Bool(value)) => Scalar::Bool(value),
                Some(Wire::Bytes(value)) => Scalar::Bytes(value),
                Some(Wire::Double(value)) => Scalar::Double(value),
                Some(Wire::Sint64(value)) => Scalar::Sint64(value),
                Some(Wire::String(value)) => Scalar::String(value),
                Some(Wire::Uint64(value)) => Scalar::Uint64(value),
                None => {
                    return Err(malformed(format!(
                        "the value of `{key}` is of no known type"
                    )));
                }
            };
            Ok((key, value))
        })
        .collect()
}

pub(super) fn config_proto(config: UserConfig) -> std::collections::BTreeMap<String, pb::Scalar> {
    use pb::scalar::Scalar as Wire;
    config
        .into_iter()
        .map(|(key, value)| {
            let scalar = Some(match value {
                Scalar::Bool(value) => Wire::Bool(value),
                Scalar::Bytes(value) => Wire::Bytes(value),
                Scalar::Double(value) => Wire::Double(value),
                Scalar::Sint64(value) => Wire::Sint64(value),
                Scalar::String(value) => Wire::String(value),
                Scalar::Uint64(value) => Wire::Uint64(value),
            });
            (key, pb::Scalar { scalar })
        })
        .collect()
}

pub(super) fn run(run: Run) -> pb::Run {
    let time = |time: Option<UnixTime>| time.map_or_else(String::new, iso);
    pb::Run {
        run_id: run.id.0,
        fab_id: run.fab.id,
        fab_version: run.fab.version,
        override_config: config_proto(run.overrides),
        fab_hash: run.fab.hash.to_string(),
        pending_at: time(Some(run.pending_at)),
        starting_at: time(run.starting_at),
        running_at: time(run.running_at),
        finished_at: time(run.finished_at),
        status: Some(status_proto(run.status)),
        flwr_aid: String::new(),
    }
}

/// A run as nodes and their apps see it.
pub(super) fn bare_run(id: RunId, fab: FabInfo, overrides: UserConfig) -> pb::Run {
    pb::Run {
        run_id: id.0,
        fab_id: fab.id,
        fab_version: fab.version,
        override_config: config_proto(overrides),
        fab_hash: fab.hash.to_string(),
        ..pb::Run::default()
    }
}

pub(super) fn iso(time: UnixTime) -> String {
    format_iso(time.seconds())
}

/// A status by its names; nothing if one of them is no name.
pub(super) fn status(status: pb::RunStatus) -> Option<RunStatus> {
    let phase = match status.status.as_str() {
        "pending" => Phase::Pending,
        "starting" => Phase::Starting,
        "running" => Phase::Running,
        "finished" => Phase::Finished,
        _ => return None,
    };
    let sub = match status.sub_status.as_str() {
        "" => SubStatus::None,
        "completed" => SubStatus::Completed,
        "failed" => SubStatus::Failed,
        "stopped" => SubStatus::Stopped,
        _ => return None,
    };
    Some(RunStatus {
        phase,
        sub,
        details: status.details,
    })
}

pub(super) fn status_proto(status: RunStatus) -> pb::RunStatus {
    let phase = match status.phase {
        Phase::Pending => "pending",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Finished => "finished",
    };
    let sub = match status.sub {
        SubStatus::None => "",
        SubStatus::Completed => "completed",
        SubStatus::Failed => "failed",
        SubStatus::Stopped => "stopped",
    };
    pb::RunStatus {
        status: phase.into(),
        sub_status: sub.into(),
        details: status.details,
    }
}

pub(super) fn standing(standing: Standing) -> AppStanding {
    match standing {
        Standing::Done => AppStanding::Done,
        Standing::Unwanted => AppStanding::Unwanted,
        Standing::Wanted => AppStanding::Wanted,
    }
}

pub(super) fn standing_proto(standing: AppStanding) -> Standing {
    match standing {
        AppStanding::Done => Standing::Done,
        AppStanding::Unwanted => Standing::Unwanted,
        AppStanding::Wanted => Standing::Wanted,
    }
}

/// `PullObjectResponse` with the object's bytes at its end, uncopied.
pub(super) fn object<P: Protocol>(state: ObjectState, tail: Tail<P>) -> Answer {
    let body = match tail {
        Tail::Body(body) => Some(body),
        Tail::None | Tail::Events(_) => None,
    };
    const CONTENT_FIELD: u32 = 3;
    let mut head = BytesMut::from(
        &prost::Message::encode_to_vec(&pb::PullObjectResponse {
            object_found: state != ObjectState::Unknown,
            object_available: state == ObjectState::Available,
            object_content: Bytes::new(),
        })[..],
    );
    if let Some(length) = body.as_ref().and_then(Body::len) {
        encode_key(CONTENT_FIELD, WireType::LengthDelimited, &mut head);
        encode_varint(length, &mut head);
    }
    Answer::Message {
        head: head.freeze(),
        tail: body,
    }
}
