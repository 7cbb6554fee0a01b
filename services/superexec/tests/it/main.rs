//! The launcher against a toy daemon, with scripts in place of the apps' programs.

#![expect(
    clippy::unwrap_used,
    reason = "a test that fails may say so by panicking"
)]

mod daemon;
mod ends;
mod fork;
mod launches;
mod prestart;
mod relay;
mod world;
