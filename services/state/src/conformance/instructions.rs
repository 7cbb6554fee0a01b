//! Instructions on their way to nodes.

use flwr_api::{AppError, Message, MessageId, NodeId, ObjectTree, Phase, RunId, RunStatus};

use super::fixtures::{
    NODE, RUN, TTL, announce_instruction, answer, ask, assert_no_objects, at, codes, confirm,
    content, count, federation, instruct, instruction, is_pending, is_unknown, join, keep_online,
    made, new_run, next_id, put, put_all, reply, shift, start_run, stopped,
};
use crate::link::LinkState;

/// 39, 40, 44, 45: as it was sent, with the children in their order and under every parent.
pub async fn an_instruction_is_handed_out_with_its_tree<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    assert_eq!(state.deliver(NODE, at(0.0)).await.unwrap(), None);
    let (a, b) = (made("a", &[]), made("b", &[]));
    let (left, right) = (made("left", &[&b, &a]), made("right", &[&a, &b]));
    let root = made("root", &[&right, &left, &a]);
    let message = instruct(&state, &root).await;
    let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
    assert_eq!(delivered.delivery.message, message);
    assert_eq!(delivered.delivery.tree, root.tree);
    assert!(!delivered.again);
}

/// 41, 67, B-1: the answer may be lost, and then the objects; the offer lasts as long as a fresh
/// instruction would.
pub async fn an_instruction_is_offered_until_it_is_confirmed<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let (first, second) = (content("first"), content("second"));
    instruct(&state, &first).await;
    instruct(&state, &second).await;
    for again in [false, true, true] {
        let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
        assert_eq!(delivered.delivery.message.metadata.id, first.id().into());
        assert_eq!(delivered.delivery.tree, first.tree);
        assert_eq!(delivered.again, again);
    }
    confirm(&state, &first).await;
    confirm(&state, &first).await;
    assert!(is_unknown(&state, first.id()).await);
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(second.id().into()));
    assert_eq!(next_id(&state, NODE, TTL).await, None, "an offer expires");
    confirm(&state, &second).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    assert_no_objects(&state).await;
}

/// The oldest comes first, and an offer comes before what has become ready since.
pub async fn instructions_come_in_the_order_of_their_arrival<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let roots = ["one", "two", "three"].map(content);
    for root in &roots {
        announce_instruction(&state, &instruction(RUN, NODE, root), root).await;
    }
    put_all(&state, &roots[2]).await;
    put_all(&state, &roots[1]).await;
    let second = Some(roots[1].id().into());
    assert_eq!(
        next_id(&state, NODE, 0.0).await,
        second,
        "the first is not complete"
    );
    put_all(&state, &roots[0]).await;
    assert_eq!(
        next_id(&state, NODE, 0.0).await,
        second,
        "it is not confirmed"
    );
    confirm(&state, &roots[1]).await;
    for root in [&roots[0], &roots[2]] {
        assert_eq!(next_id(&state, NODE, 0.0).await, Some(root.id().into()));
        confirm(&state, root).await;
    }
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
}

/// B-8: in whatever order they come.
pub async fn an_instruction_waits_for_its_last_object<S: LinkState>(new: impl AsyncFn() -> S) {
    let leaf = made("leaf", &[]);
    let root = made("root", &[&made("left", &[&leaf]), &made("right", &[&leaf])]);
    let ids = root.ids();
    for last in 0..ids.len() {
        let state = new().await;
        federation(&state).await;
        announce_instruction(&state, &instruction(RUN, NODE, &root), &root).await;
        for offset in 1..=ids.len() {
            assert_eq!(next_id(&state, NODE, 0.0).await, None);
            let id = ids[(last + offset) % ids.len()];
            let object = root.objects.iter().find(|(of, _)| *of == id).unwrap();
            put(&state, object).await;
        }
        assert_eq!(next_id(&state, NODE, 0.0).await, Some(root.id().into()));
    }
}

/// Of the oldest first, until it is whole, not wanted or cannot be handed out anyway; neither other nodes
/// nor what is handed out know of it.
pub async fn a_node_is_told_of_what_is_on_its_way<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    shift(&state, RUN, RunStatus::of(Phase::Starting), 0.0).await;
    join(&state, NODE).await;
    let roots = ["first", "second"].map(content);
    let [first, second] = roots.each_ref().map(|root| instruction(RUN, NODE, root));
    let told = async |node, known: &[&Message], seconds| {
        let known: Vec<_> = known.iter().map(|m| m.metadata.id.clone()).collect();
        let told = state.announced(node, &known, at(seconds)).await.unwrap();
        told.map(|delivery| (delivery.message, delivery.tree))
    };
    for (message, root) in [&first, &second].into_iter().zip(&roots) {
        announce_instruction(&state, message, root).await;
    }
    assert_eq!(told(NODE, &[], 0.0).await, None, "its run is not running");
    shift(&state, RUN, RunStatus::of(Phase::Running), 0.0).await;
    state.beat_run(RUN, 10.0 * TTL, at(0.0)).await.unwrap();
    let [of_first, of_second] =
        [(&first, 0), (&second, 1)].map(|(m, at)| Some((m.clone(), roots[at].tree.clone())));
    for _ in 0..2 {
        assert_eq!(told(NODE, &[], 0.0).await, of_first, "it stays where it is");
    }
    assert_eq!(told(NODE, &[&first], 0.0).await, of_second);
    assert_eq!(told(NODE, &[&second, &first], 0.0).await, None);
    assert_eq!(told(NodeId(77), &[], 0.0).await, None);
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    put_all(&state, &roots[0]).await;
    assert_eq!(told(NODE, &[], 0.0).await, of_second, "the first is whole");
    assert_eq!(told(NODE, &[], TTL).await, None, "it has expired");
    let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
    assert!(!delivered.again, "to be told is not to be handed it");
    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(told(NODE, &[], 0.0).await, None);
}

