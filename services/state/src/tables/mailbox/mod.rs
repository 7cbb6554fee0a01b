//! The table of messages under way.
//!
//! An instruction is on one *shelf* of its node until it is answered or confirmed, so that asking
//! for work looks only at what can be handed out. It stays known after that, for its answer. Each
//! run's messages are in a box of their own: runs never see each other's.

mod count;
mod kept;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use flwr_api::{Message, MessageId, NodeId, ObjectId, RunId, UnixTime};

use super::marks::Marks;
use super::objects::{Objects, Shape};
use super::rows::Of;
use super::shelves::{Place, Shelves, shelve};
use crate::link::ReplyOutcome;
use crate::wakeups::Topic;

/// A reply may outlive its instruction by this much (`server/utils/validator.py`), because clients
/// compute its lifetime in floating point.
const TTL_TOLERANCE_SECONDS: f64 = 0.1;

/// All messages.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    pub(super) boxes: HashMap<RunId, RunBox>,
    shelves: HashMap<NodeId, Shelves>,
    arrivals: u64,
    /// Who may have to look again since this was last taken.
    pub(super) woken: Vec<Topic>,
    pub(super) marks: Marks<MailKey>,
}

/// What a row of this table is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum MailKey {
    Instruction(RunId, Name),
    Reply(RunId, Name, Of),
    Unwanted(RunId, ObjectId),
    Abandoned(NodeId, RunId, ObjectId),
    /// All rows of a run are gone.
    Run(RunId),
}

/// The messages of one run.
#[derive(Debug, Default)]
pub(super) struct RunBox {
    pub(super) instructions: HashMap<Name, Instruction>,
    /// Errors in place of replies to instructions nobody knows, by the name that was asked for.
    pub(super) errors: HashMap<Name, Reply>,
    /// Which of the above the reply with this root belongs to.
    pub(super) replies: HashMap<ObjectId, Name>,
    /// Roots of messages that were not stored: kept until their senders have sent everything.
    unwanted: HashSet<ObjectId>,
}

/// A message's id, for comparing. Hexadecimal ids are the same in upper and lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Root(ObjectId),
    Text(MessageId),
}

#[derive(Debug)]
pub(super) struct Instruction {
    pub(super) message: Message,
    pub(super) arrival: u64,
    pub(super) place: Place,
    /// Whether its node has been handed it.
    offered: bool,
    /// Whether its node has got it; its objects are released then.
    pub(super) confirmed: bool,
    pub(super) reply: Option<Reply>,
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) message: Message,
    /// Whether it was handed out or made here: nothing takes its place any more.
    pub(super) settled: bool,
    /// Whether it was made here.
    pub(super) synthetic: bool,
}

/// An instruction to hand out.
pub(crate) struct Offer {
    pub(crate) message: Message,
    pub(crate) shape: Arc<Shape>,
    pub(crate) again: bool,
}

impl Mailbox {
    /// Stores an instruction, whose tree was announced; tells the node if it is ready.
    pub(super) fn store(&mut self, run: RunId, message: Message, objects: &mut Objects) {
        let name = Name::of(&message.metadata.id);
        let of_run = self.boxes.entry(run).or_default();
        if of_run.instructions.contains_key(&name) {
            return;
        }
        if let Name::Root(root) = &name
            && of_run.unwanted.remove(root)
        {
            self.marks.mark(MailKey::Unwanted(run, *root));
        }
        let mut instruction = Instruction {
            arrival: self.arrivals,
            place: Place::Out,
            offered: false,
            confirmed: false,
            reply: None,
            message,
        };
        self.arrivals += 1;
        let place = place_of(run, &instruction, objects);
        shelve(&mut self.shelves, run, &name, &mut instruction, place);
        if matches!(place, Place::Ready | Place::Incomplete) {
            self.woken
                .push(Topic::Node(instruction.message.metadata.dst));
        }
        self.marks.mark(MailKey::Instruction(run, name.clone()));
        of_run.instructions.insert(name, instruction);
    }

