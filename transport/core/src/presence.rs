//! Signs of life between calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Knows when a peer was last heard. Cheap to clone.
#[derive(Clone)]
pub struct Presence(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Presence {
    /// `silence` says how long nothing was heard, as exactly as it is asked.
    pub fn new(silence: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(silence))
    }

    /// How long nothing was heard of the peer. What came since the last question counts as heard now.
    #[must_use]
    pub fn silence(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Presence").field(&self.silence()).finish()
    }
}
