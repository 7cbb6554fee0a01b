//! State in memory.

/// Placeholder.
#[derive(Debug, Default)]
pub struct MemoryState;
