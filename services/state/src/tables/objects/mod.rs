//! The table of objects.
//!
//! An entry lives while it has a parent or a *holder*: a run that announced it as the root of a
//! tree. So a broadcast costs one root for each receiver, whatever lies below it, and a run that
//! ends takes exactly its roots with it. Every entry counts its incomplete children and knows the
//! parents that count it, which makes the completeness of a root a field to read.
//!
//! Trees are bounded in depth and size, and no entry can be its own ancestor, so walking what is
//! registered always ends.

mod kept;

use std::collections::hash_map;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use flwr_api::{ObjectId, ObjectTree, RunId};

pub(crate) use self::kept::Damaged;
use super::gone::Gone;
use super::marks::Marks;
use crate::storage::{Content, Source};

/// Deepest tree that is accepted, in levels. Flower's messages have five.
const TREE_DEPTH_MAX: usize = 64;

/// Largest tree that is accepted, in objects counted under every parent: about 200 MB when it is
/// handed out. Flower's array chunks make some 20,000 of a model with 10,000 arrays.
const TREE_OBJECTS_MAX: u64 = 1 << 22;

/// Everything announced.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    entries: HashMap<ObjectId, Entry>,
    /// The roots that each run holds.
    held: HashMap<RunId, HashSet<ObjectId>>,
    bytes: u64,
    gone: Gone,
    /// What was removed, to be dropped by whoever has time for it.
    removed: Vec<(ObjectId, Option<Content>)>,
    pub(super) marks: Marks<ObjectKey>,
}

/// What a row of this table is found by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ObjectKey {
    /// An object that was registered or removed.
    Object(ObjectId),
    /// An object whose bytes have come.
    Content(ObjectId),
    Hold(RunId, ObjectId),
    /// The object that went as the one with this number.
    Gone(u64),
}

#[derive(Debug)]
struct Entry {
    shape: Arc<Shape>,
    content: Option<Content>,
    /// How often it stands among the children of others.
    parents: usize,
    /// How many of its children are incomplete, repeated ones counted as often.
    incomplete_children: usize,
    /// The parents that count it as incomplete, and how often.
    waiting_parents: HashMap<ObjectId, usize>,
    holders: Vec<RunId>,
}

/// A registered tree, shared between everything it is part of.
#[derive(Debug)]
pub(crate) struct Shape {
    id: ObjectId,
    children: Box<[Arc<Self>]>,
    depth: usize,
    /// Objects in the tree, this one included, saturating.
    objects: u64,
}

/// What became of an object's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// They are kept. These roots, each with its holder, are complete now.
    Kept(Vec<(RunId, ObjectId)>),
    Present,
    Unannounced,
}

impl Objects {
    /// Registers the trees, whose roots `run` holds from now on, and returns the objects without
    /// bytes, each once, children first. Trees beyond the bounds are left out.
    pub(super) fn announce(&mut self, run: RunId, trees: &[ObjectTree]) -> Vec<ObjectId> {
        let mut report = Report::default();
        for tree in trees {
            let mut fresh = Fresh::default();
            match self.register(tree, &mut fresh, &mut report) {
                Ok(()) => {
                    self.hold(run, tree.id);
                }
                Err(Refused) => {
                    tracing::warn!(%run, root = %tree.id, "object tree is cyclic, too deep or too large");
                    self.take_back(&fresh, &mut report);
                }
            }
        }
        report.missing
    }

