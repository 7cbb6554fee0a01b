//! Replies, and the errors that stand for them, on their way to the app (section 3.6).

use flwr_api::{AppError, Message, MessageId, Metadata, NodeId, ObjectId, Payload, RunId};

use super::fixtures::{
    NODE, RUN, TTL, answer, ask, assert_no_objects, at, codes, confirm, content, error_of,
    federation, fetch, instruct, is_pending, is_unknown, keep_online, put, put_all, reply,
    start_run,
};
use crate::link::{LinkState, Replies};

/// 88, 89, 97, B-2.
pub async fn a_reply_is_handed_out_until_it_is_confirmed<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let id = &message.metadata.id;
    let waiting = ask(&state, id, 0.0).await;
    assert_eq!((waiting.ready, waiting.waiting), (vec![], 1));
    let root = content("answer");
    let answered = answer(&state, &message, &root).await;
    for _ in 0..3 {
        let replies = ask(&state, id, 0.0).await;
        assert_eq!((replies.waiting, replies.changes_at), (0, None));
        assert_eq!(replies.ready.len(), 1);
        assert_eq!(replies.ready[0].message, answered);
        assert_eq!(replies.ready[0].tree, root.tree);
    }
    confirm(&state, &root).await;
    assert_no_objects(&state).await;
    let gone = ask(&state, id, 0.0).await;
    assert_eq!(codes(&gone), [AppError::MESSAGE_UNAVAILABLE]);
}

/// B-8: a reply that is not complete is none yet.
pub async fn an_incomplete_reply_is_waited_for<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let root = content("answer");
    let trees = vec![root.tree.clone()];
    let stored = state.store_reply(reply(&message, &root), trees, Ok(()), at(0.0));
    stored.await.unwrap();
    for object in root.objects.iter().rev() {
        let replies = ask(&state, &message.metadata.id, 0.0).await;
        assert_eq!((replies.ready, replies.waiting), (vec![], 1));
        put(&state, object).await;
    }
    assert_eq!(codes(&ask(&state, &message.metadata.id, 0.0).await), [0]);
}

/// 87, 95.
pub async fn each_id_yields_at_most_one_result_in_the_order_asked<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    let state = new().await;
    federation(&state).await;
    let none = state.replies(RUN, &[], at(0.0)).await.unwrap();
    assert_eq!(none, Replies::default());
    let first = instruct(&state, &content("first")).await;
    let second = instruct(&state, &content("second")).await;
    let open = instruct(&state, &content("open")).await;
    answer(&state, &second, &content("to second")).await;
    answer(&state, &first, &content("to first")).await;
    let unknown = MessageId::new("unknown");
    let ids = [&second, &open, &first].map(|m| m.metadata.id.clone());
    let asked = [
        &ids[0], &unknown, &ids[1], &ids[2], &unknown, &ids[0], &ids[1],
    ];
    let replies = state
        .replies(RUN, &asked.map(Clone::clone), at(0.0))
        .await
        .unwrap();
    let answered: Vec<_> = replies
        .ready
        .iter()
        .map(|r| &r.message.metadata.reply_to)
        .collect();
    assert_eq!(answered, [&ids[0], &unknown, &ids[2]]);
    assert_eq!(replies.waiting, 1);
}

/// 90: the whole shape of the error.
pub async fn unknown_ids_yield_errors<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    for asked in ["", "x", &"ab".repeat(32)].map(MessageId::new) {
        let replies = ask(&state, &asked, 7.5).await;
        let expected = Metadata {
            run: RunId(0),
            id: replies.ready[0].message.metadata.id.clone(),
            src: NodeId::SUPERLINK,
            dst: NodeId::SUPERLINK,
            reply_to: asked,
            group_id: String::new(),
            ttl: 0.0,
            message_type: "system".into(),
            created_at: at(7.5),
        };
        assert_eq!(replies.ready[0].message.metadata, expected);
        assert_error(
            &replies,
            AppError::MESSAGE_UNAVAILABLE,
            "Error: Message Unavailable",
        );
    }
}

