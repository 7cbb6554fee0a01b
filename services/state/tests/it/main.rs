//! State at its boundary: the battery, and random operations against naive models.

#![expect(clippy::unwrap_used, reason = "tests")]

mod files;
mod model;
mod overflow;

use flwr_state::MemoryState;

flwr_state::conformance!(async || MemoryState::default());
