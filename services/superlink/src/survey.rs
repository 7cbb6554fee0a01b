//! How the SuperLink is, for whoever watches: gauges that are looked up when they are asked for, and
//! whether it can serve.

use flwr_api::UnixTime;
use flwr_state::{Census, Fabs, LinkState, Queue, StoreError};
use metrics::gauge;

use crate::metrics::{
    INSTRUCTION_AGE, INSTRUCTIONS, NODES, RUNS, STANDSTILL, STORE_BYTES, STORE_OBJECTS,
};
use crate::superlink::SuperLink;

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// Brings the gauges up to date.
    ///
    /// # Errors
    /// The state cannot be asked.
    pub async fn survey(&self) -> Result<(), StoreError> {
        let now = self.now();
        let census = self.state().census(now).await?;
        set(&census, now);
        let standstill = self.core.progress.standstill(&census.running);
        gauge!(STANDSTILL).set(standstill.as_secs_f64());
        Ok(())
    }

    /// Whether the state works: what is said now can be kept.
    ///
    /// # Errors
    /// It does not, for this reason.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.state().check().await
    }
}

fn set(census: &Census, now: UnixTime) {
    let finished = census.runs_finished;
    let runs = [
        ("pending", census.runs_pending),
        ("starting", census.runs_starting),
        ("running", census.running.len()),
        ("completed", finished.completed),
        ("failed", finished.failed),
        ("stopped", finished.stopped),
    ];
    for (status, count) in runs {
        gauge!(RUNS, "status" => status).set(number(count));
    }
    for (state, count) in [
        ("online", census.nodes_online),
        ("offline", census.nodes_offline),
    ] {
        gauge!(NODES, "state" => state).set(number(count));
    }
    let queues = [
        ("incomplete", census.incomplete),
        ("ready", census.ready),
        ("offered", census.offered),
        ("working", census.working),
        ("answered", census.answered),
    ];
    for (state, Queue { len, oldest }) in queues {
        let age = oldest.map(|oldest| oldest.until(now)).unwrap_or_default();
        gauge!(INSTRUCTIONS, "state" => state).set(number(len));
        gauge!(INSTRUCTION_AGE, "state" => state).set(age.as_secs_f64());
    }
    gauge!(STORE_OBJECTS).set(number(census.objects));
    gauge!(STORE_BYTES).set(number(census.object_bytes));
}

/// As Prometheus counts. What is lost beyond 2^53 nobody sees.
fn number(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}
