//! Which calls a run's status allows.

use std::future::Future;

use flwr_api::{Phase, Reason, RunId};
use flwr_state::{Fabs, LinkState};
use flwr_transport::{Code, Status};

use crate::superlink::{SuperLink, unavailable};

/// What a held call checks again before it is answered.
pub(crate) trait Gate: Sync {
    /// Passes, or refuses the call.
    fn check(&self) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// Passes if the run is running.
    ///
    /// An unknown run is refused like a finished one, so that a node which still holds a message of
    /// a forgotten run drops the message and goes on.
    pub(crate) async fn require_running(&self, run: RunId) -> Result<(), Status> {
        let status = self.state().run_status(run, self.now()).await;
        match status.map_err(unavailable)? {
            Some(status) if status.phase == Phase::Running => Ok(()),
            Some(status) => Err(Reason::run_not_running(&status)),
            None => Err(unknown_run()),
        }
    }
}

/// The refusal of a call about a run that does not exist.
pub(crate) fn unknown_run() -> Status {
    Status::new(Code::PermissionDenied, "no such run").with_reason(Reason::RunUnknown as u16)
}
