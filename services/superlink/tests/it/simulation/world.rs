//! The processes around the actors: a SuperLink that comes and goes, and calls that get lost.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppIoService as _};
use flwr_api::control::ControlService as _;
use flwr_api::fleet::{self, FleetService as _, ObjectState};
use flwr_api::{FabHash, Launchers, NodeId, Phase, RunId, RunStatus, Token, UnixTime};
use flwr_state::{Clock, Fabs, State, StoreResult, Wakeups};
use flwr_superlink::appio::AppIoApi;
use flwr_superlink::fleet::FleetApi;
use flwr_superlink::{Entropy, Runtime, SuperLink};
use flwr_transport::{Bearer, Body, Code, Context, Drain, Identity, Peer, PublicKey, Status};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::disk::{Disk, Faulty};
use super::random::Random;
use crate::world::{Letter, letter, start_run};

/// Who calls.
pub(super) enum Sender {
    /// The node with this key.
    Node(u8),
    /// A ServerApp, with its token where one is asked for.
    App(Option<Token>),
}

/// A SuperLink at work.
pub(super) struct Link {
    pub(super) fleet: FleetApi<State<Faulty>, Bundles>,
    pub(super) appio: AppIoApi<State<Faulty>, Bundles>,
    is_dead: Arc<AtomicBool>,
    sweep: JoinHandle<()>,
}

pub(super) struct World {
    random: Arc<Random>,
    disk: Arc<Disk>,
    bundles: Bundles,
    clock: Arc<VirtualClock>,
    /// Nothing while nobody is there.
    link: Mutex<Option<Arc<Link>>>,
    /// Whether the ServerApp has asked for the end of its run.
    is_over: AtomicBool,
}

#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> UnixTime {
        UnixTime::new(1_757_000_000.0 + self.0.elapsed().as_secs_f64())
    }
}

#[derive(Debug)]
struct Drawn(Arc<Random>);

impl Entropy for Drawn {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.0.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// App bundles, which are on a disk of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Bundles(Arc<Mutex<HashMap<FabHash, Bytes>>>);

impl Fabs for Bundles {
    async fn put_fab(&self, hash: FabHash, content: Bytes) -> StoreResult<()> {
        self.0.lock().unwrap().insert(hash, content);
        Ok(())
    }

    async fn fab(&self, hash: FabHash) -> StoreResult<Option<Bytes>> {
        Ok(self.0.lock().unwrap().get(&hash).cloned())
    }
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            random: Arc::new(Random::new(seed)),
            disk: Arc::default(),
            bundles: Bundles::default(),
            clock: Arc::new(VirtualClock(Instant::now())),
            link: Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    /// Starts a SuperLink with what is on the disk.
    fn start(&self) {
        let link = self.superlink(&Arc::default());
        *self.link.lock().unwrap() = Some(link.1);
    }

