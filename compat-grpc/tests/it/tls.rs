//! TLS: what works, and what a person is told when it does not.

use std::path::Path;
use std::sync::Arc;

use flwr_api::NodeId;
use flwr_api::fleet::{CreateNode, Fleet, Request, Response};
use flwr_certs::{
    CaOptions, ClientTls, LeafOptions, ServerTls, WriteOptions, create_ca, create_server,
};
use flwr_compat_grpc::f1::FleetF1;
use flwr_compat_grpc::f1::ask::FleetAsker;
use flwr_compat_grpc::{Credentials, GrpcConnector, Holds};
use flwr_state::{Clock, SystemClock};
use flwr_transport::{Caller, ConnectError, Connector, Current};

use crate::support::{Over, Scripted, Server, fleet_call, serve, soon};

fn now() -> f64 {
    SystemClock.now().seconds()
}

fn certificates(dir: &Path, since: f64) {
    let write = WriteOptions::default();
    create_ca(dir, &CaOptions::default(), &write, since).unwrap();
    create_server(dir, &LeafOptions::default(), &write, since).unwrap();
}

fn server_tls(dir: &Path, at: f64) -> Arc<rustls::ServerConfig> {
    let [ca, certificate, key] = ["ca.crt", "server.pem", "server.key"].map(|file| dir.join(file));
    ServerTls::load(&ca, &certificate, &key, at).unwrap().config
}

fn trusting(dir: &Path) -> ClientTls {
    ClientTls::load(Some(&dir.join("ca.crt")), None).unwrap()
}

async fn served(tls: Option<Arc<rustls::ServerConfig>>) -> Server {
    let holds = Holds::default();
    let handler = Scripted::<Fleet>::saying(Response::CreateNode(NodeId(5)));
    let over = Over {
        tls,
        ..Over::default()
    };
    serve(over, FleetF1 { holds }, handler).await
}

fn connector(host: &str, server: &Server, tls: Option<ClientTls>) -> GrpcConnector<FleetAsker> {
    GrpcConnector::new(
        host,
        server.addr.port(),
        tls.map(Current::new),
        Credentials::none(),
        FleetAsker,
    )
}

async fn refused(host: &str, server: &Server, tls: Option<ClientTls>) -> ConnectError {
    let connector = connector(host, server, tls);
    soon(Connector::<Fleet>::connect(&connector))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn calls_go_over_tls_by_every_name_of_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), now());
    let server = served(Some(server_tls(dir.path(), now()))).await;
    for host in ["127.0.0.1", "localhost"] {
        let connector = connector(host, &server, Some(trusting(dir.path())));
        let caller = soon(Connector::<Fleet>::connect(&connector)).await.unwrap();
        assert_eq!(Caller::<Fleet>::peer(&caller).addr, server.addr);
        let call = Request::CreateNode(CreateNode {
            heartbeat_interval: 30.0,
        });
        let reply = soon(caller.call(fleet_call(call))).await.unwrap();
        assert_eq!(reply.response, Response::CreateNode(NodeId(5)));
    }
}

#[tokio::test]
async fn a_refused_certificate_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, others, old) = (
        dir.path().join("a"),
        dir.path().join("b"),
        dir.path().join("c"),
    );
    let long_ago = now() - 3.0 * 365.0 * 86_400.0;
    certificates(&ours, now());
    certificates(&others, now());
    certificates(&old, long_ago);
    let server = served(Some(server_tls(&ours, now()))).await;
    let late = served(Some(server_tls(&old, long_ago + 86_400.0))).await;

    let unknown = refused("localhost", &server, Some(trusting(&others))).await;
    let ca = others.join("ca.crt");
    let expected = format!("is not signed by the CA in {}", ca.display());
    assert!(unknown.message.contains(&expected), "{unknown}");
    let unknown_to_system = refused("localhost", &server, ClientTls::load(None, None).ok()).await;
    assert!(
        unknown_to_system.message.contains("--root-certificates")
            || unknown_to_system.message.contains("TLS"),
        "{unknown_to_system}"
    );
    let expired = refused("localhost", &late, Some(trusting(&old))).await;
    assert!(
        expired.message.contains("certificate expired on 20"),
        "{expired}"
    );
    for error in [unknown, expired] {
        assert!(!error.retryable, "{error}");
    }
}

#[tokio::test]
async fn plain_text_and_tls_that_meet_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), now());
    let with = served(Some(server_tls(dir.path(), now()))).await;
    let without = served(None).await;
    let error = refused("127.0.0.1", &without, Some(trusting(dir.path()))).await;
    assert!(error.message.contains("--insecure"), "{error}");
    let error = refused("127.0.0.1", &with, None).await;
    assert!(error.message.contains("without --insecure"), "{error}");
}

#[tokio::test]
async fn a_server_without_http2_over_tls_is_named() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path(), now());
    for alpn in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = (*server_tls(dir.path(), now())).clone();
        config.alpn_protocols = alpn;
        let server = served(Some(Arc::new(config))).await;
        let error = refused("localhost", &server, Some(trusting(dir.path()))).await;
        assert!(error.message.contains("ALPN h2"), "{error}");
        assert!(!error.retryable);
    }
}
