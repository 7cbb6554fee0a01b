//! One end of a connection: real quinn-proto, told what time it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    AckFrequencyConfig, ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint,
    EndpointConfig, Event, MtuDiscoveryConfig, ServerConfig, StreamEvent, StreamId,
    TransportConfig, VarInt,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::Factory;
use super::link::Rng;

pub(super) struct Host {
    endpoint: Endpoint,
    connection: Option<(ConnectionHandle, Connection)>,
    peer: SocketAddr,
    connected: bool,
    stream: Option<StreamId>,
    pub(super) inbox: Vec<BytesMut>,
    /// Bytes the application has yet to hand to quinn.
    pub(super) unwritten: u64,
    pub(super) received: u64,
    pub(super) timeout: Option<Instant>,
    /// How long a busy machine lets this end wait for the processor, if it is busy.
    pub(super) stall: Option<Duration>,
    id: u64,
    born: Instant,
    buf: Vec<u8>,
}

impl Host {
    pub(super) fn client(now: Instant, flow: u64, controller: Factory, rare_acks: bool) -> Self {
        let mut transport = transport();
        transport.congestion_controller_factory(controller);
        if rare_acks {
            let mut acks = AckFrequencyConfig::default();
            acks.ack_eliciting_threshold(VarInt::from_u32(10));
            transport.ack_frequency_config(Some(acks));
        }
        let mut config = client_config().clone();
        config.transport_config(Arc::new(transport));
        let mut host = Self::new(now, flow * 2, None);
        let (handle, connection) = host
            .endpoint
            .connect(now, config, host.peer, "localhost")
            .expect("the address is valid");
        host.connection = Some((handle, connection));
        host
    }

    pub(super) fn server(now: Instant, flow: u64) -> Self {
        let mut config = server_config().clone();
        config.transport_config(Arc::new(transport()));
        Self::new(now, flow * 2 + 1, Some(config))
    }

    fn new(now: Instant, id: u64, server: Option<ServerConfig>) -> Self {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&id.to_le_bytes());
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(seed));
        Self {
            endpoint: Endpoint::new(Arc::new(config), server.map(Arc::new), true, None),
            connection: None,
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4433),
            connected: false,
            stream: None,
            inbox: Vec::new(),
            unwritten: 0,
            received: 0,
            timeout: None,
            stall: None,
            id,
            born: now,
            buf: Vec::new(),
        }
    }

    /// When this end gets to do something that is due at `at`: a busy machine lets it run once in every `stall`.
    pub(super) fn ready(&self, at: Instant) -> Instant {
        let Some(stall) = self.stall else { return at };
        let turn =
            u64::try_from((at - self.born).as_nanos() / stall.as_nanos()).unwrap_or(u64::MAX);
        let runs = |turn: u64| {
            let jitter = Rng(self.id ^ (turn << 8)).unit();
            self.born + stall.mul_f64(turn as f64 + 0.9 * jitter)
        };
        if runs(turn) >= at {
            runs(turn)
        } else {
            runs(turn + 1)
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self
            .connection
            .as_ref()
            .expect("the client connects at once")
            .1
    }

    pub(super) fn connection_mut(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut().map(|(_, connection)| connection)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.timeout.is_some_and(|at| self.ready(at) <= now)
    }

    /// Takes in what has arrived and puts out what may leave at `now`.
    pub(super) fn drive(&mut self, now: Instant, mut out: impl FnMut(BytesMut)) {
        for datagram in std::mem::take(&mut self.inbox) {
            self.buf.clear();
            match self
                .endpoint
                .handle(now, self.peer, None, None, datagram, &mut self.buf)
            {
                Some(DatagramEvent::NewConnection(incoming)) => {
                    self.connection = self
                        .endpoint
                        .accept(incoming, now, &mut self.buf, None)
                        .ok();
                }
                Some(DatagramEvent::ConnectionEvent(_, event)) => {
                    if let Some((_, connection)) = &mut self.connection {
                        connection.handle_event(event);
                    }
                }
                Some(DatagramEvent::Response(_)) | None => {}
            }
        }
        if self.is_due(now)
            && let Some((_, connection)) = &mut self.connection
        {
            connection.handle_timeout(now);
        }
        loop {
            self.exchange();
            let Some((_, connection)) = &mut self.connection else {
                return;
            };
            self.buf.clear();
            let Some(transmit) = connection.poll_transmit(now, 10, &mut self.buf) else {
                break;
            };
            let segment = transmit.segment_size.unwrap_or(transmit.size);
            for datagram in self.buf[..transmit.size].chunks(segment) {
                out(BytesMut::from(datagram));
            }
        }
        self.timeout = self
            .connection
            .as_mut()
            .and_then(|(_, connection)| connection.poll_timeout());
    }

    /// Events between endpoint and connection, and between connection and application.
    fn exchange(&mut self) {
        let Some((handle, connection)) = &mut self.connection else {
            return;
        };
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                connection.handle_event(event);
            }
        }
        while let Some(event) = connection.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => {
                    self.stream = connection.streams().accept(Dir::Uni);
                    self.received += read(connection, self.stream);
                }
                Event::Stream(StreamEvent::Readable { .. }) => {
                    self.received += read(connection, self.stream)
                }
                _ => {}
            }
        }
        if self.connected && self.unwritten > 0 {
            let stream = *self
                .stream
                .get_or_insert_with(|| connection.streams().open(Dir::Uni).expect("one stream"));
            self.unwritten -= write(connection, stream, self.unwritten);
        }
    }
}

