//! The one place where the wall clock is read.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use flwr_api::UnixTime;

/// Tells the time.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// Now.
    fn now(&self) -> UnixTime;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> UnixTime {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is where the wall clock is read"
        )]
        let now = SystemTime::now();
        // A clock set before 1970 counts as the epoch.
        UnixTime::new(
            now.duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        )
    }
}
