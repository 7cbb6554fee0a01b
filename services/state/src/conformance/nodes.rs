//! Nodes.

use flwr_api::NodeId;

use super::fixtures::{
    INTERVAL, NODE, RUN, at, content, federation, instruct, join, key, new_node, shift, stopped,
};
use crate::link::{LinkState, NewNode, NodeCreation};

/// 34, 35: large ids, and the end is exclusive.
pub async fn a_node_is_listed_until_its_interval_has_passed<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    join(&state, NODE).await;
    assert_eq!(state.nodes_online(at(29.9)).await.unwrap(), [NODE]);
    assert_eq!(state.nodes_online(at(30.0)).await.unwrap(), []);
    assert!(state.has_node(NODE).await.unwrap(), "known all the same");
}

/// 36.
pub async fn a_beat_extends_to_twice_the_interval<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join(&state, NODE).await;
    assert!(state.beat_node(NODE, INTERVAL, at(100.0)).await.unwrap());
    assert_eq!(state.nodes_online(at(159.9)).await.unwrap(), [NODE]);
    assert_eq!(state.nodes_online(at(160.0)).await.unwrap(), []);
    let unknown = NodeId(77);
    assert!(!state.beat_node(unknown, INTERVAL, at(0.0)).await.unwrap());
    assert!(!state.has_node(unknown).await.unwrap());
}

/// Intervals come from peers.
pub async fn odd_intervals_count_as_nothing<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for (id, interval) in (10..).zip([f64::NAN, -5.0, f64::NEG_INFINITY]) {
        let node = NewNode {
            heartbeat_interval: interval,
            ..new_node(NodeId(id))
        };
        state.create_node(node, at(0.0)).await.unwrap();
        assert_eq!(state.nodes_online(at(0.0)).await.unwrap(), []);
        let id = NodeId(id);
        assert!(state.beat_node(id, INTERVAL, at(0.0)).await.unwrap());
        assert_eq!(state.nodes_online(at(59.0)).await.unwrap(), [id]);
        assert!(state.beat_node(id, interval, at(1.0)).await.unwrap());
        assert_eq!(state.nodes_online(at(1.0)).await.unwrap(), []);
        assert_eq!(state.nodes_online(at(0.5)).await.unwrap(), [id]);
        assert!(state.delete_node(id).await.unwrap());
    }
}

/// Two nodes never share an id, nobody is node 0 or 1, and lists are in the order of ids.
pub async fn an_id_belongs_to_one_node<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    for id in [u64::MAX, 2, 1 << 63, i64::MAX as u64] {
        join(&state, NodeId(id)).await;
    }
    for id in [0, 1, 2, u64::MAX] {
        let taken = NewNode {
            key: Some(key("k")),
            ..new_node(NodeId(id))
        };
        let refused = state.create_node(taken, at(0.0)).await.unwrap();
        assert_eq!(refused, NodeCreation::IdTaken, "{id}");
        assert_eq!(state.node_of_key(&key("k")).await.unwrap(), None);
    }
    let listed = state.nodes_online(at(0.0)).await.unwrap();
    assert_eq!(listed, [2, i64::MAX as u64, 1 << 63, u64::MAX].map(NodeId));
}

/// 38.
pub async fn a_deleted_node_is_gone_at_once<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join(&state, NODE).await;
    join(&state, NodeId(5)).await;
    assert!(state.delete_node(NODE).await.unwrap());
    assert!(!state.delete_node(NODE).await.unwrap());
    assert!(!state.delete_node(NodeId::NONE).await.unwrap());
    assert!(!state.has_node(NODE).await.unwrap());
    assert_eq!(state.nodes_online(at(0.0)).await.unwrap(), [NodeId(5)]);
    assert!(!state.beat_node(NODE, INTERVAL, at(0.0)).await.unwrap());
}

/// A key finds the node that joined with it.
pub async fn a_key_finds_its_node<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    assert_eq!(join_with(&state, 10, "a", 0.0).await, NodeCreation::Created);
    assert_eq!(join_with(&state, 11, "b", 0.0).await, NodeCreation::Created);
    join(&state, NODE).await;
    for (name, node) in [
        ("a", Some(NodeId(10))),
        ("b", Some(NodeId(11))),
        ("c", None),
    ] {
        assert_eq!(state.node_of_key(&key(name)).await.unwrap(), node);
    }
}

