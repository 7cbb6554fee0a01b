//! Calls in the first flight of a connection that takes up an earlier session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::conformance::{Answer, Ask, Service, Toy};
use flwr_transport::{
    Acceptor as _, Call, Caller as _, Code, Connector as _, Drain, Identity, Reply, Status,
};
use flwr_transport_quic::{ALPN, Caller, Connector, Target, Tuning};
use futures_util::future::join;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Endpoint};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::raw::{ask, hello, say};
use crate::relay::Relay;
use crate::support::{Site, listen};

const SOON: Duration = Duration::from_secs(15);

/// A server behind a relay, and a node that has been there before.
struct World {
    address: SocketAddr,
    service: Arc<Service>,
    relay: Relay,
    node: Connector<Toy>,
    serving: AbortOnDropHandle<()>,
}

impl World {
    async fn new() -> Self {
        let (address, service, serving) = serve();
        let relay = Relay::to(address).await;
        let node = connector(relay.address, &Site::get().as_node());
        let world = Self {
            address,
            service,
            relay,
            node,
            serving,
        };
        let first = world.connect().await;
        echo(&first).await.unwrap();
        first.close("enough");
        world
    }

    async fn connect(&self) -> Caller<Toy> {
        timeout(SOON, self.node.connect()).await.unwrap().unwrap()
    }

    /// Another server in the place of the former, of which it knows nothing.
    async fn restart(&mut self) {
        (self.address, self.service, self.serving) = serve();
        self.relay.lead_to(self.address).await;
    }

    async fn entered(&self, calls: u64) {
        let entered = self.service.entered.reaches(calls);
        timeout(SOON, entered).await.expect("so many calls");
    }
}

fn serve() -> (SocketAddr, Arc<Service>, AbortOnDropHandle<()>) {
    let site = Site::get();
    let acceptor = listen::<Toy>(site, site.options());
    let address = acceptor.local_addr();
    let service = Arc::new(Service::default());
    let serving = tokio::spawn({
        let service = Arc::clone(&service);
        async move {
            acceptor.serve(service, Drain::new()).await.unwrap();
        }
    });
    (address, service, AbortOnDropHandle::new(serving))
}

fn connector(address: SocketAddr, tls: &rustls::ClientConfig) -> Connector<Toy> {
    let target = Target {
        host: address.ip().to_string(),
        port: address.port(),
    };
    Connector::new(target, tls, &Tuning::connecting()).unwrap()
}

async fn echo(caller: &Caller<Toy>) -> Result<Reply<Toy>, Status> {
    let asked = Call::new(Ask::Echo("hello".into()), Instant::now() + SOON);
    let reply = caller.call(asked).await?;
    assert_eq!(reply.response, Answer::Echo("hello".into()));
    Ok(reply)
}

fn sink() -> Call<Toy> {
    Call::new(Ask::Sink, Instant::now() + SOON)
}

#[tokio::test]
async fn a_call_is_in_the_first_flight_and_its_caller_known() {
    let world = World::new().await;
    world.relay.hold(true);
    let again = world.connect().await;
    let answered = echo(&again);
    let released = async {
        // Nothing has come back so far.
        world.entered(2).await;
        let context = world.service.last_context().unwrap();
        assert_eq!(context.peer.identity, Site::get().node_identity());
        world.relay.hold(false);
    };
    join(answered, released).await.0.unwrap();
    assert_eq!(world.service.entered.value(), 2);
}

#[tokio::test]
async fn what_must_not_be_made_twice_waits_for_the_handshake() {
    let world = World::new().await;
    world.relay.hold(true);
    let again = world.connect().await;
    let released = async {
        // What was asked after it is there before it.
        world.entered(2).await;
        assert_eq!(world.service.entered.value(), 2);
        world.relay.hold(false);
    };
    let (once, echoed, ()) = futures_util::join!(again.call(sink()), echo(&again), released);
    assert_eq!(once.unwrap().response, Answer::Done);
    echoed.unwrap();
    assert_eq!(world.service.entered.value(), 3);
}

