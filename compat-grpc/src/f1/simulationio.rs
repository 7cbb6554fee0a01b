//! SimulationIo: what `flower-superexec` and `flwr-simulation` 1.22 say.

use bytes::Bytes;
use flwr_api::RunId;
use flwr_api::appio::{AppIo, GetFederationOptions, Request};
use flwr_proto::v1_22 as pb;
use flwr_transport::{Reply, Status};

use super::appio::{AppIoF1, REPORT_APP_EXIT, WATCH_APP};
use super::parse;
use crate::dialect::{Answer, Dialect, Question, Subject};
use crate::holds::Holds;

/// The dialect of `flower-superexec` and `flwr-simulation` 1.22: the calls of [`AppIoF1`] that need
/// no nodes, and one of its own.
#[derive(Clone, Copy, Debug)]
pub struct SimulationIoF1 {
    /// How long calls are held.
    pub holds: Holds,
}

impl Dialect<AppIo> for SimulationIoF1 {
    const SERVICE: &'static str = "flwr.proto.SimulationIo";

    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status {
        super::refuse(status, subject)
    }

    fn decode(&self, method: &str, message: Bytes) -> Result<Question<AppIo>, Status> {
        match method {
            "GetFederationOptions" => {
                let run = RunId(parse::<pb::GetFederationOptionsRequest>(message)?.run_id);
                let call = GetFederationOptions { run };
                Ok(Question::new(Request::GetFederationOptions(call)))
            }
            "ListAppsToLaunch" | "RequestToken" | "GetRun" | "GetRunStatus" | "PullAppInputs"
            | "PushAppOutputs" | "UpdateRunStatus" | "PushLogs" | "SendAppHeartbeat"
            | WATCH_APP | REPORT_APP_EXIT => self.shared().decode(method, message),
            _ => Err(Status::unimplemented(method)),
        }
    }

    fn encode(&self, reply: Reply<AppIo>) -> Answer {
        self.shared().encode(reply)
    }
}

impl SimulationIoF1 {
    fn shared(&self) -> AppIoF1 {
        AppIoF1 { holds: self.holds }
    }
}

#[cfg(test)]
mod tests {
    use flwr_api::appio::Response;
    use flwr_transport::Code;
    use prost::Message as _;

    use super::*;

    #[test]
    fn options_are_relayed_as_they_came() {
        let holds = Holds::default();
        let dialect = SimulationIoF1 { holds };
        let asked = pb::GetFederationOptionsRequest { run_id: u64::MAX };
        let question = dialect.decode("GetFederationOptions", asked.encode_to_vec().into());
        let run = RunId(u64::MAX);
        assert_eq!(
            question.unwrap().request,
            Request::GetFederationOptions(GetFederationOptions { run })
        );
        let options = Bytes::from_static(b"\x0a\x00");
        let answer = dialect.encode(Reply::new(Response::GetFederationOptions(options.clone())));
        let Answer::Message { head, .. } = answer else {
            panic!("a stream")
        };
        let relayed = pb::GetFederationOptionsResponse::decode(head).unwrap();
        assert_eq!(relayed.federation_options, Some(options));
    }

    #[test]
    fn calls_that_need_nodes_are_unknown() {
        let holds = Holds::default();
        let dialect = SimulationIoF1 { holds };
        for method in ["GetNodes", "PushMessages", "PullObject", "GetFab"] {
            let refused = dialect.decode(method, Bytes::new()).unwrap_err();
            assert_eq!(refused.code, Code::Unimplemented, "{method}");
        }
        for method in ["SendAppHeartbeat", "PullAppInputs", "PushLogs"] {
            assert!(dialect.decode(method, Bytes::new()).is_ok(), "{method}");
        }
    }
}
