//! Rules of events.

use futures_util::StreamExt;

use super::fixture::soon;
use super::{Ask, Feed, Fixture, Harness, Then, Tick};
use crate::call::EventStream;
use crate::status::{Code, Status};

/// Events come in order, none missing, and then the end.
pub async fn events_come_in_order_and_end<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for ticks in [0, 1, 1000] {
        let mut events = fixture.subscribe(feed(ticks, 3, Then::End)).await;
        read_ticks(&mut events, 0..ticks).await;
        assert_eq!(soon(events.next()).await, None);
    }
}

/// A service may end its events with a status, after all that it sent before.
pub async fn events_end_with_their_status<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for ticks in [0, 100] {
        for code in Code::ALL {
            let status = Status::new(code, "enough of it").with_reason(9);
            let asked = feed(ticks, 3, Then::Fail(status.clone()));
            let mut events = fixture.subscribe(asked).await;
            read_ticks(&mut events, 0..ticks).await;
            assert_eq!(soon(events.next()).await, Some(Err(status)));
            assert_eq!(soon(events.next()).await, None);
        }
    }
}

/// A service that panics between events fails them with [`Code::Internal`], and nothing else.
pub async fn panic_among_events_is_internal<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let mut others = fixture.subscribe(feed(1, 0, Then::Wait)).await;
    let mut events = fixture.subscribe(feed(2, 0, Then::Panic)).await;
    read_ticks(&mut events, 0..2).await;
    let failed = soon(events.next()).await.expect("a failure, not an end");
    assert_eq!(failed.expect_err("a failure").code, Code::Internal);
    read_ticks(&mut others, 0..1).await;
    fixture.drain.begin();
    assert_eq!(soon(others.next()).await, None);
    assert_eq!(fixture.served().await.cut, 0);
}

/// A caller that stops reading makes the service wait, and misses nothing by it.
pub async fn slow_reader_stops_the_events<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let ticks = 4 * harness.held_bytes_max() / PADDING as u64;
    let asked = feed(ticks, PADDING, Then::End);
    let mut events = fixture.subscribe(asked).await;
    read_ticks(&mut events, 0..1).await;
    let given = fixture.settles(&fixture.service.ticks).await;
    let held_max = harness.held_bytes_max() / PADDING as u64;
    assert!(
        given <= 1 + held_max,
        "{given} of {ticks} events were taken"
    );
    read_ticks(&mut events, 1..ticks).await;
    assert_eq!(soon(events.next()).await, None);
}

/// A caller that drops its events stops the service, also while that has nothing to say.
pub async fn dropped_events_stop_an_idle_service<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for (round, ticks) in [(1, 1), (2, u64::MAX)] {
        let asked = feed(ticks, 0, Then::Wait);
        let mut events = fixture.subscribe(asked).await;
        read_ticks(&mut events, 0..1).await;
        drop(events);
        soon(fixture.service.feeds_let_go.reaches(round)).await;
    }
    fixture.echo().await;
}

pub(super) fn feed(ticks: u64, padding: usize, then: Then) -> Ask {
    Ask::Subscribe(Feed {
        ticks,
        padding,
        then,
    })
}

pub(super) async fn read_ticks(events: &mut EventStream<Tick>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let event = soon(events.next()).await.expect("no early end");
        let Tick(came, padding) = event.expect("an event");
        assert_eq!(came, number);
        assert!(padding.bytes().all(|byte| byte == b'x'));
    }
}

const PADDING: usize = 16 << 10;
