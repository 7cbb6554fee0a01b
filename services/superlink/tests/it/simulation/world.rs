//! The processes around the actors: a SuperLink that comes and goes, and calls that get lost.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppIo, AppIoClient};
use flwr_api::control::{self, Control, ControlClient};
use flwr_api::fleet::{self, Fleet, FleetClient, ObjectState};
use flwr_api::{FabHash, Launchers, NodeId, Phase, RunId, RunStatus, Token, UnixTime};
use flwr_state::{Clock, Fabs, State, StoreResult, Wakeups};
use flwr_superlink::{Entropy, Runtime, SuperLink};
use flwr_transport::{
    Acceptor as _, Bearer, Body, Code, ConnectError, Connector as _, Drain, Handler, Identity,
    Protocol, PublicKey, Status, memory,
};
use futures_util::stream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::disk::Disk;
use super::random::Random;
use crate::world::{Letter, letter, start_run};

/// A SuperLink at work, and the network to it.
pub(super) struct Link {
    control: memory::Connector<Control>,
    fleet: memory::Connector<Fleet>,
    appio: memory::Connector<AppIo>,
    is_dead: Arc<AtomicBool>,
    process: Mutex<JoinSet<()>>,
}

impl Link {
    /// A new connection of whoever submits a run.
    async fn control(&self) -> Result<ControlClient, Status> {
        let caller = self.control.connect().await.map_err(out_of_reach)?;
        Ok(ControlClient::new(Arc::new(caller)))
    }

    /// A new connection of the node with this key.
    pub(super) async fn fleet(&self, key: u8) -> Result<FleetClient, Status> {
        let key = PublicKey::from_spki_der(vec![key].into());
        let connector = self.fleet.with_identity(Identity::NodeKey(key));
        let caller = connector.connect().await.map_err(out_of_reach)?;
        Ok(FleetClient::new(Arc::new(caller)))
    }

    /// A new connection of a ServerApp, with its token where one is asked for.
    pub(super) async fn appio(&self, token: Option<&Token>) -> Result<AppIoClient, Status> {
        let caller = self.appio.connect().await.map_err(out_of_reach)?;
        let client = AppIoClient::new(Arc::new(caller));
        Ok(match token {
            Some(token) => client.bearing(Bearer::new(token.expose())),
            None => client,
        })
    }

    fn lose_connections(&self) {
        self.fleet.lose_connections();
        self.appio.lose_connections();
    }

    fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
        self.process.lock().unwrap().abort_all();
    }
}

fn out_of_reach(error: ConnectError) -> Status {
    Status::new(Code::Unavailable, error.message)
}