    /// Makes the run hold an object, which it then does until it is released; false if unknown.
    pub(super) fn hold(&mut self, run: RunId, id: ObjectId) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        if !entry.holders.contains(&run) {
            entry.holders.push(run);
            self.marks.mark(ObjectKey::Hold(run, id));
            self.held.entry(run).or_default().insert(id);
        }
        true
    }

    /// Ends a run's hold on an object, which is removed with all below it that nobody needs.
    pub(super) fn release(&mut self, run: RunId, id: ObjectId) {
        if let hash_map::Entry::Occupied(mut held) = self.held.entry(run)
            && held.get_mut().remove(&id)
        {
            if held.get().is_empty() {
                held.remove();
            }
            self.marks.mark(ObjectKey::Hold(run, id));
            self.unhold(run, id, Then::Remember);
        }
    }

    /// Ends all holds of a run.
    pub(super) fn release_all(&mut self, run: RunId) {
        for id in self.held.remove(&run).unwrap_or_default() {
            self.marks.mark(ObjectKey::Hold(run, id));
            self.unhold(run, id, Then::Forget);
        }
    }

    /// Stores an object's bytes, which the caller has checked. Those that are not wanted are dropped
    /// by whoever drops what was removed.
    pub(super) fn put(&mut self, id: ObjectId, content: Content) -> Stored {
        let Some(entry) = self.entries.get_mut(&id) else {
            self.removed.push((id, Some(content)));
            if self.was_here(id) {
                return Stored::Present;
            }
            return Stored::Unannounced;
        };
        if entry.content.is_some() {
            self.removed.push((id, Some(content)));
            return Stored::Present;
        }
        self.bytes += content.len();
        entry.content = Some(content);
        self.marks.mark(ObjectKey::Content(id));
        Stored::Kept(self.propagate(id))
    }

    /// Registers an object without children that is available at once, held by `run`.
    pub(super) fn put_leaf(&mut self, run: RunId, id: ObjectId, content: Bytes) {
        self.announce(run, &[ObjectTree::leaf(id)]);
        self.put(id, Content::Here(content));
    }

    /// Where an object's bytes are, if it is known and if they have arrived.
    pub(crate) fn source(&self, id: ObjectId) -> Option<Option<Source>> {
        let content = &self.entries.get(&id)?.content;
        Some(content.as_ref().map(Content::source))
    }

    /// Whether the object has been here and went because it was confirmed.
    pub(crate) fn was_here(&self, id: ObjectId) -> bool {
        self.gone.contains(id)
    }

    /// Whether the object and all below it have bytes.
    pub(super) fn is_complete(&self, id: ObjectId) -> bool {
        self.entries.get(&id).is_some_and(Entry::is_complete)
    }

    /// The tree below an object.
    pub(super) fn shape(&self, id: ObjectId) -> Option<Arc<Shape>> {
        self.entries.get(&id).map(|entry| Arc::clone(&entry.shape))
    }

    /// How many objects are registered, and how many bytes they hold.
    pub(crate) fn totals(&self) -> (usize, u64) {
        (self.entries.len(), self.bytes)
    }

    /// What was removed since this was last asked.
    pub(super) fn take_removed(&mut self) -> Vec<(ObjectId, Option<Content>)> {
        std::mem::take(&mut self.removed)
    }

    fn register(
        &mut self,
        tree: &ObjectTree,
        fresh: &mut Fresh,
        report: &mut Report,
    ) -> Result<(), Refused> {
        if let Some(entry) = self.entries.get(&tree.id) {
            // It keeps the children it has. They are registered too, so there is no need to walk
            // what this tree says about them.
            let shape = Arc::clone(&entry.shape);
            self.report_missing(&shape, report);
            return Ok(());
        }
        if fresh.path.len() == TREE_DEPTH_MAX || fresh.path.contains(&tree.id) {
            return Err(Refused);
        }
        fresh.path.push(tree.id);
        for child in &tree.children {
            self.register(child, fresh, report)?;
        }
        fresh.path.pop();
        self.insert(tree)?;
        fresh.registered.push(tree.id);
        report.missing.push(tree.id);
        report.seen.insert(tree.id);
        Ok(())
    }

    fn insert(&mut self, tree: &ObjectTree) -> Result<(), Refused> {
        let children: Option<Box<[_]>> = tree.children.iter().map(|c| self.shape(c.id)).collect();
        let children = children.ok_or(Refused)?;
        let depth = 1 + children.iter().map(|child| child.depth).max().unwrap_or(0);
        let objects = children
            .iter()
            .fold(1, |sum: u64, child| sum.saturating_add(child.objects));
        if depth > TREE_DEPTH_MAX || objects > TREE_OBJECTS_MAX {
            return Err(Refused);
        }
        let mut incomplete_children = 0;
        for child in &children {
            let Some(entry) = self.entries.get_mut(&child.id) else {
                continue;
            };
            entry.parents += 1;
            if !entry.is_complete() {
                incomplete_children += 1;
                *entry.waiting_parents.entry(tree.id).or_default() += 1;
            }
        }
        let entry = Entry {
            shape: Arc::new(Shape {
                id: tree.id,
                children,
                depth,
                objects,
            }),
            content: None,
            parents: 0,
            incomplete_children,
            waiting_parents: HashMap::new(),
            holders: Vec::new(),
        };
        self.entries.insert(tree.id, entry);
        self.marks.mark(ObjectKey::Object(tree.id));
        Ok(())
    }

    fn report_missing(&self, shape: &Shape, report: &mut Report) {
        let Some(entry) = self.entries.get(&shape.id) else {
            return;
        };
        if entry.is_complete() || !report.seen.insert(shape.id) {
            return;
        }
        if entry.incomplete_children > 0 {
            for child in &shape.children {
                self.report_missing(child, report);
            }
        }
        if entry.content.is_none() {
            report.missing.push(shape.id);
        }
    }

    /// Undoes the registrations of a tree that was refused half way: parents before children.
    fn take_back(&mut self, fresh: &Fresh, report: &mut Report) {
        for id in fresh.registered.iter().rev() {
            if self.entries.get(id).is_some_and(Entry::is_unneeded) {
                self.remove(*id, Then::Forget);
            }
            report.seen.remove(id);
        }
        report.missing.retain(|id| self.entries.contains_key(id));
    }

    /// Tells the parents of an object that may have become complete, and theirs; returns the roots
    /// that are complete now.
    fn propagate(&mut self, id: ObjectId) -> Vec<(RunId, ObjectId)> {
        let mut roots = Vec::new();
        let mut candidates = vec![id];
        while let Some(id) = candidates.pop() {
            let Some(entry) = self.entries.get_mut(&id).filter(|e| e.is_complete()) else {
                continue;
            };
            roots.extend(entry.holders.iter().map(|run| (*run, id)));
            for (parent, times) in std::mem::take(&mut entry.waiting_parents) {
                if let Some(parent_entry) = self.entries.get_mut(&parent) {
                    parent_entry.incomplete_children -= times;
                    candidates.push(parent);
                }
            }
        }
        roots
    }

    fn unhold(&mut self, run: RunId, id: ObjectId, then: Then) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.holders.retain(|holder| *holder != run);
        if entry.is_unneeded() {
            self.remove(id, then);
        }
    }

    fn remove(&mut self, id: ObjectId, then: Then) {
        let mut doomed = vec![id];
        while let Some(id) = doomed.pop() {
            let Some(entry) = self.entries.remove(&id) else {
                continue;
            };
            for child in &entry.shape.children {
                let Some(child_entry) = self.entries.get_mut(&child.id) else {
                    continue;
                };
                child_entry.parents -= 1;
                child_entry.waiting_parents.remove(&id);
                if child_entry.is_unneeded() {
                    doomed.push(child.id);
                }
            }
            self.bytes -= entry.content.as_ref().map_or(0, Content::len);
            if then == Then::Remember && entry.content.is_some() {
                for number in self.gone.add(id) {
                    self.marks.mark(ObjectKey::Gone(number));
                }
            }
            self.marks.mark(ObjectKey::Object(id));
            self.removed.push((id, entry.content));
        }
    }
}

