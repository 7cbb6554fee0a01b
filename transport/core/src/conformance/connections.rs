//! Rules of connections and their end.

use std::pin::pin;

use futures_util::StreamExt;

use super::events::{feed, read_ticks};
use super::fixture::{call, soon};
use super::{Ask, Fixture, Harness, Plan, Then};
use crate::serve::{Caller, Closed, Connector};
use crate::status::Code;

/// Connections to one acceptor have addresses of their own, and one's end is not another's.
pub async fn connections_are_independent<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let other = soon(fixture.connector.connect())
        .await
        .expect("a connection");
    fixture.echo().await;
    let first = fixture.service.last_context().expect("a context").peer.addr;
    let echo = call(Ask::Echo(String::new()));
    other.call(echo).await.expect("an answer");
    let second = fixture.service.last_context().expect("a context").peer.addr;
    assert_ne!(first, second);
    other.close("one of two");
    soon(other.closed()).await;
    fixture.echo().await;
}

/// A closed connection carries no more calls, and says so at once.
pub async fn call_after_close_is_unavailable<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    fixture.echo().await;
    fixture.caller.close("enough");
    let entered = fixture.service.entered.value();
    for _ in 0..2 {
        let failed = soon(fixture.call(Ask::Echo(String::new()))).await;
        assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    }
    assert_eq!(fixture.service.entered.value(), entered);
}

/// Closing fails the calls under way and drops their handlers.
pub async fn close_ends_calls_under_way<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let held = fixture.call(Ask::Hold { until_drain: false });
    let closing = async {
        soon(fixture.service.entered.reaches(1)).await;
        fixture.caller.close("enough");
    };
    let (failed, ()) = futures_util::join!(held, closing);
    assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    soon(fixture.service.left.reaches(1)).await;
}

/// Closing breaks bodies and events: none of them ends as if it were whole.
pub async fn close_breaks_tails<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    let endless = Ask::Source(Plan::endless());
    let mut body = soon(fixture.fetch(endless)).await;
    let mut events = fixture.subscribe(feed(1, 0, Then::Wait)).await;
    read_ticks(&mut events, 0..1).await;
    fixture.caller.close("enough");
    let read = soon(flow.read(&mut body, u64::MAX)).await;
    assert!(read.is_err(), "{read:?} of an endless body");
    let failed = soon(events.next()).await.expect("a failure, not an end");
    assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    soon(flow.let_go.reaches(1)).await;
    soon(fixture.service.feeds_let_go.reaches(1)).await;
}

/// `closed` waits for the end and then tells, as often as asked, which end it was and why.
pub async fn closed_tells_who_closed<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    {
        let mut closed = pin!(fixture.caller.closed());
        tokio::select! {
            biased;
            closed = &mut closed => panic!("closed as {closed:?} while open"),
            () = fixture.echo() => {}
        }
        fixture.caller.close("enough");
        assert_eq!(soon(closed).await, Closed::Here("enough"));
    }
    fixture.caller.close("too late");
    assert_eq!(soon(fixture.caller.closed()).await, Closed::Here("enough"));

    let fixture = Fixture::start(harness).await;
    fixture.echo().await;
    fixture.drain.begin();
    assert_eq!(soon(fixture.caller.closed()).await, Closed::Peer);
}

/// An acceptor whose serving is dropped leaves nobody waiting: who connects to it, or calls first, learns that it is gone
/// and that trying again may help.
pub async fn vanished_acceptor_is_unavailable<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let held = fixture.call(Ask::Hold { until_drain: false });
    let vanishing = async {
        soon(fixture.service.entered.reaches(1)).await;
        fixture.serving.abort();
    };
    let (failed, ()) = futures_util::join!(held, vanishing);
    assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    soon(fixture.service.left.reaches(1)).await;
    let closed = soon(fixture.caller.closed()).await;
    assert!(matches!(closed, Closed::Peer | Closed::Lost), "{closed:?}");
    let failed = soon(fixture.call(Ask::Echo(String::new()))).await;
    assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    match soon(fixture.connector.connect()).await {
        Err(failed) => assert!(failed.retryable, "{failed}"),
        // Some transports call before they know whether anybody is there.
        Ok(caller) => {
            let failed = soon(caller.call(call(Ask::Echo(String::new())))).await;
            assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
        }
    }
}

/// An acceptor whose serving is dropped breaks bodies and events: none of them ends as if it were
/// whole.
pub async fn vanished_acceptor_breaks_tails<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    flow.send_max.set(1);
    let unfinished = Ask::Source(Plan::unannounced(2));
    let mut body = soon(fixture.fetch(unfinished)).await;
    let mut events = fixture.subscribe(feed(1, 0, Then::Wait)).await;
    read_ticks(&mut events, 0..1).await;
    fixture.serving.abort();
    let read = soon(flow.read(&mut body, u64::MAX)).await;
    assert!(read.is_err(), "{read:?} of an unfinished body");
    let failed = soon(events.next()).await.expect("a failure, not an end");
    assert_eq!(failed.expect_err("a failure").code, Code::Unavailable);
    soon(flow.let_go.reaches(1)).await;
    soon(fixture.service.feeds_let_go.reaches(1)).await;
}