/// 42.
pub async fn nodes_get_only_their_own_instructions<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    join(&state, NodeId(5)).await;
    instruct(&state, &content("work")).await;
    assert_eq!(next_id(&state, NodeId(5), 0.0).await, None);
    assert_eq!(next_id(&state, NodeId(6), 0.0).await, None);
    assert!(next_id(&state, NODE, 0.0).await.is_some());
}

/// 43: neither before the first offer nor after it.
pub async fn expired_instructions_are_not_handed_out<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let (short, long) = (content("short"), content("long"));
    let mut message = instruction(RUN, NODE, &short);
    message.metadata.ttl = 10.0;
    announce_instruction(&state, &message, &short).await;
    put_all(&state, &short).await;
    instruct(&state, &long).await;
    assert_eq!(next_id(&state, NODE, 9.9).await, Some(short.id().into()));
    assert_eq!(next_id(&state, NODE, 10.0).await, Some(long.id().into()));
    assert_eq!(next_id(&state, NODE, TTL).await, None);

    let unseen = content("unseen");
    let mut message = instruction(RUN, NODE, &unseen);
    message.metadata.ttl = 10.0;
    announce_instruction(&state, &message, &unseen).await;
    put_all(&state, &unseen).await;
    assert_eq!(next_id(&state, NODE, TTL).await, None);
    let replies = ask(&state, &message.metadata.id, 11.0).await;
    assert_eq!(codes(&replies), [AppError::MESSAGE_UNAVAILABLE]);
}

/// 46: dropped, as nothing could ever complete it; what it blocks comes next.
pub async fn an_instruction_without_a_tree_is_dropped<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let bare = content("bare");
    let mut no_object = instruction(RUN, NODE, &bare);
    no_object.metadata.id = MessageId::new("no object id");
    let mut ids = Vec::new();
    for message in [instruction(RUN, NODE, &bare), no_object] {
        ids.push(message.metadata.id.clone());
        let stored = state.store_instructions(RUN, vec![message], vec![], at(0.0));
        assert_eq!(stored.await.unwrap(), (vec![ids.last().cloned()], vec![]));
    }
    let whole = content("whole");
    instruct(&state, &whole).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(whole.id().into()));
    let replies = state.replies(RUN, &ids, at(0.0)).await.unwrap();
    assert_eq!(codes(&replies), [AppError::MESSAGE_UNAVAILABLE; 2]);

    // Announced in time, though not together with it.
    let late = content("late");
    let message = vec![instruction(RUN, NODE, &late)];
    state
        .store_instructions(RUN, message, vec![], at(0.0))
        .await
        .unwrap();
    state
        .announce(RUN, std::slice::from_ref(&late.tree))
        .await
        .unwrap();
    put_all(&state, &late).await;
    confirm(&state, &whole).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(late.id().into()));
}

/// Nothing is handed out for a run that does not run.
pub async fn an_instruction_waits_until_its_run_is_running<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    join(&state, NODE).await;
    state.create_run(new_run(RUN), at(0.0)).await.unwrap();
    let root = content("early");
    instruct(&state, &root).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    shift(&state, RUN, RunStatus::of(Phase::Starting), 0.0).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    shift(&state, RUN, RunStatus::of(Phase::Running), 0.0).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, Some(root.id().into()));
    shift(&state, RUN, stopped(), 0.0).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
}

/// 47, 82, 83, 85: results in the order of the request; the objects of all are announced.
pub async fn unknown_destinations_are_told_and_offline_ones_served<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    start_run(&state, RUN).await;
    join(&state, NODE).await;
    assert_eq!(state.nodes_online(at(100.0)).await.unwrap(), []);
    let shared = made("shared", &[]);
    let roots = ["a", "b", "c"].map(|name| made(name, &[&shared]));
    let nodes = [NODE, NodeId(404), NODE];
    let messages = roots
        .iter()
        .zip(nodes)
        .map(|(root, node)| instruction(RUN, node, root));
    let trees = roots.iter().map(|root| root.tree.clone()).collect();
    let stored = state.store_instructions(RUN, messages.collect(), trees, at(100.0));
    let (stored, missing) = stored.await.unwrap();
    assert_eq!(
        stored,
        [Some(roots[0].id().into()), None, Some(roots[2].id().into())]
    );
    let [a, b, c] = &roots;
    assert_eq!(missing, [shared.id(), a.id(), b.id(), c.id()]);
    for root in &roots {
        put_all(&state, root).await;
    }
    assert_eq!(next_id(&state, NODE, 100.0).await, Some(a.id().into()));
    assert_eq!(next_id(&state, NodeId(404), 100.0).await, None);
    for root in [a, c] {
        confirm(&state, root).await;
    }
    assert_no_objects(&state).await;
}

