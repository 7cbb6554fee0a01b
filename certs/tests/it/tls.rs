//! The TLS configuration: what is refused at start-up, and real handshakes in memory.

use std::{fs, path::Path, sync::Arc};

use flwr_certs::{
    CaOptions, FileError, LeafOptions, ServerTls, TlsError, WriteOptions, create_ca, create_server,
};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConnection,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    time_provider::TimeProvider,
    version::{TLS12, TLS13},
};

use crate::{NOW, openssl};

const DAY: f64 = 86_400.0;

fn load(dir: &Path, files: [&str; 3], now: f64) -> Result<ServerTls, TlsError> {
    let [ca, certificate, key] = files.map(|file| dir.join(file));
    ServerTls::load(&ca, &certificate, &key, now)
}

fn federation(dir: &Path) {
    let write = WriteOptions::default();
    create_ca(dir, &CaOptions::default(), &write, NOW).unwrap();
    create_server(dir, &LeafOptions::default(), &write, NOW).unwrap();
}

const FLAT: [&str; 3] = ["ca.crt", "server.pem", "server.key"];
const NESTED: [&str; 3] = ["ca/ca.crt", "server/server.crt", "server/server.key"];

/// The tests' certificates begin in 2025.
#[derive(Debug)]
struct Then;

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(
            std::time::Duration::from_secs_f64(NOW),
        ))
    }
}

fn client(dir: &Path, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(dir.join("ca.crt")).unwrap())
        .unwrap();
    let mut config =
        ClientConfig::builder_with_details(Arc::new(default_provider()), Arc::new(Then))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.into()
}

/// Runs a handshake to its end, tickets included.
fn shake(
    client: &Arc<ClientConfig>,
    server: &ServerTls,
    host: &'static str,
) -> Result<ClientConnection, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), host.try_into().unwrap())?;
    let mut server = ServerConnection::new(server.config.clone())?;
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(client)
}

#[test]
fn handshakes_with_both_versions_and_layouts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    for files in [FLAT, NESTED] {
        let server = load(dir, files, NOW).unwrap();
        assert_eq!(server.warnings, Vec::<String>::new());
        for (version, suite) in [
            (&TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
            (&TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
        ] {
            let config = client(dir, version);
            for host in ["superlink", "localhost", "127.0.0.1", "::1"] {
                let connection = shake(&config, &server, host).unwrap();
                assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
                assert_eq!(connection.protocol_version(), Some(version.version));
                let chosen = connection.negotiated_cipher_suite().unwrap();
                assert_eq!(chosen.suite(), suite);
            }
            let again = shake(&config, &server, "superlink").unwrap();
            assert_eq!(again.handshake_kind(), Some(HandshakeKind::Resumed));
            shake(&config, &server, "elsewhere").unwrap_err();
        }
    }
    assert_eq!(TLS13.version, ProtocolVersion::TLSv1_3);
}

#[test]
fn every_key_format() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    for (new_key, request, output) in [
        (
            "ec",
            &["ecparam", "-name", "secp384r1", "-genkey"][..],
            "BEGIN EC PRIVATE KEY",
        ),
        (
            "rsa",
            &["genrsa", "-traditional", "2048"],
            "BEGIN RSA PRIVATE KEY",
        ),
        (
            "pkcs8",
            &["genpkey", "-algorithm", "ed25519"],
            "BEGIN PRIVATE KEY",
        ),
    ] {
        let key = format!("{new_key}.key");
        let certificate = format!("{new_key}.crt");
        let mut args = request.to_vec();
        let bits = args.pop_if(|last| last.starts_with('2'));
        args.extend(["-out", &key]);
        args.extend(bits);
        if openssl(dir, &args).is_none() {
            return;
        }
        let text = fs::read_to_string(dir.join(&key)).unwrap();
        assert!(text.contains(output), "{text}");
        openssl(
            dir,
            &[
                "req",
                "-x509",
                "-days",
                "2",
                "-subj",
                "/CN=superlink",
                "-addext",
                "subjectAltName=DNS:superlink",
                "-key",
                &key,
                "-out",
                &certificate,
            ],
        );
        // openssl knows no other time than now.
        let now = flwr_certs::show(&dir.join(&certificate), NOW).unwrap()[0].not_before + 60.0;
        let own = load(dir, [&certificate, &certificate, &key], now).unwrap();
        assert_eq!(own.warnings, Vec::<String>::new());
        let foreign = load(dir, ["ca.crt", &certificate, &key], now).unwrap();
        assert!(
            foreign
                .warnings
                .iter()
                .any(|warning| warning.contains("is not signed by the CA")),
            "{:?}",
            foreign.warnings
        );
    }
}

#[test]
fn start_up_errors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(
        dir.join("junk"),
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    fs::write(
        dir.join("encrypted"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let [ca, certificate, key] = FLAT;
    let late = NOW + 826.0 * DAY;
    for (files, now, want) in [
        (["none", certificate, key], NOW, "none does not exist"),
        ([ca, "none", key], NOW, "none does not exist"),
        ([ca, certificate, "none"], NOW, "none does not exist"),
        (["none", "empty", "empty"], NOW, "none does not exist"),
        ([ca, "folder", key], NOW, "cannot read"),
        (["empty", certificate, key], NOW, "holds no certificate"),
        (
            [ca, key, certificate],
            NOW,
            "server.key holds no certificate",
        ),
        ([ca, certificate, certificate], NOW, "holds no private key"),
        ([ca, "junk", key], NOW, "is damaged"),
        (["junk", certificate, key], NOW, "is damaged"),
        ([ca, certificate, "encrypted"], NOW, "is encrypted"),
        (
            [ca, certificate, "ca/ca.key"],
            NOW,
            "does not fit the certificate",
        ),
        (
            [ca, certificate, key],
            late,
            "expired on 2027-12-19T08:30:00+00:00",
        ),
        (
            FLAT,
            NOW - DAY,
            "not valid before 2025-09-15T07:30:00+00:00",
        ),
    ] {
        let error = load(dir, files, now).unwrap_err().to_string();
        assert!(error.contains(want), "{files:?}: {error}");
        assert!(error.contains(": "), "says what to do: {error}");
    }
    let error = load(dir, ["none", certificate, key], NOW).unwrap_err();
    assert!(matches!(error, TlsError::File(FileError::Missing { .. })));
}

#[test]
fn warnings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    federation(&dir.join("other"));
    let [ca, certificate, key] = FLAT;
    let check = |files, now, want: &str| {
        let warnings = load(dir, files, now).unwrap().warnings;
        assert!(
            warnings.len() == 1 && warnings[0].contains(want),
            "{want}: {warnings:?}"
        );
    };
    check(
        ["other/ca.crt", certificate, key],
        NOW,
        "is not signed by the CA",
    );
    let bundle = ["other/ca.crt", ca].map(|file| fs::read_to_string(dir.join(file)).unwrap());
    fs::write(dir.join("bundle"), bundle.concat()).unwrap();
    let both = load(dir, ["bundle", certificate, key], NOW).unwrap();
    assert_eq!(both.warnings, Vec::<String>::new());
}
