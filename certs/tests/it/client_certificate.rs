//! Client certificates: what is refused at start-up, and whom a server lets in.

use std::{fs, io, path::Path, sync::Arc};

use flwr_certs::{
    CaOptions, ClientCertificate, ClientTls, LeafOptions, NodeKeyPair, ServerTls, WriteOptions,
    create_ca, create_client_for, create_clients, create_server, demanding_certificates,
};
use rustls::{
    ClientConnection, Error, ServerConfig, ServerConnection,
    time_provider::{DefaultTimeProvider, TimeProvider as _},
};

const YEAR: f64 = 365.0 * 86_400.0;

struct Federation {
    dir: tempfile::TempDir,
    node: NodeKeyPair,
}

impl Federation {
    /// With client 1, whose key is its own, and client 2, whose key is the node's.
    fn since(at: f64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = NodeKeyPair::generate_ed25519().unwrap();
        let (write, options) = (WriteOptions::default(), LeafOptions::default());
        let path = dir.path();
        create_ca(path, &CaOptions::default(), &write, at).unwrap();
        create_server(path, &options, &write, at).unwrap();
        create_clients(path, 1..=1, &options, &write, at).unwrap();
        let made = create_client_for(path, 2, node.public(), &options, &write, at).unwrap();
        assert_eq!(made, [path.join("clients/client2.crt")]);
        Self { dir, node }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn server(&self) -> ServerConfig {
        let [ca, certificate, key] = ["ca.crt", "server.pem", "server.key"].map(|f| self.path(f));
        let tls = ServerTls::load(&ca, &certificate, &key, now()).unwrap();
        demanding_certificates(&tls.config, &ca).unwrap()
    }

    fn client(&self) -> ClientTls {
        ClientTls::load(Some(&self.path("ca.crt")), None).unwrap()
    }

    fn certificate(&self, number: u32, at: f64) -> ClientCertificate {
        let path = self.path(&format!("clients/client{number}.crt"));
        let key = path.with_extension("key");
        let key = key.exists().then_some(key.as_path());
        ClientCertificate::load(&path, key, Some(&self.node), at).unwrap()
    }
}

/// Clients and servers judge certificates by the machine's clock.
fn now() -> f64 {
    let now = DefaultTimeProvider.current_time().unwrap();
    std::time::Duration::from_secs(now.as_secs()).as_secs_f64()
}

/// Runs a handshake to its end at both ends; what the client is told if it is refused.
fn shake(client: &ClientTls, server: &ServerConfig) -> Result<usize, String> {
    let name = "superlink".try_into().unwrap();
    let mut here = ClientConnection::new(client.config(), name).unwrap();
    let mut there = ServerConnection::new(Arc::new(server.clone())).unwrap();
    while here.wants_write() || there.wants_write() {
        let mut wire = Vec::new();
        while here.wants_write() {
            here.write_tls(&mut wire).unwrap();
        }
        there.read_tls(&mut wire.as_slice()).unwrap();
        // An error is told the client as well.
        let _told = there.process_new_packets();
        let mut wire = Vec::new();
        while there.wants_write() {
            there.write_tls(&mut wire).unwrap();
        }
        here.read_tls(&mut wire.as_slice()).unwrap();
        here.process_new_packets()
            .map_err(|error| explained(client, error))?;
    }
    assert!(!there.is_handshaking());
    Ok(there.peer_certificates().map_or(0, <[_]>::len))
}

fn explained(client: &ClientTls, error: Error) -> String {
    let error = io::Error::new(io::ErrorKind::InvalidData, error);
    client.explain("superlink", &error).to_string()
}

#[test]
fn whoever_has_a_certificate_of_the_ca_is_let_in() {
    let ours = Federation::since(now());
    for number in [1, 2] {
        let certificate = ours.certificate(number, now());
        let client = ours.client().showing(&certificate);
        // Twice: a second connection shows it again.
        for _ in 0..2 {
            assert_eq!(shake(&client, &ours.server()), Ok(1), "{number}");
        }
    }
}

#[test]
fn others_are_refused_and_told_why() {
    let (ours, theirs) = (Federation::since(now()), Federation::since(now()));
    let then = now() - 3.0 * YEAR;
    let old = ours.path("old");
    fs::create_dir_all(old.join("ca")).unwrap();
    let write = WriteOptions::default();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(ours.path("ca").join(name), old.join("ca").join(name)).unwrap();
    }
    create_clients(&old, 1..=1, &LeafOptions::default(), &write, then).unwrap();
    let [certificate, key] = ["crt", "key"].map(|end| old.join(format!("clients/client1.{end}")));
    let expired =
        ClientCertificate::load(&certificate, Some(&key), Some(&ours.node), then + 1.0).unwrap();
    let wanted = "give one with --ssl-client-certfile";
    for (client, part) in [
        (ours.client(), wanted),
        (ours.client().showing(&theirs.certificate(1, now())), wanted),
        (
            ours.client().showing(&expired),
            "this client's certificate has expired",
        ),
    ] {
        let told = shake(&client, &ours.server()).unwrap_err();
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn a_session_of_another_service_lets_nobody_in() {
    let ours = Federation::since(now());
    let [ca, certificate, key] = ["ca.crt", "server.pem", "server.key"].map(|f| ours.path(f));
    let control = ServerTls::load(&ca, &certificate, &key, now())
        .unwrap()
        .config;
    let client = ours.client();
    assert_eq!(shake(&client, &control), Ok(0), "and there is a ticket now");
    let demanding = demanding_certificates(&control, &ca).unwrap();
    shake(&client, &demanding).unwrap_err();
}

#[test]
fn start_up_errors_name_the_file() {
    let ours = Federation::since(now());
    fs::write(ours.path("junk"), "").unwrap();
    let load = |certificate: &str, key: Option<&str>, at: f64| {
        let key = key.map(|key| ours.path(key));
        let path = ours.path(certificate);
        let loaded = ClientCertificate::load(&path, key.as_deref(), Some(&ours.node), at);
        loaded.unwrap_err().to_string()
    };
    let (own, key) = ("clients/client1.crt", Some("clients/client1.key"));
    for (error, part) in [
        (load("none", key, now()), "none does not exist"),
        (load("junk", key, now()), "junk holds no certificate"),
        (load(own, Some("junk"), now()), "junk holds no private key"),
        (
            load(own, Some("server.key"), now()),
            "does not fit the certificate",
        ),
        (
            load(own, None, now()),
            "client1.crt is not for this node's key",
        ),
        (load(own, key, now() + 3.0 * YEAR), "client1.crt expired on"),
        (
            load(own, key, now() - YEAR),
            "client1.crt is not valid before",
        ),
    ] {
        assert!(error.contains(part), "{error}");
    }
    let server = ours.server();
    let demand = |ca: &Path| demanding_certificates(&server, ca).unwrap_err().to_string();
    for (ca, part) in [
        ("none", "none does not exist"),
        ("junk", "junk holds no certificate"),
        ("ca/ca.key", "ca.key holds no certificate"),
    ] {
        let error = demand(&ours.path(ca));
        assert!(error.contains(part), "{error}");
    }
}