/// Once its destination is known.
pub async fn an_instruction_can_be_sent_again_to_a_node_that_joined_since<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    start_run(&state, RUN).await;
    let root = content("work");
    let message = instruction(RUN, NODE, &root);
    let early = state.store_instructions(RUN, vec![message], vec![root.tree.clone()], at(0.0));
    assert_eq!(early.await.unwrap(), (vec![None], root.ids()));
    join(&state, NODE).await;
    instruct(&state, &root).await;
    let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
    assert_eq!(delivered.delivery.tree, root.tree);
    assert_eq!(count(&state).await, root.objects.len());
}

/// 86, B-12: as it is, offered or confirmed.
pub async fn an_instruction_is_stored_once<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let root = content("work");
    let message = instruction(RUN, NODE, &root);
    assert_eq!(
        announce_instruction(&state, &message, &root).await,
        root.ids()
    );
    assert_eq!(
        announce_instruction(&state, &message, &root).await,
        root.ids()
    );
    put_all(&state, &root).await;
    assert_eq!(announce_instruction(&state, &message, &root).await, []);
    assert!(next_id(&state, NODE, 0.0).await.is_some());
    assert_eq!(announce_instruction(&state, &message, &root).await, []);
    assert!(state.deliver(NODE, at(0.0)).await.unwrap().unwrap().again);
    confirm(&state, &root).await;
    announce_instruction(&state, &message, &root).await;
    put_all(&state, &root).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);
    assert_no_objects(&state).await;
}

/// Its node has done the work, or somebody has decided that it will not.
pub async fn an_answered_instruction_is_not_handed_out<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    assert!(next_id(&state, NODE, 0.0).await.is_some());
    answer(&state, &message, &content("answer")).await;
    assert_eq!(next_id(&state, NODE, 0.0).await, None);

    let other = instruct(&state, &content("other")).await;
    keep_online(&state, NODE, 1.0).await;
    let replies = ask(&state, &other.metadata.id, 2.0).await;
    assert_eq!(codes(&replies), [AppError::NODE_UNAVAILABLE]);
    assert_eq!(next_id(&state, NODE, 2.0).await, None);
}

/// A node that was given up fetches what it was offered to the end: it takes a missing object for
/// a broken server. Its objects go when it has them, asks for other work, or is gone.
pub async fn a_node_that_is_still_fetching_is_not_cut_off<S: LinkState>(new: impl AsyncFn() -> S) {
    for end in ["confirm", "ask", "delete", "stop"] {
        let state = new().await;
        federation(&state).await;
        let root = content("work");
        let message = instruct(&state, &root).await;
        assert!(next_id(&state, NODE, 0.0).await.is_some());
        keep_online(&state, NODE, 1.0).await;
        let replies = ask(&state, &message.metadata.id, 2.0).await;
        assert_eq!(codes(&replies), [AppError::NODE_UNAVAILABLE]);
        let error = replies.ready[0].tree.id;
        state.confirm(RUN, error).await.unwrap();
        assert_eq!(count(&state).await, root.objects.len(), "{end}");
        match end {
            "confirm" => confirm(&state, &root).await,
            "ask" => assert_eq!(next_id(&state, NODE, 2.0).await, None),
            "delete" => assert!(state.delete_node(NODE).await.unwrap()),
            _ => shift(&state, RUN, stopped(), 2.0).await,
        }
        assert_no_objects(&state).await;
    }
}

/// 48; and a message is its run's alone, whatever its id.
pub async fn other_runs_do_not_disturb_a_delivery<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let (other, root) = (RunId(2), content("work"));
    start_run(&state, other).await;
    let foreign = instruction(other, NODE, &root);
    announce_instruction(&state, &foreign, &root).await;
    instruct(&state, &root).await;
    let answered = reply(&foreign, &content("answer"));
    let tree = ObjectTree::leaf(answered.metadata.id.root().unwrap());
    let stored = state.store_reply(answered, vec![tree.clone()], Ok(()), at(0.0));
    stored.await.unwrap();
    assert!(is_pending(&state, tree.id).await);
    state.confirm(other, root.id()).await.unwrap();
    shift(&state, other, stopped(), 0.0).await;
    assert!(is_unknown(&state, tree.id).await);
    let delivered = state.deliver(NODE, at(0.0)).await.unwrap().unwrap();
    assert_eq!(delivered.delivery.message.metadata.run, RUN);
    assert_eq!(delivered.delivery.tree, root.tree);
    confirm(&state, &root).await;
    assert_no_objects(&state).await;
}
