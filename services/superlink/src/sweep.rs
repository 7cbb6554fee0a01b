//! What has to happen though nobody asks: runs whose ServerApp is lost end, nodes that have long
//! been gone are forgotten, and so are runs that finished long ago, and what has arrived of objects that nobody
//! goes on with.

use std::time::Duration;

use flwr_api::Phase;
use flwr_state::{Fabs, LinkState, StoreError};
use flwr_transport::Drain;
use tracing::info;

use crate::superlink::{SuperLink, unavailable};

/// The longest time between two sweeps.
const PERIOD: Duration = Duration::from_secs(5);

/// How long a node stays on the list after its last heartbeat ran out, in seconds.
const FORGET_NODE_SECONDS: f64 = 24.0 * 3600.0;

/// How many runs that have finished are remembered at most.
const FINISHED_RUNS_MAX: usize = 10_000;

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
                () = drain.requested() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        // For whoever comes next, who takes it that nobody was served from here on.
        let checkpoint = self.state().checkpoint(self.now()).await;
        let _ = checkpoint.map_err(unavailable);
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
        let long_ago = now.plus(-self.core.keep_runs.as_secs_f64());
        for run in state.sweep_runs(long_ago, FINISHED_RUNS_MAX).await? {
            info!(run_id = run.0, "run forgotten: it finished long ago");
        }
        self.sweep_partials().await?;
        self.sweep_progress().await?;
        state.checkpoint(now).await?;
        let due = state.next_lease_end().await?.map(|end| now.until(end));
        // Leases end strictly after their time.
        const TICK: Duration = Duration::from_millis(1);
        Ok(due.map_or(PERIOD, |due| (due + TICK).min(PERIOD)))
    }

    /// Forgets what was seen of runs that are over.
    async fn sweep_progress(&self) -> Result<(), StoreError> {
        let progress = &self.core.progress;
        for run in progress.known() {
            let status = self.state().run_status(run, self.now()).await?;
            if status.is_none_or(|status| status.phase != Phase::Running) {
                progress.forget(run);
            }
        }
        Ok(())
    }

    /// Forgets beginnings of objects that nobody will go on with.
    async fn sweep_partials(&self) -> Result<(), StoreError> {
        let partials = &self.core.partials;
        partials.sweep();
        for run in partials.runs() {
            let status = self.state().run_status(run, self.now()).await?;
            if status.is_none_or(|status| status.phase != Phase::Running) {
                partials.forget_run(run);
            }
        }
        Ok(())
    }
}
