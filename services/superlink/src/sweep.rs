//! What has to happen though nobody asks: runs whose ServerApp is lost end, and nodes that have
//! long been gone are forgotten.

use std::time::Duration;

use flwr_state::{Fabs, LinkState, StoreError};
use flwr_transport::Drain;
use tracing::info;

use crate::superlink::{SuperLink, unavailable};

/// The longest time between two sweeps.
const PERIOD: Duration = Duration::from_secs(5);

/// How long a node stays on the list after its last heartbeat ran out, in seconds.
const FORGET_NODE_SECONDS: f64 = 24.0 * 3600.0;

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// Sweeps until the drain is asked. Dropping the future loses nothing.
    pub async fn sweep(&self, drain: &Drain) {
        loop {
            let pause = match self.sweep_once().await {
                Ok(pause) => pause,
                Err(error) => {
                    let _ = unavailable(error);
                    PERIOD
                }
            };
            tokio::select! {
                biased;
                () = drain.requested() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Returns how long nothing will be due.
    async fn sweep_once(&self) -> Result<Duration, StoreError> {
        let now = self.now();
        let state = self.state();
        // Looking at the queue applies the leases that have passed, which ends their runs and wakes
        // whoever waits for them.
        state.launch_queue(now).await?;
        for node in state.sweep_nodes(now.plus(-FORGET_NODE_SECONDS)).await? {
            info!(
                node_id = node.0,
                "node forgotten: it has been offline for a day"
            );
        }
        let due = state.next_lease_end().await?.map(|end| now.until(end));
        // Leases end strictly after their time.
        const TICK: Duration = Duration::from_millis(1);
        Ok(due.map_or(PERIOD, |due| (due + TICK).min(PERIOD)))
    }
}
