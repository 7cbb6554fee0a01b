//! Flower App Bundles: what daemons read of them.
//!
//! Nothing here reads files or knows where a bundle came from.

pub mod bundle;

pub use bundle::{FAB_BYTES_MAX, Refusal, inspect};
