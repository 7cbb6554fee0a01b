//! The battery over the in-process transport.

use bytes::Bytes;
use flwr_transport::conformance::{Harness, Setup, Toy};
use flwr_transport::memory::{self, Acceptor, Connector, Options};
use flwr_transport::{AccountId, Identity, PublicKey};

struct Memory(Options);

impl Harness for Memory {
    type Connector = Connector<Toy>;
    type Acceptor = Acceptor<Toy>;

    const TRANSPORT: &'static str = memory::TRANSPORT;

    async fn pair(&self, setup: Setup) -> (Connector<Toy>, Acceptor<Toy>) {
        let (connector, acceptor) = memory::pair(Options {
            grace: setup.grace,
            ..self.0.clone()
        });
        (connector.with_identity(setup.identity), acceptor)
    }

    fn identities(&self) -> Vec<Identity> {
        vec![
            Identity::NodeKey(PublicKey::from_spki_der(Bytes::from_static(
                b"a node's key",
            ))),
            Identity::Account(AccountId("somebody".into())),
            Identity::Launcher,
            Identity::Anonymous,
        ]
    }

    fn window_bytes(&self) -> u64 {
        (self.0.pieces_max * self.0.piece_bytes_max) as u64
    }

    fn held_bytes_max(&self) -> u64 {
        // A piece as the battery makes them is waiting to be cut while the window is full.
        self.window_bytes() + (1 << 20)
    }
}

mod roomy {
    use super::*;
    flwr_transport::conformance!(Memory(Options::default()));
}

/// Every queue as short as it can be, and pieces that fit nothing.
mod narrow {
    use super::*;
    flwr_transport::conformance!(Memory(Options {
        events_max: 1,
        piece_bytes_max: 4093,
        pieces_max: 1,
        ..Options::default()
    }));
}
