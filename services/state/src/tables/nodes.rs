//! The table of nodes.

use std::collections::{BTreeMap, HashMap};

use flwr_api::{NodeId, UnixTime};
use flwr_transport::PublicKey;

use super::marks::Marks;
use super::rows::NodeRow;
use super::{Return, interval_seconds};
use crate::link::{NewNode, NodeCreation};

/// Heartbeats may be late by this factor.
const PATIENCE: f64 = 2.0;

/// The nodes that have joined.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    keys: HashMap<PublicKey, NodeId>,
    pub(super) marks: Marks<NodeId>,
}

#[derive(Debug)]
struct Node {
    key: Option<PublicKey>,
    online_until: UnixTime,
    /// Whether it has done anything since it joined.
    used: bool,
}

impl Nodes {
    pub(crate) fn create(&mut self, new: NewNode, now: UnixTime) -> NodeCreation {
        let online_until = now.plus(interval_seconds(new.heartbeat_interval));
        let former = new.key.as_ref().and_then(|key| self.keys.get(key)).copied();
        if let Some(former) = former
            && let Some(node) = self.nodes.get_mut(&former)
        {
            if !node.used {
                node.online_until = online_until;
                self.marks.mark(former);
                return NodeCreation::Repeated(former);
            }
            if node.online_until > now {
                return NodeCreation::KeyInUse;
            }
        }
        let reserved = [NodeId::NONE, NodeId::SUPERLINK].contains(&new.id);
        if reserved || self.nodes.contains_key(&new.id) {
            return NodeCreation::IdTaken;
        }
        if let Some(former) = former {
            self.delete(former);
        }
        if let Some(key) = &new.key {
            self.keys.insert(key.clone(), new.id);
        }
        let node = Node {
            key: new.key,
            online_until,
            used: false,
        };
        self.nodes.insert(new.id, node);
        self.marks.mark(new.id);
        former.map_or(NodeCreation::Created, NodeCreation::Replaced)
    }

    pub(crate) fn delete(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.remove(&id) else {
            return false;
        };
        if let Some(key) = node.key {
            self.keys.remove(&key);
        }
        self.marks.mark(id);
        true
    }

    pub(crate) fn beat(&mut self, id: NodeId, interval: f64, now: UnixTime) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        node.online_until = now.plus(PATIENCE * interval_seconds(interval));
        if std::mem::replace(&mut node.used, true) {
            self.marks.mark_later(id);
        } else {
            self.marks.mark(id);
        }
        true
    }

    pub(crate) fn of_key(&mut self, key: &PublicKey) -> Option<NodeId> {
        let id = *self.keys.get(key)?;
        if !std::mem::replace(&mut self.nodes.get_mut(&id)?.used, true) {
            self.marks.mark(id);
        }
        Some(id)
    }

    pub(crate) fn has(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    pub(crate) fn online_until(&self, id: NodeId) -> Option<UnixTime> {
        self.nodes.get(&id).map(|node| node.online_until)
    }

    pub(crate) fn online(&self, now: UnixTime) -> Vec<NodeId> {
        let online = |(id, node): (&NodeId, &Node)| (node.online_until > now).then_some(*id);
        self.nodes.iter().filter_map(online).collect()
    }

    /// How many are online, and how many are not.
    pub(crate) fn count(&self, now: UnixTime) -> (usize, usize) {
        let online = |node: &&Node| node.online_until > now;
        let online = self.nodes.values().filter(online).count();
        (online, self.nodes.len() - online)
    }

    pub(crate) fn offline_before(&self, time: UnixTime) -> Vec<NodeId> {
        let offline = |(id, node): (&NodeId, &Node)| (node.online_until < time).then_some(*id);
        self.nodes.iter().filter_map(offline).collect()
    }

    pub(crate) fn row(&self, id: NodeId) -> Option<NodeRow> {
        self.nodes.get(&id).map(|node| NodeRow {
            id,
            key: node.key.clone(),
            online_until: node.online_until,
            used: node.used,
        })
    }

    /// Takes nodes from rows.
    pub(crate) fn restore(&mut self, rows: Vec<NodeRow>, back: Return) {
        for row in rows {
            self.keys.extend(row.key.clone().map(|key| (key, row.id)));
            let node = Node {
                key: row.key,
                online_until: back.put_off(row.online_until),
                used: row.used,
            };
            self.nodes.insert(row.id, node);
            self.marks.mark(row.id);
        }
    }
}