impl Entry {
    fn is_complete(&self) -> bool {
        self.content.is_some() && self.incomplete_children == 0
    }

    fn is_unneeded(&self) -> bool {
        self.parents == 0 && self.holders.is_empty()
    }
}

impl Shape {
    /// Whether one of these is a part of it. `seen` are the parts that were looked at.
    pub(super) fn contains(&self, ids: &HashSet<ObjectId>, seen: &mut HashSet<ObjectId>) -> bool {
        seen.insert(self.id)
            && (ids.contains(&self.id) || self.children.iter().any(|c| c.contains(ids, seen)))
    }

    /// The tree as it is sent.
    pub(crate) fn tree(&self) -> ObjectTree {
        ObjectTree {
            id: self.id,
            children: self.children.iter().map(|child| child.tree()).collect(),
        }
    }
}

/// What an announcement is told.
#[derive(Default)]
struct Report {
    missing: Vec<ObjectId>,
    /// Objects that need no second look.
    seen: HashSet<ObjectId>,
}

/// One tree on its way in.
#[derive(Default)]
struct Fresh {
    /// The objects from the root to where the walk is.
    path: Vec<ObjectId>,
    registered: Vec<ObjectId>,
}

/// What to do about objects that are removed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Their senders may push them again.
    Remember,
    /// Nobody may push them any more, or nobody has.
    Forget,
}

