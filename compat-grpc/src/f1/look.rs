//! Looking at a server without taking part: what it serves, whose it is, and which runs there are.

use std::time::Duration;

use flwr_certs::parse_iso;
use flwr_proto::health::{HealthCheckResponse, health_check_response::ServingStatus};
use flwr_proto::v1_22 as pb;
use flwr_transport::ConnectError;
use prost::Message as _;

use crate::client::Questioner;

/// What is behind a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// The service that is served.
    pub serves: Option<Service>,
    /// The release, if it is one of ours: told with the refusal of a call that does not exist.
    pub version: Option<String>,
}

/// A service of Flower's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Service {
    /// For users.
    Control,
    /// For SuperNodes.
    Fleet,
    /// For SuperExecs and apps, of a SuperLink.
    ServerAppIo,
    /// For SuperExecs and apps, of a SuperNode.
    ClientAppIo,
}

impl Service {
    /// As Flower's documentation calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "Control",
            Self::Fleet => "Fleet",
            Self::ServerAppIo => "ServerAppIo",
            Self::ClientAppIo => "ClientAppIo",
        }
    }

    /// A call that changes nothing, whoever makes it.
    const fn harmless(self) -> &'static str {
        match self {
            Self::Control => LIST_RUNS,
            Self::Fleet => "/flwr.proto.Fleet/GetRun",
            Self::ServerAppIo => "/flwr.proto.ServerAppIo/GetRun",
            Self::ClientAppIo => "/flwr.proto.ClientAppIo/GetRun",
        }
    }
}

/// A run, as the Control service tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunSeen {
    /// Its id.
    pub id: u64,
    /// `publisher/name`, and the version.
    pub app: String,
    /// Such as `running` or `finished:completed`.
    pub status: String,
    /// Why, if it failed.
    pub details: String,
    /// When it was submitted, in Unix seconds.
    pub since: Option<f64>,
    /// How long it has been running, or ran.
    pub took: Option<Duration>,
}

/// All runs, and the server's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct RunsSeen {
    /// In the order of their submission.
    pub runs: Vec<RunSeen>,
    /// In Unix seconds.
    pub now: Option<f64>,
}

/// Finds out what is behind a port.
///
/// # Errors
/// In words, when nobody answers.
pub async fn identify(there: &Questioner) -> Result<Server, ConnectError> {
    let said = there.ask("/flwr_quic/Look", &[]).await?;
    let version = said.status.metadata().get(VERSION_HEADER);
    let version = version.and_then(|value| value.to_str().ok().map(str::to_owned));
    let mut serves = None;
    if said.status.code() == tonic::Code::Unimplemented {
        for service in [
            Service::Control,
            Service::Fleet,
            Service::ServerAppIo,
            Service::ClientAppIo,
        ] {
            let answered = there.ask(service.harmless(), &[]).await?;
            if answered.status.code() != tonic::Code::Unimplemented {
                serves = Some(service);
                break;
            }
        }
    }
    Ok(Server { serves, version })
}

/// Asks the Control service for all runs.
///
/// # Errors
/// In words, when there is no answer or it is a refusal.
pub async fn list_runs(there: &Questioner) -> Result<RunsSeen, ConnectError> {
    let said = there.ask(LIST_RUNS, &[]).await?;
    let refused = |message: String| ConnectError {
        retryable: false,
        message,
    };
    match said.status.code() {
        tonic::Code::Ok => {}
        tonic::Code::Unimplemented => {
            return Err(refused(
                "it does not serve the Control API there: give the address of --control-api-address".into(),
            ));
        }
        _ => return Err(refused(format!("it refuses: {}", said.status.message()))),
    }
    let list = pb::ListRunsResponse::decode(said.message)
        .map_err(|error| refused(format!("its answer cannot be read: {error}")))?;
    let now = time(&list.now);
    let mut runs: Vec<_> = list
        .run_dict
        .into_values()
        .map(|run| seen(run, now))
        .collect();
    runs.sort_by(|one, other| {
        let submitted = |run: &RunSeen| run.since.unwrap_or(f64::INFINITY);
        submitted(one).total_cmp(&submitted(other))
    });
    Ok(RunsSeen { runs, now })
}

/// Asks for the health of a server, as a whole.
///
/// # Errors
/// In words, when there is no answer or it does not serve.
pub async fn health(there: &Questioner) -> Result<(), ConnectError> {
    let said = there.ask("/grpc.health.v1.Health/Check", &[]).await?;
    let unwell = |message: String| ConnectError {
        retryable: false,
        message,
    };
    match said.status.code() {
        tonic::Code::Ok => {}
        tonic::Code::Unimplemented => {
            return Err(unwell("it does not answer health checks there: give the address of --health-server-address".into()));
        }
        _ => return Err(unwell(format!("it refuses: {}", said.status.message()))),
    }
    let answer = HealthCheckResponse::decode(said.message)
        .map_err(|error| unwell(format!("its answer cannot be read: {error}")))?;
    match answer.status() {
        ServingStatus::Serving => Ok(()),
        status => Err(unwell(format!("it says {}", status.as_str_name()))),
    }
}

fn seen(run: pb::Run, now: Option<f64>) -> RunSeen {
    let status = run.status.unwrap_or_default();
    let took = match (time(&run.running_at), time(&run.finished_at).or(now)) {
        (Some(from), Some(to)) => Duration::try_from_secs_f64(to - from).ok(),
        _ => None,
    };
    RunSeen {
        id: run.run_id,
        app: format!("{} {}", run.fab_id, run.fab_version)
            .trim()
            .to_owned(),
        status: match status.sub_status.as_str() {
            "" => status.status,
            sub_status => format!("{}:{sub_status}", status.status),
        },
        details: status.details,
        since: time(&run.pending_at),
        took,
    }
}

fn time(iso: &str) -> Option<f64> {
    parse_iso(iso.as_bytes()).ok()
}

const LIST_RUNS: &str = "/flwr.proto.Control/ListRuns";
/// Beside the refusal of a call that does not exist.
pub(crate) const VERSION_HEADER: &str = "flwr-quic-version";
