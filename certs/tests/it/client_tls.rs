//! TLS clients: what is refused at start-up, and what a failed handshake is called.

use std::{fs, io, path::Path};

use flwr_certs::{
    CaOptions, ClientTls, HandshakeError, LeafOptions, OwnFiles, ServerTls, WriteOptions,
    create_ca, create_clients, create_server,
};
use rustls::{
    AlertDescription, CertificateError, ClientConnection, Error, InvalidMessage, ServerConnection,
    time_provider::{DefaultTimeProvider, TimeProvider as _},
};

const YEAR: f64 = 365.0 * 86_400.0;

/// Clients judge certificates by the machine's clock.
fn now() -> f64 {
    let now = DefaultTimeProvider.current_time().unwrap();
    std::time::Duration::from_secs(now.as_secs()).as_secs_f64()
}

fn federation(dir: &Path, since: f64) {
    let write = WriteOptions::default();
    create_ca(dir, &CaOptions::default(), &write, since).unwrap();
    create_server(dir, &LeafOptions::default(), &write, since).unwrap();
    create_clients(dir, 1..=1, &LeafOptions::default(), &write, since).unwrap();
}

fn server(dir: &Path, at: f64) -> ServerTls {
    let [ca, certificate, key] = ["ca.crt", "server.pem", "server.key"].map(|file| dir.join(file));
    ServerTls::load(&ca, &certificate, &key, at).unwrap()
}

fn client(dir: &Path) -> ClientTls {
    ClientTls::load(Some(&dir.join("ca.crt")), None).unwrap()
}

/// Runs a handshake until the client is content or not.
fn shake(client: &ClientTls, server: &ServerTls, host: &'static str) -> Result<(), HandshakeError> {
    let mut here = ClientConnection::new(client.config(), host.try_into().unwrap()).unwrap();
    let mut there = ServerConnection::new(server.config.clone()).unwrap();
    while here.is_handshaking() {
        let mut wire = Vec::new();
        here.write_tls(&mut wire).unwrap();
        there.read_tls(&mut wire.as_slice()).unwrap();
        there.process_new_packets().unwrap();
        let mut wire = Vec::new();
        there.write_tls(&mut wire).unwrap();
        here.read_tls(&mut wire.as_slice()).unwrap();
        let processed = here.process_new_packets();
        processed.map_err(|error| explained(client, host, error))?;
    }
    assert_eq!(here.alpn_protocol(), Some(&b"h2"[..]));
    Ok(())
}

/// As tokio-rustls hands it on.
fn explained(client: &ClientTls, host: &str, error: Error) -> HandshakeError {
    client.explain(host, &io::Error::new(io::ErrorKind::InvalidData, error))
}

#[test]
fn a_handshake_succeeds_with_every_name_of_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    federation(dir.path(), now());
    let server = server(dir.path(), now());
    let own = OwnFiles {
        certificate: &dir.path().join("clients/client1.crt"),
        key: &dir.path().join("clients/client1.key"),
    };
    let with_certificate = ClientTls::load(Some(&dir.path().join("ca.crt")), Some(own)).unwrap();
    for client in [client(dir.path()), with_certificate] {
        for host in ["superlink", "localhost", "127.0.0.1", "::1"] {
            shake(&client, &server, host).unwrap();
        }
    }
}

#[test]
fn a_refused_certificate_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let [ours, others, old, early] = ["a", "b", "c", "d"].map(|name| dir.path().join(name));
    federation(&ours, now());
    federation(&others, now());
    federation(&old, now() - 3.0 * YEAR);
    federation(&early, now() + YEAR);
    let server = server(&ours, now());

    let unknown = shake(&client(&others), &server, "superlink").unwrap_err();
    let file = Some(others.join("ca.crt"));
    assert_eq!(unknown, HandshakeError::UnknownCa { file });
    let misnamed = shake(&client(&ours), &server, "elsewhere.example").unwrap_err();
    let text = misnamed.to_string();
    for name in [
        "elsewhere.example",
        "superlink",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains('('), "{text}");
    let misnamed = shake(&client(&ours), &server, "192.0.2.1").unwrap_err();
    assert!(misnamed.to_string().contains("192.0.2.1"), "{misnamed}");
    let late = self::server(&old, now() - 3.0 * YEAR + 1.0);
    let expired = shake(&client(&old), &late, "superlink").unwrap_err();
    assert!(expired.to_string().contains("expired on 20"), "{expired}");
    let soon = self::server(&early, now() + YEAR + 1.0);
    let untimely = shake(&client(&early), &soon, "superlink").unwrap_err();
    assert!(
        untimely.to_string().contains("not valid before 20"),
        "{untimely}"
    );
    for error in [unknown, misnamed, expired, untimely] {
        assert!(!error.is_retryable(), "{error}");
    }
}

#[test]
fn other_failures_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    federation(dir.path(), now());
    let client = client(dir.path());
    let tls = |error| explained(&client, "superlink", error);
    let plain = |kind: io::ErrorKind| client.explain("superlink", &kind.into());
    let alert = |alert| tls(Error::AlertReceived(alert));
    let unnamed = Error::InvalidCertificate(CertificateError::NotValidForName);
    let cases = [
        (
            tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
            "speaks no TLS",
            false,
        ),
        (tls(Error::NoApplicationProtocol), "ALPN h2", false),
        (
            alert(AlertDescription::NoApplicationProtocol),
            "ALPN h2",
            false,
        ),
        (
            alert(AlertDescription::HandshakeFailure),
            "TLS 1.2 or 1.3",
            false,
        ),
        (
            alert(AlertDescription::CertificateRequired),
            "client certificate",
            false,
        ),
        (tls(unnamed), "no host at all", false),
        (plain(io::ErrorKind::UnexpectedEof), "--insecure", true),
        (plain(io::ErrorKind::ConnectionReset), "--insecure", true),
        (
            plain(io::ErrorKind::TimedOut),
            "broke during the TLS handshake",
            true,
        ),
    ];
    for (error, expected, retryable) in cases {
        let text = error.to_string();
        assert!(text.contains(expected), "{expected}: {text}");
        assert_eq!(error.is_retryable(), retryable, "{text}");
    }
}

#[test]
fn start_up_errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir, now());
    fs::write(dir.join("empty"), "").unwrap();
    let ca = dir.join("ca.crt");
    let load = |roots: &Path, own| ClientTls::load(Some(roots), own).unwrap_err().to_string();
    let (certificate, key) = (dir.join("clients/client1.crt"), dir.join("server.key"));
    let own = OwnFiles {
        certificate: &certificate,
        key: &key,
    };
    for (error, expected) in [
        (load(&dir.join("none"), None), "none does not exist"),
        (load(&dir.join("empty"), None), "empty holds no certificate"),
        (load(&key, None), "server.key holds no certificate"),
        (load(&ca, Some(own)), "does not fit the certificate"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
