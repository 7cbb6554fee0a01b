//! The crate from outside: node authentication, key files and key lists.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod auth;
mod key_files;
mod key_list;