    /// Whether the run has an instruction of this name.
    pub(super) fn knows(&self, run: RunId, id: &MessageId) -> bool {
        let of_run = self.boxes.get(&run);
        of_run.is_some_and(|of_run| of_run.instructions.contains_key(&Name::of(id)))
    }

    /// Lets go of a tree that belongs to no message of the run, but only when its objects have all
    /// arrived: its sender was asked for them.
    pub(super) fn discard(&mut self, run: RunId, root: ObjectId, objects: &mut Objects) {
        let of_run = self.boxes.entry(run).or_default();
        let instruction = of_run.instructions.get(&Name::Root(root));
        if of_run.replies.contains_key(&root) || instruction.is_some_and(|i| !i.confirmed) {
            return;
        }
        if objects.is_complete(root) {
            objects.release(run, root);
        } else if objects.shape(root).is_some() && of_run.unwanted.insert(root) {
            self.marks.mark(MailKey::Unwanted(run, root));
        }
    }

    /// The next instruction to hand out; marks it as handed out.
    pub(super) fn deliver(
        &mut self,
        node: NodeId,
        now: UnixTime,
        running: impl Fn(RunId) -> bool,
        objects: &mut Objects,
    ) -> Option<Offer> {
        self.look_for_trees(node, objects);
        self.release_abandoned(node, objects);
        let shelves = self.shelves.get(&node)?;
        let mut expired = Vec::new();
        let boxes = &self.boxes;
        let found = shelves
            .offered
            .values()
            .chain(shelves.ready.values())
            .find(|(run, name)| {
                let instruction = boxes.get(run).and_then(|b| b.instructions.get(name));
                let alive = instruction.is_some_and(|i| i.message.metadata.expires_at() > now);
                if !alive {
                    expired.push((*run, name.clone()));
                }
                alive && running(*run)
            });
        let found = found.cloned();
        for (run, name) in expired {
            self.retire_expired(run, &name, objects);
        }
        if self.shelves.get(&node).is_some_and(Shelves::is_empty) {
            self.shelves.remove(&node);
        }
        let (run, name) = found?;
        let instruction = self.boxes.get_mut(&run)?.instructions.get_mut(&name)?;
        let shape = objects.shape(instruction.message.metadata.id.root()?)?;
        let again = std::mem::replace(&mut instruction.offered, true);
        shelve(&mut self.shelves, run, &name, instruction, Place::Offered);
        if !again {
            self.marks.mark(MailKey::Instruction(run, name));
        }
        Some(Offer {
            message: instruction.message.clone(),
            shape,
            again,
        })
    }

    /// The oldest instruction that objects are missing of, other than `known`. It stays where it is.
    pub(super) fn announced(
        &self,
        node: NodeId,
        known: &[MessageId],
        now: UnixTime,
        running: impl Fn(RunId) -> bool,
        objects: &Objects,
    ) -> Option<(Message, Arc<Shape>)> {
        let incomplete = self.shelves.get(&node)?.incomplete.values();
        incomplete
            .filter(|(run, _)| running(*run))
            .find_map(|(run, name)| {
                let message = &self.boxes.get(run)?.instructions.get(name)?.message;
                let metadata = &message.metadata;
                if metadata.expires_at() <= now || known.contains(&metadata.id) {
                    return None;
                }
                Some((message.clone(), objects.shape(metadata.id.root()?)?))
            })
    }

