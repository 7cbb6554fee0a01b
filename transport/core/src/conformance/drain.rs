//! Rules of shutting down.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;

use super::events::{feed, read_ticks};
use super::fixture::{identity, soon};
use super::{Answer, Ask, Fixture, Harness, Plan, Setup, Then};
use crate::serve::{Connector, Drained};
use crate::status::Code;

/// Without calls under way there is nothing to wait for, although a connection is open.
pub async fn idle_acceptor_drains_at_once<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    fixture.echo().await;
    assert_eq!(fixture.drained().await, Drained { cut: 0 });
}

/// While calls finish, new ones on the same connection fail with [`Code::Draining`].
pub async fn drain_refuses_new_calls<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    flow.send_max.set(1);
    let mut body = soon(fixture.fetch(Ask::Source(Plan::announced(2)))).await;
    fixture.drain.begin();
    soon(refused(&fixture)).await;
    let failed = soon(fixture.call(Ask::Hold { until_drain: true })).await;
    assert_eq!(failed.expect_err("a refusal").code, Code::Draining);
    flow.send_max.set(u64::MAX);
    assert_eq!(soon(flow.read(&mut body, u64::MAX)).await, Ok(2));
    assert_eq!(fixture.served().await.cut, 0);
}

/// While calls finish, nobody connects any more, and is told to try again.
pub async fn drain_refuses_new_connections<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    flow.send_max.set(1);
    let mut body = soon(fixture.fetch(Ask::Source(Plan::announced(2)))).await;
    fixture.drain.begin();
    let failed = soon(async {
        loop {
            // The acceptor may take a moment to learn of the drain.
            if let Err(failed) = fixture.connector.connect().await {
                return failed;
            }
            tokio::task::yield_now().await;
        }
    });
    assert!(failed.await.retryable);
    flow.send_max.set(u64::MAX);
    assert_eq!(soon(flow.read(&mut body, u64::MAX)).await, Ok(2));
    assert_eq!(fixture.served().await.cut, 0);
}

/// A body to the caller that began before the drain arrives whole.
pub async fn drain_lets_a_download_finish<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    let bytes = 4 * harness.held_bytes_max();
    let half = bytes / 2;
    flow.send_max.set(half);
    let plan = Plan::announced(bytes);
    let mut body = soon(fixture.fetch(Ask::Source(plan))).await;
    let reading = async { flow.read(&mut body, u64::MAX).await };
    let draining = async {
        soon(flow.read.reaches(half)).await;
        fixture.drain.begin();
        soon(refused(&fixture)).await;
        flow.send_max.set(u64::MAX);
    };
    let (read, ()) = futures_util::join!(reading, draining);
    assert_eq!(read, Ok(bytes));
    assert_eq!(fixture.served().await.cut, 0);
}

/// A body to the service that began before the drain arrives whole, and so does the answer.
pub async fn drain_lets_an_upload_finish<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    let bytes = 4 * harness.held_bytes_max();
    let half = bytes / 2;
    flow.send_max.set(half);
    let sending = fixture.send(Ask::Sink, flow.body(Plan::announced(bytes)));
    let draining = async {
        soon(flow.read.reaches(half)).await;
        fixture.drain.begin();
        soon(refused(&fixture)).await;
        flow.send_max.set(u64::MAX);
    };
    let (reply, ()) = futures_util::join!(sending, draining);
    let received = reply.expect("an answer").response;
    assert_eq!(received, Answer::Received(Some(bytes), bytes));
    assert_eq!(fixture.served().await.cut, 0);
}

/// Events end as if the service had ended them, idle or not, and what was sent arrives.
pub async fn drain_ends_events_cleanly<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let mut idle = fixture.subscribe(feed(3, 0, Then::Wait)).await;
    read_ticks(&mut idle, 0..3).await;
    let asked = feed(u64::MAX, 100, Then::Wait);
    let mut busy = fixture.subscribe(asked).await;
    read_ticks(&mut busy, 0..3).await;
    fixture.drain.begin();
    assert_eq!(soon(idle.next()).await, None);
    let mut next = 3;
    while let Some(event) = soon(busy.next()).await {
        assert_eq!(event.expect("a clean end").0, next);
        next += 1;
    }
    assert_eq!(fixture.served().await.cut, 0);
}

/// Handlers that watch the drain answer, and their answers arrive.
pub async fn drain_releases_held_handlers<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let held = (0..HELD_CALLS).map(|_| fixture.call(Ask::Hold { until_drain: true }));
    let draining = async {
        soon(fixture.service.entered.reaches(HELD_CALLS)).await;
        assert_eq!(fixture.service.left.value(), 0);
        fixture.drain.begin();
    };
    let (replies, ()) = futures_util::join!(join_all(held), draining);
    for reply in replies {
        assert_eq!(reply.expect("an answer").response, Answer::Released);
    }
    assert_eq!(fixture.served().await.cut, 0);
}

/// Calls that do not end are cut after the grace period, and counted. One that ends within it is
/// not.
pub async fn drain_cuts_after_the_grace<H: Harness>(harness: &H) {
    let setup = Setup {
        identity: identity(harness),
        grace: Duration::from_millis(300),
    };
    let fixture = Fixture::start_with(harness, setup).await;
    let deaf = (0..HELD_CALLS).map(|_| fixture.call(Ask::Hold { until_drain: false }));
    let watching = fixture.call(Ask::Hold { until_drain: true });
    let draining = async {
        soon(fixture.service.entered.reaches(HELD_CALLS + 1)).await;
        fixture.drain.begin();
    };
    let (cut, released, ()) = futures_util::join!(join_all(deaf), watching, draining);
    for reply in cut {
        assert_eq!(reply.expect_err("a cut").code, Code::Unavailable);
    }
    assert_eq!(released.expect("an answer").response, Answer::Released);
    soon(fixture.service.left.reaches(HELD_CALLS + 1)).await;
    let cut = fixture.served().await.cut;
    assert_eq!(cut as u64, HELD_CALLS);
}

/// A body that does not end within the grace period is cut, counted, and seen as failed.
pub async fn drain_cuts_an_unfinished_body<H: Harness>(harness: &H) {
    let setup = Setup {
        identity: identity(harness),
        grace: Duration::from_millis(300),
    };
    let fixture = Fixture::start_with(harness, setup).await;
    let flow = &fixture.service.downloads;
    flow.send_max.set(1);
    let unfinished = Ask::Source(Plan::unannounced(2));
    let mut body = soon(fixture.fetch(unfinished)).await;
    fixture.drain.begin();
    let read = soon(flow.read(&mut body, u64::MAX)).await;
    assert!(read.is_err(), "{read:?} of an unfinished body");
    soon(flow.let_go.reaches(1)).await;
    assert_eq!(fixture.served().await.cut, 1);
}

/// Waits until the acceptor, which was asked to drain, refuses calls.
async fn refused<H: Harness>(fixture: &Fixture<H>) {
    loop {
        if let Err(failed) = fixture.call(Ask::Echo(String::new())).await {
            assert_eq!(failed.code, Code::Draining);
            return;
        }
    }
}

const HELD_CALLS: u64 = 5;
