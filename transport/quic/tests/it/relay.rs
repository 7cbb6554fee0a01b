//! A way for datagrams that can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flwr_transport_quic::Target;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Between one client and a server.
pub(crate) struct Relay {
    pub(crate) target: Target,
    forwarded: Arc<AtomicU64>,
    forwarding: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn to(server: &Target) -> Self {
        let [near, far] = [bind().await, bind().await];
        let address = (server.host.as_str(), server.port);
        far.connect(address).await.unwrap();
        let target = Target {
            port: near.local_addr().unwrap().port(),
            ..server.clone()
        };
        let forwarded = Arc::new(AtomicU64::new(0));
        let forwarding = tokio::spawn(forward(near, far, Arc::clone(&forwarded)));
        Self {
            target,
            forwarded,
            forwarding: AbortOnDropHandle::new(forwarding),
        }
    }

    /// Nothing gets through any more. Returns how many bytes the server's have been.
    pub(crate) async fn cut(self) -> u64 {
        self.forwarding.abort();
        let _cut = self.forwarding.await;
        self.forwarded.load(Ordering::Relaxed)
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

async fn forward(near: UdpSocket, far: UdpSocket, forwarded: Arc<AtomicU64>) {
    let mut client: Option<SocketAddr> = None;
    let (mut there, mut back) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            Ok((bytes, from)) = near.recv_from(&mut there) => {
                client = Some(from);
                // What does not fit into a socket is lost, as on any way.
                let _ = far.try_send(&there[..bytes]);
            }
            Ok(bytes) = far.recv(&mut back) => {
                forwarded.fetch_add(bytes as u64, Ordering::Relaxed);
                if let Some(client) = client {
                    let _ = near.try_send_to(&back[..bytes], client);
                }
            }
            else => return,
        }
    }
}
