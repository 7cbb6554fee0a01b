//! Making and looking at certificates, checked against the openssl program where it is installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flwr_certs::{
    CaOptions, CertCurve, CertError, FileError, Layout, LeafOptions, WriteError, WriteOptions,
    create_ca, create_clients, create_server, show, verify,
};

use crate::{NOW, openssl};

const DAY: f64 = 86_400.0;

/// A CA, a server and two clients with the defaults.
fn federation(dir: &Path) -> Vec<PathBuf> {
    let write = WriteOptions::default();
    let leaf = LeafOptions {
        names: vec!["fl.example.org".into(), "10.1.2.3".into(), "*.fl".into()],
        ..LeafOptions::default()
    };
    let mut files = create_ca(dir, &CaOptions::default(), &write, NOW).unwrap();
    files.extend(create_server(dir, &leaf, &write, NOW).unwrap());
    files.extend(create_clients(dir, 1..=2, &LeafOptions::default(), &write, NOW).unwrap());
    files
}

fn problems(dir: &Path, certificate: &str, key: &str, host: &str, now: f64) -> Vec<String> {
    let key = (!key.is_empty()).then(|| dir.join(key));
    let host = (!host.is_empty()).then_some(host);
    verify(
        &dir.join("ca.crt"),
        &dir.join(certificate),
        key.as_deref(),
        host,
        now,
    )
    .unwrap()
}

#[test]
fn both_layouts_with_private_keys() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let files = federation(dir);
    let relative: Vec<_> = files
        .iter()
        .map(|file| file.strip_prefix(dir).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(
        relative,
        [
            "ca/ca.crt",
            "ca/ca.key",
            "ca.crt",
            "server/server.crt",
            "server/server.key",
            "server.pem",
            "server.key",
            "clients/client1.crt",
            "clients/client1.key",
            "clients/client2.crt",
            "clients/client2.key",
        ]
    );
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        if file.extension().unwrap() == "key" {
            assert!(
                text.starts_with("-----BEGIN PRIVATE KEY-----\n"),
                "{file:?}"
            );
            assert_eq!(mode, 0o600, "{file:?}");
        } else {
            assert!(
                text.starts_with("-----BEGIN CERTIFICATE-----\n"),
                "{file:?}"
            );
            assert!(mode & 0o077 & !0o044 == 0, "{file:?} {mode:o}");
        }
    }
    let chain = fs::read_to_string(dir.join("server.pem")).unwrap();
    let parts = ["server/server.crt", "ca/ca.crt"].map(|file| fs::read_to_string(dir.join(file)));
    assert_eq!(chain, parts.map(Result::unwrap).concat());
}

