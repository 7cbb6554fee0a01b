//! In virtual time: over the in-process transport, and over connectors that fail as they are told.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::*;
use crate::body::Body;
use crate::conformance::{Answer, Ask, Service, Toy};
use crate::drain::Drain;
use crate::memory;
use crate::serve::{Acceptor as _, ConnectError};

const HOUR: Duration = Duration::from_secs(3600);

/// Attempts to connect: what to do with each, and when it was made.
struct Attempting<C> {
    inner: C,
    plan: Mutex<VecDeque<Plan>>,
    made: Arc<AtomicUsize>,
    at: Arc<Mutex<Vec<Instant>>>,
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    Connect,
    Fail,
    FailForGood,
    Hang,
}

impl<C: Connector<Toy>> Connector<Toy> for Attempting<C> {
    type Caller = C::Caller;

    /// Connects once the plan is used up.
    async fn connect(&self) -> Result<C::Caller, ConnectError> {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.at.lock().unwrap().push(Instant::now());
        let plan = self
            .plan
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let fail = |retryable, message: &str| {
            let message = message.to_owned();
            Err(ConnectError { retryable, message })
        };
        match plan.unwrap_or(Plan::Connect) {
            Plan::Connect => self.inner.connect().await,
            Plan::Fail => fail(true, "nobody there"),
            Plan::FailForGood => fail(false, "wrong certificate"),
            Plan::Hang => std::future::pending().await,
        }
    }
}

struct World {
    redial: Arc<Redial<Toy, Attempting<memory::Connector<Toy>>>>,
    network: memory::Connector<Toy>,
    service: Arc<Service>,
    drain: Drain,
    made: Arc<AtomicUsize>,
    at: Arc<Mutex<Vec<Instant>>>,
}

/// A served pair and a redial whose pauses are as long as they can be.
fn world(policy: Policy, plan: &[Plan]) -> World {
    let (network, acceptor) = memory::pair(memory::Options::default());
    let (service, drain) = (Arc::new(Service::default()), Drain::new());
    tokio::spawn(acceptor.serve(Arc::clone(&service), drain.clone()));
    let (made, at) = (Arc::default(), Arc::default());
    let connector = Attempting {
        inner: network.clone(),
        plan: Mutex::new(plan.iter().copied().collect()),
        made: Arc::clone(&made),
        at: Arc::clone(&at),
    };
    World {
        redial: Arc::new(Redial::new(connector, policy, || 1.0)),
        network,
        service,
        drain,
        made,
        at,
    }
}

