//! UDP sockets with buffers that hold a burst, and what the system grants them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, Runtime as _, ServerConfig, Side, TokioRuntime};
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tracing::{info, warn};

use crate::counted_socket::CountedSocket;
use crate::tuning::{Congestion, MTU_ETHERNET, MTU_JUMBO};

/// Binds a socket and asks for buffers of [`BUFFER_BYTES`].
///
/// # Errors
/// When the address is in use, or not of this machine. Smaller buffers are no error.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // One that listens on `[::]` hears IPv4 as well, like its neighbour over TCP.
        socket.set_only_v6(false)?;
    }
    // The system grants what it allows, and `Facts` says what that is.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// How large the packets to `peer` may get: a larger frame costs half the CPU time, and most links have none. Its
/// first link is asked; what lies behind it shows when packets are probed.
pub(crate) fn mtu(peer: SocketAddr) -> u16 {
    let is_jumbo = payload_max(peer).is_ok_and(|bytes| bytes >= u32::from(MTU_JUMBO));
    if is_jumbo { MTU_JUMBO } else { MTU_ETHERNET }
}

/// What fits into a packet of the link that `peer` is reached by.
fn payload_max(peer: SocketAddr) -> io::Result<u32> {
    // A server that listens on `[::]` knows peers by IPv6 addresses that stand for IPv4.
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    let (link, headers) = match peer {
        SocketAddr::V4(_) => (ip_mtu(&socket)?, IPV4_HEADERS_BYTES),
        SocketAddr::V6(_) => (ipv6_mtu(&socket)?, IPV6_HEADERS_BYTES),
    };
    Ok(link.saturating_sub(headers))
}

/// What a socket works with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    receive_buffer_bytes: usize,
    send_buffer_bytes: usize,
    /// Packets that the system takes at once (generic segmentation offload).
    segments: usize,
}

/// QUIC on a socket.
pub(crate) fn endpoint(
    mut config: EndpointConfig,
    server: Option<ServerConfig>,
    socket: UdpSocket,
) -> io::Result<(Endpoint, Facts)> {
    let sizes = SockRef::from(&socket);
    // Linux says twice what it was asked for, because its own records count as well.
    let receive_buffer_bytes = sizes.recv_buffer_size()? / 2;
    let send_buffer_bytes = sizes.send_buffer_size()? / 2;
    config
        .max_udp_payload_size(MTU_JUMBO)
        .map_err(io::Error::other)?;
    let runtime = Arc::new(TokioRuntime);
    let socket = runtime.wrap_udp_socket(socket)?;
    let facts = Facts {
        receive_buffer_bytes,
        send_buffer_bytes,
        segments: socket.max_transmit_segments(),
    };
    let side = server.as_ref().map_or(Side::Client, |_| Side::Server);
    let socket = Arc::new(CountedSocket::new(socket, side));
    let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, runtime)?;
    Ok((endpoint, facts))
}

impl Facts {
    /// Says what a link runs with, and what slows it down.
    pub(crate) fn log(&self, address: SocketAddr, congestion: Congestion, mtu: u16) {
        let Self {
            receive_buffer_bytes,
            send_buffer_bytes,
            segments,
        } = *self;
        info!(
            %address, %congestion, mtu_max = mtu, receive_buffer_bytes, send_buffer_bytes, segments,
            "QUIC"
        );
        if receive_buffer_bytes < BUFFER_BYTES {
            warn!(
                receive_buffer_bytes,
                "the UDP receive buffer is small, so that bursts are lost on a busy machine: allow for more with \
                 `sysctl -w net.core.rmem_max={BUFFER_BYTES}`"
            );
        }
        if segments == 1 {
            warn!(
                "the system takes UDP packets one by one (no generic segmentation offload), which costs three times the CPU time"
            );
        }
    }
}

/// Of IP and UDP.
const IPV4_HEADERS_BYTES: u32 = 20 + 8;
const IPV6_HEADERS_BYTES: u32 = 40 + 8;
/// With the usual 208 KiB a busy host loses one or two thousand packets in 300 MB.
pub const BUFFER_BYTES: usize = 4 << 20;
