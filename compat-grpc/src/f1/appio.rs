//! ServerAppIo A1: what `flower-superexec` and `flwr-serverapp` 1.22 say.

use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{
    AppInputs, AppIo, ConfirmMessage, GetFab, GetNodes, GetRun, GetRunStatus, Heartbeat,
    ListAppsToLaunch, PullInputs, PullMessages, PullObject, PushLogs, PushMessages, PushObject,
    PushOutputs, ReportAppExit, Request, RequestToken, Response, UpdateRunStatus, WatchApp,
};
use flwr_api::{MessageId, RunId};
use flwr_proto::{launcher, v1_22 as pb};
use flwr_transport::{Reply, Status};

use super::{convert, malformed, parse, pushed};
use crate::dialect::{Answer, Dialect, Question, Split, Subject};
use crate::holds::Holds;

/// Calls that Flower does not have: launchers of ours make them, and a stock server answers that
/// it does not know them.
pub(super) const WATCH_APP: &str = "FlwrQuicWatchApp";
pub(super) const REPORT_APP_EXIT: &str = "FlwrQuicReportAppExit";

/// The dialect of `flower-superexec` and `flwr-serverapp` 1.22.
#[derive(Clone, Copy, Debug)]
pub struct AppIoF1 {
    /// How long calls are held.
    pub holds: Holds,
}

impl Dialect<AppIo> for AppIoF1 {
    const SERVICE: &'static str = "flwr.proto.ServerAppIo";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<AppIo>, Status> {
        let request = match method {
            "ListAppsToLaunch" => {
                parse::<pb::ListAppsToLaunchRequest>(message)?;
                Request::ListAppsToLaunch(ListAppsToLaunch {
                    wait: self.holds.launch,
                })
            }
            "RequestToken" => Request::RequestToken(RequestToken {
                run: RunId(parse::<pb::RequestTokenRequest>(message)?.run_id),
            }),
            "GetNodes" => Request::GetNodes(GetNodes {
                run: RunId(parse::<pb::GetNodesRequest>(message)?.run_id),
            }),
            "PushMessages" => push_messages(parse(message)?)?,
            "PullMessages" => self.pull_messages(parse(message)?),
            "GetRun" => Request::GetRun(GetRun {
                run: RunId(parse::<pb::GetRunRequest>(message)?.run_id),
            }),
            "GetRunStatus" => get_run_status(parse(message)?),
            "GetFab" => get_fab(&parse(message)?)?,
            "UpdateRunStatus" => update_run_status(parse(message)?),
            "PushLogs" => push_logs(&parse(message)?),
            "SendAppHeartbeat" => heartbeat(&parse(message)?),
            "ConfirmMessageReceived" => confirm_message(&parse(message)?)?,
            // A token that is not bound to a run yet does not exist here, so there is nothing to
            // wait for.
            "PullAppInputs" => return Ok(pull_inputs(parse(message)?, Duration::ZERO)),
            "PushAppOutputs" => return push_outputs(parse(message)?),
            WATCH_APP => return Ok(self.watch_app(parse(message)?)),
            REPORT_APP_EXIT => return Ok(report_app_exit(parse(message)?)),
            "PushObject" => return push_object(parse(message)?),
            "PullObject" => return self.pull_object(parse(message)?),
            _ => return Err(Status::unimplemented(method)),
        };
        Ok(Question::new(request))
    }

    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        pushed::split(method, seen, message_bytes)
    }

    fn encode(&self, reply: Reply<AppIo>) -> Answer {
        match reply.response {
            Response::ListAppsToLaunch(runs) => Answer::message(&pb::ListAppsToLaunchResponse {
                run_ids: runs.into_iter().map(|run| run.0).collect(),
            }),
            Response::RequestToken(token) => Answer::message(&pb::RequestTokenResponse {
                token: token.map_or_else(String::new, |token| token.expose().to_owned()),
            }),
            Response::PullInputs(inputs) => Answer::message(&app_inputs(inputs)),
            Response::PushOutputs(()) => Answer::message(&pb::PushAppOutputsResponse {}),
            Response::GetNodes(nodes) => Answer::message(&pb::GetNodesResponse {
                nodes: nodes.into_iter().map(convert::node).collect(),
            }),
            Response::PushMessages(pushed) => Answer::message(&pb::PushAppMessagesResponse {
                message_ids: pushed
                    .stored
                    .into_iter()
                    .map(|id| id.map_or_else(String::new, |id| id.as_str().to_owned()))
                    .collect(),
                objects_to_push: convert::ids(&pushed.missing),
            }),
            Response::PullMessages(deliveries) => {
                let (messages_list, message_object_trees) = convert::deliveries(deliveries);
                Answer::message(&pb::PullAppMessagesResponse {
                    messages_list,
                    message_object_trees,
                })
            }
            Response::GetRun(run) => Answer::message(&pb::GetRunResponse {
                run: run.map(convert::run),
            }),
            Response::GetRunStatus(known) => Answer::message(&pb::GetRunStatusResponse {
                run_status_dict: known
                    .into_iter()
                    .map(|(run, status)| (run.0, convert::status_proto(status)))
                    .collect(),
            }),
            Response::UpdateRunStatus(()) => Answer::message(&pb::UpdateRunStatusResponse {}),
            Response::GetFab(fab) => Answer::message(&pb::GetFabResponse {
                fab: Some(convert::fab(fab)),
            }),
            Response::PushLogs(()) => Answer::message(&pb::PushLogsResponse {}),
            Response::Heartbeat(success) => {
                Answer::message(&pb::SendAppHeartbeatResponse { success })
            }
            Response::PushObject(stored) => Answer::message(&pb::PushObjectResponse { stored }),
            Response::PullObject(state) => convert::object(state, reply.tail),
            Response::ConfirmMessage(()) => Answer::message(&pb::ConfirmMessageReceivedResponse {}),
            Response::GetFederationOptions(options) => {
                Answer::message(&pb::GetFederationOptionsResponse {
                    federation_options: Some(options),
                })
            }
            Response::WatchApp(standing) => Answer::message(&launcher::WatchAppResponse {
                standing: convert::standing_proto(standing).into(),
            }),
            Response::ReportAppExit(()) => Answer::message(&launcher::ReportAppExitResponse {}),
        }
    }
}