#[test]
fn openssl_accepts_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for curve in [CertCurve::P256, CertCurve::P384] {
        let dir = dir.join(format!("{curve:?}"));
        let ca = CaOptions {
            curve,
            ..CaOptions::default()
        };
        let leaf = LeafOptions {
            curve,
            ..LeafOptions::default()
        };
        let write = WriteOptions::default();
        create_ca(&dir, &ca, &write, NOW).unwrap();
        create_server(&dir, &leaf, &write, NOW).unwrap();
        create_clients(&dir, 1..=1, &leaf, &write, NOW).unwrap();
        for (certificate, purpose, host) in [
            ("server/server.crt", "sslserver", "superlink"),
            ("server.pem", "sslserver", "localhost"),
            ("clients/client1.crt", "sslclient", "supernode-1"),
            ("clients/client1.crt", "sslserver", "flower-supernode-1"),
        ] {
            let Some(said) = openssl(
                &dir,
                &[
                    "verify",
                    "-x509_strict",
                    "-attime",
                    &format!("{NOW:.0}"),
                    "-purpose",
                    purpose,
                    "-verify_hostname",
                    host,
                    "-CAfile",
                    "ca.crt",
                    certificate,
                ],
            ) else {
                return;
            };
            assert_eq!(said.trim_end(), format!("{certificate}: OK"));
        }
        let said = openssl(&dir, &["x509", "-noout", "-text", "-in", "ca/ca.crt"]).unwrap();
        for part in [
            "X509v3 Basic Constraints: critical",
            "CA:TRUE, pathlen:0",
            "X509v3 Key Usage: critical",
            "Certificate Sign, CRL Sign",
            "X509v3 Subject Key Identifier",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let said = openssl(
            &dir,
            &["x509", "-noout", "-text", "-in", "server/server.crt"],
        )
        .unwrap();
        for part in [
            "X509v3 Basic Constraints: critical",
            "CA:FALSE",
            "X509v3 Key Usage: critical",
            "Digital Signature",
            "X509v3 Extended Key Usage",
            "TLS Web Server Authentication",
            "X509v3 Subject Key Identifier",
            "X509v3 Authority Key Identifier",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

#[test]
fn an_openssl_ca_signs_too() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (name, key) in [
        ("rsa", &["-newkey", "rsa:2048"][..]),
        (
            "ec",
            &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
    ] {
        let home = dir.join(name);
        fs::create_dir_all(home.join("ca")).unwrap();
        let mut args = vec!["req", "-x509", "-nodes", "-days", "3650"];
        args.extend(key);
        args.extend(["-subj", "/C=DE/O=Hospital, East/CN=Flower CA"]);
        args.extend(["-keyout", "ca/ca.key", "-out", "ca/ca.crt"]);
        if openssl(&home, &args).is_none() {
            return;
        }
        // openssl knows no other time than now.
        let now = show(&home.join("ca/ca.crt"), NOW).unwrap()[0].not_before + 7200.0;
        let write = WriteOptions {
            layout: Layout::Nested,
            ..WriteOptions::default()
        };
        create_server(&home, &LeafOptions::default(), &write, now).unwrap();
        let said = openssl(
            &home,
            &[
                "verify",
                "-no_check_time",
                "-CAfile",
                "ca/ca.crt",
                "server/server.crt",
            ],
        );
        assert_eq!(said.unwrap().trim_end(), "server/server.crt: OK");
        let found = verify(
            &home.join("ca/ca.crt"),
            &home.join("server/server.crt"),
            Some(&home.join("server/server.key")),
            Some("superlink"),
            now,
        );
        assert_eq!(found.unwrap(), Vec::<String>::new());
    }
}

#[test]
fn what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    let ca = &show(&dir.join("ca.crt"), NOW).unwrap()[0];
    assert!(ca.is_ca && ca.subject == ca.issuer, "{ca:?}");
    assert!(ca.subject.contains("CN=Flower federation CA"), "{ca:?}");
    assert_eq!((ca.days_left, ca.not_before), (3651, NOW.floor() - 3600.0));
    assert_eq!(ca.key_algorithm, "ECDSA P-384");

    let chain = show(&dir.join("server.pem"), NOW).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(&chain[1], ca);
    let server = &chain[0];
    assert_eq!(
        server.alt_names,
        [
            "superlink",
            "flower-superlink",
            "localhost",
            "127.0.0.1",
            "::1",
            "fl.example.org",
            "10.1.2.3",
            "*.fl"
        ]
    );
    assert_eq!((server.is_ca, &server.issuer), (false, &ca.subject));
    assert_eq!(server.key_algorithm, "ECDSA P-256");
    assert_eq!(server.days_left, 824);
    assert_ne!(server.serial, ca.serial);

    let client = &show(&dir.join("clients/client2.crt"), NOW).unwrap()[0];
    assert_eq!(
        client.alt_names,
        [
            "supernode-2",
            "flower-supernode-2",
            "localhost",
            "127.0.0.1",
            "::1"
        ]
    );
    let args = [
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-in",
        "server.pem",
    ];
    if let Some(said) = openssl(dir, &args) {
        assert!(
            said.trim_end().ends_with(&server.fingerprint_sha256),
            "{said}"
        );
    }
}

#[test]
fn verify_finds_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    federation(dir);
    let other = dir.join("other");
    federation(&other);

    let ok = |certificate, key, host| {
        assert_eq!(
            problems(dir, certificate, key, host, NOW),
            Vec::<String>::new(),
            "{host}"
        );
    };
    for host in [
        "superlink",
        "LOCALHOST",
        "127.0.0.1",
        "::1",
        "[::1]",
        "a.fl",
        "10.1.2.3",
    ] {
        ok("server.pem", "server.key", host);
    }
    ok("clients/client1.crt", "clients/client1.key", "supernode-1");
    ok("ca.crt", "ca/ca.key", "");

    let wrong = |certificate, key, host, now, want: &str| {
        let found = problems(dir, certificate, key, host, now);
        assert!(
            found.iter().any(|problem| problem.contains(want)),
            "{want}: {found:?}"
        );
    };
    wrong("other/server.pem", "", "", NOW, "is not signed by the CA");
    wrong("server.pem", "clients/client1.key", "", NOW, "does not fit");
    for host in ["supernode-1", "a.b.fl", "fl", "10.1.2.4", "0.0.0.0"] {
        wrong(
            "server.pem",
            "",
            host,
            NOW,
            &format!("not valid for {host}"),
        );
    }
    wrong(
        "server.pem",
        "",
        "",
        NOW + 826.0 * DAY,
        "the certificate expired on 2027-12-",
    );
    wrong(
        "server.pem",
        "",
        "",
        NOW - DAY,
        "not valid before 2025-09-15T07:30:00",
    );
    wrong(
        "server.pem",
        "",
        "",
        NOW + 3653.0 * DAY,
        "the CA certificate expired on",
    );
}

#[test]
fn nothing_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (ca, write) = (CaOptions::default(), WriteOptions::default());
    fs::write(dir.join("ca.crt"), "mine").unwrap();
    let error = create_ca(dir, &ca, &write, NOW).unwrap_err();
    let CertError::Write(WriteError::Exists { path }) = &error else {
        panic!("{error}");
    };
    assert_eq!(path, &dir.join("ca.crt"));
    assert!(error.to_string().contains("--force"));
    assert!(!dir.join("ca").exists(), "all targets are checked first");

    let force = WriteOptions {
        overwrite: true,
        key_mode: 0o640,
        ..write
    };
    create_ca(dir, &ca, &force, NOW).unwrap();
    let mode = fs::metadata(dir.join("ca/ca.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    create_clients(dir, 2..=2, &LeafOptions::default(), &write, NOW).unwrap();
    let before = fs::read(dir.join("clients/client2.key")).unwrap();
    create_clients(dir, 1..=3, &LeafOptions::default(), &write, NOW).unwrap_err();
    assert!(!dir.join("clients/client1.crt").exists());
    assert_eq!(fs::read(dir.join("clients/client2.key")).unwrap(), before);
    create_clients(dir, 3..=3, &LeafOptions::default(), &write, NOW).unwrap();
}

#[test]
fn the_flat_layout_stands_alone() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = WriteOptions {
        layout: Layout::Flat,
        ..WriteOptions::default()
    };
    create_ca(dir, &CaOptions::default(), &write, NOW).unwrap();
    create_server(dir, &LeafOptions::default(), &write, NOW).unwrap();
    create_clients(dir, 1..=1, &LeafOptions::default(), &write, NOW).unwrap();
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let want = [
        "ca.crt",
        "ca.key",
        "client1.key",
        "client1.pem",
        "server.key",
        "server.pem",
    ];
    assert_eq!(names, want);
    assert!(problems(dir, "server.pem", "server.key", "superlink", NOW).is_empty());
}

#[test]
fn errors_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (leaf, write) = (LeafOptions::default(), WriteOptions::default());
    let error = create_server(dir, &leaf, &write, NOW).unwrap_err();
    assert!(matches!(error, CertError::NoCa { .. }), "{error}");

    create_ca(dir, &CaOptions::default(), &write, NOW).unwrap();
    for name in [
        "",
        "https://superlink",
        "superlink:9092",
        "a b",
        "-",
        "über",
    ] {
        let leaf = LeafOptions {
            names: vec![name.into()],
            ..leaf.clone()
        };
        let error = create_server(dir, &leaf, &write, NOW).unwrap_err();
        assert!(matches!(error, CertError::Name(_)), "{name}: {error}");
    }
    let error = create_server(dir, &leaf, &write, NOW + 4000.0 * DAY).unwrap_err();
    assert!(matches!(error, CertError::CaExpired { .. }), "{error}");
    // A certificate does not outlive its CA.
    create_server(dir, &leaf, &write, NOW + 3600.0 * DAY).unwrap();
    let (server, ca) = ("server.pem", "ca.crt");
    let end = |file| show(&dir.join(file), NOW).unwrap()[0].not_after;
    assert!((end(server) - end(ca)).abs() < 1.0);

    let error = create_ca(
        dir,
        &CaOptions {
            days: u32::MAX,
            ..CaOptions::default()
        },
        &write,
        NOW,
    );
    assert!(matches!(error, Err(CertError::Validity)), "{error:?}");
    fs::copy(dir.join("server.key"), dir.join("ca/ca.key")).unwrap();
    let error = create_server(dir, &leaf, &write, NOW).unwrap_err();
    assert!(matches!(error, CertError::CaKeyMismatch { .. }), "{error}");
    fs::copy(dir.join("server/server.crt"), dir.join("ca/ca.crt")).unwrap();
    let error = create_server(dir, &leaf, &write, NOW).unwrap_err();
    assert!(matches!(error, CertError::NotCa { .. }), "{error}");
    fs::write(
        dir.join("ca/ca.crt"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let error = create_server(dir, &leaf, &write, NOW).unwrap_err();
    assert!(
        matches!(error, CertError::File(FileError::Damaged { .. })),
        "{error}"
    );
}
