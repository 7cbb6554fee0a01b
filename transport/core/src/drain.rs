//! Shutting down without cutting anybody off.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Asked once, observed everywhere; counts what is still under way.
///
/// Cheap to clone: all clones are the same drain.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    requested: CancellationToken,
    tracker: TaskTracker,
}

/// Keeps a drain from completing for as long as it lives.
#[derive(Debug)]
pub struct DrainGuard {
    _token: TaskTrackerToken,
}

impl Drain {
    /// A drain nobody has asked for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everybody to finish. Repeating it changes nothing.
    pub fn begin(&self) {
        self.requested.cancel();
        self.tracker.close();
    }

    /// Whether [`begin`](Self::begin) was called.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Completes once [`begin`](Self::begin) was called. Cancel safe.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Registers something under way.
    #[must_use]
    pub fn guard(&self) -> DrainGuard {
        DrainGuard {
            _token: self.tracker.token(),
        }
    }

    /// How many guards are alive.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tracker.len()
    }

    /// Waits after [`begin`](Self::begin) until all guards are gone, for at most `grace`; returns
    /// whether they are. Cancel safe.
    pub async fn finished(&self, grace: Duration) -> bool {
        tokio::time::timeout(grace, self.tracker.wait())
            .await
            .is_ok()
    }
}
