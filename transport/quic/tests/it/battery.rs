//! Every rule of every transport.

use flwr_transport::Identity;
use flwr_transport::conformance::{Harness, Setup, Toy};
use flwr_transport_quic::{Acceptor, Connector, Options, TRANSPORT, Tuning};

use crate::support::{Site, listen};

struct Quic {
    site: &'static Site,
    connecting: Tuning,
    accepting: Tuning,
}

impl Harness for Quic {
    type Connector = Connector<Toy>;
    type Acceptor = Acceptor<Toy>;

    const TRANSPORT: &'static str = TRANSPORT;

    async fn pair(&self, setup: Setup) -> (Connector<Toy>, Acceptor<Toy>) {
        let options = Options {
            grace: setup.grace,
            tuning: self.accepting.clone(),
            ..self.site.options()
        };
        let acceptor = listen(self.site, options);
        let tls = match setup.identity {
            Identity::Anonymous => self.site.anonymous(),
            _ => self.site.as_node(),
        };
        let target = self.site.target(&acceptor);
        let connector = Connector::new(target, &tls, &self.connecting).unwrap();
        (connector, acceptor)
    }

    fn identities(&self) -> Vec<Identity> {
        vec![self.site.node_identity(), Identity::Anonymous]
    }

    fn window_bytes(&self) -> u64 {
        let windows = [self.connecting.stream_window, self.accepting.stream_window];
        windows.into_iter().min().unwrap_or_default().into()
    }

    fn held_bytes_max(&self) -> u64 {
        // And a piece as the battery makes them, half of which is written.
        let of = |tuning: &Tuning| u64::from(tuning.stream_window) + tuning.send_window;
        of(&self.connecting).max(of(&self.accepting)) + (1 << 20)
    }
}

mod usual {
    use super::*;
    flwr_transport::conformance!(Quic {
        site: Site::get(),
        connecting: Tuning::connecting(),
        accepting: Tuning::accepting(),
    });
}

/// Windows that hold little more than a packet.
mod narrow {
    use super::*;

    fn narrow(usual: Tuning) -> Tuning {
        Tuning {
            stream_window: 8 << 10,
            receive_window: 64 << 10,
            send_window: 64 << 10,
            ..usual
        }
    }

    flwr_transport::conformance!(Quic {
        site: Site::get(),
        connecting: narrow(Tuning::connecting()),
        accepting: narrow(Tuning::accepting()),
    });
}
