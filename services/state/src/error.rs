//! How a store fails.

/// A store could not do its work. What was asked is not done, and can be asked again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk said no.
    #[error("cannot {action} {path}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// Where.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A body did not arrive whole.
    #[error("the object did not arrive whole")]
    Body(#[from] flwr_transport::BodyError),
    /// A worker thread is gone.
    #[error("the store is shutting down")]
    Stopped,
}

impl StoreError {
    /// Whether the same operation can succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        true
    }
}

/// What a store answers.
pub type StoreResult<T> = Result<T, StoreError>;
