//! Looking whether there is a way, and how wide it is, without making calls.

use std::net::SocketAddr;
use std::time::Duration;

use flwr_transport::{Caller as _, ConnectError, Connector as _, Protocol};
use tokio::time::{Instant, sleep};

use crate::connector::Connector;

/// What a connection has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Who answered.
    pub address: SocketAddr,
    /// The round trip.
    pub rtt: Duration,
    /// The largest UDP payload that was found to get through.
    pub payload_bytes: u16,
}

impl<P: Protocol> Connector<P> {
    /// Connects, waits until packets do not get larger any more, and hangs up.
    ///
    /// # Errors
    /// As of connecting; also when the other end ends the connection at once, as one does that wants another certificate.
    pub async fn probe(&self) -> Result<Probed, ConnectError> {
        let caller = self.connect().await?;
        let connection = caller.connection();
        let began = Instant::now();
        let (mut last, mut since) = (0, began);
        loop {
            if let Some(ended) = connection.close_reason() {
                return Err(self.failed(connection.remote_address(), &ended));
            }
            let path = connection.stats().path;
            if path.current_mtu != last {
                (last, since) = (path.current_mtu, Instant::now());
            }
            // A probe that is lost is repeated three times.
            let quiet = (path.rtt * 12).clamp(QUIET_MIN, PROBE_TIME_MAX);
            if since.elapsed() >= quiet || began.elapsed() >= PROBE_TIME_MAX {
                let probed = Probed {
                    address: connection.remote_address(),
                    rtt: path.rtt,
                    payload_bytes: last,
                };
                caller.close("it was a probe");
                return Ok(probed);
            }
            sleep(LOOK_PERIOD).await;
        }
    }
}

const PROBE_TIME_MAX: Duration = Duration::from_secs(3);
const QUIET_MIN: Duration = Duration::from_millis(300);
const LOOK_PERIOD: Duration = Duration::from_millis(20);
