//! Rules of bodies that somebody stops.

use std::pin::pin;

use super::fixture::{into_body, soon};
use super::{Answer, Ask, Fixture, Harness, Plan};

/// A service never takes a body whose sender failed for a shorter one.
pub async fn broken_upload_is_seen_as_failed<H: Harness>(harness: &H) {
    for plan in broken_plans(harness) {
        assert_upload_fails(harness, plan).await;
    }
}

/// A caller never takes a body whose sender failed for a shorter one.
pub async fn broken_download_is_seen_as_failed<H: Harness>(harness: &H) {
    for plan in broken_plans(harness) {
        assert_download_fails(harness, plan).await;
    }
}

/// A body to the service that is not as long as announced fails.
pub async fn upload_is_held_to_its_announcement<H: Harness>(harness: &H) {
    for plan in wrong_plans(harness) {
        assert_upload_fails(harness, plan).await;
    }
}

/// A body from the service that is not as long as announced fails.
pub async fn download_is_held_to_its_announcement<H: Harness>(harness: &H) {
    for plan in wrong_plans(harness) {
        assert_download_fails(harness, plan).await;
    }
}

/// A handler that drops its body stops the writer while the call goes on.
pub async fn handler_that_drops_the_upload_stops_its_writer<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    let sending = fixture.send(Ask::Taste { hold: true }, flow.body(Plan::endless()));
    let watching = async {
        soon(flow.let_go.reaches(1)).await;
        assert_eq!(fixture.service.left.value(), 0, "the call is held");
        fixture.drain.begin();
    };
    let (reply, ()) = futures_util::join!(sending, watching);
    assert_eq!(reply.expect("an answer").response, Answer::Released);
    assert_eq!(fixture.served().await.cut, 0);
}

/// The answer of a handler that has read enough arrives, and the writer stops.
pub async fn handler_may_answer_before_the_upload_ends<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    for round in 1..=8 {
        let body = flow.body(Plan::endless());
        let reply = soon(fixture.send(Ask::Taste { hold: false }, body)).await;
        assert_eq!(reply.expect("an answer").response, Answer::Done);
        soon(flow.let_go.reaches(round)).await;
    }
}

/// A call dropped in the middle of its body stops both ends.
pub async fn dropped_call_breaks_its_upload<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    flow.send_max.set(harness.window_bytes() + 1);
    {
        let mut sending = pin!(fixture.send(Ask::Sink, flow.body(Plan::endless())));
        tokio::select! {
            answered = &mut sending => panic!("half a body was answered: {answered:?}"),
            _ = soon(flow.read.reaches(1)) => {}
        }
    }
    soon(flow.let_go.reaches(1)).await;
    soon(fixture.service.left.reaches(1)).await;
    assert_eq!(flow.ended.value(), 0, "half a body ended as a whole one");
    fixture.echo().await;
}

/// A dropped call fails its body also where the body outlives the handler.
pub async fn dropped_call_breaks_a_body_in_other_hands<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    flow.send_max.set(1);
    {
        let mut sending = pin!(fixture.send(Ask::Adopt, flow.body(Plan::endless())));
        tokio::select! {
            answered = &mut sending => panic!("half a body was answered: {answered:?}"),
            _ = soon(flow.read.reaches(1)) => {}
        }
    }
    soon(flow.failed.reaches(1)).await;
    soon(flow.let_go.reaches(1)).await;
    assert_eq!(flow.ended.value(), 0, "half a body ended as a whole one");
}

/// A caller that drops a body stops the service's writer, even one that waits for more to send.
pub async fn dropped_download_stops_its_writer<H: Harness>(harness: &H) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    for (round, room) in [(1, u64::MAX / 2), (2, 1)] {
        flow.send_max.set(flow.sent.value() + room);
        let mut body = soon(fixture.fetch(Ask::Source(Plan::endless()))).await;
        let read = soon(flow.read(&mut body, 1)).await;
        assert!(read.is_ok_and(|read| read > 0));
        drop(body);
        soon(flow.let_go.reaches(round)).await;
    }
    fixture.echo().await;
}

async fn assert_upload_fails<H: Harness>(harness: &H, plan: Plan) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.uploads;
    let reply = soon(fixture.send(Ask::Sink, flow.body(plan))).await;
    assert!(reply.is_err(), "{plan:?} was answered with {reply:?}");
    // The handler sees the failure or is dropped, if it began at all.
    soon(
        fixture
            .service
            .left
            .reaches(fixture.service.entered.value()),
    )
    .await;
    assert_eq!(flow.ended.value(), 0, "{plan:?} ended well");
    fixture.echo().await;
}

async fn assert_download_fails<H: Harness>(harness: &H, plan: Plan) {
    let fixture = Fixture::start(harness).await;
    let flow = &fixture.service.downloads;
    // A transport may notice before it sends the head.
    if let Ok(reply) = soon(fixture.call(Ask::Source(plan))).await {
        let mut body = into_body(reply);
        let read = soon(flow.read(&mut body, u64::MAX)).await;
        assert!(read.is_err(), "{plan:?} was read as {read:?}");
    }
    fixture.echo().await;
}

fn broken_plans(harness: &impl Harness) -> impl Iterator<Item = Plan> {
    let window = harness.window_bytes();
    let sizes = [0, 1, window, 2 * window + 1];
    let plans = sizes.map(|bytes| {
        let announced = Plan {
            bytes,
            announced: Some(bytes + 1),
            fails: true,
        };
        [Plan::unannounced(bytes).failing(), announced]
    });
    plans.into_iter().flatten()
}

fn wrong_plans(harness: &impl Harness) -> impl Iterator<Item = Plan> {
    let window = harness.window_bytes();
    let lengths = [
        (0, 1),
        (1, 0),
        (1, 2),
        (window, window + 1),
        (2 * window, window),
    ];
    lengths.into_iter().map(|(bytes, announced)| Plan {
        bytes,
        announced: Some(announced),
        fails: false,
    })
}
