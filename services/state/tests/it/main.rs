//! State at its boundary: the battery, and random operations against a naive model.

#![expect(clippy::unwrap_used, reason = "tests")]

mod model;

use flwr_state::MemoryState;

flwr_state::conformance!(async || MemoryState::new());
