//! A SuperLink in virtual time, with nodes and a run to play with.

use std::io::{Cursor, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppIoService};
use flwr_api::control::{ControlService, StartRun, StopRun};
use flwr_api::fleet::{self, FleetService};
use flwr_api::{
    Launchers, Message, MessageId, Metadata, NodeId, ObjectId, ObjectTree, Payload, Phase, RunId,
    RunStatus, UnixTime,
};
use flwr_state::{Clock, DiskFabs, MemoryState};
use flwr_superlink::appio::AppIoApi;
use flwr_superlink::control::ControlApi;
use flwr_superlink::fleet::FleetApi;
use flwr_superlink::{Entropy, Runtime, SuperLink};
use flwr_transport::{Bearer, Body, Context, Drain, Identity, Peer, PublicKey};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

type Fabs = DiskFabs;

/// The services, the clock and the folder they use.
pub(crate) struct World {
    pub(crate) fleet: Arc<FleetApi<MemoryState, Fabs>>,
    pub(crate) appio: Arc<AppIoApi<MemoryState, Fabs>>,
    pub(crate) control: Arc<ControlApi<MemoryState, Fabs>>,
    pub(crate) link: SuperLink<MemoryState, Fabs>,
    pub(crate) drain: Drain,
    clock: Arc<VirtualClock>,
    _folder: tempfile::TempDir,
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
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(VirtualClock(Instant::now()));
        let link = SuperLink::new(
            MemoryState::default(),
            DiskFabs::new(folder.path()),
            Arc::clone(&clock) as Arc<dyn Clock>,
            Arc::new(Counting::default()),
            flwr_superlink::Config::default(),
        );
        Self {
            fleet: Arc::new(link.fleet(false)),
            appio: Arc::new(link.appio(Launchers::Anyone)),
            control: Arc::new(link.control(Runtime::Deployment)),
            link,
            drain: Drain::new(),
            clock,
            _folder: folder,
        }
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The nodes that count as online.
    pub(crate) async fn nodes(&self) -> Vec<NodeId> {
        let run = self.running().await;
        let call = appio::GetNodes { run };
        let nodes = self.appio.nodes(&self.by_app(), call).await.unwrap();
        self.stop(run).await;
        nodes
    }

    /// The context of a call by the node that holds key number `key`.
    pub(crate) fn by_node(&self, key: u8) -> Context {
        self.context(Identity::NodeKey(PublicKey::from_spki_der(
            vec![key].into(),
        )))
    }

    /// The context of an app's or a user's call.
    pub(crate) fn by_app(&self) -> Context {
        self.context(Identity::Anonymous)
    }

    pub(crate) fn context(&self, identity: Identity) -> Context {
        Context {
            peer: Arc::new(Peer {
                identity,
                addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
                transport: "test",
            }),
            bearer: None,
            deadline: Instant::now() + Duration::from_secs(86_400),
            drain: self.drain.clone(),
            gone: CancellationToken::new(),
            presence: None,
            is_native: true,
        }
    }

    pub(crate) async fn join(&self, key: u8, heartbeat_interval: f64) -> NodeId {
        let call = fleet::CreateNode { heartbeat_interval };
        self.fleet
            .create_node(&self.by_node(key), call)
            .await
            .unwrap()
    }

    pub(crate) async fn submit(&self) -> RunId {
        self.control
            .start_run(&self.by_app(), start_run())
            .await
            .unwrap()
            .unwrap()
    }

    /// A run whose ServerApp has begun.
    pub(crate) async fn running(&self) -> RunId {
        let run = self.submit().await;
        self.start(run).await;
        run
    }

    /// Begins a submitted run's ServerApp; returns the context of its calls.
    pub(crate) async fn start(&self, run: RunId) -> Context {
        let context = self.claimed(run).await;
        let call = appio::PullInputs {
            wait: Duration::ZERO,
        };
        self.appio.pull_inputs(&context, call).await.unwrap();
        let call = appio::UpdateRunStatus {
            run,
            status: Some(RunStatus::of(Phase::Running)),
        };
        self.appio
            .update_run_status(&self.by_app(), call)
            .await
            .unwrap();
        context
    }

    /// Claims a submitted run; returns the context of calls with its token.
    pub(crate) async fn claimed(&self, run: RunId) -> Context {
        let call = appio::RequestToken { run };
        let token = self
            .appio
            .request_token(&self.by_app(), call)
            .await
            .unwrap()
            .unwrap();
        let mut context = self.by_app();
        context.bearer = Some(Bearer::new(token.expose()));
        context
    }

