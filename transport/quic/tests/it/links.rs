//! Figures of connections.

use std::sync::Arc;
use std::time::Duration;

use flwr_transport::conformance::{Ask, Flow, Plan, Service, Toy};
use flwr_transport::{Acceptor as _, Call, Caller as _, Connector as _, Drain};
use flwr_transport_quic::{Connector, Options, Tuning};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::counters::Counters;
use crate::support::{Site, listen};

const BYTES: u64 = 1 << 20;

#[tokio::test]
async fn what_connections_carried_is_counted_while_they_live_and_after() {
    let mut counters = Counters::start();
    let site = Site::get();
    let acceptor = listen::<Toy>(site, Options::default());
    let target = site.target(&acceptor);
    let serving = acceptor.serve(Arc::new(Service::default()), Drain::new());
    let serving = AbortOnDropHandle::new(tokio::spawn(serving));
    let connector = Connector::new(target, &site.anonymous(), &Tuning::connecting()).unwrap();
    let caller = connector.connect().await.unwrap();
    let body = Flow::default().body(Plan::announced(BYTES));
    let asked = Call::<Toy>::new(Ask::Sink, Instant::now() + Duration::from_secs(60));
    caller.call(asked.with_body(body)).await.unwrap();

    let names = [
        "flwr_quic_connection_bytes_total{client}",
        "flwr_quic_connection_bytes_total{server}",
        "flwr_quic_connection_datagrams_received_total{server}",
        "flwr_quic_packets_sent_total{client}",
    ];
    let before = names.map(|name| counters.sampled(name));
    assert!(before[0] > BYTES && before[1] > BYTES, "{before:?}");
    assert!(
        before[2] > BYTES / 6472 && before[3] > BYTES / 6472,
        "{before:?}"
    );
    for name in ["client", "server"] {
        let begun = format!("flwr_quic_connections_begun_total{{{name}}}");
        assert_eq!(counters.value(&begun), 1);
    }
    drop(caller);
    serving.abort();
    let _ended = serving.await;
    let after = names.map(|name| counters.sampled(name));
    for (before, after) in before.iter().zip(after) {
        assert!(after >= *before, "{after} < {before}");
    }
}
