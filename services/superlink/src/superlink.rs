//! The parts the three services share.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::{Launchers, UnixTime};
use flwr_state::{Clock, Entropy, Fabs, LinkState, StoreError};
use flwr_transport::{Code, Status};

use crate::appio::AppIoApi;
use crate::control::{ControlApi, Runtime};
use crate::fleet::FleetApi;
use crate::inbox::Inbox;
use crate::partials::Partials;
use crate::progress::Progress;

/// How a SuperLink works.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a run is remembered that has finished.
    pub keep_runs: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            keep_runs: Duration::from_secs(90 * 24 * 3600),
        }
    }
}

/// A SuperLink over a state and a store of app bundles. Cheap to clone: all clones are the same.
#[derive(Debug)]
pub struct SuperLink<S, F> {
    pub(crate) core: Arc<Core<S, F>>,
}

#[derive(Debug)]
pub(crate) struct Core<S, F> {
    pub(crate) state: Arc<S>,
    pub(crate) fabs: F,
    pub(crate) inbox: Inbox<S>,
    pub(crate) partials: Arc<Partials>,
    pub(crate) progress: Progress,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) keep_runs: Duration,
}

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// Puts the parts together. Nothing runs until a service is called or [`Self::sweep`] is
    /// awaited.
    pub fn new(
        state: S,
        fabs: F,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        config: Config,
    ) -> Self {
        let state = Arc::new(state);
        Self {
            core: Arc::new(Core {
                inbox: Inbox::new(Arc::clone(&state), Arc::clone(&clock)),
                partials: Arc::new(Partials::default()),
                progress: Progress::default(),
                state,
                fabs,
                clock,
                entropy,
                keep_runs: config.keep_runs,
            }),
        }
    }

    /// The service for SuperNodes. `anonymous_nodes` lets nodes in that come over a transport
    /// without authentication; they can then speak for any node.
    #[must_use]
    pub fn fleet(&self, anonymous_nodes: bool) -> FleetApi<S, F> {
        FleetApi::new(self.clone(), anonymous_nodes)
    }

    /// The service for ServerApps and their launchers, those of `launchers`.
    #[must_use]
    pub fn appio(&self, launchers: Launchers) -> AppIoApi<S, F> {
        AppIoApi::new(self.clone(), launchers)
    }

    /// The service for users, whose runs are executed by `runtime`.
    #[must_use]
    pub fn control(&self, runtime: Runtime) -> ControlApi<S, F> {
        ControlApi::new(self.clone(), runtime)
    }

    pub(crate) fn now(&self) -> UnixTime {
        self.core.clock.now()
    }

    pub(crate) fn state(&self) -> &S {
        &self.core.state
    }
}

impl<S, F> Clone for SuperLink<S, F> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
        }
    }
}

/// What a caller is told when a store fails. Logged here, because the caller learns no details.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
pub(crate) fn unavailable(error: StoreError) -> Status {
    tracing::error!(
        error = %error,
        cause = std::error::Error::source(&error).map(ToString::to_string),
        "state is unavailable"
    );
    let message = match error.code() {
        Code::ResourceExhausted => "the SuperLink's storage is full",
        _ => "the SuperLink's storage is unavailable",
    };
    Status::new(error.code(), message)
}
