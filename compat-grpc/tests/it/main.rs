//! The crate from outside: our client and our listener over real sockets, and each beside peers that misbehave.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should panic")]

mod broken;
mod calls;
mod connect;
mod federation;
mod objects;
mod refusals;
mod rest;
mod support;
mod tls;
