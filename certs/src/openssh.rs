//! The OpenSSH texts of EC keys: the public line and the unencrypted private file (`openssh-key-v1`).
//!
//! Pure: text in, points and scalars out. Written here because the scalar is a variable-length integer: about one
//! key in 128 has a shorter one, which fixed-width readers refuse.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::node_key::{Curve, NodeKeyError};

/// Takes a public line apart into curve and uncompressed point.
pub(crate) fn parse_public_line(line: &str) -> Result<(Curve, Vec<u8>), NodeKeyError> {
    let mut words = line.split_ascii_whitespace();
    let (Some(key_type), Some(base64)) = (words.next(), words.next()) else {
        return Err(NodeKeyError::NotOpenSsh);
    };
    let Some(curve) = curve_of(key_type.as_bytes()) else {
        return Err(if is_key_type(key_type) {
            NodeKeyError::KeyType(key_type.to_owned())
        } else {
            NodeKeyError::NotOpenSsh
        });
    };
    let blob = STANDARD
        .decode(base64)
        .map_err(|_error| NodeKeyError::Damaged)?;
    let point = read_public_blob(&blob, curve).ok_or(NodeKeyError::Damaged)?;
    Ok((curve, point.to_vec()))
}

/// Writes a public line without line end.
pub(crate) fn public_line(curve: Curve, point: &[u8], comment: &str) -> String {
    let base64 = STANDARD.encode(public_blob(curve, point));
    let comment = comment.replace(char::is_control, " ");
    let line = format!(
        "{KEY_TYPE_PREFIX}{} {base64} {comment}",
        curve.openssh_name()
    );
    line.trim_end().to_owned()
}

/// The bytes that the public line holds in base64, and that fingerprints are taken of.
pub(crate) fn public_blob(curve: Curve, point: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + point.len());
    put_string(&mut out, key_type(curve).as_bytes());
    put_string(&mut out, curve.openssh_name().as_bytes());
    put_string(&mut out, point);
    out
}

/// What a private file holds.
pub(crate) struct PrivateParts {
    pub(crate) curve: Curve,
    pub(crate) point: Vec<u8>,
    /// Big endian, padded to the width of the curve.
    pub(crate) scalar: Vec<u8>,
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
    let Some(curve) = curve_of(key_type) else {
        return Err(PrivateError::KeyType(
            String::from_utf8_lossy(key_type).into_owned(),
        ));
    };
    let (Some(name), Some(point), Some(scalar), Some(_comment)) = (
        secret.string(),
        secret.string(),
        secret.string(),
        secret.string(),
    ) else {
        return Err(damaged);
    };
    let padding_ok = (1..)
        .zip(secret.0)
        .all(|(want, have): (u8, _)| want == *have);
    if name != curve.openssh_name().as_bytes()
        || read_public_blob(public, curve) != Some(point)
        || !padding_ok
    {
        return Err(damaged);
    }
    let scalar = pad_scalar(scalar, curve.scalar_len()).ok_or(damaged)?;
    Ok(PrivateParts {
        curve,
        point: point.to_vec(),
        scalar,
    })
}

/// Writes a private file. `check` is any number; OpenSSH takes a random one.
pub(crate) fn private_file(parts: &PrivateParts, comment: &str, check: u32) -> String {
    let mut secret = Vec::with_capacity(512);
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&public_blob(parts.curve, &parts.point));
    put_integer(&mut secret, &parts.scalar);
    put_string(&mut secret, comment.as_bytes());
    let padding = secret.len().next_multiple_of(BLOCK) - secret.len();
    secret.extend((1..).take(padding));

    let mut data = MAGIC.to_vec();
    put_string(&mut data, b"none");
    put_string(&mut data, b"none");
    put_string(&mut data, b"");
    data.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut data, &public_blob(parts.curve, &parts.point));
    put_string(&mut data, &secret);
    armor("OPENSSH PRIVATE KEY", &data, PRIVATE_COLUMNS)
}

/// PEM with LF line ends and a last one.
pub(crate) fn armor(label: &str, data: &[u8], columns: usize) -> String {
    let base64 = STANDARD.encode(data);
    let mut out = String::with_capacity(base64.len() * 66 / 64 + 80);
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(columns));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

fn read_public_blob(blob: &[u8], curve: Curve) -> Option<&[u8]> {
    let mut blob = Reader(blob);
    let named = curve_of(blob.string()?) == Some(curve)
        && blob.string()? == curve.openssh_name().as_bytes();
    let point = blob.string()?;
    (named && blob.0.is_empty()).then_some(point)
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

fn key_type(curve: Curve) -> String {
    format!("{KEY_TYPE_PREFIX}{}", curve.openssh_name())
}

fn curve_of(key_type: &[u8]) -> Option<Curve> {
    let name = key_type.strip_prefix(KEY_TYPE_PREFIX.as_bytes())?;
    Curve::ALL
        .into_iter()
        .find(|curve| curve.openssh_name().as_bytes() == name)
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

const KEY_TYPE_PREFIX: &str = "ecdsa-sha2-";
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
                    curve: Curve::P384,
                    point: point.clone(),
                    scalar: scalar.clone(),
                };
                let text = private_file(&parts, "a comment", 7);
                let back = parse_private(&text).map(|parts| parts.scalar);
                assert_eq!(back, Ok(scalar));
            }
        }
    }

    #[test]
    fn every_flipped_byte_is_survived() {
        let parts = PrivateParts {
            curve: Curve::P256,
            point: [&[4_u8][..], &[7; 64]].concat(),
            scalar: vec![0x55; 32],
        };
        let text = private_file(&parts, "", 7);
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