/// Serves on a network of its own, in which bodies are cut into small pieces.
fn serve<P: Protocol, H: Handler<P>>(
    process: &mut JoinSet<()>,
    handler: H,
) -> memory::Connector<P> {
    let (connector, acceptor) = memory::pair(memory::Options {
        piece_bytes_max: 10 << 10,
        ..memory::Options::default()
    });
    process.spawn(async move {
        let ended = acceptor.serve(Arc::new(handler), Drain::new()).await;
        panic!("nobody asks it to end: {ended:?}");
    });
    connector
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
    /// How often a SuperLink has started.
    starts: AtomicU32,
    /// How many uploads have gone on where they broke off.
    resumed: AtomicU32,
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
            starts: AtomicU32::new(0),
            resumed: AtomicU32::new(0),
        })
    }

    /// Starts a SuperLink with what is on the disk.
    fn start(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        *self.link.lock().unwrap() = Some(Arc::new(self.superlink()));
    }

    fn superlink(&self) -> Link {
        let is_dead = Arc::default();
        let storage = self.disk.storage(&self.random, &is_dead);
        let state = State::restore(storage, self.disk.rows(), Wakeups::new(), self.clock.now());
        let link = SuperLink::new(
            state.unwrap(),
            self.bundles.clone(),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(Drawn(Arc::clone(&self.random))),
            flwr_superlink::Config::default(),
        );
        let mut process = JoinSet::new();
        let control = serve(
            &mut process,
            control::Serve(link.control(Runtime::Deployment)),
        );
        let fleet = serve(&mut process, fleet::Serve(link.fleet(false)));
        let appio = serve(&mut process, appio::Serve(link.appio(Launchers::Anyone)));
        process.spawn(async move { link.sweep(&Drain::new()).await });
        Link {
            control,
            fleet,
            appio,
            is_dead,
            process: Mutex::new(process),
        }
    }

    fn current(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap().clone()
    }

    /// How often a SuperLink has started.
    pub(super) fn starts(&self) -> u32 {
        self.starts.load(Ordering::Relaxed)
    }

    /// An upload has gone on where it broke off.
    pub(super) fn went_on(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have.
    pub(super) fn resumed(&self) -> u32 {
        self.resumed.load(Ordering::Relaxed)
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

    /// Asks until an answer arrives; nothing if that is that the run is over.
    pub(super) async fn insist_till_the_end<T>(
        &self,
        ask: impl AsyncFn(&Link) -> Result<T, Status>,
    ) -> Option<T> {
        loop {
            match self.once(&ask).await {
                Answer::Came(answer) => return Some(answer),
                Answer::RunIsOver => return None,
                Answer::Lost => sleep(self.up_to(Duration::from_secs(3))).await,
            }
        }
    }

    /// Asks once. What goes wrong on the way says so: every other refusal is against the rules.
    pub(super) async fn once<T>(
        &self,
        ask: &impl AsyncFn(&Link) -> Result<T, Status>,
    ) -> Answer<T> {
        sleep(self.up_to(Duration::from_millis(50))).await;
        let Some(link) = self.current() else {
            return Answer::Lost;
        };
        let answer = ask(&link).await;
        sleep(self.up_to(Duration::from_millis(50))).await;
        let arrives = !link.is_dead.load(Ordering::Relaxed) && !self.chance(0.1);
        match answer {
            Ok(answer) if arrives => Answer::Came(answer),
            Err(status) if status.code == Code::PermissionDenied && self.is_over() => {
                Answer::RunIsOver
            }
            Err(status) if arrives => {
                let codes = [Code::Unavailable, Code::ResourceExhausted];
                assert!(codes.contains(&status.code), "{status}");
                Answer::Lost
            }
            _ => Answer::Lost,
        }
    }

    /// A body that takes its time.
    pub(super) fn slow(self: &Arc<Self>, bytes: Bytes) -> Body {
        let (len, world) = (bytes.len() as u64, Arc::clone(self));
        let pieces = stream::unfold(bytes, move |mut rest| {
            let world = Arc::clone(&world);
            async move {
                if rest.is_empty() {
                    return None;
                }
                sleep(world.up_to(Duration::from_secs(1))).await;
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                Some((Ok(piece), rest))
            }
        });
        Body::from_stream(Some(len), pieces)
    }

    pub(super) async fn join(&self, key: u8) -> NodeId {
        self.insist(async |link| {
            let call = fleet::CreateNode {
                heartbeat_interval: 30.0,
            };
            link.fleet(key).await?.create_node(call, soon()).await
        })
        .await
    }

    /// Submits a run on a SuperLink of its own, then starts the one that is killed, and begins the
    /// run's ServerApp there.
    pub(super) async fn begin_run(&self) -> (RunId, Token) {
        let link = self.superlink();
        let run = loop {
            let control = link.control().await.unwrap();
            if let Ok(Some(run)) = control.start_run(start_run(), soon()).await {
                break run;
            }
        };
        let token = loop {
            let anyone = link.appio(None).await.unwrap();
            let call = appio::RequestToken { run };
            if let Ok(Some(token)) = anyone.request_token(call, soon()).await {
                break token;
            }
            sleep(Duration::from_secs(61)).await;
        };
        link.kill();
        self.start();
        self.insist(async |link| {
            let wait = Duration::ZERO;
            let call = appio::PullInputs { wait };
            link.appio(Some(&token))
                .await?
                .pull_inputs(call, soon())
                .await
        })
        .await;
        self.insist(async |link| {
            let call = appio::UpdateRunStatus {
                run,
                status: Some(RunStatus::of(Phase::Running)),
            };
            link.appio(Some(&token))
                .await?
                .update_run_status(call, soon())
                .await
        })
        .await;
        (run, token)
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
pub(super) async fn kills(world: Arc<World>) {
    loop {
        sleep(world.up_to(Duration::from_secs(20))).await;
        if let Some(link) = world.link.lock().unwrap().take() {
            link.kill();
        }
        sleep(world.up_to(Duration::from_secs(40))).await;
        world.start();
    }
}

/// Breaks the connections of everybody again and again.
pub(super) async fn losses(world: Arc<World>) {
    loop {
        sleep(world.up_to(Duration::from_secs(15))).await;
        if let Some(link) = world.current() {
            link.lose_connections();
        }
    }
}

/// What came of a call.
pub(super) enum Answer<T> {
    Came(T),
    Lost,
    RunIsOver,
}

/// By when a call has to be answered.
pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
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

/// How much of a slow body comes at once.
const PIECE_BYTES: usize = 30 << 10;
