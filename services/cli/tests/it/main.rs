//! The built binary, run as an operator runs it. Ids in names are statements of the protocol document, section 9.10.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod appio;
mod certs;
mod config;
mod flags;
mod keys;
mod lifecycle;
mod log_file;
mod metrics;
mod state;
mod superexec;
mod support;
