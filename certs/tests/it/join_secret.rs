//! Join secrets: made, kept in files, recognised.

use std::{fs, fs::Permissions, os::unix::fs::PermissionsExt as _};

use flwr_certs::{JoinSecret, JoinSecretError, WriteError};

#[test]
fn a_secret_is_recognised_and_nothing_else_is() {
    let secret = JoinSecret::generate().unwrap();
    let digest = secret.digest();
    let text = secret.expose();
    assert_eq!(text.len(), 64);
    assert!(digest.recognises(text.as_bytes()));
    let upper = text.to_ascii_uppercase();
    let longer = format!("{text}0");
    for other in ["", &text[1..], &longer, &upper, &"x".repeat(100_000)] {
        // A secret of digits only has no upper case.
        assert!(other == text || !digest.recognises(other.as_bytes()));
    }
    assert_ne!(secret, JoinSecret::generate().unwrap());
}

#[test]
fn a_saved_secret_loads_and_is_private() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/join-secret");
    let secret = JoinSecret::generate().unwrap();
    secret.save(&path, false).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let loaded = JoinSecret::load(&path).unwrap();
    assert_eq!(loaded.secret, secret);
    assert_eq!(loaded.warning, None);

    let error = secret.save(&path, false).unwrap_err();
    assert!(
        matches!(error, JoinSecretError::Write(WriteError::Exists { .. })),
        "{error}"
    );
    JoinSecret::generate().unwrap().save(&path, true).unwrap();
    assert_ne!(JoinSecret::load(&path).unwrap().secret, secret);
}

#[test]
fn a_secret_that_others_can_read_is_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("join-secret");
    fs::write(&path, format!("  {}\r\n\n", "s".repeat(32))).unwrap();
    for (mode, is_open) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let loaded = JoinSecret::load(&path).unwrap();
        assert_eq!(loaded.secret.expose(), "s".repeat(32));
        assert_eq!(loaded.warning.is_some(), is_open, "{mode:o}");
    }
}

#[test]
fn what_is_no_secret_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("join-secret");
    for bad in [
        String::new(),
        "\n".into(),
        "s".repeat(31),
        "s".repeat(257),
        "s".repeat(100_000),
        format!("{} {}", "s".repeat(20), "s".repeat(20)),
        "ä".repeat(32),
    ] {
        fs::write(&path, &bad).unwrap();
        let error = JoinSecret::load(&path).unwrap_err().to_string();
        assert!(error.contains("flwr-quic keys join-secret"), "{error}");
    }
    fs::write(&path, [0xff; 40]).unwrap();
    for unreadable in [path.as_path(), &directory.path().join("absent")] {
        let error = JoinSecret::load(unreadable).unwrap_err();
        assert!(
            matches!(error, JoinSecretError::Unreadable { .. }),
            "{error}"
        );
    }
}

#[test]
fn debug_shows_no_secret() {
    let secret = JoinSecret::generate().unwrap();
    for shown in [format!("{secret:?}"), format!("{:?}", secret.digest())] {
        assert!(!shown.contains(secret.expose()), "{shown}");
    }
}