    /// Stores a reply, whose tree was announced, if it keeps the rules.
    pub(super) fn store_reply(
        &mut self,
        reply: Message,
        now: UnixTime,
        objects: &mut Objects,
    ) -> ReplyOutcome {
        let run = reply.metadata.run;
        let name = Name::of(&reply.metadata.reply_to);
        let Some(of_run) = self.boxes.get_mut(&run) else {
            return ReplyOutcome::Rejected(UNKNOWN_INSTRUCTION);
        };
        let known = of_run
            .instructions
            .contains_key(&Name::of(&reply.metadata.id));
        let Some(instruction) = of_run.instructions.get_mut(&name) else {
            return ReplyOutcome::Rejected(UNKNOWN_INSTRUCTION);
        };
        if let Err(reason) = check_reply(&reply, &instruction.message, now) {
            return ReplyOutcome::Rejected(reason);
        }
        let root = reply.metadata.id.root();
        let of_another = |root: &ObjectId| of_run.replies.get(root).is_some_and(|of| *of != name);
        if known || root.as_ref().is_some_and(of_another) {
            return ReplyOutcome::Rejected("its id belongs to another message");
        }
        if let Some(standing) = &instruction.reply {
            let same = Name::of(&standing.message.metadata.id) == Name::of(&reply.metadata.id);
            if same {
                return ReplyOutcome::Stored;
            }
            if standing.settled || standing.is_complete(objects) {
                return ReplyOutcome::Answered;
            }
            // Its node has given up on the one before.
            if let Some(former) = standing.message.metadata.id.root() {
                of_run.replies.remove(&former);
                objects.release(run, former);
            }
        }
        let complete = root.is_some_and(|root| {
            if of_run.unwanted.remove(&root) {
                self.marks.mark(MailKey::Unwanted(run, root));
            }
            of_run.replies.insert(root, name.clone());
            objects.hold(run, root);
            objects.is_complete(root)
        });
        instruction.reply = Some(Reply {
            message: reply,
            settled: false,
            synthetic: false,
        });
        shelve(&mut self.shelves, run, &name, instruction, Place::Out);
        self.marks.mark(MailKey::Instruction(run, name.clone()));
        self.marks.mark(MailKey::Reply(run, name, Of::Instruction));
        if complete {
            self.woken.push(Topic::Run(run));
        }
        ReplyOutcome::Stored
    }

    /// A root has become complete.
    pub(super) fn completed(&mut self, run: RunId, root: ObjectId, objects: &mut Objects) {
        let Some(of_run) = self.boxes.get_mut(&run) else {
            return;
        };
        let name = Name::Root(root);
        if of_run.replies.contains_key(&root) {
            self.woken.push(Topic::Run(run));
        } else if of_run.unwanted.remove(&root) {
            self.marks.mark(MailKey::Unwanted(run, root));
            objects.release(run, root);
        } else if let Some(instruction) = of_run.instructions.get_mut(&name)
            && matches!(instruction.place, Place::Unannounced | Place::Incomplete)
        {
            shelve(&mut self.shelves, run, &name, instruction, Place::Ready);
            self.woken
                .push(Topic::Node(instruction.message.metadata.dst));
        }
    }

    /// The receiver of a message has it.
    pub(super) fn confirm(&mut self, run: RunId, root: ObjectId, objects: &mut Objects) {
        if let Some(of_run) = self.boxes.get_mut(&run) {
            let name = Name::Root(root);
            if let Some(asked) = of_run.replies.remove(&root) {
                // Somebody may have asked for the instruction before there was one.
                let is_error = |error: &Reply| error.message.metadata.id.root() == Some(root);
                if of_run.errors.get(&asked).is_some_and(is_error) {
                    of_run.errors.remove(&asked);
                    self.marks.mark(MailKey::Reply(run, asked, Of::Nothing));
                } else {
                    self.forget(run, &asked, objects);
                }
            } else if let Some(instruction) = of_run.instructions.get_mut(&name) {
                instruction.confirmed = true;
                shelve(&mut self.shelves, run, &name, instruction, Place::Out);
                self.marks.mark(MailKey::Instruction(run, name));
            }
        }
        objects.release(run, root);
    }

