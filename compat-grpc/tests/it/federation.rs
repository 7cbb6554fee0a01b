//! One run through a SuperLink, everything said over gRPC: a launcher, a ServerApp and a node.

use std::io::{Cursor, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppIo, AppIoClient};
use flwr_api::control::{self, ControlService};
use flwr_api::fleet::{self, Fleet, FleetClient, ObjectState};
use flwr_api::{FabHash, Launchers, NodeId, ObjectId, ObjectTree, Phase, Reason, RunId, RunStatus};
use flwr_certs::NodeKeyPair;
use flwr_compat_grpc::f1::ask::{AppIoAsker, AppIoService, FleetAsker};
use flwr_compat_grpc::f1::{AppIoF1, FleetF1};
use flwr_compat_grpc::{CallerAuth, Credentials, Holds, NodeSigner, RestConnector};
use flwr_state::{Clock, DiskFabs, MemoryState, SystemClock, SystemEntropy};
use flwr_superlink::{Runtime, SuperLink};
use flwr_transport::{Bearer, Body, Code, Connector, Context, Drain, Identity, Peer};

use crate::support::{
    Over, Server, connect, connector_with, later, message, pattern, serve, serve_rest, soon,
};

struct SuperLinkOverGrpc {
    link: SuperLink<MemoryState, DiskFabs>,
    fleet: Server,
    rest: Server,
    appio: Server,
    _folder: tempfile::TempDir,
}

async fn superlink() -> SuperLinkOverGrpc {
    let folder = tempfile::tempdir().unwrap();
    let (fabs, clock) = (DiskFabs::new(folder.path()), Arc::new(SystemClock));
    let link = SuperLink::new(
        MemoryState::default(),
        fabs,
        clock,
        Arc::new(SystemEntropy),
        flwr_superlink::Config::default(),
    );
    let holds = Holds::default();
    let over = Over {
        auth: CallerAuth::signed(None, now),
        ..Over::default()
    };
    let fleet = Arc::new(fleet::Serve(link.fleet(false)));
    let anyone = Arc::new(fleet::Serve(link.fleet(true)));
    let appio = Arc::new(appio::Serve(link.appio(Launchers::Anyone)));
    SuperLinkOverGrpc {
        rest: serve_rest(None, FleetF1 { holds }, anyone).await,
        fleet: serve(over, FleetF1 { holds }, fleet).await,
        appio: serve(Over::default(), AppIoF1 { holds }, appio).await,
        link,
        _folder: folder,
    }
}

fn now() -> f64 {
    SystemClock.now().seconds()
}

impl SuperLinkOverGrpc {
    async fn node(&self) -> FleetClient {
        let signer = NodeSigner::new(NodeKeyPair::generate().unwrap(), now);
        let credentials = Credentials::node(signer);
        let connector = connector_with(self.fleet.addr, None, credentials, FleetAsker);
        let caller = soon(Connector::<Fleet>::connect(&connector)).await.unwrap();
        FleetClient::new(Arc::new(caller))
    }

    async fn rest_node(&self) -> FleetClient {
        let addr = self.rest.addr;
        let connector = RestConnector::new(addr.ip().to_string(), addr.port(), None, FleetAsker);
        let caller = soon(Connector::<Fleet>::connect(&connector)).await.unwrap();
        FleetClient::new(Arc::new(caller))
    }

    async fn launcher(&self) -> AppIoClient {
        let asker = AppIoAsker(AppIoService::ServerApp);
        AppIoClient::new(Arc::new(connect::<AppIo, _>(self.appio.addr, asker).await))
    }

