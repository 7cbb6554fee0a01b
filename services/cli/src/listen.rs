//! Listening sockets: both families for a wildcard, all addresses for a name, and a clear word when a port is taken.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use flwr_transport_quic::udp;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::{address::Address, exit::Exit};

/// What one API listens on.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The address as it was asked for.
    pub(crate) address: Address,
    /// One socket for an IP address or a wildcard, one for each address of a name; never empty.
    pub(crate) sockets: Vec<TcpListener>,
}

impl Listener {
    /// Whether only this machine reaches it.
    pub(crate) fn is_loopback(&self) -> bool {
        let mut addresses = self.sockets.iter().map(TcpListener::local_addr);
        addresses.all(|address| address.is_ok_and(|address| address.ip().is_loopback()))
    }
}

/// Binds the APIs of one process, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Binder {
    bound: Vec<(Address, &'static str)>,
}

impl Binder {
    /// Binds `address` and listens. `flag` is where the address comes from. Connections wait in the system's queue
    /// until they are accepted. Must be called within a runtime.
    ///
    /// # Errors
    /// When the port is taken, in either family, or the address cannot be bound.
    pub(crate) async fn bind(
        &mut self,
        address: Address,
        flag: &'static str,
    ) -> Result<Listener, Exit> {
        let bound = if address.is_wildcard() {
            bind_wildcard(&address, bound_socket).map(|socket| vec![socket])
        } else {
            bind_named(&address, bound_socket).await
        };
        match bound.and_then(|sockets| sockets.into_iter().map(into_tokio).collect()) {
            Ok(sockets) => {
                self.bound.push((address.clone(), flag));
                Ok(Listener { address, sockets })
            }
            Err(error) => Err(Exit::Problem(self.explain(&address, flag, &error))),
        }
    }

    /// Binds UDP sockets to `address`, as [`bind`](Self::bind) does for TCP.
    ///
    /// # Errors
    /// When the port is taken, in either family, or the address cannot be bound.
    pub(crate) async fn bind_udp(
        &mut self,
        address: &Address,
        flag: &'static str,
    ) -> Result<Vec<UdpSocket>, Exit> {
        let bound = if address.is_wildcard() {
            bind_wildcard(address, udp::bind).map(|socket| vec![socket])
        } else {
            bind_named(address, udp::bind).await
        };
        bound.map_err(|error| Exit::Problem(self.explain(address, flag, &error)))
    }

    /// Binds a port of the loopback that the system chooses.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) async fn bind_loopback(&mut self) -> Result<Listener, Exit> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let bound = socket.and_then(|socket| Ok((socket.local_addr()?.port(), socket)));
        let (port, socket) = bound.map_err(|error| Exit::because(&error))?;
        Ok(Listener {
            address: Address {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port,
            },
            sockets: vec![socket],
        })
    }

    fn explain(&self, address: &Address, flag: &str, error: &io::Error) -> String {
        let Address { host, port } = address;
        match error.kind() {
            ErrorKind::AddrInUse => {
                match self.bound.iter().find(|(other, _)| other.port == *port) {
                    Some((_, other)) => format!(
                        "Port in server address {address} is already in use by this SuperLink's {other}: give {flag} \
                     another port."
                    ),
                    None => format!(
                        "Port in server address {address} is already in use: `lsof -i :{port}` shows by which process; \
                     end it, or choose another port with {flag}."
                    ),
                }
            }
            ErrorKind::AddrNotAvailable => format!(
                "Cannot listen on {address}: {host} is not an address of this machine; give {flag} one that is, or \
                 0.0.0.0 for all of them."
            ),
            ErrorKind::PermissionDenied => format!(
                "Cannot listen on {address}: this user may not use port {port}; choose a port above 1023 with {flag}."
            ),
            ErrorKind::NotFound => format!(
                "Cannot listen on {address}: the name {host} has no address; check its spelling in {flag}."
            ),
            _ => format!("Cannot listen on {address} ({error}); check {flag}."),
        }
    }
}

/// Both families on one socket, as Flower's gRPC library binds a wildcard; IPv4 alone on a machine without IPv6.
fn bind_wildcard<S>(
    address: &Address,
    bind: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<S> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port));
    // Not every system refuses a socket of both families beside one of IPv4, and then the older one gets the peers.
    drop(bind(v4)?);
    match bind(v6) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(error),
        Err(_no_ipv6) => bind(v4),
        Ok(socket) => Ok(socket),
    }
}

