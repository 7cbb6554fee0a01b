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

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const GRACE: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn clones_are_one_drain() {
        let drain = Drain::new();
        let clone = drain.clone();
        let waiting = tokio::spawn(async move { clone.requested().await });
        tokio::task::yield_now().await;
        assert!(!drain.is_requested());
        assert!(!waiting.is_finished());
        drain.begin();
        drain.begin();
        assert!(drain.is_requested());
        waiting.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn finishes_with_the_last_guard() {
        let drain = Drain::new();
        let (first, second) = (drain.guard(), drain.guard());
        assert_eq!(drain.in_flight(), 2);
        drain.begin();
        let late = drain.guard();
        let waiting = tokio::spawn({
            let drain = drain.clone();
            async move { drain.finished(GRACE).await }
        });
        drop((first, second));
        tokio::time::sleep(GRACE / 2).await;
        assert!(!waiting.is_finished());
        assert_eq!(drain.in_flight(), 1);
        drop(late);
        assert!(waiting.await.unwrap());
        assert_eq!(drain.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_beyond_its_grace() {
        let drain = Drain::new();
        let guard = drain.guard();
        drain.begin();
        let begun = Instant::now();
        assert!(!drain.finished(GRACE).await);
        assert_eq!(begun.elapsed().as_secs(), GRACE.as_secs());
        drop(guard);
        assert!(drain.finished(Duration::ZERO).await);
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_finish_before_it_is_asked() {
        let drain = Drain::new();
        assert!(!drain.finished(GRACE).await);
        drain.begin();
        assert!(drain.finished(Duration::ZERO).await);
    }
}
