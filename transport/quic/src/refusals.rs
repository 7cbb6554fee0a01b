//! Log lines about connections and calls that were refused: the same as those over gRPC.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use flwr_transport::{Code, Status};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::metrics::Refusal;

/// Counts a connection that did not begin and says why.
pub(crate) fn connection(refusal: Refusal, peer: SocketAddr, why: &str) {
    refusal.count();
    match refusal {
        Refusal::Unproved => warn!(%peer, why, "connection refused"),
        Refusal::MalformedHello | Refusal::WrongProtocol => info!(%peer, why, "connection refused"),
        _ => debug!(%peer, why, "no connection"),
    }
}

/// Those of one connection. Whoever repeats a refused call pays nothing for it, so that there are so many lines a minute;
/// further ones are for DEBUG.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    /// Since when lines are counted, and how many there were.
    lines: Mutex<Option<(Instant, u32)>>,
}

impl Refusals {
    /// Logs a call that has failed.
    pub(crate) fn call(
        &self,
        peer: SocketAddr,
        method: fmt::Arguments<'_>,
        status: &Status,
        is_draining: bool,
    ) {
        let (code, why) = (status.code, &*status.message);
        match code {
            _ if is_draining => debug!(%peer, %method, ?code, why, "call ended"),
            Code::Cancelled | Code::DeadlineExceeded => {
                debug!(%peer, %method, ?code, why, "call ended");
            }
            _ if !self.has_room() => debug!(%peer, %method, ?code, why, "call refused"),
            Code::Unauthenticated => warn!(%peer, %method, why, "call refused"),
            _ => info!(%peer, %method, ?code, why, "call refused"),
        }
    }

    fn has_room(&self) -> bool {
        let now = Instant::now();
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, count) = match *lines {
            Some((since, count)) if now.duration_since(since) < MINUTE => (since, count),
            _ => (now, 0),
        };
        *lines = Some((since, count.saturating_add(1)));
        count < LINES_MAX
    }
}

/// Enough to see what goes wrong, and too few to fill a disk.
const LINES_MAX: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_minute_has_its_lines() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            let logged = (0..1000).filter(|_| refusals.has_room()).count();
            assert_eq!(logged, LINES_MAX as usize);
            tokio::time::advance(MINUTE - Duration::from_millis(1)).await;
            assert!(!refusals.has_room());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }
}
