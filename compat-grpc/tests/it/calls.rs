//! Every call of Fleet and of the three AppIo services, there and back through the dialects.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{self, AppContext, AppInputs, AppIo, AppStanding, PushedAll};
use flwr_api::fleet::{self, Fleet, NodeRun, Pushed};
use flwr_api::{
    AppError, Delivery, Fab, FabHash, FabInfo, Message, MessageId, NodeId, ObjectId, ObjectTree,
    Payload, Phase, Run, RunId, RunStatus, Scalar, SubStatus, Token, UnixTime, UserConfig,
};
use flwr_certs::{JoinSecret, NodeKeyPair};
use flwr_compat_grpc::client::Asking;
use flwr_compat_grpc::f1::ask::{AdapterAsker, AppIoAsker, AppIoService, FleetAsker};
use flwr_compat_grpc::f1::{Adapter, AppIoF1, ClientAppIoF1, FleetF1, SimulationIoF1};
use flwr_compat_grpc::{CallerAuth, Credentials, Dialect, Holds, NodeSigner};
use flwr_transport::{
    Bearer, Call, Caller, Code, Connector, Context, Identity, Protocol, PublicKey, Reply,
};
use tokio_util::sync::CancellationToken;

use crate::support::{
    Over, Scripted, connect, connector_with, fleet_call, later, message, serve, soon,
};

const RUN: RunId = RunId(u64::MAX);
const NODE: NodeId = NodeId(1 << 63);
const WAIT: Duration = Duration::ZERO;

/// Waits do not travel; the server's are as long as the client's here.
fn holds() -> Holds {
    Holds::default().capped(WAIT)
}

fn now() -> UnixTime {
    UnixTime::new(1_757_000_000.25)
}

fn object(name: &str) -> ObjectId {
    ObjectId::of(name.as_bytes())
}