    pub(crate) async fn stop(&self, run: RunId) {
        self.control
            .stop_run(&self.by_app(), StopRun { run })
            .await
            .unwrap();
    }

    /// Sends an instruction with its object.
    pub(crate) async fn instruct(&self, run: RunId, node: NodeId, name: &str) -> Letter {
        let letter = self.letter(run, NodeId::SUPERLINK, node, "", name);
        self.announce_instruction(&letter).await;
        self.push_instruction_object(&letter).await;
        letter
    }

    pub(crate) async fn announce_instruction(&self, letter: &Letter) {
        let call = appio::PushMessages {
            run: letter.message.metadata.run,
            messages: vec![letter.message.clone()],
            trees: vec![ObjectTree::leaf(letter.root)],
        };
        let pushed = self
            .appio
            .push_messages(&self.by_app(), call)
            .await
            .unwrap();
        assert_eq!(pushed.stored, [Some(letter.message.metadata.id.clone())]);
    }

    pub(crate) async fn push_instruction_object(&self, letter: &Letter) {
        let call = appio::PushObject {
            node: NodeId::SUPERLINK,
            run: letter.message.metadata.run,
            object: letter.root,
        };
        let body = Body::from_bytes(letter.object.clone());
        assert!(
            self.appio
                .push_object(&self.by_app(), call, body)
                .await
                .unwrap()
        );
    }

    /// Answers an instruction.
    pub(crate) async fn reply(&self, key: u8, to: &Letter, name: &str) -> Letter {
        let (node, asked) = (to.message.metadata.dst, to.message.metadata.id.as_str());
        let run = to.message.metadata.run;
        let letter = self.letter(run, node, NodeId::SUPERLINK, asked, name);
        let call = fleet::PushMessages {
            node,
            message: Some(letter.message.clone()),
            trees: vec![ObjectTree::leaf(letter.root)],
        };
        self.fleet
            .push_messages(&self.by_node(key), call)
            .await
            .unwrap();
        let call = fleet::PushObject {
            node,
            run,
            object: letter.root,
        };
        let body = Body::from_bytes(letter.object.clone());
        assert!(
            self.fleet
                .push_object(&self.by_node(key), call, body)
                .await
                .unwrap()
        );
        letter
    }

    pub(crate) fn letter(
        &self,
        run: RunId,
        src: NodeId,
        dst: NodeId,
        reply_to: &str,
        name: &str,
    ) -> Letter {
        letter(self.now(), (run, src, dst), reply_to, name)
    }
}

/// A message that is made `now`.
pub(crate) fn letter(
    now: UnixTime,
    (run, src, dst): (RunId, NodeId, NodeId),
    reply_to: &str,
    name: &str,
) -> Letter {
    let body = format!("{run} {name}");
    let object = Bytes::from(format!("ConfigRecord  {}\0{body}", body.len()));
    let root = ObjectId::of(&object);
    // A reply lives as long as its instruction, which lives an hour.
    let ttl = if reply_to.is_empty() { 3600.0 } else { 1.0 };
    Letter {
        message: Message {
            metadata: Metadata {
                run,
                id: MessageId::from(root),
                src,
                dst,
                reply_to: MessageId::new(reply_to),
                group_id: "1".into(),
                ttl,
                message_type: "train".into(),
                created_at: now,
            },
            payload: Payload::Content(Bytes::new()),
        },
        root,
        object,
    }
}

/// A message with its only object.
#[derive(Clone)]
pub(crate) struct Letter {
    pub(crate) message: Message,
    pub(crate) root: ObjectId,
    pub(crate) object: Bytes,
}

impl Letter {
    pub(crate) fn id(&self) -> MessageId {
        self.message.metadata.id.clone()
    }
}

/// The call that submits the app.
pub(crate) fn start_run() -> StartRun {
    StartRun {
        fab: fab(),
        hash: None,
        overrides: [].into(),
        federation: String::new(),
        options: None,
        option_names: Vec::new(),
    }
}

pub(crate) fn fab() -> Bytes {
    const PYPROJECT: &str = "
        [project]
        name = 'app'
        version = '1.0.0'
        [tool.flwr.app]
        publisher = 'tests'
        [tool.flwr.app.components]
        serverapp = 'app:server'
        clientapp = 'app:client'
    ";
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("pyproject.toml", options).unwrap();
    zip.write_all(PYPROJECT.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner().into()
}
