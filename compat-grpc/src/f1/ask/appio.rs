//! AppIo A1, asked: what `flower-superexec` and the apps of 1.22 send to each of the three services, and what launchers
//! of ours send beside it.

use bytes::Bytes;
use flwr_api::appio::{AppContext, AppInputs, AppIo, PushedAll, Request, Response};
use flwr_api::{MessageId, NodeId, RunId, Token};
use flwr_proto::{launcher, v1_22 as pb};
use flwr_transport::{Bearer, Reply, Status};
use prost::Message;

use super::fleet::{pull_object, push_object};
use super::read::{self, parse, present};
use super::words;
use crate::client::{Asked, Asking};
use crate::f1::appio::{REPORT_APP_EXIT, WATCH_APP};
use crate::f1::convert;

/// Asks as the launchers and apps of 1.22 do.
#[derive(Clone, Copy, Debug)]
pub struct AppIoAsker(pub AppIoService);

/// Which AppIo service is asked. They differ in the names of some calls, and none has all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppIoService {
    /// A SuperNode's, for ClientApps.
    ClientApp,
    /// A SuperLink's, for ServerApps.
    ServerApp,
    /// A SuperLink's, for simulations.
    Simulation,
}

impl Asking<AppIo> for AppIoAsker {
    fn ask(
        &self,
        request: Request,
        bearer: Option<&Bearer>,
        body_bytes: Option<u64>,
    ) -> Result<Asked<AppIo>, Status> {
        let name = flwr_transport::Request::name(&request);
        let token = bearer.map_or_else(String::new, |bearer| bearer.expose().to_owned());
        let asked = match self.0 {
            AppIoService::ClientApp => client_app(request, token, body_bytes),
            AppIoService::ServerApp => server_app(request, token, body_bytes),
            AppIoService::Simulation => simulation(request, token),
        };
        asked.ok_or_else(|| Status::unimplemented(name))
    }

    fn refused(&self, status: &tonic::Status) -> Status {
        words::refused(status)
    }
}

const CLIENT_APP: &str = "flwr.proto.ClientAppIo";
const SERVER_APP: &str = "flwr.proto.ServerAppIo";
const SIMULATION: &str = "flwr.proto.SimulationIo";

/// A ClientApp's run follows from its token, so stock apps do not name it with their messages.
fn client_app(request: Request, token: String, body_bytes: Option<u64>) -> Option<Asked<AppIo>> {
    let service = CLIENT_APP;
    Some(match request {
        Request::PullInputs(_) => pull_inputs(service, "PullClientAppInputs", token),
        Request::PushOutputs(call) => push_outputs(
            service,
            "PushClientAppOutputs",
            token,
            call.run,
            call.context,
        ),
        Request::PushMessages(call) => {
            let (messages_list, message_object_trees) = read::sent(call.messages, call.trees);
            let message = pb::PushAppMessagesRequest {
                token,
                messages_list,
                run_id: call.run.0,
                message_object_trees,
            };
            asked(service, "PushMessage", &message, pushed)
        }
        Request::PullMessages(call) => {
            let message = pb::PullAppMessagesRequest {
                token,
                message_ids: Vec::new(),
                run_id: call.run.0,
            };
            asked(service, "PullMessage", &message, pulled)
        }
        Request::PushObject(call) => {
            let node = Some(convert::node(call.node));
            push_object(
                service,
                node,
                call.run,
                call.object,
                body_bytes,
                Response::PushObject,
            )
        }
        Request::PullObject(call) => {
            let node = Some(convert::node(call.node));
            pull_object(service, node, call.run, call.object, Response::PullObject)
        }
        Request::ConfirmMessage(call) => confirm(service, None, call.run, &call.message),
        other => return launcher(service, other, token),
    })
}

