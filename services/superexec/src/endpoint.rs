//! Where an app calls its relay. The binary implements it, because it knows how apps speak.

use std::any::Any;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::relay::Relay;

/// Opens listeners on the loopback that hand an app's calls to its relay.
pub trait Endpoint: fmt::Debug + Send + Sync + 'static {
    /// Opens one. Called within a tokio runtime.
    ///
    /// # Errors
    /// When there is no port to listen on.
    fn open(&self, relay: Arc<Relay>) -> io::Result<Opened>;
}

/// A listener for one app.
pub struct Opened {
    /// What the app is told to call: `host:port`.
    pub address: String,
    /// Closes the listener when it is dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
