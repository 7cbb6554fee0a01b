//! How often and for how long it is tried.

use std::time::Duration;

use tokio::time::Instant;

/// When attempts are made and when a call gives up.
///
/// Pauses double from `pause_first` to `pause_max`, and each is between nothing and that ("full jitter"), so that the
/// nodes of a restarted server do not come back all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The longest first pause.
    pub pause_first: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// How often one call is tried, connecting included; without it, until its deadline.
    pub tries_max: Option<u32>,
    /// How long one call is tried; without it, until its deadline.
    pub time_max: Option<Duration>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            pause_first: Duration::from_millis(250),
            pause_max: Duration::from_secs(20),
            tries_max: None,
            time_max: None,
        }
    }
}

/// Pauses that grow.
#[derive(Debug)]
pub(super) struct Backoff {
    policy: Policy,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(policy: Policy) -> Self {
        let longest = policy.pause_first;
        Self { policy, longest }
    }

    pub(super) fn pause(&mut self, random: &dyn Fn() -> f64) -> Duration {
        let pause = self.longest.mul_f64(random().clamp(0.0, 1.0));
        self.longest = (self.longest * 2).min(self.policy.pause_max);
        pause
    }
}

/// What one call has used up of its bounds.
#[derive(Debug)]
pub(super) struct Tries {
    policy: Policy,
    begun: Instant,
    failed: u64,
    backoff: Backoff,
}

/// Whether a failure counts against the bounds or ends a bounded call at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    Retryable,
    Hopeless,
}

impl Tries {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            begun: Instant::now(),
            failed: 0,
            backoff: Backoff::new(policy),
        }
    }

    /// Counts failures; whether the call gives up. Without bounds nothing is hopeless: somebody may repair it.
    pub(super) fn failed(&mut self, times: u64, how: Bounds) -> bool {
        self.failed += times;
        let Policy {
            tries_max,
            time_max,
            ..
        } = self.policy;
        let bounded = tries_max.is_some() || time_max.is_some();
        (bounded && how == Bounds::Hopeless)
            || tries_max.is_some_and(|max| self.failed >= u64::from(max))
            || time_max.is_some_and(|max| self.begun.elapsed() >= max)
    }

    /// When the bounds end the call.
    pub(super) fn ends_at(&self) -> Option<Instant> {
        self.policy.time_max.map(|max| self.begun + max)
    }

    pub(super) fn pause(&mut self, random: &dyn Fn() -> f64) -> Duration {
        let pause = self.backoff.pause(random);
        let left = self
            .ends_at()
            .map(|end| end.saturating_duration_since(Instant::now()));
        left.map_or(pause, |left| pause.min(left))
    }
}
