//! How long to wait for what, and for how long before the next try.

use std::time::Duration;

use flwr_state::{Entropy, fraction};
use tokio::time::Instant;

/// Calls that nothing else bounds are waited for this long; the transport repeats them until then.
pub(crate) fn long() -> Instant {
    Instant::now() + Duration::from_secs(24 * 3600)
}

/// Growing pauses, each cut to a random part so that many nodes do not come back at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// Starts at `first` and doubles up to `max`.
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, max }
    }

    /// Waits: between half of the pause that is due and all of it. Cancel safe.
    pub(crate) async fn pause(&mut self, entropy: &dyn Entropy) {
        let pause = self.next.mul_f64(0.5 + 0.5 * fraction(entropy));
        self.next = (self.next * 2).min(self.max);
        tokio::time::sleep(pause).await;
    }
}