/// What came of the error says nothing about the instruction that came after it.
pub async fn an_instruction_that_was_asked_for_too_early_is_kept<S: LinkState>(
    new: impl AsyncFn() -> S,
) {
    for confirmed in [true, false] {
        let state = new().await;
        federation(&state).await;
        let (work, root) = (content("work"), content("answer"));
        let id = MessageId::from(work.id());
        let early = ask(&state, &id, 0.0).await;
        assert_eq!(codes(&early), [AppError::MESSAGE_UNAVAILABLE]);
        let message = instruct(&state, &work).await;
        let error = early.ready[0].tree.id;
        if confirmed {
            state.confirm(RUN, error).await.unwrap();
        }
        assert_eq!(ask(&state, &id, 0.0).await.waiting, 1);
        let answered = answer(&state, &message, &root).await;
        let replies = ask(&state, &id, 0.0).await;
        assert_eq!(replies.ready[0].message, answered);
        confirm(&state, &root).await;
        let gone = ask(&state, &id, 1.0).await;
        assert_eq!(codes(&gone), [AppError::MESSAGE_UNAVAILABLE]);
        for error in [error, gone.ready[0].tree.id] {
            state.confirm(RUN, error).await.unwrap();
        }
        assert_no_objects(&state).await;
    }
}

/// 91, rule 1: from just after its end, whether its node has it or not.
pub async fn expired_instructions_yield_errors<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let id = &message.metadata.id;
    let root = content("incomplete");
    let trees = vec![root.tree.clone()];
    let stored = state.store_reply(reply(&message, &root), trees, Ok(()), at(0.0));
    stored.await.unwrap();
    assert_eq!(
        ask(&state, id, TTL).await.waiting,
        1,
        "its end is not past it"
    );
    let replies = ask(&state, id, TTL + 0.1).await;
    assert_error(
        &replies,
        AppError::MESSAGE_UNAVAILABLE,
        "Error: Message Unavailable",
    );
    let metadata = &replies.ready[0].message.metadata;
    assert_eq!((metadata.run, &metadata.reply_to), (RunId(0), id));
    assert_eq!(metadata.message_type, "system");
}

/// 92, rule 2: offline or deleted, with nothing or half a reply; the whole shape of the error.
pub async fn nodes_that_are_gone_yield_errors<S: LinkState>(new: impl AsyncFn() -> S) {
    for (half_a_reply, deleted) in [(false, false), (true, false), (false, true), (true, true)] {
        let state = new().await;
        federation(&state).await;
        keep_online(&state, NODE, 50.0).await;
        let message = instruct(&state, &content("work")).await;
        let id = &message.metadata.id;
        if half_a_reply {
            let root = content("answer");
            let trees = vec![root.tree.clone()];
            let stored = state.store_reply(reply(&message, &root), trees, Ok(()), at(0.0));
            stored.await.unwrap();
        }
        assert_eq!(
            ask(&state, id, 50.0).await.waiting,
            1,
            "its end is not past it"
        );
        let seconds = if deleted { 10.0 } else { 50.5 };
        if deleted {
            state.delete_node(NODE).await.unwrap();
        }
        let replies = ask(&state, id, seconds).await;
        let expected = Metadata {
            id: replies.ready[0].message.metadata.id.clone(),
            dst: NodeId::SUPERLINK,
            reply_to: id.clone(),
            ttl: TTL - seconds,
            created_at: at(seconds),
            ..message.metadata.clone()
        };
        assert_eq!(replies.ready[0].message.metadata, expected);
        assert_error(
            &replies,
            AppError::NODE_UNAVAILABLE,
            "Error: Node Unavailable",
        );
    }
}

