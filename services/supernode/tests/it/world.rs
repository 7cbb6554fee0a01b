//! A SuperLink, a SuperNode that joined it over the in-process transport, and both ends' apps.

use std::io::{Cursor, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppInputs, AppIoService};
use flwr_api::control::{ControlService, StartRun, StopRun};
use flwr_api::fleet::{Fleet, FleetClient, Serve};
use flwr_api::{
    Delivery, Launchers, Message, MessageId, Metadata, NodeId, ObjectId, ObjectTree, Payload,
    Phase, RunId, RunStatus, Token, UnixTime, UserConfig,
};
use flwr_state::journal::NoteName;
use flwr_state::{Clock, DiskFabs, Entropy, Journal, MemoryState, ObjectFiles};
use flwr_superlink::appio::AppIoApi as ServerAppIo;
use flwr_superlink::control::ControlApi;
use flwr_superlink::fleet::FleetApi;
use flwr_superlink::{Runtime, SuperLink};
use flwr_supernode::{AppIoApi, Config, Ended, SuperNode};
use flwr_transport::{
    Acceptor, Bearer, Body, Connector, Context, Drain, Identity, Peer, PublicKey, Status, memory,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::calls::{Calls, Recorded};

type Fabs = DiskFabs;

/// Everything there is.
pub(crate) struct World {
    pub(crate) fleet: Arc<FleetApi<MemoryState, Fabs>>,
    pub(crate) server: Arc<ServerAppIo<MemoryState, Fabs>>,
    pub(crate) control: Arc<ControlApi<MemoryState, Fabs>>,
    /// The SuperNode's service for apps.
    pub(crate) apps: Arc<AppIoApi>,
    /// Every call that reached the SuperLink, and when.
    pub(crate) calls: Arc<Calls>,
    link: SuperLink<MemoryState, Fabs>,
    node: SuperNode,
    leaving: Drain,
    clock: Arc<VirtualClock>,
    /// What the SuperNode keeps.
    data: PathBuf,
    folder: tempfile::TempDir,
}

/// A world in which an app works on the first instruction of a run.
pub(crate) struct AtWork {
    pub(crate) world: World,
    pub(crate) node: NodeId,
    pub(crate) run: RunId,
    pub(crate) asked: MessageId,
    pub(crate) app: Context,
    /// What the app has pulled.
    pub(crate) instruction: Delivery,
}

impl AtWork {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let (node, _running) = world.join().await;
        let run = world.running().await;
        let asked = world.instruct(run, node, "a", "model").await;
        let app = world.launch(run).await;
        let instruction = world.pull(&app).await;
        Self {
            world,
            node,
            run,
            asked,
            app,
            instruction,
        }
    }
}

/// Unix time that passes with tokio's.
#[derive(Debug)]
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> UnixTime {
        UnixTime::new(1_757_000_000.0 + self.0.elapsed().as_secs_f64())
    }
}