/// Every address of a host. One that the machine does not have is left out if there is another.
async fn bind_named<S>(
    address: &Address,
    bind: impl Fn(SocketAddr) -> io::Result<S>,
) -> io::Result<Vec<S>> {
    let mut found: Vec<SocketAddr> = tokio::net::lookup_host((address.host.as_str(), address.port))
        .await
        .map_err(|_unknown| ErrorKind::NotFound)?
        .collect();
    found.sort_unstable();
    found.dedup();
    let mut sockets = Vec::with_capacity(found.len());
    let mut failure = ErrorKind::NotFound.into();
    for addr in found {
        match bind(addr) {
            Ok(socket) => sockets.push(socket),
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            Err(error) => failure = error,
        }
    }
    if sockets.is_empty() {
        Err(failure)
    } else {
        Ok(sockets)
    }
}

fn bound_socket(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A port that has only connections winding down on it is free.
    socket.set_reuse_address(true)?;
    if let SocketAddr::V6(v6) = addr {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn into_tokio(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// Connections that may wait to be accepted: all nodes of a large federation come back at once after a restart.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener as StdListener, TcpStream};

    use super::*;

    async fn bind(text: &str) -> Result<Listener, Exit> {
        Binder::default()
            .bind(Address::parse(text).unwrap(), "--fleet-api-address")
            .await
    }

    fn free_port() -> u16 {
        let probe = StdListener::bind("0.0.0.0:0").unwrap();
        probe.local_addr().unwrap().port()
    }

    fn has_ipv6() -> bool {
        StdListener::bind("[::1]:0").is_ok()
    }

    async fn wildcard() -> Listener {
        // Another process may take the port in between.
        for _attempt in 0..20 {
            if let Ok(listener) = bind(&format!("0.0.0.0:{}", free_port())).await {
                return listener;
            }
        }
        panic!("no free port");
    }

    #[tokio::test]
    async fn a_wildcard_is_reached_over_both_families() {
        let listener = wildcard().await;
        let port = listener.address.port;
        TcpStream::connect(("127.0.0.1", port)).unwrap();
        if has_ipv6() {
            TcpStream::connect(("::1", port)).unwrap();
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_noticed_in_either_family() {
        let mut takers = vec![
            StdListener::bind("127.0.0.1:0").unwrap(),
            StdListener::bind("0.0.0.0:0").unwrap(),
        ];
        if has_ipv6() {
            takers.push(StdListener::bind("[::1]:0").unwrap());
            takers.push(StdListener::bind("[::]:0").unwrap());
        }
        for taker in takers {
            let addr = taker.local_addr().unwrap();
            for host in ["0.0.0.0", "[::]"] {
                let exit = bind(&format!("{host}:{}", addr.port()))
                    .await
                    .expect_err("taken");
                let text = exit.to_string();
                assert!(text.contains("already in use"), "{addr} and {host}: {text}");
                assert!(
                    text.contains(&format!("lsof -i :{}", addr.port())),
                    "{text}"
                );
                assert!(text.contains("--fleet-api-address"), "{text}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_is_bound_on_its_addresses() {
        let mut bound = None;
        for _attempt in 0..20 {
            bound = bind(&format!("localhost:{}", free_port())).await.ok();
            if bound.is_some() {
                break;
            }
        }
        let listener = bound.expect("no free port");
        TcpStream::connect(("localhost", listener.address.port)).unwrap();
    }

    #[tokio::test]
    async fn an_address_given_twice_is_said_to_be() {
        let mut binder = Binder::default();
        let first = wildcard().await;
        let address = first.address.clone();
        drop(first);
        let _first = binder
            .bind(address.clone(), "--control-api-address")
            .await
            .unwrap();
        let exit = binder
            .bind(address, "--fleet-api-address")
            .await
            .expect_err("taken");
        assert!(
            exit.to_string()
                .contains("this SuperLink's --control-api-address"),
            "{exit}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_bound_is_explained() {
        for (text, part) in [
            ("203.0.113.7:9092", "not an address of this machine"),
            ("no-such-host.invalid:9092", "has no address"),
        ] {
            let exit = bind(text).await.expect_err(text);
            assert!(exit.to_string().contains(part), "{text}: {exit}");
        }
    }
}