/// 93, rule 3: complete or not, and a complete one whatever has become of its node.
pub async fn expired_replies_yield_errors<S: LinkState>(new: impl AsyncFn() -> S) {
    for (complete, deleted) in [(true, false), (true, true), (false, false)] {
        let state = new().await;
        federation(&state).await;
        let message = instruct(&state, &content("work")).await;
        let root = content("answer");
        let mut answered = reply(&message, &root);
        answered.metadata.ttl = 20.0;
        let trees = vec![root.tree.clone()];
        let stored = state.store_reply(answered, trees, Ok(()), at(0.0));
        stored.await.unwrap();
        if complete {
            put_all(&state, &root).await;
        }
        if deleted {
            state.delete_node(NODE).await.unwrap();
        }
        let replies = ask(&state, &message.metadata.id, 20.5).await;
        let text = "Error: Reply Message Unavailable";
        assert_error(&replies, AppError::REPLY_MESSAGE_UNAVAILABLE, text);
        let metadata = &replies.ready[0].message.metadata;
        assert_eq!(metadata.run, RUN);
        assert_eq!(metadata.group_id, message.metadata.group_id);
        assert_eq!(metadata.ttl, TTL - 20.5);
        if !complete {
            assert!(is_pending(&state, root.id()).await, "its node may be at it");
            put_all(&state, &root).await;
        }
        assert!(is_unknown(&state, root.id()).await, "nobody will fetch it");
    }
}

/// 94: fetched and confirmed like any other.
pub async fn errors_are_objects<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    confirm(&state, &content("work")).await;
    state.delete_node(NODE).await.unwrap();
    for asked in [message.metadata.id, MessageId::new("unknown")] {
        let replies = ask(&state, &asked, 0.0).await;
        let error = &replies.ready[0];
        assert_eq!(error.message.metadata.id, error.tree.id.into());
        assert_eq!(error.tree.children, []);
        let bytes = fetch(&state, error.tree.id).await;
        assert_eq!(ObjectId::of(&bytes), error.tree.id);
        flwr_api::object::check(&bytes).unwrap();
        let sealed: (Message, _) = flwr_api::object::seal_error(error.message.clone());
        assert_eq!(sealed, (error.message.clone(), bytes));
        state.confirm(RUN, error.tree.id).await.unwrap();
        assert_no_objects(&state).await;
    }
}

/// B-2 for errors: the same one until it is confirmed, and no reply after it.
pub async fn an_error_is_the_reply_from_then_on<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    keep_online(&state, NODE, 50.0).await;
    let message = instruct(&state, &content("work")).await;
    let id = &message.metadata.id;
    let error = ask(&state, id, 60.0).await;
    assert_eq!(codes(&error), [AppError::NODE_UNAVAILABLE]);
    keep_online(&state, NODE, 500.0).await;
    let root = content("late");
    let late = state.store_reply(
        reply(&message, &root),
        vec![root.tree.clone()],
        Ok(()),
        at(70.0),
    );
    assert_eq!(late.await.unwrap().0, crate::ReplyOutcome::Answered);
    put_all(&state, &root).await;
    assert_eq!(ask(&state, id, 80.0).await, error);
    let unknown = MessageId::new("unknown");
    let second = ask(&state, &unknown, 80.0).await;
    assert_eq!(ask(&state, &unknown, 90.0).await, second);
    for replies in [error, second] {
        state.confirm(RUN, replies.ready[0].tree.id).await.unwrap();
    }
    for asked in [id, &unknown] {
        let next = ask(&state, asked, 90.0).await;
        assert_eq!(codes(&next), [AppError::MESSAGE_UNAVAILABLE]);
        assert_eq!(next.ready[0].message.metadata.created_at, at(90.0));
    }
}

/// 96, B-6.
pub async fn a_complete_reply_outlives_its_node<S: LinkState>(new: impl AsyncFn() -> S) {
    for deleted in [false, true] {
        let state = new().await;
        federation(&state).await;
        keep_online(&state, NODE, 10.0).await;
        let message = instruct(&state, &content("work")).await;
        let answered = answer(&state, &message, &content("answer")).await;
        if deleted {
            state.delete_node(NODE).await.unwrap();
        }
        let replies = ask(&state, &message.metadata.id, 20.0).await;
        assert_eq!(replies.ready[0].message, answered);
    }
}

/// B-2: an app that asks again gets what it got.
pub async fn a_reply_handed_out_does_not_expire<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    answer(&state, &message, &content("answer")).await;
    let replies = ask(&state, &message.metadata.id, TTL - 1.0).await;
    assert_eq!(codes(&replies), [0]);
    state.delete_node(NODE).await.unwrap();
    assert_eq!(ask(&state, &message.metadata.id, TTL + 1.0).await, replies);
}

