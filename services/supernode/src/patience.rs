//! How long to wait for what, and for how long before the next try.

use std::time::Duration;

use flwr_state::{Entropy, fraction};
use flwr_transport::{Code, Status};
use tokio::time::Instant;
use tracing::debug;

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

/// Repeats a call that may be repeated and failed for a reason that may pass. A SuperLink of Flower
/// 1.22 offers an instruction once, so what is given up on the way here is lost.
#[derive(Debug)]
pub(crate) struct Insisting {
    left: u32,
    backoff: Backoff,
}

impl Default for Insisting {
    fn default() -> Self {
        Self {
            left: 4,
            backoff: Backoff::new(Duration::from_millis(250), Duration::from_secs(20)),
        }
    }
}

impl Insisting {
    /// Waits before the next try. Cancel safe.
    ///
    /// # Errors
    /// The status, if it says no or there were enough tries.
    pub(crate) async fn bear(
        &mut self,
        status: Status,
        entropy: &dyn Entropy,
    ) -> Result<(), Status> {
        if is_final(&status) || self.left == 0 {
            return Err(status);
        }
        self.left -= 1;
        debug!("a call is made again: {status}");
        self.backoff.pause(entropy).await;
        Ok(())
    }
}

/// Whether a failure decides about a call: the SuperLink says no, or the transport, which repeats by
/// itself what is retryable, was told to give up. Others, like a broken SuperLink's, may pass.
pub(crate) fn is_final(status: &Status) -> bool {
    status.code.is_retryable()
        || matches!(
            status.code,
            Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
        )
}
