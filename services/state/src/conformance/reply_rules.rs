//! Replies on their way from nodes.

use flwr_api::{MessageId, NodeId, RunId};

use super::fixtures::{
    NODE, TTL, answer, ask, assert_no_objects, at, codes, confirm, content, count, federation,
    instruct, made, put, put_all, reply, start_run,
};
use crate::link::{LinkState, ReplyOutcome};

/// 53, 68: repeating it changes nothing, and says which objects are still missing.
pub async fn a_reply_is_stored_once<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let root = content("answer");
    let answered = reply(&message, &root);
    let store = async || {
        let trees = vec![root.tree.clone()];
        let stored = state.store_reply(answered.clone(), trees, Ok(()), at(0.0));
        stored.await.unwrap()
    };
    assert_eq!(store().await, (ReplyOutcome::Stored, root.ids()));
    put(&state, &root.objects[0]).await;
    assert_eq!(store().await, (ReplyOutcome::Stored, vec![root.id()]));
    put_all(&state, &root).await;
    assert_eq!(store().await, (ReplyOutcome::Stored, vec![]));
    let replies = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(replies.ready.len(), 1);
    assert_eq!(store().await, (ReplyOutcome::Stored, vec![]));
    assert_eq!(ask(&state, &message.metadata.id, 0.0).await, replies);
}

/// B-20.
pub async fn the_first_complete_reply_stands<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let first = answer(&state, &message, &content("first")).await;
    let second = content("second");
    let stored = state.store_reply(
        reply(&message, &second),
        vec![second.tree.clone()],
        Ok(()),
        at(0.0),
    );
    assert_eq!(
        stored.await.unwrap(),
        (ReplyOutcome::Answered, second.ids())
    );
    put_all(&state, &second).await;
    let replies = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(replies.ready[0].message, first);
}

/// A node that died while it sent its reply may come back with another.
pub async fn an_unfinished_reply_gives_way_to_the_next<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    confirm(&state, &content("work")).await;
    let shared = made("shared", &[]);
    let (lost, found) = (made("lost", &[&shared]), made("found", &[&shared]));
    for root in [&lost, &found] {
        let trees = vec![root.tree.clone()];
        let stored = state.store_reply(reply(&message, root), trees, Ok(()), at(0.0));
        assert_eq!(stored.await.unwrap().0, ReplyOutcome::Stored);
        put(&state, &shared.objects[0]).await;
    }
    assert_eq!(
        count(&state).await,
        2,
        "the lost one is gone, what is shared is not"
    );
    confirm(&state, &lost).await;
    put_all(&state, &found).await;
    let replies = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(replies.ready[0].tree, found.tree);
    confirm(&state, &found).await;
    assert_no_objects(&state).await;
}

/// 52: nothing is stored, and yet the objects are asked for.
pub async fn replies_that_break_a_rule_are_not_stored<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    start_run(&state, RunId(2)).await;
    let message = instruct(&state, &content("work")).await;
    let good = reply(&message, &content("answer"));
    let mut cases = Vec::new();
    let mut case = |why, change: fn(&mut flwr_api::Metadata)| {
        let mut bad = good.clone();
        change(&mut bad.metadata);
        cases.push((why, bad, 0.0, Ok(())));
    };
    case("another node's instruction", |m| m.src = NodeId(9));
    case("unknown instruction", |m| m.reply_to = MessageId::new("x"));
    case("another run's instruction", |m| m.run = RunId(2));
    case("an id that is taken", |m| m.id = m.reply_to.clone());
    case("lives too long", |m| m.ttl = TTL + 0.2);
    case("no number", |m| m.ttl = f64::NAN);
    case("made too late", |m| m.created_at = at(1.0));
    cases.push(("expired instruction", good.clone(), TTL, Ok(())));
    cases.push(("refused before", good, 0.0, Err("a rule")));
    for (index, (why, mut bad, seconds, valid)) in cases.into_iter().enumerate() {
        let root = content(&format!("answer {index}"));
        if bad.metadata.id != bad.metadata.reply_to {
            bad.metadata.id = root.id().into();
        }
        let trees = vec![root.tree.clone()];
        let stored = state.store_reply(bad, trees, valid, at(seconds)).await;
        let (outcome, missing) = stored.unwrap();
        assert!(
            matches!(outcome, ReplyOutcome::Rejected(_)),
            "{why}: {outcome:?}"
        );
        if let Err(reason) = valid {
            assert_eq!(outcome, ReplyOutcome::Rejected(reason));
        }
        assert_eq!(missing, root.ids(), "{why}");
        put_all(&state, &root).await;
        let replies = ask(&state, &message.metadata.id, 0.0).await;
        assert_eq!((replies.ready, replies.waiting), (vec![], 1), "{why}");
    }
}

