//! A middle box between one client and a server, which holds answers back, remembers what was sent, and can be cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use flwr_transport_quic::Target;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Carries datagrams for as long as it lives.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    holding: watch::Sender<bool>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    answered: Arc<AtomicU64>,
    far: Arc<UdpSocket>,
    carrying: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        far.connect(server).await.unwrap();
        let far = Arc::new(far);
        let address = near.local_addr().unwrap();
        let holding = watch::Sender::new(false);
        let (sent, answered) = (Arc::default(), Arc::default());
        let carrying = carry(
            near,
            Arc::clone(&far),
            holding.subscribe(),
            Arc::clone(&sent),
            Arc::clone(&answered),
        );
        Self {
            address,
            holding,
            sent,
            answered,
            far,
            carrying: AbortOnDropHandle::new(tokio::spawn(carrying)),
        }
    }

    pub(crate) fn target(&self) -> Target {
        Target {
            host: self.address.ip().to_string(),
            port: self.address.port(),
        }
    }

    /// Nothing gets through any more. Returns how many bytes the server has answered.
    pub(crate) async fn cut(self) -> u64 {
        self.carrying.abort();
        let _cut = self.carrying.await;
        self.answered.load(Ordering::Relaxed)
    }

    /// Carries to another server from now on.
    pub(crate) async fn lead_to(&self, server: SocketAddr) {
        self.far.connect(server).await.unwrap();
    }

    /// Whether answers are held back, to be delivered later.
    pub(crate) fn hold(&self, is_holding: bool) {
        self.holding.send_replace(is_holding);
    }

    /// What the client has sent since the last question.
    pub(crate) fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

async fn carry(
    near: UdpSocket,
    far: Arc<UdpSocket>,
    mut holding: watch::Receiver<bool>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    answered: Arc<AtomicU64>,
) {
    let (mut there, mut back) = ([0; 1 << 16], [0; 1 << 16]);
    let mut client = None;
    loop {
        let is_holding = *holding.borrow_and_update();
        tokio::select! {
            _ = holding.changed() => {}
            Ok((bytes, from)) = near.recv_from(&mut there) => {
                client = Some(from);
                sent.lock().unwrap().push(there[..bytes].to_vec());
                // Lost is lost.
                let _ = far.send(&there[..bytes]).await;
            }
            Ok(bytes) = far.recv(&mut back), if !is_holding => {
                answered.fetch_add(bytes as u64, Ordering::Relaxed);
                if let Some(client) = client {
                    let _ = near.send_to(&back[..bytes], client).await;
                }
            }
        }
    }
}
