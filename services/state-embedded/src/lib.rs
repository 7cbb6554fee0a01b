//! State that outlives its process: SQLite for what is said, files for the bytes of large objects.
//!
//! The rules are those of [`flwr_state::State`], whose tables are in memory; this is the storage
//! that keeps a row for each of their facts. One thread writes ([`writer`]), many steps at a time,
//! and syncs before anybody hears of them. [`opening`] takes a database into use and [`loading`]
//! reads it; both refuse what they cannot vouch for. Rows have checksums ([`row`]), objects their
//! hashes. [`upkeep`] is for operators: to check, copy and shrink what is there.

mod error;
mod loading;
mod opening;
mod owner;
mod readers;
mod reading;
mod row;
mod schema;
mod storage;
mod tables;
pub mod upkeep;
mod writer;
mod writing;

pub use error::OpenError;
pub use opening::Config;
pub use storage::{Embedded, EmbeddedState, open};
