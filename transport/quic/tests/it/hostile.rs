//! Peers that break the rules, beside one that keeps them.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use flwr_transport::conformance::{Answer, Ask, Flow, Plan, Service, Toy};
use flwr_transport::{Acceptor as _, Call, Caller as _, Code, Connector as _, Drain, Tail};
use flwr_transport_quic::{ALPN, Caller, Connector, Options, Target, Tuning};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, VarInt};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::counters::Counters;
use crate::raw::{ask, frame, hello, say};
use crate::support::{Site, listen};

const SOON: Duration = Duration::from_secs(15);

/// A server, and a caller that must not notice anything.
struct World {
    target: Target,
    good: Caller<Toy>,
    _serving: AbortOnDropHandle<()>,
}

impl World {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let site = Site::get();
        let acceptor = listen::<Toy>(site, options);
        let target = site.target(&acceptor);
        let serving = tokio::spawn(async move {
            let service = Arc::new(Service::default());
            acceptor.serve(service, Drain::new()).await.unwrap();
        });
        let good = connect(&target).await;
        Self {
            target,
            good,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    async fn still_answers(&self) {
        let asked = Call::new(Ask::Echo("hello".into()), Instant::now() + SOON);
        let reply = self.good.call(asked).await.unwrap();
        assert_eq!(reply.response, Answer::Echo("hello".into()));
        // Newcomers are welcome as well.
        drop(connect(&self.target).await);
    }

    /// A connection of a peer that knows QUIC and nothing else.
    async fn raw(&self, alpn: &[u8]) -> Result<(Endpoint, Connection), ConnectionError> {
        let mut tls = Site::get().anonymous();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let host: IpAddr = self.target.host.parse().unwrap();
        let address = SocketAddr::new(host, self.target.port);
        let connecting = endpoint.connect_with(config, address, &self.target.host);
        let connection = connecting.unwrap().await?;
        Ok((endpoint, connection))
    }

    fn address(&self) -> (String, u16) {
        (self.target.host.clone(), self.target.port)
    }
}

async fn connect(target: &Target) -> Caller<Toy> {
    let tls = Site::get().anonymous();
    let connector = Connector::new(target.clone(), &tls, &Tuning::connecting()).unwrap();
    connector.connect().await.unwrap()
}

/// The code that the server closes the connection with.
async fn closed_with(connection: &Connection) -> (VarInt, String) {
    match timeout(SOON, connection.closed()).await.unwrap() {
        ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason).into_owned();
            (close.error_code, reason)
        }
        other => panic!("{other:?}"),
    }
}

/// Numbers that look random and are the same every time.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
}

#[tokio::test]
async fn datagrams_of_nonsense_are_ignored() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in 0..2000_usize {
        let length = number * 7 % 1472;
        let mut datagram: Vec<_> = noise(number as u64).take(length).collect();
        if let Some(first) = datagram.first_mut() {
            // Half of them look like the long headers that begin a connection.
            *first |= if number % 2 == 0 { 0xc0 } else { 0x40 };
        }
        if number % 4 == 0 && length > 5 {
            datagram[1..5].copy_from_slice(&1_u32.to_be_bytes());
        }
        socket.send_to(&datagram, world.address()).unwrap();
        if number % 20 == 0 {
            // The socket holds so many.
            tokio::task::yield_now().await;
        }
    }
    world.still_answers().await;
    let came = counters.value("flwr_quic_datagrams_received_total{server}");
    assert!(came >= 2000, "{came}");
}

#[tokio::test]
async fn another_application_protocol_is_refused() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let refused = world.raw(b"h3").await.unwrap_err();
    assert!(
        matches!(&refused, ConnectionError::ConnectionClosed(_)),
        "{refused:?}"
    );
    counters
        .reaches("flwr_quic_connections_refused_total{handshake_failed}", 1)
        .await;
    world.still_answers().await;
}