/// Bytes that are never the same twice and always the same in a test.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed) + 0x8000_0000_0000_0100;
            chunk.copy_from_slice(&next.to_le_bytes()[..chunk.len()]);
        }
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(VirtualClock(Instant::now()));
        let entropy = Arc::new(Counting::default());
        let link = SuperLink::new(
            MemoryState::default(),
            DiskFabs::new(folder.path().join("link")),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::clone(&entropy) as Arc<dyn Entropy>,
            flwr_superlink::Config::default(),
        );
        let calls = Arc::new(Calls::default());
        let caller = connection(&link, &calls).await;
        let data = folder.path().join("objects");
        let node = SuperNode::new(
            config,
            caller,
            objects(&data),
            Journal::new(data.join("journal")),
            DiskFabs::new(folder.path().join("node")),
            Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
        );
        Self {
            fleet: Arc::new(link.fleet(false)),
            server: Arc::new(link.appio(Launchers::Anyone)),
            control: Arc::new(link.control(Runtime::Deployment)),
            apps: Arc::new(node.appio(Launchers::Anyone)),
            calls,
            link,
            node,
            leaving: Drain::new(),
            clock,
            data,
            folder,
        }
    }

    /// Kills the SuperNode: what it has asked stays unanswered, and its connection is not closed.
    pub(crate) fn kill(&mut self, running: JoinHandle<Result<(), Ended>>) {
        running.abort();
        self.calls.dead.store(true, Ordering::Relaxed);
        // The former self cannot be stopped half way, but what it writes from now on is lost.
        let mut data = self.data.clone().into_os_string();
        data.push("-again");
        let data = PathBuf::from(data);
        copy(&self.data, &data);
        self.data = data;
    }

    /// Starts another SuperNode with the same key and the data that the killed one left behind.
    pub(crate) async fn restart(&mut self) -> JoinHandle<Result<(), Ended>> {
        self.calls = Arc::new(Calls::default());
        self.node = SuperNode::new(
            Config::default(),
            connection(&self.link, &self.calls).await,
            objects(&self.data),
            self.journal(),
            DiskFabs::new(self.folder.path().join("node")),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            Arc::new(Counting(AtomicU64::new(1 << 32))),
        );
        self.apps = Arc::new(self.node.appio(Launchers::Anyone));
        self.start()
    }

    /// Removes all objects from the disk of a SuperNode that was killed.
    pub(crate) fn lose_objects(&self) {
        std::fs::remove_dir_all(self.data.join("objects")).unwrap();
    }

    /// Where the SuperNode writes down what it has in hand.
    pub(crate) fn journal(&self) -> Journal {
        Journal::new(self.data.join("journal"))
    }

    /// How many notes there are beside the one that says which node it is.
    pub(crate) async fn other_notes(&self) -> usize {
        let notes = self.journal().notes().await.unwrap();
        let node = NoteName::of(b"node");
        notes.iter().filter(|(name, _)| *name != node).count()
    }

    /// Starts the SuperNode and waits until it has joined.
    pub(crate) async fn join(&self) -> (NodeId, JoinHandle<Result<(), Ended>>) {
        let before = self.nodes().await;
        let running = self.start();
        loop {
            let nodes = self.nodes().await;
            if let Some(new) = nodes.iter().find(|node| !before.contains(node)) {
                return (*new, running);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn start(&self) -> JoinHandle<Result<(), Ended>> {
        let (node, drain) = (self.node.clone(), self.leaving.clone());
        tokio::spawn(async move { node.run(&drain).await })
    }

    pub(crate) async fn nodes(&self) -> Vec<NodeId> {
        let run = self.running().await;
        let call = appio::GetNodes { run };
        let nodes = self.server.nodes(&self.context(), call).await.unwrap();
        self.stop(run).await;
        nodes
    }

    pub(crate) fn ask_to_leave(&self) {
        self.leaving.begin();
    }

    /// A call by the SuperNode's own key.
    pub(crate) fn by_key(&self) -> Context {
        let mut context = self.context();
        context.peer = Arc::new(Peer {
            identity: Identity::NodeKey(key(7)),
            ..(*context.peer).clone()
        });
        context
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            peer: Arc::new(Peer {
                identity: Identity::Anonymous,
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                transport: "test",
            }),
            bearer: None,
            deadline: Instant::now() + Duration::from_secs(86_400),
            drain: Drain::new(),
            gone: CancellationToken::new(),
            presence: None,
            is_native: true,
        }
    }

    /// A run whose ServerApp has begun, with `rate = 2` in place of the app's `rate = 1`.
    pub(crate) async fn running(&self) -> RunId {
        let call = StartRun {
            fab: fab(),
            hash: None,
            overrides: UserConfig::from([("rate".into(), flwr_api::Scalar::Sint64(2))]),
            federation: String::new(),
            options: None,
            option_names: [].into(),
        };
        let run = self.control.start_run(&self.context(), call).await;
        let run = run.unwrap().unwrap();
        let call = appio::RequestToken { run };
        let token = self.server.request_token(&self.context(), call).await;
        let mut context = self.context();
        context.bearer = Some(Bearer::new(token.unwrap().unwrap().expose()));
        let wait = Duration::ZERO;
        let inputs = appio::PullInputs { wait };
        self.server.pull_inputs(&context, inputs).await.unwrap();
        let status = Some(RunStatus::of(Phase::Running));
        let call = appio::UpdateRunStatus { run, status };
        self.server.update_run_status(&context, call).await.unwrap();
        run
    }

    /// The run's ServerApp is alive.
    pub(crate) async fn beat(&self, run: RunId) {
        let call = appio::Heartbeat {
            run,
            heartbeat_interval: 30.0,
        };
        assert!(self.server.heartbeat(&self.context(), call).await.unwrap());
    }

    pub(crate) async fn stop(&self, run: RunId) {
        let call = StopRun { run };
        self.control.stop_run(&self.context(), call).await.unwrap();
    }

    /// Sends an instruction that is made of two objects: one that is `name`'s alone and one that is
    /// shared by all of the same `content`.
    pub(crate) async fn instruct(
        &self,
        run: RunId,
        node: NodeId,
        name: &str,
        content: &str,
    ) -> MessageId {
        let id = self.say(run, node, name, content).await;
        for part in parts(name, content) {
            self.upload(run, part).await;
        }
        id
    }

    /// Announces such an instruction, and sends none of its objects.
    pub(crate) async fn say(
        &self,
        run: RunId,
        node: NodeId,
        name: &str,
        content: &str,
    ) -> MessageId {
        let parts = parts(name, content);
        let mut message = self.message(run, (NodeId::SUPERLINK, node), "", parts[1].0);
        message.metadata.ttl = LIFE_SECONDS;
        let call = appio::PushMessages {
            run,
            messages: vec![message.clone()],
            trees: vec![tree(&parts)],
        };
        self.server
            .push_messages(&self.context(), call)
            .await
            .unwrap();
        message.metadata.id
    }

    /// Sends an object of an instruction.
    pub(crate) async fn upload(&self, run: RunId, (object, bytes): (ObjectId, Bytes)) {
        let node = NodeId::SUPERLINK;
        let call = appio::PushObject { node, run, object };
        let body = Body::from_bytes(bytes);
        let stored = self.server.push_object(&self.context(), call, body).await;
        assert!(stored.unwrap());
    }

    /// The reply to an instruction, waiting for it as long as it takes.
    pub(crate) async fn reply(&self, run: RunId, to: &MessageId) -> Delivery {
        let call = appio::PullMessages {
            run,
            instructions: vec![to.clone()],
            wait: Duration::from_secs(40_000),
            linger: Duration::ZERO,
        };
        let replies = self.server.pull_messages(&self.context(), call).await;
        replies.unwrap().remove(0)
    }

    /// Waits for a launch and claims it; returns the context of the app's calls.
    pub(crate) async fn launch(&self, run: RunId) -> Context {
        let wait = Duration::from_secs(40_000);
        let list = appio::ListAppsToLaunch { wait };
        let listed = self.apps.list_apps_to_launch(&self.context(), list).await;
        assert_eq!(listed.unwrap(), [run]);
        self.as_app(&self.claim(run).await.unwrap())
    }

    pub(crate) async fn claim(&self, run: RunId) -> Option<Token> {
        let call = appio::RequestToken { run };
        let token = self.apps.request_token(&self.context(), call).await;
        token.unwrap()
    }

    pub(crate) fn as_app(&self, token: &Token) -> Context {
        let mut context = self.context();
        context.bearer = Some(Bearer::new(token.expose()));
        context
    }

    pub(crate) async fn launchable(&self) -> Vec<RunId> {
        let wait = Duration::ZERO;
        let list = appio::ListAppsToLaunch { wait };
        let listed = self.apps.list_apps_to_launch(&self.context(), list).await;
        listed.unwrap()
    }

    pub(crate) async fn inputs(&self, app: &Context) -> Result<AppInputs, Status> {
        let wait = Duration::ZERO;
        self.apps.pull_inputs(app, appio::PullInputs { wait }).await
    }

    /// What an app does first: its instruction, with its objects checked.
    pub(crate) async fn pull(&self, app: &Context) -> Delivery {
        let call = appio::PullMessages {
            run: RunId(0),
            instructions: Vec::new(),
            wait: Duration::ZERO,
            linger: Duration::ZERO,
        };
        let delivery = self.apps.pull_messages(app, call).await.unwrap().remove(0);
        let run = delivery.message.metadata.run;
        for object in delivery.tree.ids() {
            let (node, wait) = (NodeId(0), Duration::ZERO);
            let call = appio::PullObject {
                node,
                run,
                object,
                wait,
            };
            let (_, body) = self.apps.pull_object(app, call).await.unwrap();
            let bytes = body.unwrap().collect(1 << 20).await.unwrap();
            assert_eq!(ObjectId::of(&bytes), object);
        }
        delivery
    }

    /// What an app does last but one: announces a reply; returns its objects that are missing.
    pub(crate) async fn announce(
        &self,
        app: &Context,
        to: &Delivery,
        name: &str,
    ) -> Result<Vec<(ObjectId, Bytes)>, Status> {
        let asked = &to.message.metadata;
        let parts = parts(name, name);
        let ends = (asked.dst, asked.src);
        let mut message = self.message(asked.run, ends, asked.id.as_str(), parts[1].0);
        message.metadata.ttl = asked.expires_at().seconds() - self.clock.now().seconds();
        let call = appio::PushMessages {
            run: asked.run,
            messages: vec![message],
            trees: vec![tree(&parts)],
        };
        let pushed = self.apps.push_messages(app, call).await?;
        let parts = parts.into_iter();
        Ok(parts
            .filter(|(id, _)| pushed.missing.contains(id))
            .collect())
    }

    pub(crate) async fn push(&self, app: &Context, run: RunId, part: (ObjectId, Bytes)) -> bool {
        let (node, object) = (NodeId(0), part.0);
        let call = appio::PushObject { node, run, object };
        let body = Body::from_bytes(part.1);
        self.apps.push_object(app, call, body).await.unwrap()
    }

    pub(crate) async fn finish(&self, app: &Context, context: &str) -> Result<(), Status> {
        let context = Bytes::copy_from_slice(context.as_bytes());
        let run = RunId(0);
        let call = appio::PushOutputs { run, context };
        self.apps.push_outputs(app, call).await
    }

    /// A whole ClientApp.
    pub(crate) async fn play(&self, app: &Context, reply: &str, context: &str) {
        self.inputs(app).await.unwrap();
        let instruction = self.pull(app).await;
        let run = instruction.message.metadata.run;
        for part in self.announce(app, &instruction, reply).await.unwrap() {
            assert!(self.push(app, run, part).await);
        }
        self.finish(app, context).await.unwrap();
    }

    fn message(
        &self,
        run: RunId,
        (src, dst): (NodeId, NodeId),
        to: &str,
        root: ObjectId,
    ) -> Message {
        Message {
            metadata: Metadata {
                run,
                id: MessageId::from(root),
                src,
                dst,
                reply_to: MessageId::new(to),
                group_id: "1".into(),
                ttl: 0.0,
                message_type: "train".into(),
                created_at: self.clock.now(),
            },
            payload: Payload::Content(Bytes::new()),
        }
    }
}

/// How long an instruction lives. A reply lives as long as its instruction.
const LIFE_SECONDS: f64 = 36_000.0;

fn key(number: u8) -> PublicKey {
    PublicKey::from_spki_der(vec![number].into())
}

/// A connection of the SuperNode's key, whose calls are written down.
async fn connection(link: &SuperLink<MemoryState, Fabs>, calls: &Arc<Calls>) -> FleetClient {
    let (connector, acceptor) = memory::pair::<Fleet>(memory::Options::default());
    let handler = Recorded {
        calls: Arc::clone(calls),
        inner: Serve(link.fleet(false)),
    };
    tokio::spawn(acceptor.serve(Arc::new(handler), Drain::new()));
    let connector = connector.with_identity(Identity::NodeKey(key(7)));
    FleetClient::new(Arc::new(connector.connect().await.unwrap()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

fn objects(folder: &Path) -> ObjectFiles {
    let config = flwr_state::files::Config {
        quota_bytes: 1 << 30,
        free_bytes_min: 0,
        durable: false,
    };
    ObjectFiles::open(folder, config).unwrap()
}

/// A shared object and a root above it.
pub(crate) fn parts(name: &str, content: &str) -> [(ObjectId, Bytes); 2] {
    let leaf = Bytes::from(format!("ConfigRecord  {}\0{content}", content.len()));
    let child = ObjectId::of(&leaf);
    let root = Bytes::from(format!("RecordDict {child} {}\0{name}", name.len()));
    [(child, leaf), (ObjectId::of(&root), root)]
}

fn tree(parts: &[(ObjectId, Bytes); 2]) -> ObjectTree {
    ObjectTree {
        id: parts[1].0,
        children: vec![ObjectTree::leaf(parts[0].0)],
    }
}

fn fab() -> Bytes {
    const PYPROJECT: &str = "
        [project]
        name = 'app'
        version = '1.0.0'
        [tool.flwr.app]
        publisher = 'tests'
        [tool.flwr.app.components]
        serverapp = 'app:server'
        clientapp = 'app:client'
        [tool.flwr.app.config]
        rate = 1
        deep.text = 'x'
    ";
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("pyproject.toml", options).unwrap();
    zip.write_all(PYPROJECT.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner().into()
}
