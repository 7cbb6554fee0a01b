//! ClientAppIo C1: what `flower-superexec` and `flwr-clientapp` 1.22 say.

use std::time::Duration;

use bytes::Bytes;
use flwr_api::appio::{AppIo, PullMessages, Request, Response};
use flwr_api::{Run, RunId};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Reply, Status};

use super::appio::{AppIoF1, REPORT_APP_EXIT, WATCH_APP, pull_inputs, push_messages, push_outputs};
use super::{convert, parse, pushed};
use crate::dialect::{Answer, Dialect, Question, Split, Subject};
use crate::holds::Holds;

/// The dialect of `flower-superexec` and `flwr-clientapp` 1.22: [`AppIoF1`] with names of its own
/// for the calls that carry a token.
#[derive(Clone, Copy, Debug)]
pub struct ClientAppIoF1 {
    /// How long calls are held.
    pub holds: Holds,
}

impl Dialect<AppIo> for ClientAppIoF1 {
    const SERVICE: &'static str = "flwr.proto.ClientAppIo";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<AppIo>, Status> {
        match method {
            "PullClientAppInputs" => Ok(pull_inputs(parse(message)?, self.holds.inputs)),
            "PushClientAppOutputs" => push_outputs(parse(message)?),
            "PullMessage" => Ok(self.pull_message(parse(message)?)),
            "PushMessage" => push_message(parse(message)?),
            "ListAppsToLaunch"
            | "RequestToken"
            | "GetRun"
            | "PushObject"
            | "PullObject"
            | "ConfirmMessageReceived"
            | WATCH_APP
            | REPORT_APP_EXIT => self.shared().decode(method, message),
            _ => Err(Status::unimplemented(method)),
        }
    }

    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        pushed::split(method, seen, message_bytes)
    }

    fn encode(&self, reply: Reply<AppIo>) -> Answer {
        match reply.response {
            Response::PullInputs(inputs) => Answer::message(&pb::PullAppInputsResponse {
                context: Some(convert::app_context(inputs.run.id, inputs.context)),
                run: Some(run(inputs.run)),
                fab: Some(convert::fab(inputs.fab)),
            }),
            Response::GetRun(found) => Answer::message(&pb::GetRunResponse {
                run: found.map(run),
            }),
            Response::PushMessages(pushed) => Answer::message(&pb::PushAppMessagesResponse {
                message_ids: Vec::new(),
                objects_to_push: convert::ids(&pushed.missing),
            }),
            response => self.shared().encode(Reply {
                response,
                tail: reply.tail,
            }),
        }
    }
}

impl ClientAppIoF1 {
    fn shared(&self) -> AppIoF1 {
        AppIoF1 { holds: self.holds }
    }

    /// A ClientApp is given one instruction, so there are no others to linger for.
    fn pull_message(&self, request: pb::PullAppMessagesRequest) -> Question<AppIo> {
        let call = PullMessages {
            run: RunId(request.run_id),
            instructions: Vec::new(),
            wait: self.holds.message,
            linger: Duration::ZERO,
        };
        Question::new(Request::PullMessages(call)).bearing(request.token)
    }
}

fn push_message(mut request: pb::PushAppMessagesRequest) -> Result<Question<AppIo>, Status> {
    let token = std::mem::take(&mut request.token);
    Ok(Question::new(push_messages(request)?).bearing(token))
}

/// A SuperNode knows no status and no times of a run, and says so.
fn run(run: Run) -> pb::Run {
    pb::Run {
        status: Some(pb::RunStatus::default()),
        ..convert::bare_run(run.id, run.fab, run.overrides)
    }
}

#[cfg(test)]
mod tests {
    use flwr_api::appio::{AppContext, AppInputs, PushedAll};
    use flwr_api::{
        Fab, FabHash, FabInfo, MessageId, NodeId, Phase, RunStatus, UnixTime, UserConfig,
    };
    use flwr_transport::Code;
    use prost::Message as _;

    use super::*;

    const HASH: &str = "aa00000000000000000000000000000000000000000000000000000000000000";