impl AppIoF1 {
    fn pull_messages(&self, request: pb::PullAppMessagesRequest) -> Request {
        let instructions = request.message_ids.into_iter().map(MessageId::new);
        Request::PullMessages(PullMessages {
            run: RunId(request.run_id),
            instructions: instructions.collect(),
            wait: self.holds.first_reply,
            linger: self.holds.other_replies,
        })
    }

    fn watch_app(&self, request: launcher::WatchAppRequest) -> Question<AppIo> {
        let wait = self.holds.launch;
        Question::new(Request::WatchApp(WatchApp { wait })).bearing(request.token)
    }

    fn pull_object(&self, request: pb::PullObjectRequest) -> Result<Question<AppIo>, Status> {
        let object = convert::object_id(&request.object_id)?;
        let call = PullObject {
            node: convert::node_id(request.node),
            run: RunId(request.run_id),
            object,
            wait: self.holds.object,
        };
        Ok(Question::new(Request::PullObject(call)).about(Subject::Object(object)))
    }
}

pub(super) fn push_messages(request: pb::PushAppMessagesRequest) -> Result<Request, Status> {
    let messages = request.messages_list.into_iter().map(convert::message);
    Ok(Request::PushMessages(PushMessages {
        run: RunId(request.run_id),
        messages: messages.collect::<Result<_, _>>()?,
        trees: convert::trees(request.message_object_trees)?,
    }))
}

fn get_run_status(request: pb::GetRunStatusRequest) -> Request {
    Request::GetRunStatus(GetRunStatus {
        runs: request.run_ids.into_iter().map(RunId).collect(),
    })
}

fn get_fab(request: &pb::GetFabRequest) -> Result<Request, Status> {
    Ok(Request::GetFab(GetFab {
        hash: convert::fab_hash(&request.hash_str)?,
    }))
}

fn update_run_status(request: pb::UpdateRunStatusRequest) -> Request {
    Request::UpdateRunStatus(UpdateRunStatus {
        run: RunId(request.run_id),
        status: request.run_status.and_then(convert::status),
    })
}

fn push_logs(request: &pb::PushLogsRequest) -> Request {
    Request::PushLogs(PushLogs {
        run: RunId(request.run_id),
        text: request.logs.concat(),
    })
}

fn heartbeat(request: &pb::SendAppHeartbeatRequest) -> Request {
    Request::Heartbeat(Heartbeat {
        run: RunId(request.run_id),
        heartbeat_interval: request.heartbeat_interval,
    })
}

fn confirm_message(request: &pb::ConfirmMessageReceivedRequest) -> Result<Request, Status> {
    Ok(Request::ConfirmMessage(ConfirmMessage {
        run: RunId(request.run_id),
        message: convert::object_id(&request.message_object_id)?,
    }))
}

fn report_app_exit(request: launcher::ReportAppExitRequest) -> Question<AppIo> {
    Question::new(Request::ReportAppExit(ReportAppExit { how: request.how })).bearing(request.token)
}

/// `wait` is for the token to be bound to a run.
pub(super) fn pull_inputs(request: pb::PullAppInputsRequest, wait: Duration) -> Question<AppIo> {
    Question::new(Request::PullInputs(PullInputs { wait })).bearing(request.token)
}

pub(super) fn push_outputs(request: pb::PushAppOutputsRequest) -> Result<Question<AppIo>, Status> {
    let context = request.context;
    let context = context.ok_or_else(|| malformed("there is no context".into()))?;
    let call = PushOutputs {
        run: RunId(request.run_id),
        context,
    };
    Ok(Question::new(Request::PushOutputs(call)).bearing(request.token))
}

fn push_object(request: pb::PushObjectRequest) -> Result<Question<AppIo>, Status> {
    let object = convert::object_id(&request.object_id)?;
    let call = PushObject {
        node: convert::node_id(request.node),
        run: RunId(request.run_id),
        object,
    };
    let question = Question::new(Request::PushObject(call)).about(Subject::Object(object));
    Ok(question.with_body(request.object_content))
}

fn app_inputs(inputs: AppInputs) -> pb::PullAppInputsResponse {
    pb::PullAppInputsResponse {
        context: Some(convert::app_context(inputs.run.id, inputs.context)),
        run: Some(convert::run(inputs.run)),
        fab: Some(convert::fab(inputs.fab)),
    }
}