    fn superlink(
        &self,
        is_dead: &Arc<AtomicBool>,
    ) -> (SuperLink<State<Faulty>, Bundles>, Arc<Link>) {
        let storage = self.disk.storage(&self.random, is_dead);
        let state = State::restore(storage, self.disk.rows(), Wakeups::new(), self.clock.now());
        let link = SuperLink::new(
            state.unwrap(),
            self.bundles.clone(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(Drawn(Arc::clone(&self.random))),
            flwr_superlink::Config::default(),
        );
        let sweeping = link.clone();
        let services = Link {
            fleet: link.fleet(false),
            appio: link.appio(Launchers::Anyone),
            is_dead: Arc::clone(is_dead),
            sweep: tokio::spawn(async move { sweeping.sweep(&Drain::new()).await }),
        };
        (link, Arc::new(services))
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap().clone()
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// The run may be over from now on.
    pub(super) fn ends(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    pub(super) fn chance(&self, of: f64) -> bool {
        self.random.fraction() < of
    }

    pub(super) fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64(self.random.fraction())
    }

    /// Asks until an answer arrives, as clients of Flower do. Whoever learns that the run is over
    /// does nothing more.
    pub(super) async fn insist<T>(&self, ask: impl AsyncFn(&Link) -> Result<T, Status>) -> T {
        match self.insist_till_the_end(ask).await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Asks until an answer arrives; nothing if that is that the run is over. What goes wrong on the
    /// way says so: every other refusal is against the rules.
    pub(super) async fn insist_till_the_end<T>(
        &self,
        ask: impl AsyncFn(&Link) -> Result<T, Status>,
    ) -> Option<T> {
        loop {
            sleep(self.up_to(Duration::from_millis(50))).await;
            if let Some(link) = self.current() {
                let answer = ask(&link).await;
                sleep(self.up_to(Duration::from_millis(50))).await;
                let arrives = !link.is_dead.load(Ordering::Relaxed) && !self.chance(0.1);
                match answer {
                    Ok(answer) if arrives => return Some(answer),
                    Err(status) if status.code == Code::PermissionDenied && self.is_over() => {
                        return None;
                    }
                    Err(status) if arrives => {
                        let codes = [Code::Unavailable, Code::ResourceExhausted];
                        assert!(codes.contains(&status.code), "{status}");
                    }
                    _ => {}
                }
            }
            sleep(self.up_to(Duration::from_secs(3))).await;
        }
    }

    pub(super) fn context(&self, by: &Sender) -> Context {
        let (identity, token) = match by {
            Sender::Node(key) => {
                let key = PublicKey::from_spki_der(vec![*key].into());
                (Identity::NodeKey(key), None)
            }
            Sender::App(token) => (Identity::Anonymous, token.as_ref()),
        };
        Context {
            peer: Arc::new(Peer {
                identity,
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                transport: "test",
            }),
            bearer: token.map(|token| Bearer::new(token.expose())),
            deadline: Instant::now() + Duration::from_secs(60),
            drain: Drain::new(),
            gone: CancellationToken::new(),
            presence: None,
        }
    }

    pub(super) async fn join(&self, key: u8) -> NodeId {
        self.insist(async |link| {
            let call = fleet::CreateNode {
                heartbeat_interval: 30.0,
            };
            let by = Sender::Node(key);
            link.fleet.create_node(&self.context(&by), call).await
        })
        .await
    }

    /// Submits a run on a SuperLink of its own, then starts the one that is killed, and begins the
    /// run's ServerApp there.
    pub(super) async fn begin_run(&self) -> (RunId, Sender) {
        let (anyone, is_dead) = (Sender::App(None), Arc::default());
        let (link, services) = self.superlink(&is_dead);
        let run = loop {
            let call = start_run();
            let control = link.control(Runtime::Deployment);
            if let Ok(Some(run)) = control.start_run(&self.context(&anyone), call).await {
                break run;
            }
        };
        let token = loop {
            let call = appio::RequestToken { run };
            let by = self.context(&anyone);
            if let Ok(Some(token)) = services.appio.request_token(&by, call).await {
                break token;
            }
            sleep(Duration::from_secs(61)).await;
        };
        services.sweep.abort();
        is_dead.store(true, Ordering::Relaxed);
        self.start();
        let app = Sender::App(Some(token));
        self.insist(async |link| {
            let wait = Duration::ZERO;
            let call = appio::PullInputs { wait };
            link.appio.pull_inputs(&self.context(&app), call).await
        })
        .await;
        self.insist(async |link| {
            let call = appio::UpdateRunStatus {
                run,
                status: Some(RunStatus::of(Phase::Running)),
            };
            link.appio
                .update_run_status(&self.context(&app), call)
                .await
        })
        .await;
        (run, app)
    }

    pub(super) fn letter(
        &self,
        run: RunId,
        src: NodeId,
        dst: NodeId,
        reply_to: &str,
        name: &str,
    ) -> Letter {
        let mut letter = letter(self.clock.now(), (run, src, dst), reply_to, name);
        // Nothing expires, and a reply not later than its instruction.
        letter.message.metadata.ttl = if reply_to.is_empty() { 4e5 } else { 2e5 };
        letter
    }
}

/// Kills the SuperLink again and again; another one comes sooner or later.
pub(super) async fn chaos(world: Arc<World>) {
    loop {
        sleep(world.up_to(Duration::from_secs(20))).await;
        if let Some(link) = world.link.lock().unwrap().take() {
            link.is_dead.store(true, Ordering::Relaxed);
            link.sweep.abort();
        }
        sleep(world.up_to(Duration::from_secs(40))).await;
        world.start();
    }
}

/// The bytes of an object that is to be had.
pub(super) async fn whole(
    (state, body): (ObjectState, Option<Body>),
) -> Result<(ObjectState, Option<Bytes>), Status> {
    let Some(body) = body else {
        return Ok((state, None));
    };
    let bytes = body.collect(u64::MAX).await;
    let bytes = bytes.map_err(|_| Status::new(Code::Unavailable, "it broke off"))?;
    Ok((state, Some(bytes)))
}
