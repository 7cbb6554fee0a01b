//! What an app gets when it asks for replies, and the errors that stand for replies.

use std::collections::HashSet;
use std::sync::Arc;

use flwr_api::{
    AppError, Message, MessageId, Metadata, NodeId, ObjectId, Payload, RunId, UnixTime,
    object::seal_error,
};

use super::mailbox::{Instruction, MailKey, Mailbox, Name, Reply};
use super::nodes::Nodes;
use super::objects::{Objects, Shape};
use super::rows::Of;
use crate::wakeups::Topic;

/// Replies found, without their trees.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) ready: Vec<(Message, Arc<Shape>)>,
    pub(crate) waiting: usize,
    pub(crate) changes_at: Option<UnixTime>,
}

/// What is to be said about an instruction.
enum Verdict {
    /// Its reply.
    Reply,
    /// An error with this code and text.
    Error(i64, &'static str),
    /// Nothing before this time, unless somebody does something.
    Wait(UnixTime),
}

/// Looks for a reply to each instruction, once.
pub(super) fn find(
    mailbox: &mut Mailbox,
    nodes: &Nodes,
    objects: &mut Objects,
    run: RunId,
    asked: &[MessageId],
    now: UnixTime,
) -> Found {
    let mut found = Found::default();
    let mut seen = HashSet::with_capacity(asked.len());
    for id in asked {
        let name = Name::of(id);
        if !seen.insert(name.clone()) {
            continue;
        }
        let instruction = mailbox
            .boxes
            .get(&run)
            .and_then(|b| b.instructions.get(&name));
        let verdict = match instruction {
            Some(instruction) => judge(instruction, nodes, objects, now),
            None if mailbox
                .boxes
                .get(&run)
                .is_some_and(|b| b.errors.contains_key(&name)) =>
            {
                Verdict::Reply
            }
            None => UNAVAILABLE,
        };
        match verdict {
            Verdict::Reply => {}
            Verdict::Error(code, reason) => {
                let metadata = instruction.map(|instruction| &instruction.message.metadata);
                let message = error_for(id, metadata, code, reason, now);
                answer(mailbox, objects, run, &name, message);
            }
            Verdict::Wait(until) => {
                found.waiting += 1;
                let sooner = found.changes_at.map_or(until, |other| other.min(until));
                found.changes_at = Some(sooner).filter(|time| time.seconds().is_finite());
                continue;
            }
        }
        found.ready.extend(hand_out(mailbox, objects, run, &name));
    }
    found
}

/// Makes an error the reply, with its object.
fn answer(mailbox: &mut Mailbox, objects: &mut Objects, run: RunId, name: &Name, error: Message) {
    let (message, content) = seal_error(error);
    if let Some(root) = message.metadata.id.root() {
        objects.put_leaf(run, root, content);
    }
    let reply = Reply {
        message,
        settled: true,
        synthetic: true,
    };
    mailbox.answer(run, name, reply, objects);
}

/// Answers instructions that nobody will get, and for replies that nobody will, because these
/// objects are lost: whoever sent them was told that they are kept. Returns how many.
pub(super) fn give_up(
    mailbox: &mut Mailbox,
    objects: &mut Objects,
    lost: &HashSet<ObjectId>,
    now: UnixTime,
) -> usize {
    let is_lost = |message: &Message| {
        let shape = message
            .metadata
            .id
            .root()
            .and_then(|root| objects.shape(root));
        shape.is_some_and(|shape| shape.contains(lost, &mut HashSet::new()))
    };
    let mut errors = Vec::new();
    for (run, of_run) in &mailbox.boxes {
        for (name, instruction) in &of_run.instructions {
            let (message, code, reason) = match &instruction.reply {
                Some(reply) if is_lost(&reply.message) => (
                    &instruction.message,
                    AppError::REPLY_MESSAGE_UNAVAILABLE,
                    REPLY_LOST,
                ),
                None if !instruction.confirmed && is_lost(&instruction.message) => (
                    &instruction.message,
                    AppError::MESSAGE_UNAVAILABLE,
                    MESSAGE_LOST,
                ),
                _ => continue,
            };
            let metadata = &message.metadata;
            let error = error_for(&metadata.id, Some(metadata), code, reason, now);
            errors.push((*run, name.clone(), error));
        }
    }
    for (run, name, error) in &errors {
        answer(mailbox, objects, *run, name, error.clone());
        mailbox.woken.push(Topic::Run(*run));
    }
    errors.len()
}

/// Section 3.6, but a reply that is complete counts before the end of its instruction or node.
fn judge(instruction: &Instruction, nodes: &Nodes, objects: &Objects, now: UnixTime) -> Verdict {
    let metadata = &instruction.message.metadata;
    let reply = instruction.reply.as_ref();
    let complete = reply.is_some_and(|reply| reply.settled || reply.is_complete(objects));
    let reply_end = reply.map(|reply| reply.message.metadata.expires_at());
    let reply_expired = reply_end.is_some_and(|end| end < now);
    if complete && (!reply_expired || reply.is_some_and(|reply| reply.settled)) {
        return Verdict::Reply;
    }
    let end = metadata.expires_at();
    if end < now {
        return UNAVAILABLE;
    }
    let online_until = nodes.online_until(metadata.dst);
    let offline = online_until.is_none_or(|until| until < now);
    if offline && !complete {
        return NODE_UNAVAILABLE;
    }
    if reply_expired {
        return REPLY_UNAVAILABLE;
    }
    let ends = [Some(end), online_until, reply_end];
    let first = ends.into_iter().flatten().fold(end, UnixTime::min);
    // Each of these is over when its end is before now.
    Verdict::Wait(UnixTime::new(first.seconds().next_up()))
}

/// The reply that is there, which stands from now on.
fn hand_out(
    mailbox: &mut Mailbox,
    objects: &Objects,
    run: RunId,
    name: &Name,
) -> Option<(Message, Arc<Shape>)> {
    let of_run = mailbox.boxes.get_mut(&run)?;
    let (reply, of) = match of_run.instructions.get_mut(name) {
        Some(instruction) => (instruction.reply.as_mut()?, Of::Instruction),
        None => (of_run.errors.get_mut(name)?, Of::Nothing),
    };
    if !std::mem::replace(&mut reply.settled, true) {
        let key = MailKey::Reply(run, name.clone(), of);
        mailbox.marks.mark(key);
    }
    let shape = objects.shape(reply.message.metadata.id.root()?)?;
    Some((reply.message.clone(), shape))
}

/// The error that stands for a reply; `instruction` is nothing where that is unknown.
fn error_for(
    asked: &MessageId,
    instruction: Option<&Metadata>,
    code: i64,
    reason: &str,
    now: UnixTime,
) -> Message {
    let instruction = instruction.filter(|_| code != AppError::MESSAGE_UNAVAILABLE);
    let remaining = |m: &Metadata| (m.ttl - (now.seconds() - m.created_at.seconds())).max(0.0);
    let metadata = Metadata {
        run: instruction.map_or(RunId(0), |m| m.run),
        id: MessageId::new(""),
        src: NodeId::SUPERLINK,
        dst: NodeId::SUPERLINK,
        reply_to: instruction.map_or(asked, |m| &m.id).clone(),
        group_id: instruction.map_or_else(String::new, |m| m.group_id.clone()),
        ttl: instruction.map_or(0.0, remaining),
        message_type: instruction.map_or_else(|| "system".to_owned(), |m| m.message_type.clone()),
        created_at: now,
    };
    let error = AppError {
        code,
        reason: Some(reason.to_owned()),
    };
    Message {
        metadata,
        payload: Payload::Error(error),
    }
}

// The texts begin as Flower's do, for people who search logs (Flower 1.22,
// `server/superlink/linkstate/utils.py`).

const UNAVAILABLE: Verdict = Verdict::Error(
    AppError::MESSAGE_UNAVAILABLE,
    "Error: Message Unavailable - it is unknown here, has expired, or its reply was fetched before.",
);

const MESSAGE_LOST: &str =
    "Error: Message Unavailable - a part of it was lost on the SuperLink's disk.";

const REPLY_LOST: &str =
    "Error: Reply Message Unavailable - a part of it was lost on the SuperLink's disk.";

const REPLY_UNAVAILABLE: Verdict = Verdict::Error(
    AppError::REPLY_MESSAGE_UNAVAILABLE,
    "Error: Reply Message Unavailable - it expired before it was fetched.",
);

const NODE_UNAVAILABLE: Verdict = Verdict::Error(
    AppError::NODE_UNAVAILABLE,
    "Error: Node Unavailable - the node has left, or its heartbeats have stopped.",
);
