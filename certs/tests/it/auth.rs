//! Node authentication, protocol section 5.1; the numbers are those of the conformance checklist, section 9.2.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    },
};
use flwr_certs::{
    AllowList, AuthError, KeyCache, KeyType, NodeKeyError, NodeKeyPair, NodePublicKey, format_iso,
    verify_node_request,
};

use crate::NOW;

const VECTOR_PEM: &str = "-----BEGIN PUBLIC KEY-----
MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEzT0H/gQCYExdFuYRt3QnVuT9Qaoq1gIW
BlXLV1HUwe7ulNJGTUNT8+/jDQrcy7PO3FyJCNtS9JLwwQ6XPzLyirCpK8cZPEhL
UK6BJLNxU3EQXvncRaPuCyXhYnO3k37o
-----END PUBLIC KEY-----
";
const VECTOR_PEM_SHA256: &str = "392fa53e6e35180fe400d5744708cb9211903c6845de028e5207c74dbb75990b";
const VECTOR_OPENSSH: &str = "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBM09B/4EAmBMXRbmEbd0J1bk/UGqKtYCFgZVy1dR1MHu7pTSRk1DU/Pv4w0K3MuzztxciQjbUvSS8MEOlz8y8oqwqSvHGTxIS1CugSSzcVNxEF753EWj7gsl4WJzt5N+6A==";
const VECTOR_TIMESTAMP: &[u8] = b"2025-09-15T08:30:00.123456+00:00";
const VECTOR_SIGNATURE: &str = "306602310086cbbaaf5eaf5fbf929e51c68bfc41bd5aac74a8a7b8de608abe10771e7143d84a4f34efbd31348e6acf7b31efd06b4a023100d88922d3d1911471e17bf695707bd521d4b1a75de9604c56684f35a62f3c2483e10ac9581593c0077b0a68784681c179";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// What a stock node sends, and what became of it.
fn check(pair: &NodeKeyPair, timestamp: &str, now: f64) -> Result<NodePublicKey, AuthError> {
    let signature = pair.sign(timestamp.as_bytes()).unwrap();
    verify_node_request(
        Some(pair.public().to_pem().as_bytes()),
        Some(timestamp.as_bytes()),
        Some(&signature),
        now,
        None,
        &KeyCache::default(),
    )
}

fn list_of(keys: &[&NodePublicKey]) -> (tempfile::TempDir, AllowList) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.csv");
    let lines: Vec<_> = keys.iter().map(|key| key.to_openssh("")).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let list = AllowList::load(&path).unwrap();
    (directory, list)
}

#[test]
fn c21_the_vector_verifies() {
    let key = NodePublicKey::from_pem(VECTOR_PEM.as_bytes()).unwrap();
    assert_eq!(key.key_type(), KeyType::P384);
    assert_eq!(key.to_pem(), VECTOR_PEM);
    assert_eq!(VECTOR_PEM.len(), 215);
    let hash = digest::digest(&digest::SHA256, key.to_pem().as_bytes());
    assert_eq!(hash.as_ref(), unhex(VECTOR_PEM_SHA256));
    assert_eq!(key.to_openssh(""), VECTOR_OPENSSH);
    assert_eq!(NodePublicKey::from_openssh(VECTOR_OPENSSH).unwrap(), key);

    let signature = unhex(VECTOR_SIGNATURE);
    assert!(key.verify(VECTOR_TIMESTAMP, &signature));
    assert!(!key.verify(b"2025-09-15T08:30:00.123457+00:00", &signature));
    for index in 0..signature.len() {
        let mut damaged = signature.clone();
        damaged[index] ^= 1;
        assert!(!key.verify(VECTOR_TIMESTAMP, &damaged), "byte {index}");
    }
    let cache = KeyCache::default();
    let verified = verify_node_request(
        Some(VECTOR_PEM.as_bytes()),
        Some(VECTOR_TIMESTAMP),
        Some(&signature),
        1_757_925_001.0,
        None,
        &cache,
    );
    assert_eq!(verified, Ok(key));
    assert_eq!(cache.len(), 1);
}