fn read(connection: &mut Connection, stream: Option<StreamId>) -> u64 {
    let Some(stream) = stream else { return 0 };
    let mut bytes = 0;
    let mut stream = connection.recv_stream(stream);
    if let Ok(mut chunks) = stream.read(true) {
        while let Ok(Some(chunk)) = chunks.next(usize::MAX) {
            bytes += chunk.bytes.len() as u64;
        }
        let _ = chunks.finalize();
    }
    bytes
}

fn write(connection: &mut Connection, stream: StreamId, want: u64) -> u64 {
    static ZEROS: [u8; 65536] = [0; 65536];
    let mut written = 0;
    while written < want {
        let len = usize::try_from(want - written).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        let chunk = Bytes::from_static(&ZEROS[..len]);
        match connection.send_stream(stream).write_chunks(&mut [chunk]) {
            Ok(more) => written += more.bytes as u64,
            Err(_) => break,
        }
    }
    written
}

fn transport() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(1452);
    let mut config = TransportConfig::default();
    config
        .initial_rtt(Duration::from_millis(100))
        .mtu_discovery_config(Some(mtu))
        .receive_window(VarInt::from_u32(256 << 20))
        .stream_receive_window(VarInt::from_u32(256 << 20))
        .send_window(64 << 20);
    config
}

fn identity() -> &'static (CertificateDer<'static>, Vec<u8>) {
    static IDENTITY: OnceLock<(CertificateDer<'static>, Vec<u8>)> = OnceLock::new();
    IDENTITY.get_or_init(|| {
        // Signatures of one length, so that runs do not differ.
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name");
        (
            params.self_signed(&key).expect("a certificate").into(),
            key.serialize_der(),
        )
    })
}

fn server_config() -> &'static ServerConfig {
    static CONFIG: OnceLock<ServerConfig> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let (certificate, key) = identity();
        ServerConfig::with_single_cert(
            vec![certificate.clone()],
            PrivatePkcs8KeyDer::from(key.clone()).into(),
        )
        .expect("a server")
    })
}

fn client_config() -> &'static ClientConfig {
    static CONFIG: OnceLock<ClientConfig> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add(identity().0.clone()).expect("a root");
        ClientConfig::with_root_certificates(Arc::new(roots)).expect("a client")
    })
}