#[tokio::test]
async fn a_hello_that_is_none_ends_the_connection() {
    for bytes in [
        u32::MAX.to_le_bytes().to_vec(),
        frame(&[]),
        frame(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        noise(1).take(600).collect(),
    ] {
        let mut counters = Counters::start();
        let world = World::new().await;
        let (_endpoint, connection) = world.raw(ALPN).await.unwrap();
        let _stream = say(&connection, &bytes).await;
        let (_, reason) = closed_with(&connection).await;
        assert!(reason.contains("hello"), "{reason}");
        counters
            .reaches("flwr_quic_connections_refused_total{malformed_hello}", 1)
            .await;
        world.still_answers().await;
    }
}

#[tokio::test]
async fn who_speaks_something_else_is_told_what_is_served() {
    for (sent, part) in [
        (
            hello("flwr.other", (1, 1)),
            "flwr.toy is served here, not flwr.other",
        ),
        (
            hello("flwr.toy", (7, 9)),
            "the versions 1 to 1, and the peer speaks 7 to 9",
        ),
    ] {
        let mut counters = Counters::start();
        let world = World::new().await;
        let (_endpoint, connection) = world.raw(ALPN).await.unwrap();
        let _stream = say(&connection, &sent).await;
        let (_, reason) = closed_with(&connection).await;
        assert!(reason.contains(part), "{reason}");
        counters
            .reaches("flwr_quic_connections_refused_total{wrong_protocol}", 1)
            .await;
    }
}

#[tokio::test]
async fn a_silent_connection_is_not_kept() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let (_endpoint, connection) = world.raw(ALPN).await.unwrap();
    let (_, reason) = closed_with(&connection).await;
    assert!(reason.contains("too long"), "{reason}");
    counters
        .reaches("flwr_quic_connections_refused_total{too_slow}", 1)
        .await;
}

#[tokio::test]
async fn who_leaves_before_the_hello_is_counted() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let (_endpoint, connection) = world.raw(ALPN).await.unwrap();
    connection.close(VarInt::from_u32(0), b"");
    counters
        .reaches("flwr_quic_connections_refused_total{left}", 1)
        .await;
}

#[tokio::test]
async fn calls_of_nonsense_are_answered_and_harm_no_other() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let (_endpoint, connection) = world.raw(ALPN).await.unwrap();
    let _greeting = say(&connection, &hello("flwr.toy", (1, 1))).await;
    for bytes in [
        Vec::new(),
        vec![1],
        u32::MAX.to_le_bytes().to_vec(),
        frame(&[]),
        noise(2).take(5000).collect(),
    ] {
        let mut receive = ask(&connection, &bytes).await;
        let answer = timeout(SOON, receive.read_to_end(1 << 20)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.unwrap()).into_owned();
        assert!(answer.contains("the call"), "{answer:?}");
    }
    // The third and the last announce gigabytes.
    counters
        .reaches("flwr_quic_calls_refused_total{malformed}", 3)
        .await;
    counters
        .reaches("flwr_quic_calls_refused_total{oversized}", 2)
        .await;
    assert!(connection.close_reason().is_none());
    world.still_answers().await;
}

#[tokio::test]
async fn what_is_too_long_is_refused_and_not_tried_again() {
    let world = World::new().await;
    let echo = |bytes| Call::new(Ask::Echo("x".repeat(bytes)), Instant::now() + SOON);
    let refused = world.good.call(echo(40 << 20)).await.unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted, "{refused}");
    let tuning = Tuning {
        head_bytes_max: 1000,
        ..Tuning::connecting()
    };
    let tls = Site::get().anonymous();
    let connector = Connector::<Toy>::new(world.target.clone(), &tls, &tuning).unwrap();
    let caller = connector.connect().await.unwrap();
    let refused = caller.call(echo(2000)).await.unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted, "{refused}");
    assert!(refused.message.contains("1000 are the limit"), "{refused}");
    caller.call(echo(900)).await.unwrap();
    world.still_answers().await;
}

#[tokio::test]
async fn a_peer_gets_room_for_as_many_held_calls_as_it_needs() {
    let world = World::new().await;
    let patient = || Call::new(Ask::Hold { until_drain: false }, Instant::now() + SOON);
    let mut held: FuturesUnordered<_> = (0..200).map(|_| world.good.call(patient())).collect();
    let still_answers = world.still_answers();
    tokio::select! {
        answered = held.next() => panic!("a held call was answered: {answered:?}"),
        answered = timeout(SOON, still_answers) => answered.unwrap(),
    }
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let mut counters = Counters::start();
    let world = World::with(Options {
        tuning: Tuning {
            still_max: Duration::from_millis(300),
            ..Tuning::accepting()
        },
        ..Options::default()
    })
    .await;
    // One that does not come, of which the sender says that there is more.
    let flow = Flow::default();
    flow.send_max.set(1);
    let body = flow.body(Plan::announced(2));
    let asked = Call::new(Ask::Sink, Instant::now() + SOON).with_body(body);
    let failed = world.good.call(asked).await.unwrap_err();
    assert_ne!(failed.code, Code::DeadlineExceeded, "{failed}");
    counters
        .reaches("flwr_quic_streams_stalled_total{received}", 1)
        .await;
    // One that is not read.
    let plan = Plan::endless();
    let asked = Call::new(Ask::Source(plan), Instant::now() + SOON);
    let Tail::Body(mut body) = world.good.call(asked).await.unwrap().tail else {
        panic!("a body was asked for");
    };
    counters
        .reaches("flwr_quic_streams_stalled_total{sent}", 1)
        .await;
    let read_to_the_end = async { while let Some(Ok(_)) = body.next().await {} };
    timeout(SOON, read_to_the_end).await.unwrap();
    world.still_answers().await;
}

