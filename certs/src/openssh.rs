//! The OpenSSH texts of node keys: the public line and the unencrypted private file (`openssh-key-v1`).
//!
//! Pure: text in, keys out. Written here because the scalar is a variable-length integer: about one
//! key in 128 has a shorter one, which fixed-width readers refuse.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    key_type::{KeyType, PrivateParts},
    node_key::NodeKeyError,
    pem_file,
};

/// Takes a public line apart into the kind of the key and what [`NodePublicKey`](crate::NodePublicKey) is made of.
pub(crate) fn parse_public_line(line: &str) -> Result<(KeyType, Vec<u8>), NodeKeyError> {
    let mut words = line.split_ascii_whitespace();
    let (Some(key_type), Some(base64)) = (words.next(), words.next()) else {
        return Err(NodeKeyError::NotOpenSsh);
    };
    let Some(kind) = key_type_of(key_type.as_bytes()) else {
        return Err(if is_key_type(key_type) {
            NodeKeyError::KeyType(key_type.to_owned())
        } else {
            NodeKeyError::NotOpenSsh
        });
    };
    let blob = STANDARD
        .decode(base64)
        .map_err(|_error| NodeKeyError::Damaged)?;
    let public = read_public_blob(&blob, kind).ok_or(NodeKeyError::Damaged)?;
    Ok((kind, public.to_vec()))
}

/// Writes a public line without line end.
pub(crate) fn public_line(key_type: KeyType, public: &[u8], comment: &str) -> String {
    let base64 = STANDARD.encode(public_blob(key_type, public));
    let comment = comment.replace(char::is_control, " ");
    let line = format!("{} {base64} {comment}", key_type.openssh_name());
    line.trim_end().to_owned()
}

/// The bytes that the public line holds in base64, and that fingerprints are taken of.
pub(crate) fn public_blob(key_type: KeyType, public: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + public.len());
    put_string(&mut out, key_type.openssh_name().as_bytes());
    if let Some(curve) = key_type.openssh_curve() {
        put_string(&mut out, curve.as_bytes());
    }
    put_string(&mut out, public);
    out
}

/// Why a text is not an unencrypted OpenSSH private key.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum PrivateError {
    Damaged,
    Encrypted,
    KeyType(String),
    NotOpenSsh,
}

/// Reads the text of a private file.
pub(crate) fn parse_private(text: &str) -> Result<PrivateParts, PrivateError> {
    let body = text
        .split_once(PRIVATE_BEGIN)
        .and_then(|(_, rest)| rest.split_once(PRIVATE_END))
        .map(|(body, _)| body)
        .ok_or(PrivateError::NotOpenSsh)?;
    let base64: String = body.split_ascii_whitespace().collect();
    let data = STANDARD
        .decode(base64)
        .map_err(|_error| PrivateError::Damaged)?;
    let mut data = Reader(data.strip_prefix(MAGIC).ok_or(PrivateError::NotOpenSsh)?);
    let (cipher, kdf) = data
        .string()
        .zip(data.string())
        .ok_or(PrivateError::Damaged)?;
    if cipher != b"none" || kdf != b"none" {
        return Err(PrivateError::Encrypted);
    }
    read_unencrypted(data)
}

fn read_unencrypted(mut data: Reader<'_>) -> Result<PrivateParts, PrivateError> {
    let damaged = PrivateError::Damaged;
    let (Some([]), Some(1)) = (data.string(), data.u32()) else {
        return Err(damaged);
    };
    let (Some(public), Some(private), []) = (data.string(), data.string(), data.0) else {
        return Err(damaged);
    };
    let mut secret = Reader(private);
    let (Some(check_a), Some(check_b), Some(key_type)) =
        (secret.u32(), secret.u32(), secret.string())
    else {
        return Err(damaged);
    };
    if check_a != check_b {
        return Err(damaged);
    }
    let Some(key_type) = key_type_of(key_type) else {
        return Err(PrivateError::KeyType(
            String::from_utf8_lossy(key_type).into_owned(),
        ));
    };
    let parts = read_secret(&mut secret, key_type).ok_or(PrivateError::Damaged)?;
    let padding_ok = (1..)
        .zip(secret.0)
        .all(|(want, have): (u8, _)| want == *have);
    if read_public_blob(public, key_type) != Some(&parts.public) || !padding_ok {
        return Err(PrivateError::Damaged);
    }
    Ok(parts)
}

/// Reads what follows the kind of the key, up to the padding.
fn read_secret(secret: &mut Reader<'_>, key_type: KeyType) -> Option<PrivateParts> {
    if let Some(curve) = key_type.openssh_curve() {
        (secret.string()? == curve.as_bytes()).then_some(())?;
    }
    let public = secret.string()?;
    let number = secret.string()?;
    let _comment = secret.string()?;
    let secret = match key_type {
        // The seed, and the public key once more.
        KeyType::Ed25519 => number.strip_suffix(public)?.to_vec(),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => pad_scalar(number, key_type.secret_len())?,
    };
    Some(PrivateParts {
        key_type,
        public: public.to_vec(),
        secret,
    })
}

