//! Rules of bodies that arrive.

use futures_util::future::join_all;

use super::fixture::{into_body, soon};
use super::{Answer, Ask, Fixture, Flow, Harness, Plan};
use crate::call::Tail;

/// A body to the service arrives whole, announced or not, with its announcement.
pub async fn uploads_of_every_size<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for plan in plans(harness) {
        let body = fixture.service.uploads.body(plan);
        let reply = soon(fixture.send(Ask::Sink, body)).await;
        let received = reply.expect("an answer").response;
        assert_eq!(received, Answer::Received(plan.announced, plan.bytes));
    }
}

/// A body from the service arrives whole, announced or not, with its announcement.
pub async fn downloads_of_every_size<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    for plan in plans(harness) {
        let mut body = soon(fixture.fetch(Ask::Source(plan))).await;
        assert_eq!(body.len(), plan.announced);
        let read = soon(fixture.service.downloads.read(&mut body, u64::MAX)).await;
        assert_eq!(read, Ok(plan.bytes));
    }
}

/// An empty body arrives as one, and no body as none.
pub async fn no_body_is_not_an_empty_body<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let without = fixture.call(Ask::Sink).await.expect("an answer");
    assert_eq!(without.response, Answer::Done);
    assert!(matches!(without.tail, Tail::None));

    for plan in [Plan::announced(0), Plan::unannounced(0)] {
        let body = fixture.service.uploads.body(plan);
        let reply = fixture.send(Ask::Relay, body).await;
        let mut tail = into_body(reply.expect("an answer"));
        assert_eq!(tail.len(), plan.announced);
        assert_eq!(soon(tail.next()).await, None);
    }
}

/// A body of 256 MiB reaches the service, and never more of it than a bounded part is under way.
pub async fn large_upload<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    let body = flow.body(Plan::announced(LARGE_BYTES));
    // Not within the time of small things: a slow transport may take longer.
    let reply = fixture.send(Ask::Sink, body).await.expect("an answer");
    let expected = Answer::Received(Some(LARGE_BYTES), LARGE_BYTES);
    assert_eq!(reply.response, expected);
    assert_bounded(harness, flow);
}

/// A body of 256 MiB reaches the caller, and never more of it than a bounded part is under way.
pub async fn large_download<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    let plan = Plan::announced(LARGE_BYTES);
    let mut body = fixture.fetch(Ask::Source(plan)).await;
    assert_eq!(flow.read(&mut body, u64::MAX).await, Ok(LARGE_BYTES));
    assert_bounded(harness, flow);
}

/// A service may send a body on while it still arrives.
pub async fn body_goes_both_ways_at_once<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let plan = Plan::unannounced(4 * harness.held_bytes_max());
    let body = fixture.service.uploads.body(plan);
    let reply = soon(fixture.send(Ask::Relay, body)).await;
    let mut tail = into_body(reply.expect("an answer before the body's end"));
    assert!(fixture.service.uploads.sent.value() < plan.bytes);
    let read = fixture.service.downloads.read(&mut tail, u64::MAX).await;
    assert_eq!(read, Ok(plan.bytes));
}

/// Bodies of one connection travel beside each other, both ways.
pub async fn many_bodies_at_once<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let bytes = 3 * harness.window_bytes() + 11;
    let ways = (0..BODIES_AT_ONCE).map(async |_| {
        let upload = async {
            let body = fixture.service.uploads.body(Plan::announced(bytes));
            let reply = fixture.send(Ask::Sink, body).await;
            let received = reply.expect("an answer").response;
            assert_eq!(received, Answer::Received(Some(bytes), bytes));
        };
        let download = async {
            let plan = Plan::unannounced(bytes);
            let mut body = fixture.fetch(Ask::Source(plan)).await;
            let read = fixture.service.downloads.read(&mut body, u64::MAX).await;
            assert_eq!(read, Ok(bytes));
        };
        futures_util::join!(upload, download)
    });
    soon(join_all(ways)).await;
}

/// A service that stops reading stops its caller's writer, and no other call.
pub async fn slow_reader_stops_the_upload<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    let plan = Plan::unannounced(4 * harness.held_bytes_max());
    flow.read_max.set(1);
    let sending = fixture.send(Ask::Sink, flow.body(plan));
    let reading = async {
        soon(flow.read.reaches(1)).await;
        let sent = fixture.settles(&flow.sent).await;
        assert!(sent < plan.bytes, "the writer went on without its reader");
        flow.read_max.set(u64::MAX);
    };
    let (reply, ()) = futures_util::join!(sending, reading);
    let received = reply.expect("an answer").response;
    assert_eq!(received, Answer::Received(None, plan.bytes));
    assert_bounded(harness, flow);
}

/// A caller that stops reading stops the service's writer, and no other call.
pub async fn slow_reader_stops_the_download<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    let plan = Plan::unannounced(4 * harness.held_bytes_max());
    let mut body = soon(fixture.fetch(Ask::Source(plan))).await;
    soon(flow.sent.reaches(1)).await;
    let sent = fixture.settles(&flow.sent).await;
    assert!(sent < plan.bytes, "the writer went on without its reader");
    let read = flow.read(&mut body, u64::MAX).await;
    assert_eq!(read, Ok(plan.bytes));
    assert_bounded(harness, flow);
}

fn plans(harness: &impl Harness) -> impl Iterator<Item = Plan> {
    let window = harness.window_bytes();
    let sizes = [0, 1, window - 1, window, window + 1, 5 * window + 3];
    let plans = sizes.map(|bytes| [Plan::announced(bytes), Plan::unannounced(bytes)]);
    plans.into_iter().flatten()
}

fn assert_bounded(harness: &impl Harness, flow: &Flow) {
    let under_way = flow.under_way_max();
    assert!(
        under_way <= harness.held_bytes_max(),
        "{under_way} bytes were held at once",
    );
}

/// More than any transport may hold.
const LARGE_BYTES: u64 = 256 << 20;

const BODIES_AT_ONCE: u32 = 16;