    /// Makes a synthetic reply the reply to a known instruction, and lets go of one that is there.
    pub(super) fn answer(&mut self, run: RunId, name: &Name, reply: Reply, objects: &mut Objects) {
        let of_run = self.boxes.entry(run).or_default();
        let root = reply.message.metadata.id.root();
        of_run.replies.extend(root.map(|root| (root, name.clone())));
        let Some(instruction) = of_run.instructions.get_mut(name) else {
            of_run.errors.insert(name.clone(), reply);
            self.marks
                .mark(MailKey::Reply(run, name.clone(), Of::Nothing));
            return;
        };
        let former = instruction.reply.replace(reply);
        shelve(&mut self.shelves, run, name, instruction, Place::Out);
        self.marks.mark(MailKey::Instruction(run, name.clone()));
        self.marks
            .mark(MailKey::Reply(run, name.clone(), Of::Instruction));
        if let Some(root) = former.and_then(|former| former.message.metadata.id.root()) {
            of_run.replies.remove(&root);
            self.discard(run, root, objects);
        }
    }

    /// Removes everything of a run but its objects.
    pub(super) fn remove_run(&mut self, run: RunId) {
        let of_run = self.boxes.remove(&run).unwrap_or_default();
        self.marks.mark(MailKey::Run(run));
        for (name, mut instruction) in of_run.instructions {
            shelve(&mut self.shelves, run, &name, &mut instruction, Place::Out);
        }
        self.shelves.retain(|_, shelves| {
            shelves.abandoned.retain(|(of, _)| *of != run);
            !shelves.is_empty()
        });
    }

    /// The nodes that a run has instructions for.
    pub(super) fn nodes_with_work_of(&self, run: RunId) -> Vec<NodeId> {
        let Some(of_run) = self.boxes.get(&run) else {
            return Vec::new();
        };
        let is_awaited =
            |i: &&Instruction| matches!(i.place, Place::Ready | Place::Offered | Place::Incomplete);
        let nodes: HashSet<NodeId> = of_run
            .instructions
            .values()
            .filter(is_awaited)
            .map(|i| i.message.metadata.dst)
            .collect();
        nodes.into_iter().collect()
    }

    /// The runs that have asked the node for something.
    pub(super) fn runs_that_wait_for(&self, node: NodeId) -> Vec<RunId> {
        let waits = |of_run: &RunBox| {
            of_run
                .instructions
                .values()
                .any(|i| i.message.metadata.dst == node)
        };
        let waiting = self.boxes.iter().filter(|(_, of_run)| waits(of_run));
        waiting.map(|(run, _)| *run).collect()
    }

    /// Whether the node has not yet got an instruction that was valid at `time`.
    pub(super) fn has_work(&self, node: NodeId, time: UnixTime) -> bool {
        let valid = |(run, name): &(RunId, Name)| {
            let instruction = self.boxes.get(run).and_then(|b| b.instructions.get(name));
            instruction.is_some_and(|i| i.message.metadata.expires_at() > time)
        };
        self.shelves.get(&node).is_some_and(|s| s.all().any(valid))
    }

    /// A node is gone, so it fetches nothing any more.
    pub(super) fn remove_node(&mut self, node: NodeId, objects: &mut Objects) {
        self.release_abandoned(node, objects);
        if self.shelves.get(&node).is_some_and(Shelves::is_empty) {
            self.shelves.remove(&node);
        }
    }

    fn release_abandoned(&mut self, node: NodeId, objects: &mut Objects) {
        let Some(shelves) = self.shelves.get_mut(&node) else {
            return;
        };
        for (run, root) in std::mem::take(&mut shelves.abandoned) {
            self.marks.mark(MailKey::Abandoned(node, run, root));
            // All of it is here, so this releases it unless it was sent once more.
            self.discard(run, root, objects);
        }
    }