/// Writes a private file. `check` is any number; OpenSSH takes a random one.
pub(crate) fn private_file(parts: &PrivateParts, comment: &str, check: u32) -> String {
    let mut secret = Vec::with_capacity(512);
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&public_blob(parts.key_type, &parts.public));
    match parts.key_type {
        KeyType::Ed25519 => put_string(&mut secret, &[&parts.secret[..], &parts.public].concat()),
        KeyType::P256 | KeyType::P384 | KeyType::P521 => put_integer(&mut secret, &parts.secret),
    }
    put_string(&mut secret, comment.as_bytes());
    let padding = secret.len().next_multiple_of(BLOCK) - secret.len();
    secret.extend((1..).take(padding));

    let mut data = MAGIC.to_vec();
    put_string(&mut data, b"none");
    put_string(&mut data, b"none");
    put_string(&mut data, b"");
    data.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut data, &public_blob(parts.key_type, &parts.public));
    put_string(&mut data, &secret);
    pem_file::armor("OPENSSH PRIVATE KEY", &data, PRIVATE_COLUMNS)
}

fn read_public_blob(blob: &[u8], key_type: KeyType) -> Option<&[u8]> {
    let mut blob = Reader(blob);
    let mut is_named = blob.string()? == key_type.openssh_name().as_bytes();
    if let Some(curve) = key_type.openssh_curve() {
        is_named &= blob.string()? == curve.as_bytes();
    }
    let public = blob.string()?;
    (is_named && blob.0.is_empty()).then_some(public)
}

/// Drops the sign byte of an SSH integer and pads it to `len`.
fn pad_scalar(integer: &[u8], len: usize) -> Option<Vec<u8>> {
    let start = integer.iter().position(|byte| *byte != 0)?;
    let digits = &integer[start..];
    let mut scalar = vec![0; len.checked_sub(digits.len())?];
    scalar.extend_from_slice(digits);
    Some(scalar)
}

fn put_integer(out: &mut Vec<u8>, scalar: &[u8]) {
    let start = scalar.iter().position(|byte| *byte != 0);
    let digits = &scalar[start.unwrap_or(scalar.len())..];
    if digits.first().is_some_and(|byte| *byte >= 0x80) {
        put_string(out, &[&[0], digits].concat());
    } else {
        put_string(out, digits);
    }
}

fn put_string(out: &mut Vec<u8>, value: &[u8]) {
    let len = u32::try_from(value.len()).expect("keys are far shorter than 4 GiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
}

fn key_type_of(name: &[u8]) -> Option<KeyType> {
    KeyType::ALL
        .into_iter()
        .find(|key_type| key_type.openssh_name().as_bytes() == name)
}

/// Whether a word is the type of a key, as against any other text.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*head))
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (value, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(value)
    }
}

const MAGIC: &[u8] = b"openssh-key-v1\0";
const PRIVATE_BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const PRIVATE_END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// As ssh-keygen breaks its lines.
const PRIVATE_COLUMNS: usize = 70;
/// The block size of the "none" cipher.
const BLOCK: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_scalars_survive() {
        let point = [&[4_u8][..], &[7; 96]].concat();
        for leading_zeros in [0, 1, 2] {
            for first in [0x01, 0x80] {
                let mut scalar = vec![0x55; 48];
                scalar[..leading_zeros].fill(0);
                scalar[leading_zeros] = first;
                let parts = PrivateParts {
                    key_type: KeyType::P384,
                    public: point.clone(),
                    secret: scalar.clone(),
                };
                let text = private_file(&parts, "a comment", 7);
                let back = parse_private(&text).map(|parts| parts.secret);
                assert_eq!(back, Ok(scalar));
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_survived() {
        for (key_type, public) in [
            (KeyType::P256, [&[4_u8][..], &[7; 64]].concat()),
            (KeyType::Ed25519, vec![7; 32]),
        ] {
            let parts = PrivateParts {
                key_type,
                public,
                secret: vec![0x55; 32],
            };
            let text = private_file(&parts, "", 7);
            assert!(parse_private(&text).is_ok());
            for index in 0..text.len() {
                let mut damaged = text.clone().into_bytes();
                damaged[index] = b'A';
                let damaged = String::from_utf8(damaged).unwrap();
                // Any answer will do but a panic.
                let _parsed = parse_private(&damaged).is_ok();
            }
            for len in 0..text.len() - 1 {
                assert!(parse_private(&text[..len]).is_err());
            }
        }
    }
}
