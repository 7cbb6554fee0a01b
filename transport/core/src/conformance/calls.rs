//! Rules of requests, replies and statuses.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::fixture::{PATIENCE, call, soon};
use super::{Answer, Ask, Fixture, Harness, Setup};
use crate::peer::Bearer;
use crate::serve::Caller;
use crate::status::{Code, Status};

/// Requests and responses arrive as they were, also empty and longer than a packet.
pub async fn echo_returns_what_was_sent<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let long = "long \u{1f33c} ".repeat(1000);
    for text in ["", "a", "gr\u{fc}\u{df}e\n\0", &long] {
        let reply = fixture.call(Ask::Echo(text.into())).await;
        assert_eq!(
            reply.expect("an answer").response,
            Answer::Echo(text.into())
        );
    }
}

/// A status arrives with code, reason and message, whichever they are.
pub async fn every_code_travels_unharmed<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let reasons = [0, 1, 7, u16::MAX];
    let messages = [
        "",
        "no such run",
        "percent % and line\nend",
        "\u{fc}ber \u{1f33c}",
    ];
    for code in Code::ALL {
        for (reason, message) in reasons.into_iter().zip(messages) {
            let status = Status::new(code, message).with_reason(reason);
            let failed = fixture.call(Ask::Fail(status.clone())).await;
            assert_eq!(failed.expect_err("a failure"), status);
        }
    }
}

/// The bearer of each call is in its context, and only there where there is one.
pub async fn bearer_arrives<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for claim in [Some("a token"), None, Some("another-token_0123456789")] {
        let mut asked = call(Ask::Echo(String::new()));
        asked.bearer = claim.map(Bearer::new);
        fixture.caller.call(asked).await.expect("an answer");
        let context = fixture.service.last_context().expect("a context");
        assert_eq!(context.bearer.as_ref().map(Bearer::expose), claim);
    }
}

/// The service learns what its caller has proved to be and where it is, and the caller whom it
/// reached.
pub async fn both_ends_know_the_other<H: Harness>(harness: &H) {
    for identity in harness.identities() {
        let setup = Setup {
            identity: identity.clone(),
            grace: PATIENCE,
        };
        let fixture = Fixture::start_with(harness, setup).await;
        fixture.echo().await;
        let context = fixture.service.last_context().expect("a context");
        assert_eq!(context.peer.identity, identity);
        assert_eq!(context.peer.transport, H::TRANSPORT);
        assert_ne!(context.peer.addr, fixture.addr);
        assert_eq!(fixture.caller.peer().transport, H::TRANSPORT);
        assert_eq!(fixture.caller.peer().addr, fixture.addr);
    }
}

/// A call without an answer fails at its deadline, not before, and its handler is dropped. A
/// deadline that has passed already changes nothing about that.
pub async fn deadline_is_enforced<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let deadline = Instant::now() + Duration::from_millis(200);
    let mut asked = call(Ask::Hold { until_drain: false });
    asked.deadline = deadline;
    let failed = soon(fixture.caller.call(asked)).await;
    assert_eq!(failed.expect_err("a failure").code, Code::DeadlineExceeded);
    assert!(Instant::now() >= deadline);
    // A handler that never began need not be dropped.
    soon(
        fixture
            .service
            .left
            .reaches(fixture.service.entered.value()),
    )
    .await;

    let mut late = call(Ask::Hold { until_drain: false });
    late.deadline = deadline;
    let failed = soon(fixture.caller.call(late)).await;
    assert_eq!(failed.expect_err("a failure").code, Code::DeadlineExceeded);
    fixture.echo().await;
}

/// The handler learns how long its caller waits, to within a second.
pub async fn deadline_arrives<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for seconds in [5, 500] {
        let mut asked = call(Ask::Echo(String::new()));
        let deadline = Instant::now() + Duration::from_secs(seconds);
        asked.deadline = deadline;
        fixture.caller.call(asked).await.expect("an answer");
        let arrived = fixture.service.last_context().expect("a context").deadline;
        let later = arrived.saturating_duration_since(deadline);
        let earlier = deadline.saturating_duration_since(arrived);
        assert!(later.max(earlier) <= Duration::from_secs(1));
    }
}

/// A caller that drops its future has its handler's future dropped, and nothing else.
pub async fn dropped_call_drops_the_handler<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    {
        let mut held = pin!(fixture.call(Ask::Hold { until_drain: false }));
        tokio::select! {
            answered = &mut held => panic!("a held call was answered: {answered:?}"),
            _ = soon(fixture.service.entered.reaches(1)) => {}
        }
        assert_eq!(fixture.service.left.value(), 0);
    }
    soon(fixture.service.left.reaches(1)).await;
    fixture.echo().await;
}

/// A call that is held holds up no other.
pub async fn many_calls_while_one_is_held<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let mut held = pin!(fixture.call(Ask::Hold { until_drain: true }));
    tokio::select! {
        answered = &mut held => panic!("a held call was answered: {answered:?}"),
        _ = soon(fixture.service.entered.reaches(1)) => {}
    }
    let calls = (0..CALLS_AT_ONCE).map(async |number| {
        let text = number.to_string();
        let reply = fixture.call(Ask::Echo(text.clone())).await;
        assert_eq!(reply.expect("an answer").response, Answer::Echo(text));
    });
    tokio::select! {
        answered = &mut held => panic!("a held call was answered: {answered:?}"),
        _ = soon(join_all(calls)) => {}
    }
    fixture.drain.begin();
    let released = soon(held).await.expect("an answer");
    assert_eq!(released.response, Answer::Released);
}

/// A handler that panics fails its own call with [`Code::Internal`] and no other.
pub async fn panic_is_internal_and_kills_nothing_else<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let held = fixture.call(Ask::Hold { until_drain: true });
    let panicking = async {
        soon(fixture.service.entered.reaches(1)).await;
        for _ in 0..3 {
            let failed = soon(fixture.call(Ask::Panic)).await;
            assert_eq!(failed.expect_err("a failure").code, Code::Internal);
            fixture.echo().await;
        }
        fixture.drain.begin();
    };
    let (held, ()) = futures_util::join!(held, panicking);
    assert_eq!(held.expect("an answer").response, Answer::Released);
    assert_eq!(fixture.served().await.cut, 0);
}

const CALLS_AT_ONCE: u32 = 64;
