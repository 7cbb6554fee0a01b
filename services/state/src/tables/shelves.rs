//! Where instructions wait for their nodes: one shelf for each thing that they wait for.

use std::collections::{BTreeMap, HashMap};

use flwr_api::{NodeId, ObjectId, RunId};

use super::mailbox::{Instruction, Name};

/// Where an instruction waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Its tree is not known.
    Unannounced,
    /// Objects are missing.
    Incomplete,
    Ready,
    /// Handed out and not confirmed.
    Offered,
    /// It is not handed out any more.
    Out,
}

/// One node's instructions by arrival.
#[derive(Debug, Default)]
pub(super) struct Shelves {
    pub(super) unannounced: Shelf,
    pub(super) incomplete: Shelf,
    pub(super) ready: Shelf,
    pub(super) offered: Shelf,
    /// Roots of instructions that are gone, whose objects the node may still be fetching: it takes
    /// a missing one for a broken server and ends. Kept until it asks for other work.
    pub(super) abandoned: Vec<(RunId, ObjectId)>,
}

pub(super) type Shelf = BTreeMap<u64, (RunId, Name)>;

impl Shelves {
    fn at(&mut self, place: Place) -> Option<&mut Shelf> {
        match place {
            Place::Unannounced => Some(&mut self.unannounced),
            Place::Incomplete => Some(&mut self.incomplete),
            Place::Ready => Some(&mut self.ready),
            Place::Offered => Some(&mut self.offered),
            Place::Out => None,
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &(RunId, Name)> {
        let shelves = [
            &self.unannounced,
            &self.incomplete,
            &self.ready,
            &self.offered,
        ];
        shelves.into_iter().flat_map(BTreeMap::values)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none() && self.abandoned.is_empty()
    }
}

/// Moves an instruction to another shelf.
pub(super) fn shelve(
    nodes: &mut HashMap<NodeId, Shelves>,
    run: RunId,
    name: &Name,
    instruction: &mut Instruction,
    to: Place,
) {
    let node = instruction.message.metadata.dst;
    let from = std::mem::replace(&mut instruction.place, to);
    let shelves = nodes.entry(node).or_default();
    if let Some(shelf) = shelves.at(from) {
        shelf.remove(&instruction.arrival);
    }
    if let Some(shelf) = shelves.at(to) {
        shelf.insert(instruction.arrival, (run, name.clone()));
    }
    if shelves.is_empty() {
        nodes.remove(&node);
    }
}
