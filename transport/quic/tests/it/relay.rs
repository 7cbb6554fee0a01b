//! A middle box between one client and a server, which holds back answers and remembers what was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Carries datagrams for as long as it lives.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    holding: watch::Sender<bool>,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    far: Arc<UdpSocket>,
    _carrying: AbortOnDropHandle<()>,
}

impl Relay {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let far = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        far.connect(server).await.unwrap();
        let far = Arc::new(far);
        let address = near.local_addr().unwrap();
        let holding = watch::Sender::new(false);
        let sent = Arc::default();
        let carrying = carry(
            near,
            Arc::clone(&far),
            holding.subscribe(),
            Arc::clone(&sent),
        );
        Self {
            address,
            holding,
            sent,
            far,
            _carrying: AbortOnDropHandle::new(tokio::spawn(carrying)),
        }
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
) {
    let (mut asked, mut answered) = ([0; 1 << 16], [0; 1 << 16]);
    let mut client = None;
    loop {
        let is_holding = *holding.borrow_and_update();
        tokio::select! {
            _ = holding.changed() => {}
            Ok((bytes, from)) = near.recv_from(&mut asked) => {
                client = Some(from);
                sent.lock().unwrap().push(asked[..bytes].to_vec());
                // Lost is lost.
                let _ = far.send(&asked[..bytes]).await;
            }
            Ok(bytes) = far.recv(&mut answered), if !is_holding => {
                if let Some(client) = client {
                    let _ = near.send_to(&answered[..bytes], client).await;
                }
            }
        }
    }
}