    /// Drops a node's instructions whose trees were never announced; the others have their place.
    fn look_for_trees(&mut self, node: NodeId, objects: &mut Objects) {
        let Some(shelves) = self.shelves.get_mut(&node) else {
            return;
        };
        for (run, name) in std::mem::take(&mut shelves.unannounced).into_values() {
            let Some(of_run) = self.boxes.get_mut(&run) else {
                continue;
            };
            let Some(instruction) = of_run.instructions.get_mut(&name) else {
                continue;
            };
            let place = place_of(run, instruction, objects);
            if place == Place::Unannounced {
                tracing::warn!(%run, %node, "instruction dropped: its objects were never announced");
                of_run.instructions.remove(&name);
                self.marks.mark(MailKey::Instruction(run, name));
                self.woken.push(Topic::Run(run));
            } else {
                shelve(&mut self.shelves, run, &name, instruction, place);
            }
        }
    }

    /// Takes an expired instruction off its shelf. Its node asks for work, so it is not fetching
    /// the objects, and nobody else ever will.
    fn retire_expired(&mut self, run: RunId, name: &Name, objects: &mut Objects) {
        let of_run = self.boxes.get_mut(&run);
        let Some(instruction) = of_run.and_then(|b| b.instructions.get_mut(name)) else {
            return;
        };
        shelve(&mut self.shelves, run, name, instruction, Place::Out);
        self.marks.mark(MailKey::Instruction(run, name.clone()));
        if let Some(root) = instruction.message.metadata.id.root() {
            objects.release(run, root);
        }
    }

    /// Removes an answered instruction and its objects.
    fn forget(&mut self, run: RunId, name: &Name, objects: &mut Objects) {
        let of_run = self.boxes.get_mut(&run);
        let Some(mut gone) = of_run.and_then(|b| b.instructions.remove(name)) else {
            return;
        };
        shelve(&mut self.shelves, run, name, &mut gone, Place::Out);
        self.marks.mark(MailKey::Instruction(run, name.clone()));
        self.marks
            .mark(MailKey::Reply(run, name.clone(), Of::Instruction));
        let Some(root) = gone.message.metadata.id.root() else {
            return;
        };
        let given_up = gone.reply.is_some_and(|reply| reply.synthetic);
        if gone.offered && !gone.confirmed && given_up {
            let node = gone.message.metadata.dst;
            let shelves = self.shelves.entry(node).or_default();
            shelves.abandoned.push((run, root));
            self.marks.mark(MailKey::Abandoned(node, run, root));
        } else {
            objects.release(run, root);
        }
    }
}

impl Name {
    pub(super) fn of(id: &MessageId) -> Self {
        id.root().map_or_else(|| Self::Text(id.clone()), Self::Root)
    }

    /// The same text for all ids that have this name.
    fn text(&self) -> String {
        match self {
            Self::Root(root) => root.to_string(),
            Self::Text(id) => id.as_str().to_owned(),
        }
    }
}

impl Reply {
    pub(super) fn is_complete(&self, objects: &Objects) -> bool {
        let root = self.message.metadata.id.root();
        root.is_some_and(|root| objects.is_complete(root))
    }
}

/// Where an instruction waits that has not been handed out. Its run holds its objects from now on.
fn place_of(run: RunId, instruction: &Instruction, objects: &mut Objects) -> Place {
    match instruction.message.metadata.id.root() {
        Some(root) if objects.hold(run, root) && objects.is_complete(root) => Place::Ready,
        Some(root) if objects.shape(root).is_some() => Place::Incomplete,
        _ => Place::Unannounced,
    }
}

/// Section 3.5, rules 3 to 5.
fn check_reply(reply: &Message, instruction: &Message, now: UnixTime) -> Result<(), &'static str> {
    let (reply, instruction) = (&reply.metadata, &instruction.metadata);
    if reply.src != instruction.dst {
        return Err("the instruction was sent to another node");
    }
    let end = instruction.expires_at();
    if end <= now {
        return Err("the instruction has expired");
    }
    let excess = reply.ttl - (end.seconds() - reply.created_at.seconds());
    if excess.is_nan() || excess > TTL_TOLERANCE_SECONDS {
        return Err("the reply would outlive its instruction");
    }
    Ok(())
}

/// Section 3.5, rules 2 and 6.
const UNKNOWN_INSTRUCTION: &str = "the run has no such instruction";