#[tokio::test]
async fn long_heads_wait_for_room_and_small_ones_do_not() {
    let world = World::new().await;
    // Room for 256 MiB of them is taken by heads that do not come.
    let mut stalled = Vec::new();
    for _ in 0..16 {
        let (endpoint, connection) = world.raw(ALPN).await.unwrap();
        let greeting = say(&connection, &hello("flwr.toy", (1, 1))).await;
        let head = say(&connection, &(16_u32 << 20).to_le_bytes()).await;
        stalled.push((endpoint, connection, greeting, head));
    }
    let echo = |patience| {
        let asked = Ask::Echo("x".repeat(16 << 20));
        world.good.call(Call::new(asked, Instant::now() + patience))
    };
    // Their streams are read one after the other.
    timeout(SOON, async {
        while echo(Duration::from_secs(1)).await.is_ok() {}
    })
    .await
    .unwrap();
    world.still_answers().await;
    drop(stalled);
    echo(SOON).await.unwrap();
}

#[tokio::test]
async fn half_opened_connections_do_not_keep_others_out() {
    let mut counters = Counters::start();
    let world = World::with(Options {
        handshakes_unproved_max: 8,
        ..Options::default()
    })
    .await;
    let mut endpoints = Vec::new();
    let mut half_open = Vec::new();
    for _ in 0..64 {
        // Connected, and never a hello.
        let (endpoint, connection) = world.raw(ALPN).await.unwrap();
        endpoints.push(endpoint);
        half_open.push(connection);
    }
    // All but the first eight.
    counters
        .reaches("flwr_quic_address_validations_total{}", 56)
        .await;
    world.still_answers().await;
}

#[tokio::test]
async fn one_address_gets_so_many_connections_and_no_more() {
    let mut counters = Counters::start();
    let world = World::with(Options {
        per_address_max: 3,
        ..Options::default()
    })
    .await;
    let others = [connect(&world.target).await, connect(&world.target).await];
    let tls = Site::get().anonymous();
    let connector = Connector::<Toy>::new(world.target.clone(), &tls, &Tuning::connecting());
    let refused = connector.unwrap().connect().await.unwrap_err();
    assert!(refused.retryable, "{refused}");
    counters
        .reaches(
            "flwr_quic_connections_refused_total{too_many_of_address}",
            1,
        )
        .await;
    drop(others);
    // Its seats are free again once the server has learned that they left.
    timeout(SOON, async {
        let connector = Connector::<Toy>::new(world.target.clone(), &tls, &Tuning::connecting());
        let connector = connector.unwrap();
        while connector.connect().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn there_are_so_many_connections_and_no_more() {
    let mut counters = Counters::start();
    let world = World::with(Options {
        connections_max: 1,
        ..Options::default()
    })
    .await;
    let refused = world.raw(ALPN).await.unwrap_err();
    assert!(
        matches!(&refused, ConnectionError::ConnectionClosed(_)),
        "{refused:?}"
    );
    counters
        .reaches(
            "flwr_quic_connections_refused_total{too_many_connections}",
            1,
        )
        .await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_not_accepted() {
    let mut counters = Counters::start();
    let world = World::new().await;
    let stranger = Site::make();
    let tls = stranger.anonymous();
    let connector = Connector::<Toy>::new(world.target.clone(), &tls, &Tuning::connecting());
    let refused = connector.unwrap().connect().await.unwrap_err();
    assert!(!refused.retryable, "{refused}");
    assert!(
        refused.message.contains("invalid peer certificate"),
        "{refused}"
    );
    counters
        .reaches("flwr_quic_connections_refused_total{handshake_failed}", 1)
        .await;
}

#[tokio::test]
async fn a_refusal_reaches_the_calls() {
    let mut counters = Counters::start();
    let world = World::with(Options {
        identify: Arc::new(|_| Err("nobody is let in today".into())),
        ..Options::default()
    });
    // The world's own caller connects before it learns of the refusal.
    let world = world.await;
    let asked = Call::new(Ask::Echo("hello".into()), Instant::now() + SOON);
    let refused = world.good.call(asked).await.unwrap_err();
    assert_eq!(refused.code, Code::Unauthenticated);
    assert_eq!(refused.message, "nobody is let in today");
    counters
        .reaches("flwr_quic_connections_refused_total{unproved}", 1)
        .await;
}