fn server_app(request: Request, token: String, body_bytes: Option<u64>) -> Option<Asked<AppIo>> {
    let service = SERVER_APP;
    Some(match request {
        Request::GetNodes(call) => {
            let message = pb::GetNodesRequest { run_id: call.run.0 };
            asked(service, "GetNodes", &message, |answer| {
                let answer: pb::GetNodesResponse = parse(answer)?;
                let nodes = answer.nodes.into_iter().map(|node| NodeId(node.node_id));
                Ok(Response::GetNodes(nodes.collect()))
            })
        }
        Request::PushMessages(call) => {
            let (messages_list, message_object_trees) = read::sent(call.messages, call.trees);
            let message = pb::PushAppMessagesRequest {
                token,
                messages_list,
                run_id: call.run.0,
                message_object_trees,
            };
            asked(service, "PushMessages", &message, pushed)
        }
        Request::PullMessages(call) => {
            let ids = call.instructions.iter().map(|id| id.as_str().to_owned());
            let message = pb::PullAppMessagesRequest {
                token,
                message_ids: ids.collect(),
                run_id: call.run.0,
            };
            asked(service, "PullMessages", &message, pulled)
        }
        Request::GetFab(call) => {
            let message = pb::GetFabRequest {
                node: None,
                hash_str: call.hash.to_string(),
                run_id: 0,
            };
            asked(service, "GetFab", &message, |answer| {
                let answer: pb::GetFabResponse = parse(answer)?;
                read::fab(answer.fab).map(Response::GetFab)
            })
        }
        Request::PushObject(call) => {
            let node = Some(convert::node(call.node));
            push_object(
                service,
                node,
                call.run,
                call.object,
                body_bytes,
                Response::PushObject,
            )
        }
        Request::PullObject(call) => {
            let node = Some(convert::node(call.node));
            pull_object(service, node, call.run, call.object, Response::PullObject)
        }
        Request::ConfirmMessage(call) => {
            confirm(service, Some(NodeId::SUPERLINK), call.run, &call.message)
        }
        other => return app_at_superlink(service, other, token),
    })
}

fn simulation(request: Request, token: String) -> Option<Asked<AppIo>> {
    let Request::GetFederationOptions(call) = request else {
        return app_at_superlink(SIMULATION, request, token);
    };
    let message = pb::GetFederationOptionsRequest { run_id: call.run.0 };
    Some(asked(
        SIMULATION,
        "GetFederationOptions",
        &message,
        |answer| {
            let answer: pb::GetFederationOptionsResponse = parse(answer)?;
            present(answer.federation_options, "options").map(Response::GetFederationOptions)
        },
    ))
}

/// The calls that ServerApps and simulations share.
fn app_at_superlink(
    service: &'static str,
    request: Request,
    token: String,
) -> Option<Asked<AppIo>> {
    Some(match request {
        Request::PullInputs(_) => pull_inputs(service, "PullAppInputs", token),
        Request::PushOutputs(call) => {
            push_outputs(service, "PushAppOutputs", token, call.run, call.context)
        }
        Request::GetRunStatus(call) => {
            let message = pb::GetRunStatusRequest {
                node: None,
                run_ids: call.runs.into_iter().map(|run| run.0).collect(),
            };
            asked(service, "GetRunStatus", &message, run_status)
        }
        Request::UpdateRunStatus(call) => {
            let message = pb::UpdateRunStatusRequest {
                run_id: call.run.0,
                run_status: call.status.map(convert::status_proto),
            };
            asked(service, "UpdateRunStatus", &message, |answer| {
                let pb::UpdateRunStatusResponse {} = parse(answer)?;
                Ok(Response::UpdateRunStatus(()))
            })
        }
        Request::PushLogs(call) => {
            let message = pb::PushLogsRequest {
                node: Some(convert::node(NodeId::NONE)),
                run_id: call.run.0,
                logs: vec![call.text],
            };
            asked(service, "PushLogs", &message, |answer| {
                let pb::PushLogsResponse {} = parse(answer)?;
                Ok(Response::PushLogs(()))
            })
        }
        Request::Heartbeat(call) => {
            let message = pb::SendAppHeartbeatRequest {
                run_id: call.run.0,
                heartbeat_interval: call.heartbeat_interval,
            };
            asked(service, "SendAppHeartbeat", &message, |answer| {
                let answer: pb::SendAppHeartbeatResponse = parse(answer)?;
                Ok(Response::Heartbeat(answer.success))
            })
        }
        other => return launcher(service, other, token),
    })
}