impl World {
    fn attempts(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// How long after the first attempt each other was made.
    fn pauses(&self) -> Vec<Duration> {
        let at = self.at.lock().unwrap();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    async fn echo(&self) -> Result<Reply<Toy>, Status> {
        self.redial.call(echo()).await
    }
}

fn echo() -> Call<Toy> {
    Call::new(Ask::Echo("hello".into()), Instant::now() + HOUR)
}

fn held() -> Call<Toy> {
    Call::new(Ask::Hold { until_drain: false }, Instant::now() + HOUR)
}

fn bounded(tries_max: Option<u32>, time_max: Option<Duration>) -> Policy {
    Policy {
        tries_max,
        time_max,
        ..Policy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn connects_on_demand_and_once_for_all_calls() {
    let world = world(Policy::default(), &[]);
    let states = world.redial.states();
    tokio::time::sleep(HOUR).await;
    assert_eq!(world.attempts(), 0);
    assert_eq!(*states.borrow(), LinkState::Idle);
    let mut calls = JoinSet::new();
    for _ in 0..50 {
        let redial = Arc::clone(&world.redial);
        calls.spawn(async move { redial.call(echo()).await });
    }
    for answered in calls.join_all().await {
        assert_eq!(answered.unwrap().response, Answer::Echo("hello".into()));
    }
    assert_eq!(world.attempts(), 1);
    let peer = world.redial.peer();
    assert_eq!(peer.transport, memory::TRANSPORT);
    assert_eq!(*states.borrow(), LinkState::Connected(peer.addr));
}

#[tokio::test(start_paused = true)]
async fn pauses_double_up_to_their_bound() {
    let world = world(Policy::default(), &[Plan::Fail; 9]);
    world.echo().await.unwrap();
    let pauses: Vec<_> = world.pauses().iter().map(Duration::as_millis).collect();
    assert_eq!(
        pauses,
        [250, 500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_replaced_and_what_may_be_repeated_is() {
    let world = world(Policy::default(), &[]);
    world.echo().await.unwrap();
    let mut states = world.redial.states();
    world.network.lose_connections();
    states.changed().await.unwrap();
    let lost = "the other end stopped answering".to_owned();
    assert_eq!(*states.borrow_and_update(), LinkState::Lost(lost));
    // The next call brings the next connection, after a pause.
    assert_eq!(world.attempts(), 1);
    let begun = Instant::now();
    world.echo().await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 250);
    assert_eq!(world.attempts(), 2);
    // An answer came since, so pauses are short again.
    world.network.lose_connections();
    let begun = Instant::now();
    world.echo().await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 250);
}

#[tokio::test(start_paused = true)]
async fn connections_that_never_carry_an_answer_do_not_shorten_the_pauses() {
    let world = world(Policy::default(), &[]);
    for expected in [0, 250, 500, 1000, 2000] {
        let begun = Instant::now();
        let redial = Arc::clone(&world.redial);
        let entered = world.service.entered.value();
        let call = tokio::spawn(async move { redial.call(held()).await });
        world.service.entered.reaches(entered + 1).await;
        assert_eq!(begun.elapsed().as_millis(), expected);
        world.network.lose_connections();
        assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_fails_with_its_connection() {
    let world = world(Policy::default(), &[]);
    let body = Body::from_bytes(Bytes::from_static(b"abc"));
    let with_body = held().with_body(body);
    for call in [held(), with_body] {
        let redial = Arc::clone(&world.redial);
        let entered = world.service.entered.value();
        let call = tokio::spawn(async move { redial.call(call).await });
        world.service.entered.reaches(entered + 1).await;
        world.network.lose_connections();
        assert_eq!(call.await.unwrap().unwrap_err().code, Code::Unavailable);
        assert_eq!(world.service.entered.value(), entered + 1);
    }
    // Idempotent as it is, an echo with a body has lost it.
    let failing = failing_caller(Code::Unavailable, 1);
    let call = echo().with_body(Body::from_bytes(Bytes::from_static(b"abc")));
    assert_eq!(
        failing.call(call).await.unwrap_err().code,
        Code::Unavailable
    );
    assert_eq!(failing.call(echo()).await.unwrap().response, Answer::Done);
}

/// A connector to a server that answers its first calls with a failure.
#[derive(Debug)]
struct Failing {
    code: Code,
    left: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct FailingCaller {
    peer: Peer,
    code: Code,
    left: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

fn failing_caller(code: Code, times: usize) -> Redial<Toy, Failing> {
    failing(Policy::default(), code, times).0
}

fn failing(policy: Policy, code: Code, times: usize) -> (Redial<Toy, Failing>, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let connector = Failing {
        code,
        left: Arc::new(AtomicUsize::new(times)),
        calls: Arc::clone(&calls),
    };
    (Redial::new(connector, policy, || 1.0), calls)
}

impl Connector<Toy> for Failing {
    type Caller = FailingCaller;

    async fn connect(&self) -> Result<FailingCaller, ConnectError> {
        Ok(FailingCaller {
            peer: Peer {
                identity: Identity::Anonymous,
                addr: SocketAddr::from(([127, 0, 0, 1], 1)),
                transport: "failing",
            },
            code: self.code,
            left: Arc::clone(&self.left),
            calls: Arc::clone(&self.calls),
        })
    }
}

impl Caller<Toy> for FailingCaller {
    fn peer(&self) -> &Peer {
        &self.peer
    }

    async fn call(&self, _call: Call<Toy>) -> Result<Reply<Toy>, Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        match left {
            Ok(_) => Err(Status::new(self.code, "not now")),
            Err(_) => Ok(Reply::new(Answer::Done)),
        }
    }

    async fn closed(&self) -> Closed {
        std::future::pending().await
    }

    fn close(&self, _reason: &'static str) {}
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_answer_now_is_asked_again() {
    let (redial, calls) = failing(Policy::default(), Code::Unavailable, 4);
    let begun = Instant::now();
    assert_eq!(redial.call(echo()).await.unwrap().response, Answer::Done);
    assert_eq!(calls.load(Ordering::Relaxed), 5);
    assert_eq!(begun.elapsed().as_millis(), 250 + 500 + 1000 + 2000);
    for code in Code::ALL.into_iter().filter(|code| !code.is_retryable()) {
        let (redial, calls) = failing(Policy::default(), code, 1);
        assert_eq!(redial.call(echo()).await.unwrap_err().code, code);
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_drains_is_left_for_a_new_connection() {
    let (redial, _calls) = failing(Policy::default(), Code::Draining, 2);
    let mut states = redial.states();
    let seen = tokio::spawn(async move {
        let mut seen = Vec::new();
        while states.changed().await.is_ok() {
            seen.push(states.borrow_and_update().clone());
        }
        seen
    });
    redial.call(echo()).await.unwrap();
    drop(redial);
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let lost = LinkState::Lost("the other end is shutting down".into());
    let seen = seen.await.unwrap();
    assert_eq!(seen.iter().filter(|state| **state == lost).count(), 2);
    assert_eq!(seen.last(), Some(&LinkState::Connected(addr)));
}

#[tokio::test(start_paused = true)]
async fn bounds_hold_for_each_call() {
    let world = world(bounded(Some(3), None), &[Plan::Fail; 7]);
    for failures in [3, 6] {
        let failed = world.echo().await.unwrap_err();
        assert_eq!(
            (failed.code, &*failed.message),
            (Code::Unavailable, "nobody there")
        );
        assert_eq!(world.attempts(), failures);
    }
    // One failure and then a connection are within the bounds.
    world.echo().await.unwrap();
    let (redial, calls) = failing(bounded(Some(3), None), Code::Unavailable, 9);
    assert_eq!(
        redial.call(echo()).await.unwrap_err().code,
        Code::Unavailable
    );
    assert_eq!(calls.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn time_can_be_bounded() {
    let second = Duration::from_secs(1);
    for plan in [&[Plan::Fail; 99][..], &[Plan::Hang]] {
        let world = world(bounded(None, Some(30 * second)), plan);
        let begun = Instant::now();
        let failed = world.echo().await.unwrap_err();
        assert_eq!(failed.code, Code::Unavailable);
        assert_eq!(begun.elapsed().as_secs(), 30);
    }
    let (redial, _calls) = failing(bounded(None, Some(30 * second)), Code::Unavailable, 99);
    let begun = Instant::now();
    assert_eq!(
        redial.call(echo()).await.unwrap_err().code,
        Code::Unavailable
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_for_a_connection() {
    for plan in [&[Plan::Fail; 99][..], &[Plan::Hang]] {
        let world = world(Policy::default(), plan);
        let begun = Instant::now();
        let call = Call::new(Ask::Echo(String::new()), begun + Duration::from_secs(5));
        let failed = world.redial.call(call).await.unwrap_err();
        assert_eq!(failed.code, Code::DeadlineExceeded);
        assert_eq!(begun.elapsed().as_secs(), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_must_repair_is_fatal_with_bounds_only() {
    let world = world(bounded(Some(9), None), &[Plan::Fail, Plan::FailForGood]);
    let failed = world.echo().await.unwrap_err();
    assert_eq!(&*failed.message, "wrong certificate");
    assert_eq!(world.attempts(), 2);
    let world = self::world(Policy::default(), &[Plan::FailForGood; 20]);
    world.echo().await.unwrap();
    assert_eq!(world.attempts(), 21);
}

#[tokio::test(start_paused = true)]
async fn nobody_who_waits_means_no_attempts() {
    let world = world(Policy::default(), &[Plan::Fail; 99]);
    let call = Call::new(
        Ask::Echo(String::new()),
        Instant::now() + Duration::from_secs(5),
    );
    world.redial.call(call).await.unwrap_err();
    tokio::time::sleep(HOUR).await;
    let attempts = world.attempts();
    tokio::time::sleep(HOUR).await;
    assert_eq!(world.attempts(), attempts);
}

#[tokio::test(start_paused = true)]
async fn states_tell_how_it_goes() {
    let world = world(Policy::default(), &[Plan::Fail, Plan::Fail]);
    let mut states = world.redial.states();
    let redial = Arc::clone(&world.redial);
    let call = tokio::spawn(async move { redial.call(echo()).await });
    for millis in [250, 500] {
        states.changed().await.unwrap();
        let (why, after) = ("nobody there".into(), Duration::from_millis(millis));
        assert_eq!(
            *states.borrow_and_update(),
            LinkState::Retrying { why, after }
        );
    }
    states.changed().await.unwrap();
    assert!(matches!(
        *states.borrow_and_update(),
        LinkState::Connected(_)
    ));
    call.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_ends_calls_and_attempts() {
    for (call, plan) in [
        (held(), Plan::Connect),
        (echo(), Plan::Hang),
        (echo(), Plan::Fail),
    ] {
        let world = world(Policy::default(), &[plan]);
        let redial = Arc::clone(&world.redial);
        let call = tokio::spawn(async move { redial.call(call).await });
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(Caller::closed(&*world.redial).now_or_never().is_none());
        world.redial.close("enough");
        assert_eq!(
            call.await.unwrap().unwrap_err().code,
            Code::Unavailable,
            "{plan:?}"
        );
        assert_eq!(Caller::closed(&*world.redial).await, Closed::Here("enough"));
        assert_eq!(world.echo().await.unwrap_err().code, Code::Unavailable);
        assert_eq!(world.attempts(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_looked_for_until_the_deadline() {
    // The acceptor is gone for good, so attempts go on until the deadline.
    let world = world(Policy::default(), &[]);
    world.echo().await.unwrap();
    world.drain.begin();
    let call = Call::new(
        Ask::Echo(String::new()),
        Instant::now() + Duration::from_secs(60),
    );
    let failed = world.redial.call(call).await.unwrap_err();
    assert_eq!(failed.code, Code::DeadlineExceeded);
    assert!(failed.message.contains("nobody accepts"), "{failed}");
    assert!(world.attempts() > 5);
}