#[test]
fn c13_every_header_is_needed() {
    let some: Option<&[u8]> = Some(b"");
    for (key, timestamp, signature) in [(None, some, some), (some, None, some), (some, some, None)]
    {
        let cache = KeyCache::default();
        let answer = verify_node_request(key, timestamp, signature, NOW, None, &cache);
        assert_eq!(answer, Err(AuthError::MissingMetadata));
    }
}

#[test]
fn c14_c15_wrong_signatures() {
    let (pair, other) = (
        NodeKeyPair::generate().unwrap(),
        NodeKeyPair::generate().unwrap(),
    );
    let timestamp = format_iso(NOW);
    let cache = KeyCache::default();
    for signature in [
        other.sign(timestamp.as_bytes()).unwrap(),
        pair.sign(b"another time").unwrap(),
        b"garbage".to_vec(),
        Vec::new(),
    ] {
        let answer = verify_node_request(
            Some(pair.public().to_pem().as_bytes()),
            Some(timestamp.as_bytes()),
            Some(&signature),
            NOW,
            None,
            &cache,
        );
        assert_eq!(answer, Err(AuthError::InvalidSignature));
    }
    assert!(
        cache.is_empty(),
        "only keys that proved themselves are kept"
    );
}

#[test]
fn c16_c17_the_window_is_exclusive() {
    let pair = NodeKeyPair::generate().unwrap();
    for (age, passes) in [
        (304.5, true),
        (305.5, false),
        (305.0, false),
        (-4.5, true),
        (-5.5, false),
        (-5.0, false),
        (0.0, true),
    ] {
        let answer = check(&pair, &format_iso(NOW - age), NOW);
        let want = if passes {
            Ok(pair.public().clone())
        } else {
            Err(AuthError::InvalidTimestamp)
        };
        assert_eq!(answer, want, "age {age}");
    }
}

#[test]
fn c18_c19_forms_of_the_timestamp() {
    let pair = NodeKeyPair::generate().unwrap();
    for (timestamp, passes) in [
        ("2025-09-15T08:30:00+00:00", true),
        ("2025-09-15T10:30:00.123456+02:00", true),
        ("2025-09-15T08:30:00Z", true),
        ("2025-09-15T08:30:00.123456", false),
        ("2025-09-15T08:30:00.123456+02:00", false),
        ("yesterday", false),
        ("", false),
    ] {
        let answer = check(&pair, timestamp, NOW);
        let want = if passes {
            Ok(pair.public().clone())
        } else {
            Err(AuthError::InvalidTimestamp)
        };
        assert_eq!(answer, want, "{timestamp:?}");
    }
}

#[test]
fn c20_every_curve() {
    let message = b"2025-09-15T08:30:00.123456+00:00";
    for (algorithm, prefix, pem_len) in [
        (
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            "3059301306072a8648ce3d020106082a8648ce3d030107034200",
            178,
        ),
        (
            &ECDSA_P521_SHA256_ASN1_SIGNING,
            "30819b301006072a8648ce3d020106052b8104002303818600",
            268,
        ),
    ] {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let signature = pair.sign(&SystemRandom::new(), message).unwrap();
        let der = [&unhex(prefix), pair.public_key().as_ref()].concat();
        let key = NodePublicKey::from_spki_der(&der).unwrap();
        assert_eq!(key.to_pem().len(), pem_len);
        let key = NodePublicKey::from_pem(key.to_pem().as_bytes()).unwrap();
        let key = NodePublicKey::from_openssh(&key.to_openssh("node 1")).unwrap();
        assert_eq!(key.spki_der(), der);
        assert!(key.verify(message, signature.as_ref()));
        assert!(!key.verify(b"another", signature.as_ref()));
    }
    let pair = NodeKeyPair::generate().unwrap();
    assert!(pair.public().verify(message, &pair.sign(message).unwrap()));
}