/// A client that puts everything into its first flight.
#[tokio::test]
async fn a_server_does_not_rely_on_its_clients_for_that() {
    let world = World::new().await;
    let mut tls = Site::get().anonymous();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = true;
    let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = || {
        let connecting = endpoint.connect_with(config.clone(), world.relay.address, "127.0.0.1");
        connecting.unwrap()
    };
    // The session comes with the first answers.
    let first = connecting().await.unwrap();
    let _hello = say(&first, &hello("flwr.toy", (1, 1))).await;
    let mut answer = ask(&first, ECHO).await;
    answer.read_to_end(1 << 10).await.unwrap();
    first.close(0_u8.into(), b"");
    endpoint.wait_idle().await;

    world.relay.hold(true);
    let Ok((again, accepted)) = connecting().into_0rtt() else {
        panic!("there is a session");
    };
    let _hello = say(&again, &hello("flwr.toy", (1, 1))).await;
    let mut once = ask(&again, SINK).await;
    let mut others = Vec::new();
    for _ in 0..8 {
        others.push(ask(&again, ECHO).await);
    }
    world.entered(2 + 8).await;
    assert_eq!(world.service.entered.value(), 2 + 8);
    world.relay.hold(false);
    assert!(accepted.await);
    once.read_to_end(1 << 10).await.unwrap();
    assert_eq!(world.service.entered.value(), 2 + 8 + 1);
}

/// Frames of calls that wait for ten seconds, without a bearer and a body.
const ECHO: &[u8] = &[7, 0, 0, 0, 0x90, 0x4e, 0, 0, 0, 1, b'x'];
const SINK: &[u8] = &[5, 0, 0, 0, 0x90, 0x4e, 0, 0, 4];

#[tokio::test]
async fn a_first_flight_that_is_sent_again_is_not_looked_at() {
    let world = World::new().await;
    world.relay.take_sent();
    let again = world.connect().await;
    echo(&again).await.unwrap();
    again.close("enough");
    let mut recorded = world.relay.take_sent();
    recorded.retain(|datagram| is_of_a_handshake(datagram));
    // It is taken for a late part of the connection until the server has forgotten that.
    let replaying = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut answer = [0; 1 << 16];
    timeout(SOON, async {
        loop {
            for datagram in &recorded {
                replaying.send_to(datagram, world.address).await.unwrap();
            }
            let answered = timeout(Duration::from_millis(100), replaying.recv(&mut answer)).await;
            if answered.is_ok_and(|bytes| is_of_a_handshake(&answer[..bytes.unwrap()])) {
                break;
            }
        }
    })
    .await
    .unwrap();
    // What was in it would have been looked at before those who come later.
    let later = connector(world.address, &Site::get().anonymous());
    let later = later.connect().await.unwrap();
    echo(&later).await.unwrap();
    assert_eq!(world.service.entered.value(), 3);
}

/// Whether a datagram begins with a long header (RFC 9000, section 17.2).
fn is_of_a_handshake(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0x80 != 0)
}

#[tokio::test]
async fn a_server_that_was_restarted_is_asked_again() {
    let mut world = World::new().await;
    world.restart().await;
    let again = world.connect().await;
    let (first, second, once) = futures_util::join!(echo(&again), echo(&again), again.call(sink()));
    first.unwrap();
    second.unwrap();
    once.unwrap();
    assert_eq!(world.service.entered.value(), 3);
    let context = world.service.last_context().unwrap();
    assert_eq!(context.peer.identity, Site::get().node_identity());
}

#[tokio::test]
async fn nobody_comes_back_as_somebody_else() {
    let world = World::new().await;
    let stranger = connector(world.relay.address, &Site::get().anonymous());
    for _ in 0..2 {
        let caller = stranger.connect().await.unwrap();
        echo(&caller).await.unwrap();
        let context = world.service.last_context().unwrap();
        assert_eq!(context.peer.identity, Identity::Anonymous);
        caller.close("enough");
    }
}

#[tokio::test]
async fn a_call_ends_with_its_deadline_though_the_handshake_does_not() {
    let world = World::new().await;
    world.relay.hold(true);
    let again = world.connect().await;
    let began = Instant::now();
    let soon = || began + Duration::from_millis(300);
    let may_be_repeated = again.call(Call::new(Ask::Echo("x".into()), soon()));
    let may_not = again.call(Call::new(Ask::Sink, soon()));
    for failed in <[_; 2]>::from(join(may_be_repeated, may_not).await) {
        let failed = failed.unwrap_err();
        assert_eq!(failed.code, Code::DeadlineExceeded, "{failed}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn nobody_is_waited_for_longer_than_for_any_server() {
    let world = World::new().await;
    world.relay.hold(true);
    let again = world.connect().await;
    let began = Instant::now();
    let failed = timeout(2 * SOON, echo(&again)).await.unwrap().unwrap_err();
    assert_eq!(failed.code, Code::Unavailable, "{failed}");
    assert!(began.elapsed() < SOON);
    let failed = again.call(sink()).await.unwrap_err();
    assert_eq!(failed.code, Code::Unavailable, "{failed}");
}
