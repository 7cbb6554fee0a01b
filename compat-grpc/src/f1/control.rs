//! Control K1: what the `flwr` command of 1.22 says.

use bytes::Bytes;
use flwr_api::control::{
    Control, GetAuthTokens, GetLoginDetails, ListRuns, PullArtifacts, Request, Response, StartRun,
    StopRun, StreamLogs,
};
use flwr_api::{RunId, UnixTime};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Reply, Status, Tail};
use futures_util::StreamExt;
use prost::Message as _;

use super::{convert, parse};
use crate::dialect::{Answer, Dialect, Question, Subject};

/// The dialect of the `flwr` command of 1.22.
#[derive(Clone, Copy, Debug)]
pub struct ControlF1;

impl Dialect<Control> for ControlF1 {
    const SERVICE: &'static str = "flwr.proto.Control";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<Control>, Status> {
        let request = match method {
            "StartRun" => start_run(parse(message)?)?,
            "StopRun" => {
                let run = RunId(parse::<pb::StopRunRequest>(message)?.run_id);
                let question = Question::new(Request::StopRun(StopRun { run }));
                return Ok(question.about(Subject::Run(run)));
            }
            "StreamLogs" => stream_logs(&parse(message)?),
            "ListRuns" => Request::ListRuns(ListRuns {
                run: parse::<pb::ListRunsRequest>(message)?.run_id.map(RunId),
            }),
            "GetLoginDetails" => Request::GetLoginDetails(GetLoginDetails {}),
            "GetAuthTokens" => Request::GetAuthTokens(GetAuthTokens {
                device_code: parse::<pb::GetAuthTokensRequest>(message)?.device_code,
            }),
            "PullArtifacts" => Request::PullArtifacts(PullArtifacts {
                run: RunId(parse::<pb::PullArtifactsRequest>(message)?.run_id),
            }),
            _ => return Err(Status::unimplemented(method)),
        };
        Ok(Question::new(request))
    }

    fn encode(&self, reply: Reply<Control>) -> Answer {
        match reply.response {
            Response::StartRun(run) => Answer::message(&pb::StartRunResponse {
                run_id: run.map(|run| run.0),
            }),
            Response::StopRun(()) => Answer::message(&pb::StopRunResponse { success: true }),
            Response::StreamLogs(()) => match reply.tail {
                Tail::Events(chunks) => Answer::Stream(
                    chunks
                        .map(|chunk| {
                            let chunk = chunk?;
                            let message = pb::StreamLogsResponse {
                                log_output: chunk.text,
                                latest_timestamp: chunk.latest.seconds(),
                            };
                            Ok(Bytes::from(message.encode_to_vec()))
                        })
                        .boxed(),
                ),
                _ => Answer::Stream(futures_util::stream::empty().boxed()),
            },
            Response::ListRuns(list) => Answer::message(&pb::ListRunsResponse {
                run_dict: list
                    .runs
                    .into_iter()
                    .map(|run| (run.id.0, convert::run(run)))
                    .collect(),
                now: convert::iso(list.now),
            }),
            Response::GetLoginDetails(details) => Answer::message(&pb::GetLoginDetailsResponse {
                auth_type: details.auth_type,
                device_code: details.device_code,
                verification_uri_complete: details.verification_uri,
                expires_in: details.expires_in,
                interval: details.interval,
            }),
            Response::GetAuthTokens(tokens) => Answer::message(&pb::GetAuthTokensResponse {
                access_token: tokens.access,
                refresh_token: tokens.refresh,
            }),
            Response::PullArtifacts(url) => Answer::message(&pb::PullArtifactsResponse { url }),
        }
    }
}

fn start_run(request: pb::StartRunRequest) -> Result<Request, Status> {
    let fab = request.fab.unwrap_or_default();
    Ok(Request::StartRun(StartRun {
        hash: fab.hash_str.parse().ok(),
        fab: fab.content,
        overrides: convert::config(request.override_config)?,
        federation: String::new(),
        option_names: option_names(request.federation_options.as_ref()),
        options: request.federation_options,
    }))
}

/// Options that cannot be read have no names: a client of Flower 1.22 shows nothing of a status.
fn option_names(options: Option<&Bytes>) -> Vec<String> {
    let record = options.and_then(|options| pb::ConfigRecord::decode(options.clone()).ok());
    let items = record.into_iter().flat_map(|record| record.items);
    items.map(|item| item.key).collect()
}

fn stream_logs(request: &pb::StreamLogsRequest) -> Request {
    Request::StreamLogs(StreamLogs {
        run: RunId(request.run_id),
        after: UnixTime::new(request.after_timestamp),
    })
}
