//! What a SuperNode is told.

use std::time::Duration;

use flwr_api::UserConfig;

/// How a SuperNode works.
#[derive(Clone, Debug)]
pub struct Config {
    /// What ClientApps find as their node's configuration.
    pub node_config: UserConfig,
    /// How many ClientApps may run at once. Those of one run never do, because they share state.
    pub apps_max: usize,
    /// How many objects of a message travel at once.
    pub transfers_max: usize,
    /// How long the SuperLink may hold a call that asks for work. A SuperLink that cannot hold
    /// calls answers at once and is asked again after [`Config::empty_pause`].
    pub hold: Duration,
    /// The pause after an empty answer that was not held.
    pub empty_pause: Duration,
    /// Whether the transport gives up on a SuperLink that does not answer; if it does, so does the
    /// SuperNode.
    pub gives_up: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_config: UserConfig::new(),
            apps_max: 1,
            transfers_max: 4,
            hold: Duration::from_secs(25),
            empty_pause: Duration::from_secs(3),
            gives_up: false,
        }
    }
}

/// Seconds between two heartbeats, as announced; they are sent a little earlier.
pub(crate) const HEARTBEAT_SECONDS: f64 = 30.0;
