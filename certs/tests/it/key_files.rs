//! OpenSSH key files, checked against ssh-keygen where it is installed.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use flwr_certs::{KeyFileError, KeyType, NodeKeyPair, NodePublicKey, WriteError};

use crate::{openssl, ssh_keygen};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn saved_pairs_load_and_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/node-1");
    let pair = NodeKeyPair::generate().unwrap();
    let files = pair.save(&path, "node 1", false).unwrap();
    assert_eq!(files.private_path, path);
    assert_eq!(files.public_path, directory.path().join("keys/node-1.pub"));

    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = NodeKeyPair::load(&path).unwrap();
    assert_eq!(loaded.public(), pair.public());
    let line = fs::read_to_string(&files.public_path).unwrap();
    assert_eq!(line, format!("{}\n", files.public_line));
    assert!(line.ends_with("== node 1\n"), "{line}");
    assert_eq!(&NodePublicKey::from_openssh(&line).unwrap(), pair.public());
    let left: Vec<_> = fs::read_dir(directory.path().join("keys"))
        .unwrap()
        .collect();
    assert_eq!(left.len(), 2, "no temporary files stay: {left:?}");
}

#[test]
fn nothing_is_overwritten_unasked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node");
    let public_path = directory.path().join("node.pub");
    fs::write(&public_path, "mine").unwrap();
    let pair = NodeKeyPair::generate().unwrap();
    let error = pair.save(&path, "", false).unwrap_err();
    assert!(
        matches!(&error, KeyFileError::Write(WriteError::Exists { path }) if *path == public_path)
    );
    assert!(error.to_string().contains("--force"), "{error}");
    assert!(!path.exists(), "neither file is written");
    assert_eq!(fs::read_to_string(&public_path).unwrap(), "mine");

    pair.save(&path, "", true).unwrap();
    assert_eq!(NodeKeyPair::load(&path).unwrap().public(), pair.public());
}

#[test]
fn ssh_keygen_reads_ours() {
    let directory = tempfile::tempdir().unwrap();
    for index in 0..8 {
        let path = directory.path().join(format!("node-{index}"));
        let (pair, bits, kind) = match index % 2 {
            0 => (NodeKeyPair::generate(), 384, "ECDSA"),
            _ => (NodeKeyPair::generate_ed25519(), 256, "ED25519"),
        };
        let pair = pair.unwrap();
        let files = pair.save(&path, "node 1", false).unwrap();
        let Some(derived) = ssh_keygen(&["-y", "-f", text(&path)]) else {
            return;
        };
        assert_eq!(derived.trim_end(), files.public_line);
        let listing = ssh_keygen(&["-l", "-f", text(&files.public_path)]).unwrap();
        assert_eq!(
            listing.trim_end(),
            format!("{bits} {} node 1 ({kind})", pair.public().fingerprint())
        );
    }
}

#[test]
fn ours_reads_ssh_keygens() {
    let directory = tempfile::tempdir().unwrap();
    for (kind, bits, key_type) in [
        ("ecdsa", "256", KeyType::P256),
        ("ecdsa", "384", KeyType::P384),
        ("ecdsa", "521", KeyType::P521),
        ("ed25519", "256", KeyType::Ed25519),
    ] {
        let path = directory.path().join(format!("{kind}-{bits}"));
        let made = ssh_keygen(&[
            "-q",
            "-t",
            kind,
            "-b",
            bits,
            "-N",
            "",
            "-C",
            "",
            "-f",
            text(&path),
        ]);
        if made.is_none() {
            return;
        }
        let pair = NodeKeyPair::load(&path).unwrap();
        assert_eq!(pair.public().key_type(), key_type);
        let line = fs::read_to_string(path.with_extension("pub")).unwrap();
        assert_eq!(pair.public().to_openssh(""), line.trim_end());
        let signature = pair.sign(b"now").unwrap();
        assert!(pair.public().verify(b"now", &signature));
        let again = NodeKeyPair::from_text(&pair.to_openssh_private("again").unwrap()).unwrap();
        assert_eq!(again.public(), pair.public());
    }
}