fn config() -> UserConfig {
    [
        ("bool", Scalar::Bool(true)),
        ("bytes", Scalar::Bytes(Bytes::from_static(b"\0\xff"))),
        ("double", Scalar::Double(0.5)),
        ("sint", Scalar::Sint64(-1)),
        ("text", Scalar::String("a".into())),
        ("uint", Scalar::Uint64(u64::MAX)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn fab() -> Fab {
    let content = Bytes::from_static(b"zip");
    Fab {
        hash: FabHash::of(&content),
        content,
    }
}

fn fab_info() -> FabInfo {
    FabInfo {
        id: "a/b".into(),
        version: "1.0.0".into(),
        hash: fab().hash,
    }
}

fn run() -> Run {
    Run {
        id: RUN,
        series: RUN.0,
        federation: String::new(),
        fab: fab_info(),
        overrides: config(),
        status: RunStatus::finished(SubStatus::Failed, "why"),
        pending_at: now(),
        starting_at: Some(now().plus(1.0)),
        running_at: None,
        finished_at: Some(now().plus(2.5)),
    }
}

/// A run as a SuperNode tells it.
fn bare_run() -> Run {
    Run {
        status: RunStatus::of(Phase::Pending),
        pending_at: UnixTime::default(),
        starting_at: None,
        finished_at: None,
        ..run()
    }
}

fn content() -> Message {
    message(
        RUN,
        NODE,
        NodeId::SUPERLINK,
        "instruction",
        object("root"),
        now(),
    )
}

fn failure() -> Message {
    Message {
        payload: Payload::Error(AppError {
            code: -2,
            reason: Some("boom".into()),
        }),
        ..content()
    }
}

fn tree() -> ObjectTree {
    ObjectTree {
        id: object("root"),
        children: vec![ObjectTree::leaf(object("a")), ObjectTree::leaf(object("b"))],
    }
}

fn delivery(message: Message) -> Delivery {
    let tree = tree();
    Delivery { message, tree }
}

fn inputs(run: Run) -> AppInputs {
    AppInputs {
        context: AppContext::Kept(Bytes::from_static(b"\x08\x07")),
        run,
        fab: fab(),
    }
}

/// Calls whose request and answer arrive as they were sent.
fn fleet_calls() -> Vec<(fleet::Request, fleet::Response)> {
    use fleet::{Request as Ask, Response as Say};
    let heartbeat_interval = 30.0;
    let (node, run, message) = (NODE, RUN, object("root"));
    let hash = fab().hash;
    let create = fleet::CreateNode { heartbeat_interval };
    let get = fleet::GetFab { node, run, hash };
    let confirm = fleet::ConfirmMessage { node, run, message };
    let node_run = NodeRun {
        id: RUN,
        series: RUN.0,
        fab: fab_info(),
        overrides: config(),
    };
    let get_run = || Ask::GetRun(fleet::GetRun { node, run });
    let beat = || {
        Ask::Heartbeat(fleet::Heartbeat {
            node,
            heartbeat_interval,
        })
    };
    let mut calls = vec![
        (Ask::CreateNode(create), Say::CreateNode(NODE)),
        (
            Ask::DeleteNode(fleet::DeleteNode { node }),
            Say::DeleteNode(()),
        ),
        (beat(), Say::Heartbeat(true)),
        (beat(), Say::Heartbeat(false)),
        (get_run(), Say::GetRun(None)),
        (get_run(), Say::GetRun(Some(node_run))),
        (Ask::GetFab(get), Say::GetFab(fab())),
        (Ask::ConfirmMessage(confirm), Say::ConfirmMessage(())),
    ];
    calls.extend(message_calls());
    calls
}

/// The Fleet calls that carry messages.
fn message_calls() -> Vec<(fleet::Request, fleet::Response)> {
    use fleet::{Request as Ask, Response as Say};
    let (node, wait) = (NODE, WAIT);
    let pushed = |stored: Option<&str>| Pushed {
        stored: stored.map(MessageId::new),
        missing: vec![object("a"), object("b")],
    };
    let pull = || Ask::PullMessages(fleet::PullMessages { node, wait });
    let push = |message| {
        Ask::PushMessages(fleet::PushMessages {
            node,
            message,
            trees: vec![tree()],
        })
    };
    vec![
        (pull(), Say::PullMessages(None)),
        (pull(), Say::PullMessages(Some(delivery(content())))),
        (pull(), Say::PullMessages(Some(delivery(failure())))),
        (
            push(Some(content())),
            Say::PushMessages(pushed(Some("root"))),
        ),
        (push(Some(failure())), Say::PushMessages(pushed(None))),
    ]
}

/// Calls that launchers and apps of all kinds make.
fn shared_calls(run: Run) -> Vec<(appio::Request, appio::Response)> {
    use appio::{Request as Ask, Response as Say};
    let claim = || Ask::RequestToken(appio::RequestToken { run: RUN });
    let get_run = || Ask::GetRun(appio::GetRun { run: RUN });
    vec![
        (
            Ask::ListAppsToLaunch(appio::ListAppsToLaunch { wait: WAIT }),
            Say::ListAppsToLaunch(vec![RUN, RunId(1)]),
        ),
        (claim(), Say::RequestToken(Some(Token::presented("ab")))),
        (claim(), Say::RequestToken(None)),
        (get_run(), Say::GetRun(Some(run.clone()))),
        (get_run(), Say::GetRun(None)),
        (
            Ask::PullInputs(appio::PullInputs { wait: WAIT }),
            Say::PullInputs(inputs(run)),
        ),
        (
            Ask::PushOutputs(appio::PushOutputs {
                run: RUN,
                context: Bytes::from_static(b"\x08\x07"),
            }),
            Say::PushOutputs(()),
        ),
        (
            Ask::WatchApp(appio::WatchApp { wait: WAIT }),
            Say::WatchApp(AppStanding::Done),
        ),
        (
            Ask::ReportAppExit(appio::ReportAppExit {
                how: "signal 9".into(),
            }),
            Say::ReportAppExit(()),
        ),
    ]
}

/// Calls about a run at a SuperLink.
fn run_calls() -> Vec<(appio::Request, appio::Response)> {
    use appio::{Request as Ask, Response as Say};
    let known = [
        (RUN, RunStatus::of(Phase::Running)),
        (RunId(1), run().status),
    ];
    vec![
        (
            Ask::GetRunStatus(appio::GetRunStatus {
                runs: vec![RUN, RunId(1)],
            }),
            Say::GetRunStatus(known.into()),
        ),
        (
            Ask::UpdateRunStatus(appio::UpdateRunStatus {
                run: RUN,
                status: Some(run().status),
            }),
            Say::UpdateRunStatus(()),
        ),
        (
            Ask::PushLogs(appio::PushLogs {
                run: RUN,
                text: "line\n".into(),
            }),
            Say::PushLogs(()),
        ),
        (
            Ask::Heartbeat(appio::Heartbeat {
                run: RUN,
                heartbeat_interval: 30.0,
            }),
            Say::Heartbeat(true),
        ),
    ]
}

fn confirm() -> (appio::Request, appio::Response) {
    let message = object("root");
    let call = appio::ConfirmMessage { run: RUN, message };
    (
        appio::Request::ConfirmMessage(call),
        appio::Response::ConfirmMessage(()),
    )
}

fn push_messages(messages: Vec<Message>) -> appio::Request {
    appio::Request::PushMessages(appio::PushMessages {
        run: RUN,
        trees: messages.iter().map(|_| tree()).collect(),
        messages,
    })
}

fn pull_messages(instructions: &[&str]) -> appio::Request {
    appio::Request::PullMessages(appio::PullMessages {
        run: RUN,
        instructions: instructions.iter().map(|id| MessageId::new(*id)).collect(),
        wait: WAIT,
        linger: WAIT,
    })
}

fn server_app_calls() -> Vec<(appio::Request, appio::Response)> {
    use appio::{Request as Ask, Response as Say};
    let pushed = PushedAll {
        stored: vec![Some(MessageId::new("root")), None],
        missing: vec![object("a")],
    };
    let mut calls = shared_calls(run());
    calls.extend(run_calls());
    calls.extend([
        confirm(),
        (
            Ask::GetNodes(appio::GetNodes { run: RUN }),
            Say::GetNodes(vec![NODE, NodeId(2)]),
        ),
        (
            push_messages(vec![content(), failure()]),
            Say::PushMessages(pushed),
        ),
        (
            pull_messages(&["a", ""]),
            Say::PullMessages(vec![delivery(content()), delivery(failure())]),
        ),
        (
            Ask::GetFab(appio::GetFab { hash: fab().hash }),
            Say::GetFab(fab()),
        ),
    ]);
    calls
}

fn client_app_calls() -> Vec<(appio::Request, appio::Response)> {
    use appio::Response as Say;
    let pushed = PushedAll {
        stored: Vec::new(),
        missing: vec![object("a")],
    };
    let mut calls = shared_calls(bare_run());
    calls.extend([
        confirm(),
        (push_messages(vec![content()]), Say::PushMessages(pushed)),
        (
            pull_messages(&[]),
            Say::PullMessages(vec![delivery(content())]),
        ),
    ]);
    calls
}

fn simulation_calls() -> Vec<(appio::Request, appio::Response)> {
    let mut calls = shared_calls(run());
    calls.extend(run_calls());
    calls.push((
        appio::Request::GetFederationOptions(appio::GetFederationOptions { run: RUN }),
        appio::Response::GetFederationOptions(Bytes::from_static(b"\x0a\x00")),
    ));
    calls
}

/// Makes each call and compares what arrives at both ends. The bearer is `token`, or absent from calls without one.
async fn check<P, D, A>(dialect: D, asking: A, calls: Vec<(P::Request, P::Response)>)
where
    P: Protocol,
    P::Response: PartialEq,
    D: Dialect<P>,
    A: Asking<P>,
{
    let (requests, responses): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let to_say = Mutex::new(responses.into_iter());
    let said = Arc::new(Mutex::new(Vec::new()));
    let handler = Scripted::<P>::new({
        let said = Arc::clone(&said);
        move |_, _| {
            let response = to_say.lock().unwrap().next().unwrap();
            said.lock().unwrap().push(format!("{response:?}"));
            std::future::ready(Ok(Reply::new(response)))
        }
    });
    let server = serve(Over::default(), dialect, Arc::clone(&handler)).await;
    let caller = connect::<P, A>(server.addr, asking).await;
    for request in requests {
        let sent = format!("{request:?}");
        let call = Call::new(request, later()).with_bearer(Bearer::new("token"));
        let reply = soon(caller.call(call)).await;
        let reply = reply.unwrap_or_else(|status| panic!("{sent}: {status}"));
        let (context, came) = handler.last();
        assert_eq!(came, sent);
        let bearer = context.bearer.map(|bearer| bearer.expose().to_owned());
        assert!(bearer.is_none_or(|bearer| bearer == "token"));
        let answered = said.lock().unwrap().last().unwrap().clone();
        assert_eq!(format!("{:?}", reply.response), answered, "{sent}");
    }
}

#[tokio::test]
async fn fleet_calls_arrive_as_they_were_made() {
    let dialect = FleetF1 { holds: holds() };
    check(dialect, FleetAsker, fleet_calls()).await;
    let asker = AdapterAsker::new(CancellationToken::new());
    check(Adapter(dialect), asker, fleet_calls()).await;
}

#[tokio::test]
async fn app_calls_arrive_as_they_were_made() {
    let holds = holds();
    let asker = AppIoAsker(AppIoService::ServerApp);
    check(AppIoF1 { holds }, asker, server_app_calls()).await;
    let asker = AppIoAsker(AppIoService::ClientApp);
    check(ClientAppIoF1 { holds }, asker, client_app_calls()).await;
    let asker = AppIoAsker(AppIoService::Simulation);
    check(SimulationIoF1 { holds }, asker, simulation_calls()).await;
}

#[tokio::test]
async fn calls_that_a_service_has_not_are_refused_here() {
    let handler = Scripted::<AppIo>::new(|_, _| async { panic!("nothing is sent") });
    let server = serve(Over::default(), AppIoF1 { holds: holds() }, handler).await;
    let nodes = || appio::Request::GetNodes(appio::GetNodes { run: RUN });
    let options = || appio::Request::GetFederationOptions(appio::GetFederationOptions { run: RUN });
    for (service, request) in [
        (AppIoService::ClientApp, nodes()),
        (AppIoService::Simulation, nodes()),
        (AppIoService::Simulation, pull_messages(&[])),
        (AppIoService::ServerApp, options()),
    ] {
        let caller = connect::<AppIo, _>(server.addr, AppIoAsker(service)).await;
        let refused = soon(caller.call(Call::new(request, later())))
            .await
            .unwrap_err();
        assert_eq!(refused.code, Code::Unimplemented, "{refused}");
    }
}

#[tokio::test]
async fn tokens_travel_where_they_are_looked_for() {
    let holds = holds();
    let bearer_of = |context: Context| context.bearer.map(|bearer| bearer.expose().to_owned());
    let handler = Scripted::<AppIo>::saying(appio::Response::PullMessages(Vec::new()));
    let server = serve(
        Over::default(),
        ClientAppIoF1 { holds },
        Arc::clone(&handler),
    )
    .await;
    let asker = AppIoAsker(AppIoService::ClientApp);
    let caller = connect::<AppIo, _>(server.addr, asker).await;
    let call = Call::new(pull_messages(&[]), later()).with_bearer(Bearer::new("secret"));
    soon(caller.call(call)).await.unwrap();
    assert_eq!(bearer_of(handler.last().0).as_deref(), Some("secret"));
}

#[tokio::test]
async fn only_a_heartbeat_tells_its_deadline() {
    let handler = Scripted::<Fleet>::saying(fleet::Response::Heartbeat(true));
    let dialect = FleetF1 { holds: holds() };
    let server = serve(Over::default(), dialect, Arc::clone(&handler)).await;
    let caller = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let beat = fleet::Heartbeat {
        node: NODE,
        heartbeat_interval: 30.0,
    };
    let pull = fleet::PullMessages {
        node: NODE,
        wait: WAIT,
    };
    for (request, told) in [
        (fleet::Request::Heartbeat(beat), true),
        (fleet::Request::PullMessages(pull), false),
    ] {
        let call = fleet_call(request);
        let deadline = call.deadline;
        // A heartbeat does not answer the second, which is all the same here.
        soon(caller.call(call)).await.ok();
        let known = handler.last().0.deadline <= deadline + Duration::from_secs(1);
        assert_eq!(known, told);
    }
}

#[tokio::test]
async fn an_envelope_can_tell_a_node_to_exit() {
    use flwr_compat_grpc::client::Received;
    let exit = CancellationToken::new();
    let asker = AdapterAsker::new(exit.clone());
    let call = fleet::Request::DeleteNode(fleet::DeleteNode { node: NODE });
    let asked = Asking::<Fleet>::ask(&asker, call, None, None).unwrap();
    // MessageContainer {metadata {"should-exit": "true"}}
    let head = Bytes::from_static(b"\x0a\x13\x0a\x0bshould-exit\x12\x04true");
    let received = Received { head, tail: None };
    let refused = (asked.answer)(received).unwrap_err();
    assert_eq!(refused.code, Code::Cancelled);
    assert!(exit.is_cancelled());
}

#[tokio::test]
async fn a_nodes_signature_proves_its_key() {
    let keys = NodeKeyPair::generate().unwrap();
    let expected = PublicKey::from_spki_der(keys.public().spki_bytes());
    let clock = || now().seconds();
    let handler = Scripted::<Fleet>::saying(fleet::Response::CreateNode(NODE));
    let over = Over {
        auth: CallerAuth::signed(None, clock),
        ..Over::default()
    };
    let dialect = FleetF1 { holds: holds() };
    let server = serve(over, dialect, Arc::clone(&handler)).await;
    let create = || {
        let heartbeat_interval = 30.0;
        fleet_call(fleet::Request::CreateNode(fleet::CreateNode {
            heartbeat_interval,
        }))
    };
    let credentials = Credentials::node(NodeSigner::new(keys, clock));
    let connector = connector_with(server.addr, None, credentials, FleetAsker);
    let caller = soon(Connector::<Fleet>::connect(&connector)).await.unwrap();
    soon(caller.call(create())).await.unwrap();
    let (context, _) = handler.last();
    assert_eq!(context.peer.identity, Identity::NodeKey(expected));
    let anonymous = connect::<Fleet, _>(server.addr, FleetAsker).await;
    let refused = soon(anonymous.call(create())).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert_eq!(refused.message, "Missing authentication metadata");
}

#[tokio::test]
async fn a_join_secret_proves_a_launcher() {
    let secret = JoinSecret::generate().unwrap();
    let handler = Scripted::<AppIo>::saying(appio::Response::ListAppsToLaunch(Vec::new()));
    let over = Over {
        auth: CallerAuth::join_secret(secret.digest()),
        ..Over::default()
    };
    let dialect = AppIoF1 { holds: holds() };
    let server = serve(over, dialect, Arc::clone(&handler)).await;
    let other = JoinSecret::generate().unwrap();
    for (credentials, identity) in [
        (Credentials::join_secret(&secret), Some(Identity::Launcher)),
        (Credentials::none(), Some(Identity::Anonymous)),
        (Credentials::join_secret(&other), None),
    ] {
        let asker = AppIoAsker(AppIoService::ServerApp);
        let connector = connector_with(server.addr, None, credentials, asker);
        let caller = soon(Connector::<AppIo>::connect(&connector)).await.unwrap();
        let list = appio::Request::ListAppsToLaunch(appio::ListAppsToLaunch { wait: WAIT });
        let answered = soon(caller.call(Call::new(list, later()))).await;
        match identity {
            Some(identity) => {
                answered.unwrap();
                assert_eq!(handler.last().0.peer.identity, identity);
            }
            None => assert_eq!(answered.unwrap_err().code, Code::Unauthenticated),
        }
    }
}