/// 98, B-13.
pub async fn replies_of_other_runs_are_out_of_reach<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let other = RunId(2);
    start_run(&state, other).await;
    let message = instruct(&state, &content("work")).await;
    let root = content("answer");
    answer(&state, &message, &root).await;
    let asked = [message.metadata.id.clone()];
    let foreign = state.replies(other, &asked, at(0.0)).await.unwrap();
    assert_eq!(codes(&foreign), [AppError::MESSAGE_UNAVAILABLE]);
    state.confirm(other, root.id()).await.unwrap();
    state
        .confirm(other, foreign.ready[0].tree.id)
        .await
        .unwrap();
    let own = ask(&state, &message.metadata.id, 0.0).await;
    assert_eq!(own.ready[0].tree, root.tree);
    fetch(&state, root.id()).await;
}

/// 154: whoever waits until then finds something, and finds nothing before.
pub async fn waiting_ends_at_the_announced_time<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    federation(&state).await;
    let message = instruct(&state, &content("work")).await;
    let mut short = reply(&message, &content("half"));
    short.metadata.ttl = 20.0;
    let id = message.metadata.id;
    let ends = async |end: f64, code: i64| {
        let waiting = ask(&state, &id, 0.0).await;
        let time = waiting.changes_at.unwrap();
        assert!(
            time > at(end) && time < at(end + 0.001),
            "{time:?} is not {end}"
        );
        let asked = std::slice::from_ref(&id);
        assert_eq!(ask(&state, &id, end).await.waiting, 1);
        let changed = state.replies(RUN, asked, time).await.unwrap();
        assert_eq!((codes(&changed), changed.waiting), (vec![code], 0));
        changed.ready[0].tree.id
    };
    keep_online(&state, NODE, 30.0).await;
    ends(30.0, AppError::NODE_UNAVAILABLE).await;

    let state = new().await;
    federation(&state).await;
    instruct(&state, &content("work")).await;
    let other = instruct(&state, &content("other")).await;
    assert!(
        state
            .store_reply(short, vec![], Ok(()), at(0.0))
            .await
            .is_ok()
    );
    let both = [id.clone(), other.metadata.id];
    let waiting = state.replies(RUN, &both, at(0.0)).await.unwrap();
    let time = waiting.changes_at.unwrap();
    assert!(time > at(20.0) && time < at(20.001), "{time:?}");
    let changed = state.replies(RUN, &both, time).await.unwrap();
    assert_eq!(codes(&changed), [AppError::REPLY_MESSAGE_UNAVAILABLE]);
    let time = changed.changes_at.unwrap();
    assert!(time > at(TTL) && time < at(TTL + 0.001), "{time:?}");
    let changed = state.replies(RUN, &both[1..], time).await.unwrap();
    assert_eq!(codes(&changed), [AppError::MESSAGE_UNAVAILABLE]);
}

/// They may get the very same error, and each has it to the end.
pub async fn two_runs_can_ask_for_the_same_unknown_id<S: LinkState>(new: impl AsyncFn() -> S) {
    let state = new().await;
    start_run(&state, RUN).await;
    start_run(&state, RunId(2)).await;
    let asked = [MessageId::new("")];
    let mut errors = Vec::new();
    for run in [RUN, RunId(2)] {
        let replies = state.replies(run, &asked, at(5.0)).await.unwrap();
        errors.push((run, replies.ready[0].tree.id));
    }
    for (run, error) in errors {
        fetch(&state, error).await;
        state.confirm(run, error).await.unwrap();
    }
    assert_no_objects(&state).await;
}

fn assert_error(replies: &Replies, code: i64, text: &str) {
    assert_eq!((codes(replies), replies.waiting), (vec![code], 0));
    let delivery = &replies.ready[0];
    assert!(matches!(delivery.message.payload, Payload::Error(_)));
    let reason = error_of(delivery).reason.as_deref().unwrap();
    assert!(reason.starts_with(text), "{reason}");
}
