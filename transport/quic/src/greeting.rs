//! How a connection begins at the end that accepts: the handshake, and the hellos on the first stream.

use std::sync::Arc;

use flwr_transport::{Identity, Peer, Protocol};
use quinn::{Connection, ConnectionError, Incoming, ServerConfig, VarInt, ZeroRttAccepted};
use rustls::pki_types::CertificateDer;
use tracing::info;

use crate::code::{self, MALFORMED, REFUSED, TOO_SLOW, UNPROVED};
use crate::head::Hello;
use crate::metrics::Refusal;
use crate::options::{Options, Shown};
use crate::stream::{self, Limits, Missing, Outgoing};
use crate::{Proof, TRANSPORT, proof};

/// A connection that has begun.
pub(crate) struct Greeted {
    pub(crate) connection: Connection,
    pub(crate) peer: Arc<Peer>,
    /// With what the peer's hello says that it reads.
    pub(crate) limits: Limits,
    pub(crate) notices: Outgoing,
    /// The handshake may go on after a hello in the first flight. Of whoever repeats what another has sent, it never ends.
    pub(crate) handshake: ZeroRttAccepted,
}

/// Sees the beginning through.
///
/// # Errors
/// When nothing comes of it; the peer has been told why.
pub(crate) async fn greet<P: Protocol>(
    options: &Options,
    incoming: Incoming,
    config: Arc<ServerConfig>,
) -> Result<Greeted, (Refusal, String)> {
    let limits = options.tuning.limits();
    let address = incoming.remote_address();
    let connecting = incoming
        .accept_with(config)
        .map_err(|error| (Refusal::HandshakeFailed, error.to_string()))?;
    // An accepting end always may.
    let Ok((connection, handshake)) = connecting.into_0rtt() else {
        let why = "the connection is not an incoming one".into();
        return Err((Refusal::HandshakeFailed, why));
    };
    let left = |error: ConnectionError| (Refusal::Left, error.to_string());
    let slow = CloseWith(&connection, TOO_SLOW);
    let (outgoing, incoming) = connection.accept_bi().await.map_err(|error| {
        if code::alert(&error).is_some() {
            info!(peer = %address, %error, "TLS handshake failed");
        }
        // Before the handshake is complete, TLS has nothing to export.
        match proof::exported(&connection) {
            Some(_) => left(error),
            None => (Refusal::HandshakeFailed, error.to_string()),
        }
    })?;
    let mut outgoing = Outgoing::new(outgoing, limits.of_hello());
    let mut incoming = stream::Incoming::new(incoming, limits.of_hello());
    let hello = match incoming.next::<Hello<'static>>().await {
        Ok(Some(hello)) => hello,
        Ok(None) => {
            connection.close(MALFORMED, NO_HELLO);
            return Err((Refusal::MalformedHello, "there was no hello".into()));
        }
        Err(Missing::Lost(error)) => return Err(left(error)),
        Err(error) => {
            connection.close(MALFORMED, NO_HELLO);
            return Err((Refusal::MalformedHello, error.to_string()));
        }
    };
    if let Err(why) = hello.agree::<P>() {
        connection.close(REFUSED, why.as_bytes());
        return Err((Refusal::WrongProtocol, why));
    }
    let identity = match identity(options, &connection, &hello) {
        Ok(identity) => identity,
        Err(why) => {
            connection.close(UNPROVED, why.as_bytes());
            return Err((Refusal::Unproved, why));
        }
    };
    let ours = Hello::of::<P>(options.tuning.head_bytes_max, None);
    let sent = outgoing.write_value(&ours).await;
    sent.map_err(|error| (Refusal::Left, error.to_string()))?;
    slow.keep_open();
    Ok(Greeted {
        connection,
        peer: Arc::new(Peer {
            identity,
            addr: address,
            transport: TRANSPORT,
        }),
        limits: Limits {
            write_bytes_max: usize::try_from(hello.head_bytes_max).unwrap_or(usize::MAX),
            ..limits
        },
        notices: outgoing,
        handshake,
    })
}

/// Who the peer is. In a session that it came back with, it is who it was.
fn identity(
    options: &Options,
    connection: &Connection,
    hello: &Hello<'_>,
) -> Result<Identity, String> {
    let proof = hello.proof.as_deref().and_then(|bytes| {
        let exported = proof::exported(connection)?;
        Some(Proof { bytes, exported })
    });
    let shown = connection.peer_identity();
    let chain = shown.and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    (options.identify)(Shown {
        certificate: chain.as_deref().and_then(|chain| chain.first()),
        credential: hello.credential.as_ref(),
        proof,
    })
}

/// Closes a connection that does not come about.
struct CloseWith<'a>(&'a Connection, VarInt);

impl CloseWith<'_> {
    fn keep_open(self) {
        std::mem::forget(self);
    }
}

impl Drop for CloseWith<'_> {
    fn drop(&mut self) {
        // One that is closed already keeps its reason.
        self.0.close(self.1, SLOW);
    }
}

/// What a connection is told whose beginning takes too long.
pub(crate) const SLOW: &[u8] = b"the connection took too long to begin";
const NO_HELLO: &[u8] = b"the first stream begins with a hello";