/// The calls that all three services have. The last two a stock server does not know.
fn launcher(service: &'static str, request: Request, token: String) -> Option<Asked<AppIo>> {
    Some(match request {
        Request::ListAppsToLaunch(_) => {
            let message = pb::ListAppsToLaunchRequest {};
            asked(service, "ListAppsToLaunch", &message, |answer| {
                let answer: pb::ListAppsToLaunchResponse = parse(answer)?;
                let runs = answer.run_ids.into_iter().map(RunId);
                Ok(Response::ListAppsToLaunch(runs.collect()))
            })
        }
        Request::RequestToken(call) => {
            let message = pb::RequestTokenRequest { run_id: call.run.0 };
            asked(service, "RequestToken", &message, |answer| {
                let answer: pb::RequestTokenResponse = parse(answer)?;
                let token = Some(answer.token).filter(|token| !token.is_empty());
                Ok(Response::RequestToken(token.map(Token::presented)))
            })
        }
        Request::GetRun(call) => {
            let message = pb::GetRunRequest {
                node: None,
                run_id: call.run.0,
            };
            asked(service, "GetRun", &message, |answer| {
                let answer: pb::GetRunResponse = parse(answer)?;
                answer.run.map(read::run).transpose().map(Response::GetRun)
            })
        }
        Request::WatchApp(_) => {
            let message = launcher::WatchAppRequest { token };
            asked(service, WATCH_APP, &message, |answer| {
                let answer: launcher::WatchAppResponse = parse(answer)?;
                Ok(Response::WatchApp(convert::standing(answer.standing())))
            })
        }
        Request::ReportAppExit(call) => {
            let how = call.how;
            let message = launcher::ReportAppExitRequest { token, how };
            asked(service, REPORT_APP_EXIT, &message, |answer| {
                let launcher::ReportAppExitResponse {} = parse(answer)?;
                Ok(Response::ReportAppExit(()))
            })
        }
        _ => return None,
    })
}

fn asked(
    service: &'static str,
    method: &'static str,
    message: &impl Message,
    answer: impl FnOnce(Bytes) -> Result<Response, Status> + Send + 'static,
) -> Asked<AppIo> {
    Asked::new(service, method, message, |message| {
        answer(message).map(Reply::new)
    })
}

fn pull_inputs(service: &'static str, method: &'static str, token: String) -> Asked<AppIo> {
    asked(
        service,
        method,
        &pb::PullAppInputsRequest { token },
        |answer| {
            let answer: pb::PullAppInputsResponse = parse(answer)?;
            Ok(Response::PullInputs(AppInputs {
                context: AppContext::Kept(present(answer.context, "context")?),
                run: read::run(present(answer.run, "run")?)?,
                fab: read::fab(answer.fab)?,
            }))
        },
    )
}

fn push_outputs(
    service: &'static str,
    method: &'static str,
    token: String,
    run: RunId,
    context: Bytes,
) -> Asked<AppIo> {
    let message = pb::PushAppOutputsRequest {
        token,
        run_id: run.0,
        context: Some(context),
    };
    asked(service, method, &message, |answer| {
        let pb::PushAppOutputsResponse {} = parse(answer)?;
        Ok(Response::PushOutputs(()))
    })
}

fn confirm(
    service: &'static str,
    node: Option<NodeId>,
    run: RunId,
    message: &flwr_api::ObjectId,
) -> Asked<AppIo> {
    let message = pb::ConfirmMessageReceivedRequest {
        node: node.map(convert::node),
        run_id: run.0,
        message_object_id: message.to_string(),
    };
    asked(service, "ConfirmMessageReceived", &message, |answer| {
        let pb::ConfirmMessageReceivedResponse {} = parse(answer)?;
        Ok(Response::ConfirmMessage(()))
    })
}

/// A message that was not stored has an empty id. A SuperNode names none.
fn pushed(answer: Bytes) -> Result<Response, Status> {
    let answer: pb::PushAppMessagesResponse = parse(answer)?;
    let stored = answer.message_ids.into_iter();
    let stored = stored.map(|id| Some(id).filter(|id| !id.is_empty()).map(MessageId::new));
    Ok(Response::PushMessages(PushedAll {
        stored: stored.collect(),
        missing: read::object_ids(&answer.objects_to_push)?,
    }))
}

fn pulled(answer: Bytes) -> Result<Response, Status> {
    let answer: pb::PullAppMessagesResponse = parse(answer)?;
    let deliveries = read::deliveries(answer.messages_list, answer.message_object_trees)?;
    Ok(Response::PullMessages(deliveries))
}

fn run_status(answer: Bytes) -> Result<Response, Status> {
    let answer: pb::GetRunStatusResponse = parse(answer)?;
    let known = answer.run_status_dict.into_iter();
    let known = known.map(|(run, status)| Ok((RunId(run), read::run_status(status)?)));
    known.collect::<Result<_, _>>().map(Response::GetRunStatus)
}
