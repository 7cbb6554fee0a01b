//! Points in time as Flower counts them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Seconds since the Unix epoch, as a double: what Flower's messages carry.
///
/// Resolution is about a quarter of a microsecond in this century. Never NaN when made by
/// [`UnixTime::new`].
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct UnixTime(f64);

impl UnixTime {
    /// A point in time; NaN becomes the epoch.
    #[must_use]
    pub fn new(seconds: f64) -> Self {
        Self(if seconds.is_nan() { 0.0 } else { seconds })
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0
    }

    /// This time and `seconds` more.
    #[must_use]
    pub fn plus(self, seconds: f64) -> Self {
        Self::new(self.0 + seconds)
    }

    /// How long from `self` to `later`: zero if it has passed, at most a year.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        const YEAR_SECONDS: f64 = 365.0 * 86_400.0;
        Duration::from_secs_f64((later.0 - self.0).clamp(0.0, YEAR_SECONDS))
    }

    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }

    /// The later of two.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }
}
