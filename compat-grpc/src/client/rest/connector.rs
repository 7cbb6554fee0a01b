//! Opening the first connection: TCP, and TLS where it is asked for.

use std::fmt;
use std::sync::Arc;

use flwr_certs::ClientTls;
use flwr_transport::{ConnectError, Connector, Current, Identity, Peer, Protocol};

use super::caller::RestCaller;
use super::lines::Lines;
use crate::client::asking::Asking;
use crate::client::caller::Connection;
use crate::client::endpoint::Endpoint;

/// Reaches one server over plain HTTP and has `A` put calls into words.
#[derive(Debug)]
pub struct RestConnector<A> {
    endpoint: Arc<Endpoint>,
    asking: Arc<A>,
}

impl<A> RestConnector<A> {
    /// Connects to `host`, a name or an IP address (IPv6 without brackets), in plain text if there is no `tls`. The
    /// name is resolved anew for each connection, and TLS is what it is then.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        tls: Option<Current<ClientTls>>,
        asking: A,
    ) -> Self {
        Self {
            endpoint: Arc::new(Endpoint::new(host, port, tls)),
            asking: Arc::new(asking),
        }
    }
}

impl<P: Protocol, A: Asking<P>> Connector<P> for RestConnector<A> {
    type Caller = RestCaller<A>;

    /// Opens a connection. Dropping the future gives it up.
    async fn connect(&self) -> Result<RestCaller<A>, ConnectError> {
        let target = self.endpoint.target()?;
        let connection = Connection::default();
        let lines = Lines::new(Arc::clone(&self.endpoint), connection.closing.clone());
        let (line, addr) = lines.open().await?;
        lines.put(line);
        Ok(RestCaller {
            asking: Arc::clone(&self.asking),
            target,
            peer: Peer {
                identity: Identity::Anonymous,
                addr,
                transport: "rest",
            },
            bounds: self.endpoint.bounds(),
            lines: Arc::new(lines),
            connection,
        })
    }
}

impl<A> fmt::Display for RestConnector<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
