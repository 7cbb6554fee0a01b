//! The table of nodes.

use std::collections::{BTreeMap, HashMap};

use flwr_api::{NodeId, UnixTime};
use flwr_transport::PublicKey;

use super::interval_seconds;
use crate::link::{NewNode, NodeCreation};

/// Heartbeats may be late by this factor.
const PATIENCE: f64 = 2.0;

/// The nodes that have joined.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: BTreeMap<NodeId, Node>,
    keys: HashMap<PublicKey, NodeId>,
}

#[derive(Debug)]
struct Node {
    key: Option<PublicKey>,
    online_until: UnixTime,
    /// Whether it has done anything since it joined.
    used: bool,
}

impl Nodes {
    pub(super) fn create(&mut self, new: NewNode, now: UnixTime) -> NodeCreation {
        let online_until = now.plus(interval_seconds(new.heartbeat_interval));
        let former = new.key.as_ref().and_then(|key| self.keys.get(key)).copied();
        if let Some(former) = former
            && let Some(node) = self.nodes.get_mut(&former)
        {
            if !node.used {
                node.online_until = online_until;
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
        former.map_or(NodeCreation::Created, NodeCreation::Replaced)
    }

    pub(super) fn delete(&mut self, id: NodeId) -> bool {
        let Some(node) = self.nodes.remove(&id) else {
            return false;
        };
        if let Some(key) = node.key {
            self.keys.remove(&key);
        }
        true
    }

    pub(super) fn beat(&mut self, id: NodeId, interval: f64, now: UnixTime) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        node.used = true;
        node.online_until = now.plus(PATIENCE * interval_seconds(interval));
        true
    }

    pub(super) fn of_key(&mut self, key: &PublicKey) -> Option<NodeId> {
        let id = *self.keys.get(key)?;
        self.nodes.get_mut(&id)?.used = true;
        Some(id)
    }

    pub(super) fn has(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    pub(super) fn online_until(&self, id: NodeId) -> Option<UnixTime> {
        self.nodes.get(&id).map(|node| node.online_until)
    }

    pub(super) fn online(&self, now: UnixTime) -> Vec<NodeId> {
        let online = |(id, node): (&NodeId, &Node)| (node.online_until > now).then_some(*id);
        self.nodes.iter().filter_map(online).collect()
    }

    pub(super) fn offline_before(&self, time: UnixTime) -> Vec<NodeId> {
        let offline = |(id, node): (&NodeId, &Node)| (node.online_until < time).then_some(*id);
        self.nodes.iter().filter_map(offline).collect()
    }
}
