//! Whether a process is of use at the moment, for whoever asks it.

use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Whether something works, and if not, why; it does by default. Cheap to clone: all clones are the
/// same.
#[derive(Clone, Debug)]
pub struct Standing(Arc<Mutex<Result<(), String>>>);

impl Standing {
    /// Not yet, for this reason.
    pub fn not_yet(why: impl Into<String>) -> Self {
        Self(Arc::new(Mutex::new(Err(why.into()))))
    }

    /// From now on it works.
    pub fn good(&self) {
        *self.lock() = Ok(());
    }

    /// From now on it does not, for this reason.
    pub fn bad(&self, why: impl Display) {
        *self.lock() = Err(why.to_string());
    }

    /// Whether it works.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self) -> Result<(), String> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Result<(), String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Standing {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Ok(()))))
    }
}