#[test]
fn unusable_files_say_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let encrypted = directory.path().join("encrypted");
    let rsa = directory.path().join("rsa");
    if ssh_keygen(&[
        "-q",
        "-t",
        "ecdsa",
        "-b",
        "384",
        "-N",
        "secret",
        "-f",
        text(&encrypted),
    ])
    .is_some()
    {
        let error = NodeKeyPair::load(&encrypted).unwrap_err();
        assert!(matches!(error, KeyFileError::Encrypted), "{error}");
        ssh_keygen(&["-q", "-t", "rsa", "-N", "", "-f", text(&rsa)]).unwrap();
        let error = NodeKeyPair::load(&rsa).unwrap_err();
        assert!(
            matches!(&error, KeyFileError::KeyType(kind) if kind == "ssh-rsa"),
            "{error}"
        );
    }
    let missing = NodeKeyPair::load(&directory.path().join("missing")).unwrap_err();
    assert!(matches!(missing, KeyFileError::Unreadable { .. }));
    let pkcs8 = "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n";
    let error = NodeKeyPair::from_text(pkcs8).unwrap_err();
    assert!(matches!(error, KeyFileError::Pkcs8), "{error}");
    let sec1 = pkcs8.replace("PRIVATE", "EC PRIVATE");
    let error = NodeKeyPair::from_text(&sec1).unwrap_err();
    assert!(matches!(error, KeyFileError::NotOpenSsh), "{error}");
    let locked = pkcs8.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let error = NodeKeyPair::from_text(&locked).unwrap_err();
    assert!(matches!(error, KeyFileError::Encrypted), "{error}");
    let good = NodeKeyPair::generate()
        .unwrap()
        .to_openssh_private("")
        .unwrap();
    let cut = format!("{}\n-----END OPENSSH PRIVATE KEY-----\n", &good[..200]);
    let error = NodeKeyPair::from_text(&cut).unwrap_err();
    assert!(matches!(error, KeyFileError::Damaged), "{error}");
    assert!(!format!("{:?}", NodeKeyPair::generate()).contains("scalar"));
}

#[test]
fn openssls_keys_are_read_and_are_the_same_in_either_format() {
    let directory = tempfile::tempdir().unwrap();
    for (algorithm, key_type) in [
        ("ED25519", KeyType::Ed25519),
        ("P-256", KeyType::P256),
        ("P-384", KeyType::P384),
        ("P-521", KeyType::P521),
    ] {
        let path = directory.path().join(algorithm);
        let public = directory.path().join(format!("{algorithm}.pub"));
        let curve = format!("ec_paramgen_curve:{algorithm}");
        let (kind, options) = match key_type {
            KeyType::Ed25519 => (algorithm, vec![]),
            _ => ("EC", vec!["-pkeyopt", &curve]),
        };
        let base = ["genpkey", "-algorithm", kind, "-out", text(&path)];
        if openssl(directory.path(), &[&base[..], &options].concat()).is_none() {
            return;
        }
        let base = ["pkey", "-pubout", "-in", text(&path), "-out", text(&public)];
        openssl(directory.path(), &base).unwrap();
        let pair = NodeKeyPair::load(&path).unwrap();
        assert_eq!(pair.public().key_type(), key_type);
        let pem = fs::read_to_string(&public).unwrap();
        assert_eq!(&NodePublicKey::from_text(&pem).unwrap(), pair.public());
        let openssh = pair.to_openssh_private("").unwrap();
        let again = NodeKeyPair::from_text(&openssh).unwrap();
        let signature = again.sign(b"now").unwrap();
        assert!(pair.public().verify(b"now", &signature));
        assert!(!pair.public().verify(b"then", &signature));
    }
}