/// Nobody takes over what another node has said.
pub async fn a_reply_is_the_reply_to_one_instruction<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let first = instruct(&state, &content("first")).await;
    let second = instruct(&state, &content("second")).await;
    let root = content("answer");
    let answered = answer(&state, &first, &root).await;
    let trees = vec![root.tree.clone()];
    let stored = state.store_reply(reply(&second, &root), trees, Ok(()), at(0.0));
    let (outcome, _) = stored.await.unwrap();
    assert!(matches!(outcome, ReplyOutcome::Rejected(_)), "{outcome:?}");
    assert_eq!(ask(&state, &second.metadata.id, 0.0).await.waiting, 1);
    let replies = ask(&state, &first.metadata.id, 0.0).await;
    assert_eq!(replies.ready[0].message, answered);
    assert_eq!(replies.ready[0].tree, root.tree);
}

/// 54.
pub async fn a_reply_may_outlive_its_instruction_a_little<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    for (index, (created, ttl, stored)) in [
        (0.0, TTL + 0.05, true),
        (0.0, TTL + 0.2, false),
        (300.0, TTL - 300.0 + 0.05, true),
        (300.0, TTL - 300.0 + 0.2, false),
        (300.0, 1.0, true),
    ]
    .into_iter()
    .enumerate()
    {
        let message = instruct(&state, &content(&format!("work {index}"))).await;
        let mut answered = reply(&message, &content(&format!("answer {index}")));
        answered.metadata.created_at = at(created);
        answered.metadata.ttl = ttl;
        let outcome = state
            .store_reply(answered, vec![], Ok(()), at(created))
            .await;
        assert_eq!(
            outcome.unwrap().0 == ReplyOutcome::Stored,
            stored,
            "{created} {ttl}"
        );
    }
}

/// 66.
pub async fn confirming_an_instruction_does_not_hinder_its_reply<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let (work, result) = (content("work"), content("answer"));
    let message = instruct(&state, &work).await;
    assert!(state.deliver(NODE, at(0.0)).await.unwrap().is_some());
    confirm(&state, &work).await;
    assert_no_objects(&state).await;
    let answered = answer(&state, &message, &result).await;
    let replies = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(replies.ready[0].message, answered);
    confirm(&state, &result).await;
    assert_no_objects(&state).await;
}

/// What nobody will ask for is dropped as soon as its sender has sent it; until then it is taken.
pub async fn objects_of_refused_replies_do_not_pile_up<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let (work, result) = (content("work"), content("answer"));
    let message = instruct(&state, &work).await;
    confirm(&state, &work).await;
    answer(&state, &message, &result).await;
    assert_eq!(codes(&ask(&state, &message.metadata.id, 0.0).await), [0]);
    confirm(&state, &result).await;
    assert_no_objects(&state).await;
    for straggler in ["late", "later"].map(content) {
        let trees = vec![straggler.tree.clone()];
        let late = reply(&message, &straggler);
        let (outcome, missing) = state
            .store_reply(late, trees, Ok(()), at(0.0))
            .await
            .unwrap();
        assert!(matches!(outcome, ReplyOutcome::Rejected(_)), "{outcome:?}");
        assert_eq!(missing, straggler.ids());
        put_all(&state, &straggler).await;
        assert_no_objects(&state).await;
    }
}

/// Its objects may still be on their way.
pub async fn a_reply_that_was_refused_can_be_taken_later<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let root = content("answer");
    let trees = vec![root.tree.clone()];
    let early = state.store_reply(reply(&message, &root), trees, Err("too early"), at(0.0));
    let early = early.await.unwrap();
    assert_eq!(early, (ReplyOutcome::Rejected("too early"), root.ids()));
    let answered = answer(&state, &message, &root).await;
    let replies = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(replies.ready[0].message, answered);
}