/// The tree is cyclic, too deep or too large.
struct Refused;

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ObjectId {
        ObjectId::of(name.as_bytes())
    }

    fn x() -> Content {
        Content::Here(Bytes::from_static(b"x"))
    }

    /// Trees that name each other can hang together as a whole that is far larger than any of them.
    #[test]
    fn bounds_hold_across_announcements() {
        let mut objects = Objects::default();
        for level in 0..1000 {
            let deep = ObjectTree::leaf(id(&format!("deep {level}")));
            let wide = ObjectTree::leaf(id(&format!("wide {level}")));
            let trees = [
                ObjectTree {
                    id: id(&format!("deep {}", level + 1)),
                    children: vec![deep],
                },
                ObjectTree {
                    id: id(&format!("wide {}", level + 1)),
                    children: vec![wide.clone(), wide],
                },
            ];
            for (root, missing) in [(&trees[0], 2), (&trees[1], 2)] {
                let asked = objects.announce(RunId(1), std::slice::from_ref(root));
                assert!(asked.len() <= level + missing);
            }
        }
        let deepest = objects.entries.values().map(|e| e.shape.depth).max();
        assert_eq!(deepest, Some(TREE_DEPTH_MAX));
        let largest = objects.entries.values().map(|e| e.shape.objects).max();
        assert!(largest.is_some_and(|l| l > TREE_OBJECTS_MAX / 4 && l <= TREE_OBJECTS_MAX));
        objects.release_all(RunId(1));
        assert_eq!(objects.totals(), (0, 0));
        assert!(objects.held.is_empty());
    }

    #[test]
    fn each_extra_root_of_a_broadcast_adds_one_entry() {
        let record = ObjectTree {
            id: id("record"),
            children: (0..1000)
                .map(|i| ObjectTree::leaf(id(&i.to_string())))
                .collect(),
        };
        let mut objects = Objects::default();
        for node in 0..100 {
            let root = ObjectTree {
                id: id(&format!("to {node}")),
                children: vec![record.clone()],
            };
            objects.announce(RunId(1), &[root]);
        }
        assert_eq!(objects.totals(), (1101, 0));
        let told = &objects.entries[&id("record")].waiting_parents;
        assert_eq!(told.len(), 100);
        for leaf in 0..1000 {
            objects.put(id(&leaf.to_string()), x());
        }
        assert!(!objects.is_complete(id("record")));
        for node in 0..100 {
            let stored = objects.put(id(&format!("to {node}")), x());
            assert_eq!(stored, Stored::Kept(vec![]));
        }
        let Stored::Kept(roots) = objects.put(id("record"), x()) else {
            panic!("the record was announced");
        };
        assert_eq!(roots.len(), 100);
        assert!(
            objects
                .entries
                .values()
                .all(|e| e.waiting_parents.is_empty())
        );
    }
}
