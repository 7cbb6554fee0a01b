//! What goes on when the way was interrupted for seconds, and what is said while nothing is to be said.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::conformance::{Answer, Ask, Counter, Plan, Service, Toy};
use flwr_transport::{Acceptor as _, Call, Caller as _, Connector as _, Drain, Tail};
use flwr_transport_quic::{Caller, Connector, Tuning};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::road::{ELSEWHERE, HERE, Road};
use crate::support::{Site, listen};

/// A client and a server far from each other.
struct World {
    service: Arc<Service>,
    road: Road,
    caller: Arc<Caller<Toy>>,
    _serving: AbortOnDropHandle<()>,
}

impl World {
    async fn new() -> Self {
        let site = Site::get();
        let acceptor = listen::<Toy>(site, site.options());
        let road = Road::to(acceptor.local_addr()).await;
        let service = Arc::new(Service::default());
        let serving = tokio::spawn({
            let service = Arc::clone(&service);
            async move {
                acceptor.serve(service, Drain::new()).await.unwrap();
            }
        });
        let tuning = Tuning::connecting();
        let connector = Connector::new(road.target.clone(), &site.anonymous(), &tuning).unwrap();
        Self {
            service,
            road,
            caller: Arc::new(connector.connect().await.unwrap()),
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    fn ask(&self, ask: Ask) -> Call<Toy> {
        let _ = self;
        Call::new(ask, Instant::now() + LONG)
    }

    /// Sends a body for as long as the test lives.
    fn upload(&self) -> AbortOnDropHandle<()> {
        let body = self.service.uploads.body(Plan::endless());
        let (caller, call) = (
            Arc::clone(&self.caller),
            self.ask(Ask::Sink).with_body(body),
        );
        AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = caller.call(call).await;
        }))
    }

    /// Reads a body for as long as the test lives.
    fn download(&self) -> AbortOnDropHandle<()> {
        let flow = self.service.downloads.clone();
        let (caller, call) = (
            Arc::clone(&self.caller),
            self.ask(Ask::Source(Plan::endless())),
        );
        AbortOnDropHandle::new(tokio::spawn(async move {
            let reply = caller.call(call).await.unwrap();
            let Tail::Body(mut body) = reply.tail else {
                panic!("a body was asked for");
            };
            let _ = flow.read(&mut body, u64::MAX).await;
        }))
    }

    /// Interrupts the way while `read` grows, and sees that it grows again soon after the client is heard `from` somewhere.
    async fn outage(&self, read: &Counter, from: Option<IpAddr>) {
        soon(read.reaches(4 << 20)).await;
        self.road.close();
        sleep(OUTAGE / 2).await;
        // What was in flight has filled the window by now.
        let sent = self.road.sent();
        sleep(OUTAGE / 2).await;
        let probes = self.road.sent() - sent;
        assert!((1..=20).contains(&probes), "{probes} packets into nowhere");
        let before = read.value();
        if let Some(from) = from {
            self.road.lead_from(from);
        }
        self.road.open();
        let opened = Instant::now();
        soon(read.reaches(before + 1)).await;
        assert!(opened.elapsed() < SILENCE_MAX, "{:?}", opened.elapsed());
        // And it is not only a packet that gets through.
        soon(read.reaches(before + (4 << 20))).await;
    }

    /// After a while, the client has nothing to say.
    async fn falls_silent(&self) {
        sleep(QUIET).await;
        let before = self.road.sent();
        sleep(2 * QUIET).await;
        assert_eq!(self.road.sent(), before);
    }
}

async fn soon<T>(awaited: impl Future<Output = T>) -> T {
    timeout(LONG, awaited).await.expect("in time")
}

#[tokio::test]
async fn an_upload_goes_on_after_an_outage() {
    let world = World::new().await;
    let _upload = world.upload();
    world.outage(&world.service.uploads.read, None).await;
}

#[tokio::test]
async fn an_upload_goes_on_from_another_port() {
    let world = World::new().await;
    let _upload = world.upload();
    world.outage(&world.service.uploads.read, Some(HERE)).await;
}

#[tokio::test]
async fn an_upload_goes_on_from_another_address() {
    let world = World::new().await;
    let _upload = world.upload();
    let read = &world.service.uploads.read;
    world.outage(read, Some(ELSEWHERE)).await;
}

#[tokio::test]
async fn a_download_goes_on_after_an_outage() {
    let world = World::new().await;
    let _download = world.download();
    world.outage(&world.service.downloads.read, None).await;
}

#[tokio::test]
async fn a_download_goes_on_at_another_port() {
    let world = World::new().await;
    let _download = world.download();
    let read = &world.service.downloads.read;
    world.outage(read, Some(HERE)).await;
}

#[tokio::test]
async fn a_download_goes_on_at_another_address() {
    let world = World::new().await;
    let _download = world.download();
    let read = &world.service.downloads.read;
    world.outage(read, Some(ELSEWHERE)).await;
}

#[tokio::test]
async fn a_call_made_meanwhile_is_answered_soon_after() {
    let world = World::new().await;
    world
        .caller
        .call(world.ask(Ask::Echo("x".into())))
        .await
        .unwrap();
    world.road.close();
    let asked = world.caller.call(world.ask(Ask::Echo("y".into())));
    let reopened = async {
        sleep(OUTAGE).await;
        world.road.lead_from(HERE);
        world.road.open();
        Instant::now()
    };
    let (answered, opened) = futures_util::join!(asked, reopened);
    assert_eq!(answered.unwrap().response, Answer::Echo("y".into()));
    assert!(opened.elapsed() < SILENCE_MAX, "{:?}", opened.elapsed());
}

#[tokio::test]
async fn a_call_that_is_held_costs_nothing() {
    let world = World::new().await;
    let held = world.ask(Ask::Hold { until_drain: true });
    let held = world.caller.call(held);
    let watched = async {
        soon(world.service.entered.reaches(1)).await;
        world.falls_silent().await;
    };
    tokio::select! {
        answered = held => panic!("{answered:?}"),
        () = watched => {}
    }
}

#[tokio::test]
async fn a_body_that_pauses_is_asked_for_once() {
    let world = World::new().await;
    let downloads = &world.service.downloads;
    downloads.send_max.set(1 << 20);
    let _download = world.download();
    soon(downloads.read.reaches(1 << 20)).await;
    world.falls_silent().await;
    // That it goes on while nothing gets through, only the server knows.
    world.road.close();
    downloads.send_max.set(2 << 20);
    let sent = world.road.sent();
    sleep(OUTAGE).await;
    assert_eq!(world.road.sent(), sent);
    world.road.open();
    let opened = Instant::now();
    soon(downloads.read.reaches((1 << 20) + 1)).await;
    assert!(opened.elapsed() < SILENCE_MAX, "{:?}", opened.elapsed());
    soon(downloads.read.reaches(2 << 20)).await;
}

/// How long everything together may take.
const LONG: Duration = Duration::from_secs(30);
/// Long enough that quinn's next probe is mostly seconds away.
const OUTAGE: Duration = Duration::from_secs(3);
/// From the end of an outage until something comes through: a probe, its answer, and what was lost.
const SILENCE_MAX: Duration = Duration::from_millis(700);
/// Longer than any sign of life is waited for.
const QUIET: Duration = Duration::from_millis(1200);