    fn dialect() -> ClientAppIoF1 {
        let holds = Holds::default();
        ClientAppIoF1 { holds }
    }

    fn asked(method: &str, message: &impl prost::Message) -> Question<AppIo> {
        let encoded = message.encode_to_vec().into();
        dialect().decode(method, encoded).unwrap()
    }

    fn answered<M: prost::Message + Default>(response: Response) -> M {
        let Answer::Message { head, .. } = dialect().encode(Reply::new(response)) else {
            panic!("a stream")
        };
        M::decode(head).unwrap()
    }

    fn hash() -> FabHash {
        HASH.parse().unwrap()
    }

    fn known_run() -> Run {
        Run {
            id: RunId(7),
            series: 1,
            federation: String::new(),
            fab: FabInfo {
                id: "a/b".into(),
                version: "1.0.0".into(),
                hash: hash(),
            },
            overrides: UserConfig::new(),
            status: RunStatus::of(Phase::Running),
            pending_at: UnixTime::new(1.0),
            starting_at: Some(UnixTime::new(2.0)),
            running_at: Some(UnixTime::new(3.0)),
            finished_at: None,
        }
    }

    #[test]
    fn the_token_of_a_client_app_is_its_bearer() {
        let token = || "t".to_owned();
        let inputs = asked(
            "PullClientAppInputs",
            &pb::PullAppInputsRequest { token: token() },
        );
        let outputs = asked(
            "PushClientAppOutputs",
            &pb::PushAppOutputsRequest {
                token: token(),
                run_id: 7,
                context: Some(Bytes::new()),
            },
        );
        let pull = asked(
            "PullMessage",
            &pb::PullAppMessagesRequest {
                token: token(),
                ..Default::default()
            },
        );
        let push = asked(
            "PushMessage",
            &pb::PushAppMessagesRequest {
                token: token(),
                ..Default::default()
            },
        );
        for question in [inputs, outputs, pull, push] {
            assert_eq!(question.bearer.unwrap().expose(), "t");
        }
    }

    #[test]
    fn calls_of_a_server_app_are_unknown() {
        for method in ["PullAppInputs", "PullMessages", "GetNodes", "PushLogs", ""] {
            let refused = dialect().decode(method, Bytes::new()).unwrap_err();
            assert_eq!(refused.code, Code::Unimplemented, "{method}");
        }
        for method in ["ListAppsToLaunch", "RequestToken", WATCH_APP] {
            assert!(dialect().decode(method, Bytes::new()).is_ok(), "{method}");
        }
    }

    #[test]
    fn a_client_app_sees_no_status_and_no_times_of_its_run() {
        let bare = pb::Run {
            run_id: 7,
            fab_id: "a/b".into(),
            fab_version: "1.0.0".into(),
            fab_hash: HASH.into(),
            status: Some(pb::RunStatus::default()),
            ..Default::default()
        };
        let found: pb::GetRunResponse = answered(Response::GetRun(Some(known_run())));
        assert_eq!(found.run, Some(bare.clone()));
        let inputs: pb::PullAppInputsResponse = answered(Response::PullInputs(AppInputs {
            context: AppContext::Fresh {
                node: NodeId(9),
                node_config: UserConfig::new(),
                run_config: UserConfig::new(),
            },
            run: known_run(),
            fab: Fab {
                hash: hash(),
                content: Bytes::from_static(b"zip"),
            },
        }));
        assert_eq!(inputs.run, Some(bare));
        let context = pb::Context::decode(inputs.context.unwrap()).unwrap();
        assert_eq!((context.run_id, context.node_id), (7, 9));
    }

    #[test]
    fn a_pushed_message_is_answered_without_its_id() {
        let pushed: pb::PushAppMessagesResponse = answered(Response::PushMessages(PushedAll {
            stored: vec![Some(MessageId::new("m"))],
            missing: vec![HASH.parse().unwrap()],
        }));
        assert!(pushed.message_ids.is_empty());
        assert_eq!(pushed.objects_to_push, [HASH]);
    }
}
