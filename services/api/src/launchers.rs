//! Who may launch apps: the rule that every daemon with an AppIo service keeps.

use flwr_transport::{Code, Context, Identity, Status};

/// Whom a daemon tells what to launch and gives the tokens of apps.
///
/// It guards `list_apps_to_launch`, `request_token`, `watch_app` and `report_app_exit`. The other
/// calls are those of apps, which prove themselves with their token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launchers {
    /// Everybody who reaches the service.
    Anyone,
    /// Those who have proved to be launchers.
    Proven,
}

impl Launchers {
    /// Passes if the caller may launch apps.
    ///
    /// # Errors
    /// [`Code::Unauthenticated`], with what to give.
    pub fn admit(self, context: &Context) -> Result<(), Status> {
        match (self, &context.peer.identity) {
            (Self::Anyone, _) | (Self::Proven, Identity::Launcher) => Ok(()),
            (Self::Proven, _) => Err(Status::new(Code::Unauthenticated, REFUSAL)),
        }
    }
}

const REFUSAL: &str = "only launchers may ask this: give the SuperExec the join secret in the file \
                       that this daemon's --appio-join-secret-file names";
