//! What is counted of a SuperExec: names and meanings.
//!
//! Labels are words of this program's own: what a run is called is never one.

use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

use crate::config::Kind;

/// Apps that run, by kind.
pub const RUNNING: &str = "flwr_quic_apps_running";
/// Apps that were started, by kind.
pub const STARTED: &str = "flwr_quic_apps_started_total";
/// Apps that have ended, by kind and outcome.
pub const ENDED: &str = "flwr_quic_apps_ended_total";

/// How an app ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, and well.
    Success,
    /// By itself, with another status or by a signal.
    Died,
    /// Its run was over.
    Unwanted,
    /// This SuperExec ends.
    Shutdown,
    /// It never ran.
    NotStarted,
}

/// An app that counts as running until this is dropped.
pub(crate) struct Running(Gauge);

impl Running {
    pub(crate) fn begin(kind: Kind) -> Self {
        counter!(STARTED, "app" => kind.program()).increment(1);
        let running = gauge!(RUNNING, "app" => kind.program());
        running.increment(1);
        Self(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl End {
    const ALL: [Self; 5] = [
        Self::Success,
        Self::Died,
        Self::Unwanted,
        Self::Shutdown,
        Self::NotStarted,
    ];

    pub(crate) fn count(self, kind: Kind) {
        self.counter(kind).increment(1);
    }

    fn counter(self, kind: Kind) -> Counter {
        let outcome = match self {
            Self::Success => "success",
            Self::Died => "died",
            Self::Unwanted => "unwanted",
            Self::Shutdown => "shutdown",
            Self::NotStarted => "not_started",
        };
        counter!(ENDED, "app" => kind.program(), "outcome" => outcome)
    }
}

/// Begins to count the apps of a kind: Prometheus sees no increase to the first value that it hears.
pub(crate) fn begin(kind: Kind) {
    counter!(STARTED, "app" => kind.program()).increment(0);
    gauge!(RUNNING, "app" => kind.program()).increment(0);
    for end in End::ALL {
        end.counter(kind).increment(0);
    }
}

/// Says what each of them means. A recorder has to be installed.
pub fn describe() {
    describe_gauge!(RUNNING, Unit::Count, "Apps that run");
    describe_counter!(STARTED, Unit::Count, "Apps that were started");
    describe_counter!(
        ENDED,
        Unit::Count,
        "Apps that have ended; died: by themselves and not well, unwanted: ended because their run was over, \
         shutdown: ended with this SuperExec, not_started: their process could not be started"
    );
}