/// B-3: the answer to the first request was lost. Also 25: no second node.
pub async fn a_repeated_request_keeps_its_id<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    assert_eq!(join_with(&state, 10, "a", 0.0).await, NodeCreation::Created);
    for (id, seconds) in [(11, 20.0), (12, 500.0)] {
        let again = join_with(&state, id, "a", seconds).await;
        assert_eq!(again, NodeCreation::Repeated(NodeId(10)));
        let online = state.nodes_online(at(seconds + 29.0)).await.unwrap();
        assert_eq!(online, [NodeId(10)], "it has just joined");
    }
}

/// 24: whoever is online keeps the key, whether it beats or calls.
pub async fn a_key_in_use_is_refused<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join_with(&state, 10, "a", 0.0).await;
    join_with(&state, 20, "b", 0.0).await;
    state.node_of_key(&key("a")).await.unwrap();
    state.beat_node(NodeId(20), 10.0, at(0.0)).await.unwrap();
    assert_eq!(
        join_with(&state, 11, "a", 10.0).await,
        NodeCreation::KeyInUse
    );
    assert_eq!(
        join_with(&state, 21, "b", 10.0).await,
        NodeCreation::KeyInUse
    );
    assert_eq!(
        state.node_of_key(&key("a")).await.unwrap(),
        Some(NodeId(10))
    );
    let online = state.nodes_online(at(29.0)).await.unwrap();
    assert_eq!(online, [NodeId(10)], "the refused requests extend nothing");
}

/// B-3: a node with a key of its own that crashed and came back.
pub async fn a_node_that_came_back_replaces_its_former_self<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    join_with(&state, 10, "a", 0.0).await;
    state.node_of_key(&key("a")).await.unwrap();
    join(&state, NodeId(11)).await;
    assert_eq!(
        join_with(&state, 11, "a", 30.0).await,
        NodeCreation::IdTaken
    );
    assert!(
        state.has_node(NodeId(10)).await.unwrap(),
        "nothing has changed"
    );
    let back = join_with(&state, 12, "a", 30.0).await;
    assert_eq!(back, NodeCreation::Replaced(NodeId(10)));
    assert!(!state.has_node(NodeId(10)).await.unwrap());
    assert_eq!(
        state.node_of_key(&key("a")).await.unwrap(),
        Some(NodeId(12))
    );
    assert_eq!(state.nodes_online(at(31.0)).await.unwrap(), [NodeId(12)]);
}

/// 26.
pub async fn a_deleted_node_frees_its_key<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join_with(&state, 10, "a", 0.0).await;
    state.node_of_key(&key("a")).await.unwrap();
    assert!(state.delete_node(NodeId(10)).await.unwrap());
    assert_eq!(state.node_of_key(&key("a")).await.unwrap(), None);
    assert_eq!(join_with(&state, 11, "a", 0.0).await, NodeCreation::Created);
    assert_eq!(
        state.node_of_key(&key("a")).await.unwrap(),
        Some(NodeId(11))
    );
}

/// B-16: nodes that are long gone do not pile up, but no instruction loses its node.
pub async fn nodes_that_stay_away_are_swept<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    state.beat_node(NODE, 0.0, at(0.0)).await.unwrap();
    instruct(&state, &content("work")).await;
    join_with(&state, 10, "a", 0.0).await;
    join_with(&state, 11, "b", 50.0).await;
    assert_eq!(
        state.sweep_nodes(at(30.0)).await.unwrap(),
        [],
        "not before it"
    );
    assert_eq!(state.sweep_nodes(at(70.0)).await.unwrap(), [NodeId(10)]);
    assert!(!state.has_node(NodeId(10)).await.unwrap());
    assert_eq!(state.node_of_key(&key("a")).await.unwrap(), None);
    assert!(state.has_node(NODE).await.unwrap());
    shift(&state, RUN, stopped(), 70.0).await;
    assert_eq!(state.sweep_nodes(at(70.0)).await.unwrap(), [NODE]);
    assert!(state.has_node(NodeId(11)).await.unwrap());
}

async fn join_with(state: &impl LinkState, id: u64, name: &str, seconds: f64) -> NodeCreation {
    let node = NewNode {
        key: Some(key(name)),
        ..new_node(NodeId(id))
    };
    state.create_node(node, at(seconds)).await.unwrap()
}
