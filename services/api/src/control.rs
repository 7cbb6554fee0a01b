//! The Control service: what users ask the SuperLink.

use bytes::Bytes;

use crate::ids::{FabHash, RunId};
use crate::run::{Run, UserConfig};
use crate::time::UnixTime;

/// Runs and the server's clock, to tell how long they have been going.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RunList {
    /// The runs, oldest first.
    pub runs: Vec<Run>,
    /// When the list was made.
    pub now: UnixTime,
}

/// A piece of a run's log.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LogChunk {
    /// What the app wrote.
    pub text: String,
    /// The time of the newest entry in it; asking for what came later continues without a gap.
    pub latest: UnixTime,
}

/// How a user can log in.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LoginDetails {
    /// The kind of authentication.
    pub auth_type: String,
    /// The code the device polls with.
    pub device_code: String,
    /// Where the user confirms.
    pub verification_uri: String,
    /// Seconds until the code expires.
    pub expires_in: i64,
    /// Seconds between polls.
    pub interval: i64,
}

/// What a logged-in user presents.
#[derive(Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct AuthTokens {
    /// The access token.
    pub access: String,
    /// The refresh token.
    pub refresh: String,
}

impl std::fmt::Debug for AuthTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AuthTokens(secret)")
    }
}

service! {
    /// Calls of users to the SuperLink.
    protocol Control = "flwr.control", event LogChunk;
    service ControlService;
    client ControlClient;

    /// Submits an app; nothing if the bundle is refused.
    unary start_run: StartRun {
        /// The bundle's bytes.
        fab: Bytes,
        /// The hash the client computed, if it sent one.
        hash: Option<FabHash>,
        /// Values that replace the app's defaults.
        overrides: UserConfig,
        /// The federation; empty is the default one.
        federation: String,
        /// The federation's encoded options, opaque here.
        options: Option<Bytes>,
        /// The names of the options.
        option_names: Vec<String>,
    } -> Option<RunId>, once;

    /// Stops a run.
    unary stop_run: StopRun {
        /// The run.
        run: RunId,
    } -> (), once;

    /// Streams a run's log from `after` on until the run has finished.
    events stream_logs: StreamLogs {
        /// The run.
        run: RunId,
        /// Where to start; entries of this time or before are left out.
        after: UnixTime,
    } -> (), repeatable;

    /// Lists one run, or all.
    unary list_runs: ListRuns {
        /// The one run.
        run: Option<RunId>,
    } -> RunList, repeatable;

    /// Asks how to log in.
    unary login_details: GetLoginDetails {} -> LoginDetails, repeatable;

    /// Trades a device code for tokens.
    unary auth_tokens: GetAuthTokens {
        /// The device code.
        device_code: String,
    } -> AuthTokens, once;

    /// Asks where a run's artifacts can be fetched.
    unary pull_artifacts: PullArtifacts {
        /// The run.
        run: RunId,
    } -> Option<String>, repeatable;
}