#[test]
fn c27_c28_the_list_comes_before_the_signature() {
    let (known, unknown) = (
        NodeKeyPair::generate().unwrap(),
        NodeKeyPair::generate().unwrap(),
    );
    let (_directory, list) = list_of(&[known.public()]);
    let cache = KeyCache::default();
    let timestamp = format_iso(NOW);
    let good = |pair: &NodeKeyPair| pair.sign(timestamp.as_bytes()).unwrap();
    let pem = |pair: &NodeKeyPair| pair.public().to_pem();
    for (pem, signature, want) in [
        (pem(&known), good(&known), Ok(known.public().clone())),
        (pem(&known), b"x".to_vec(), Err(AuthError::InvalidSignature)),
        (
            pem(&unknown),
            good(&unknown),
            Err(AuthError::KeyNotRecognized),
        ),
        (
            pem(&unknown),
            b"x".to_vec(),
            Err(AuthError::KeyNotRecognized),
        ),
        (
            "no PEM".into(),
            good(&known),
            Err(AuthError::KeyNotRecognized),
        ),
        // The same key in other clothes.
        (
            pem(&known).replace('\n', "\r\n"),
            good(&known),
            Ok(known.public().clone()),
        ),
    ] {
        let answer = verify_node_request(
            Some(pem.as_bytes()),
            Some(timestamp.as_bytes()),
            Some(&signature),
            NOW,
            Some(&list),
            &cache,
        );
        assert_eq!(answer, want, "{pem}");
    }
}

#[test]
fn ed25519_keys_sign_requests_as_well() {
    let pair = NodeKeyPair::generate_ed25519().unwrap();
    let timestamp = format_iso(NOW);
    assert_eq!(check(&pair, &timestamp, NOW).as_ref(), Ok(pair.public()));
    assert_eq!(
        check(&pair, &format_iso(NOW - 306.0), NOW),
        Err(AuthError::InvalidTimestamp)
    );
    let signature = NodeKeyPair::generate_ed25519()
        .unwrap()
        .sign(timestamp.as_bytes());
    let answer = verify_node_request(
        Some(pair.public().to_pem().as_bytes()),
        Some(timestamp.as_bytes()),
        Some(&signature.unwrap()),
        NOW,
        None,
        &KeyCache::default(),
    );
    assert_eq!(answer, Err(AuthError::InvalidSignature));
}

#[test]
fn a_cached_key_that_left_the_list_is_refused() {
    let pair = NodeKeyPair::generate().unwrap();
    let (_directory, list) = list_of(&[pair.public()]);
    let (_other_directory, empty) = list_of(&[]);
    let cache = KeyCache::default();
    let timestamp = format_iso(NOW);
    let signature = pair.sign(timestamp.as_bytes()).unwrap();
    let ask = |list| {
        verify_node_request(
            Some(pair.public().to_pem().as_bytes()),
            Some(timestamp.as_bytes()),
            Some(&signature),
            NOW,
            Some(list),
            &cache,
        )
    };
    assert_eq!(ask(&list).as_ref(), Ok(pair.public()));
    assert_eq!(cache.len(), 1);
    assert_eq!(ask(&empty), Err(AuthError::KeyNotRecognized));
}

#[test]
fn unusable_keys() {
    let pem = VECTOR_PEM;
    let x25519 = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VuAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    for (text, want) in [
        ("", NodeKeyError::NotPem),
        ("\0\u{1}\u{ff}", NodeKeyError::NotPem),
        (&pem.replace("PUBLIC KEY", "RSA KEY"), NodeKeyError::NotPem),
        (x25519, NodeKeyError::UnknownKind),
        // A point beside the curve.
        (
            &pem.replace("k37o", "k37p"),
            NodeKeyError::BadPoint(KeyType::P384),
        ),
        (&pem.repeat(30), NodeKeyError::TooLong),
    ] {
        assert_eq!(
            NodePublicKey::from_pem(text.as_bytes()),
            Err(want),
            "{text}"
        );
    }
    let key = NodePublicKey::from_pem(pem.as_bytes()).unwrap();
    let der = key.spki_der();
    for len in 0..der.len() {
        assert!(NodePublicKey::from_spki_der(&der[..len]).is_err(), "{len}");
    }
    assert!(NodePublicKey::from_spki_der(&[der, &[0]].concat()).is_err());
}

#[test]
fn the_texts_are_flowers() {
    for (error, text) in [
        (
            AuthError::MissingMetadata,
            "Missing authentication metadata",
        ),
        (AuthError::KeyNotRecognized, "Public key not recognized"),
        (AuthError::InvalidSignature, "Invalid signature"),
        (AuthError::InvalidTimestamp, "Invalid timestamp"),
    ] {
        assert_eq!(error.to_string(), text);
    }
}
