//! TLS sessions that a peer may come back with (RFC 8446, section 2.2), and its first flight with it (0-RTT).
//!
//! Each is kept here and taken out by whoever comes back with it, so that a first flight counts once: one that somebody
//! recorded and sends again names a session that is not there any more (RFC 8446, section 8.1). None outlives the process.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::server::{ProducesTickets, ServerSessionMemoryCache};
use rustls::{ClientConfig, ServerConfig};

/// Lets those come back who were here, with calls in their first flight; unless `config` sends no tickets, because everyone
/// has to prove anew who it is.
pub(crate) fn kept_by(config: &mut ServerConfig) {
    if config.send_tls13_tickets == 0 {
        return;
    }
    config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
    config.ticketer = Arc::new(NoTickets);
    config.send_tls13_tickets = 1;
    // All or nothing (RFC 9001, section 4.6.1): the windows of QUIC bound how much it is.
    config.max_early_data_size = u32::MAX;
}

/// Comes back with a session where there is one. They are not those of TCP.
pub(crate) fn used_by(config: &mut ClientConfig) {
    config.resumption = Resumption::in_memory_sessions(SERVERS_MAX);
    config.enable_early_data = true;
}

/// Tickets that hold a session themselves could be used again and again.
#[derive(Debug)]
struct NoTickets;

impl ProducesTickets for NoTickets {
    fn enabled(&self) -> bool {
        false
    }

    fn lifetime(&self) -> u32 {
        0
    }

    fn encrypt(&self, _session: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn decrypt(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// Sessions that are kept, of about 700 bytes each; the oldest go first, and their owners shake hands anew.
const SESSIONS_MAX: usize = 4 << 10;
/// A connector has one server.
const SERVERS_MAX: usize = 1;