    async fn submit(&self) -> RunId {
        let call = control::StartRun {
            fab: fab(),
            hash: None,
            overrides: [].into(),
            federation: String::new(),
            options: None,
            option_names: Vec::new(),
        };
        let context = Context {
            peer: Arc::new(Peer {
                identity: Identity::Anonymous,
                addr: self.appio.addr,
                transport: "test",
            }),
            bearer: None,
            deadline: later(),
            drain: Drain::new(),
            gone: tokio_util::sync::CancellationToken::new(),
            presence: None,
            is_native: false,
        };
        let started = self
            .link
            .control(Runtime::Deployment)
            .start_run(&context, call)
            .await;
        started.unwrap().unwrap()
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
    ";
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    zip.start_file("pyproject.toml", options).unwrap();
    zip.write_all(PYPROJECT.as_bytes()).unwrap();
    zip.finish().unwrap().into_inner().into()
}

/// An object of Flower's format with this many bytes of body.
fn object(body_bytes: usize) -> (ObjectId, Bytes) {
    let mut object = format!("ArrayChunk  {body_bytes}\0").into_bytes();
    object.extend_from_slice(&pattern(body_bytes));
    (ObjectId::of(&object), object.into())
}

/// Launches the run's ServerApp and begins it.
async fn begin(launcher: &AppIoClient, run: RunId) -> AppIoClient {
    let wait = Duration::from_secs(5);
    let list = appio::ListAppsToLaunch { wait };
    let listed = launcher.list_apps_to_launch(list, later()).await.unwrap();
    assert_eq!(listed, [run]);
    let claim = appio::RequestToken { run };
    let token = launcher.request_token(claim, later()).await.unwrap();
    let app = launcher.bearing(Bearer::new(token.unwrap().expose()));
    let pull = appio::PullInputs { wait };
    let inputs = app.pull_inputs(pull, later()).await.unwrap();
    assert_eq!((inputs.run.id, &inputs.fab.content), (run, &fab()));
    let status = Some(RunStatus::of(Phase::Running));
    let update = appio::UpdateRunStatus { run, status };
    app.update_run_status(update, later()).await.unwrap();
    app
}

async fn join(node: &FleetClient) -> NodeId {
    let heartbeat_interval = 30.0;
    let create = fleet::CreateNode { heartbeat_interval };
    let id = node.create_node(create, later()).await.unwrap();
    let beat = fleet::Heartbeat {
        node: id,
        heartbeat_interval,
    };
    assert!(node.heartbeat(beat, later()).await.unwrap());
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_from_launch_to_reply() {
    let superlink = superlink().await;
    let node = superlink.node().await;
    one_run(&superlink, node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_from_launch_to_reply_with_a_node_on_plain_http() {
    let superlink = superlink().await;
    let node = superlink.rest_node().await;
    one_run(&superlink, node).await;
}

async fn one_run(superlink: &SuperLinkOverGrpc, node: FleetClient) {
    let run = superlink.submit().await;
    let id = join(&node).await;
    let app = begin(&superlink.launcher().await, run).await;
    let nodes = app.nodes(appio::GetNodes { run }, later()).await.unwrap();
    assert_eq!(nodes, [id]);

    let (root, bytes) = object(20 << 20);
    let created_at = SystemClock.now();
    let instruction = message(run, NodeId::SUPERLINK, id, "", root, created_at);
    let push = appio::PushMessages {
        run,
        messages: vec![instruction.clone()],
        trees: vec![ObjectTree::leaf(root)],
    };
    let pushed = app.push_messages(push, later()).await.unwrap();
    assert_eq!(
        (pushed.missing.as_slice(), pushed.stored.len()),
        (&[root][..], 1)
    );
    let push = appio::PushObject {
        node: NodeId::SUPERLINK,
        run,
        object: root,
    };
    let stored = app.push_object(push, bytes.clone().into(), later()).await;
    assert!(stored.unwrap());

    fetch_and_reply(&node, id, run, root, &bytes).await;

    let pull = appio::PullMessages {
        run,
        instructions: vec![instruction.metadata.id],
        wait: Duration::from_secs(5),
        linger: Duration::ZERO,
    };
    let replies = soon(app.pull_messages(pull, later())).await.unwrap();
    assert_eq!(replies.len(), 1);
    let root = replies[0].tree.id;
    let pull = appio::PullObject {
        node: NodeId::SUPERLINK,
        run,
        object: root,
        wait: Duration::ZERO,
    };
    let (state, body) = app.pull_object(pull, later()).await.unwrap();
    assert_eq!(state, ObjectState::Available);
    let reply = body.unwrap().collect(u64::MAX).await.unwrap();
    assert_eq!(ObjectId::of(&reply), root);
    let confirm = appio::ConfirmMessage { run, message: root };
    app.confirm_message(confirm, later()).await.unwrap();
    let left = fleet::DeleteNode { node: id };
    node.delete_node(left, later()).await.unwrap();
}

/// What a SuperNode does with one instruction.
async fn fetch_and_reply(
    node: &FleetClient,
    id: NodeId,
    run: RunId,
    root: ObjectId,
    bytes: &Bytes,
) {
    let pull = fleet::PullMessages {
        node: id,
        wait: Duration::ZERO,
    };
    let delivered = soon(node.pull_messages(pull, later()))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(delivered.tree, ObjectTree::leaf(root));
    let known = node
        .run(fleet::GetRun { node: id, run }, later())
        .await
        .unwrap()
        .unwrap();
    let get = fleet::GetFab {
        node: id,
        run,
        hash: known.fab.hash,
    };
    assert_eq!(node.fab(get, later()).await.unwrap().content, fab());
    let pull = fleet::PullObject {
        node: id,
        run,
        object: root,
        wait: Duration::ZERO,
    };
    let (state, body) = node.pull_object(pull, later()).await.unwrap();
    assert_eq!(state, ObjectState::Available);
    let fetched = body.unwrap().collect(u64::MAX).await.unwrap();
    assert!(fetched == *bytes);
    let confirm = fleet::ConfirmMessage {
        node: id,
        run,
        message: root,
    };
    node.confirm_message(confirm, later()).await.unwrap();

    let (root, bytes) = object(300_000);
    let asked = delivered.message.metadata.id.as_str();
    let reply = message(run, id, NodeId::SUPERLINK, asked, root, SystemClock.now());
    let push = fleet::PushMessages {
        node: id,
        message: Some(reply),
        trees: vec![ObjectTree::leaf(root)],
    };
    let pushed = node.push_messages(push, later()).await.unwrap();
    assert_eq!(pushed.missing, [root]);
    let push = fleet::PushObject {
        node: id,
        run,
        object: root,
    };
    let stored = node
        .push_object(push, Body::from_bytes(bytes), later())
        .await;
    assert!(stored.unwrap());
}

#[tokio::test]
async fn refusals_keep_their_reasons_over_plain_http() {
    let superlink = superlink().await;
    let run = superlink.submit().await;
    let node = superlink.rest_node().await;
    let get = fleet::GetRun {
        node: join(&node).await,
        run,
    };
    let refused = node.run(get, later()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::RunPending));
    assert_eq!(refused.code, Code::PermissionDenied);
}

#[tokio::test]
async fn refusals_keep_their_reasons() {
    let superlink = superlink().await;
    let node = superlink.node().await;
    let run = superlink.submit().await;
    let id = join(&node).await;
    let other = NodeId(id.0 ^ 1);
    let pull = |node| fleet::PullMessages {
        node,
        wait: Duration::ZERO,
    };
    let refused = node.pull_messages(pull(other), later()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NodeMismatch));
    let get = fleet::GetRun { node: id, run };
    let refused = node.run(get, later()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::RunPending));
    let unknown = RunId(run.0 ^ 1);
    let get = fleet::GetRun {
        node: id,
        run: unknown,
    };
    assert_eq!(node.run(get, later()).await, Ok(None));
    let app = begin(&superlink.launcher().await, run).await;
    let get = appio::GetFab {
        hash: FabHash::of(b"no app"),
    };
    let refused = app.fab(get, later()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::FabUnknown));
    let stranger = app.bearing(Bearer::new("0"));
    let pull = appio::PullInputs {
        wait: Duration::ZERO,
    };
    let refused = stranger.pull_inputs(pull, later()).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::TokenInvalid));
}
