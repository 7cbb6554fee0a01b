//! Flower 1.22's messages as a caller reads them.

use bytes::Bytes;
use flwr_api::fleet::NodeRun;
use flwr_api::{
    Delivery, Fab, FabInfo, Message, NodeId, ObjectId, ObjectTree, Phase, Run, RunId, RunStatus,
    UnixTime,
};
use flwr_certs::parse_iso;
use flwr_proto::v1_22 as pb;
use flwr_transport::{Code, Status};

use crate::f1::convert;

/// Decodes an answer's message.
pub(super) fn parse<M: prost::Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(unusable)
}

pub(super) fn unusable(why: impl std::fmt::Display) -> Status {
    Status::new(Code::Internal, format!("the answer cannot be used: {why}"))
}

/// What a server has no business to send is its fault and not the caller's.
fn theirs<T>(converted: Result<T, Status>) -> Result<T, Status> {
    converted.map_err(|status| unusable(status.message))
}

pub(super) fn present<T>(field: Option<T>, what: &str) -> Result<T, Status> {
    field.ok_or_else(|| unusable(format_args!("it has no {what}")))
}

pub(super) fn node(node: Option<pb::Node>) -> Result<NodeId, Status> {
    present(node, "node").map(|node| NodeId(node.node_id))
}

/// Messages and their trees, which are parallel lists on the wire.
pub(super) fn deliveries(
    messages: Vec<pb::Message>,
    trees: Vec<pb::ObjectTree>,
) -> Result<Vec<Delivery>, Status> {
    if messages.len() != trees.len() {
        return Err(unusable("it has not one tree for each message"));
    }
    let pairs = messages.into_iter().zip(theirs(convert::trees(trees))?);
    let delivery = |(message, tree)| {
        let message = theirs(convert::message(message))?;
        Ok(Delivery { message, tree })
    };
    pairs.map(delivery).collect()
}

/// Messages and their trees, as they are sent.
pub(super) fn sent(
    messages: impl IntoIterator<Item = Message>,
    trees: Vec<ObjectTree>,
) -> (Vec<pb::Message>, Vec<pb::ObjectTree>) {
    let messages = messages.into_iter().map(convert::message_proto);
    let trees = trees.into_iter().map(convert::tree_proto);
    (messages.collect(), trees.collect())
}

pub(super) fn object_ids(ids: &[String]) -> Result<Vec<ObjectId>, Status> {
    let ids = ids.iter().map(|id| theirs(convert::object_id(id)));
    ids.collect()
}

pub(super) fn fab(fab: Option<pb::Fab>) -> Result<Fab, Status> {
    let fab = present(fab, "app bundle")?;
    Ok(Fab {
        hash: theirs(convert::fab_hash(&fab.hash_str))?,
        content: fab.content,
    })
}

/// The part of a run that nodes are told. These releases know no series, so every run has its own.
pub(super) fn node_run(run: pb::Run) -> Result<NodeRun, Status> {
    Ok(NodeRun {
        id: RunId(run.run_id),
        series: run.run_id,
        fab: fab_info(run.fab_id, run.fab_version, &run.fab_hash)?,
        overrides: theirs(convert::config(run.override_config))?,
    })
}

/// A run. A SuperNode tells neither its status nor its times.
pub(super) fn run(run: pb::Run) -> Result<Run, Status> {
    let status = run.status.filter(|status| !status.status.is_empty());
    Ok(Run {
        id: RunId(run.run_id),
        series: run.run_id,
        federation: String::new(),
        fab: fab_info(run.fab_id, run.fab_version, &run.fab_hash)?,
        overrides: theirs(convert::config(run.override_config))?,
        status: status.map_or_else(|| Ok(RunStatus::of(Phase::Pending)), run_status)?,
        pending_at: time(&run.pending_at)?.unwrap_or_default(),
        starting_at: time(&run.starting_at)?,
        running_at: time(&run.running_at)?,
        finished_at: time(&run.finished_at)?,
    })
}

pub(super) fn run_status(status: pb::RunStatus) -> Result<RunStatus, Status> {
    present(convert::status(status), "status that is known")
}

fn fab_info(id: String, version: String, hash: &str) -> Result<FabInfo, Status> {
    Ok(FabInfo {
        id,
        version,
        hash: theirs(convert::fab_hash(hash))?,
    })
}

fn time(text: &str) -> Result<Option<UnixTime>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let seconds = parse_iso(text.as_bytes()).map_err(unusable)?;
    Ok(Some(UnixTime::new(seconds)))
}
