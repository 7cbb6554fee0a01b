//! The text of a public key list (`--auth-list-public-keys`): CSV whose every cell is one OpenSSH public key line.
//!
//! Reads everything that Flower 1.22 reads. Leading blanks, empty cells and a byte order mark, which end Flower with a
//! traceback, are read too. So are Ed25519 keys, for nodes of ours. Anything else is an error that names its line.

use std::{
    collections::HashSet,
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    str,
};

use bytes::Bytes;
use csv::{ByteRecord, ReaderBuilder};

use crate::node_key::{NodeKeyError, NodePublicKey};

/// Adds a public key line to a list and says what became of it. The file is made if it is missing; what it holds
/// stays byte for byte. Other processes that add at the same time wait for each other.
///
/// # Errors
/// When the line is no key of a node ([`ListError::NewKey`]), the list holds something that is none, or disk errors.
pub fn add_to_list(path: &Path, line: &str) -> Result<AddOutcome, ListError> {
    let line = line.trim();
    let key = parse_cell(line, 0).map_err(|problem| ListError::NewKey { problem })?;
    let fail = |source| ListError::Unwritable {
        path: path.to_owned(),
        source,
    };
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(fail)?;
    file.lock().map_err(fail)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(fail)?;
    let listed = parse(path, &text)?;
    if listed.contains(key.spki_der()) {
        return Ok(AddOutcome::AlreadyListed { len: listed.len() });
    }
    let line_end = if text.windows(2).any(|pair| pair == b"\r\n") {
        "\r\n"
    } else {
        "\n"
    };
    let before = match text.last() {
        None | Some(b'\n') => "",
        Some(_) => line_end,
    };
    let cell = if line.contains([',', '"']) {
        format!("\"{}\"", line.replace('"', "\"\""))
    } else {
        line.to_owned()
    };
    // One write, so that a reader never sees half a key.
    file.write_all(format!("{before}{cell}{line_end}").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(fail)?;
    Ok(AddOutcome::Added {
        len: listed.len() + 1,
    })
}

/// The keys of a list as canonical DER. `path` is only for the errors.
pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<HashSet<Bytes>, ListError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text);
    let mut keys = HashSet::new();
    let mut row = ByteRecord::new();
    loop {
        let more = reader
            .read_byte_record(&mut row)
            .map_err(|error| ListError::Unreadable {
                path: path.to_owned(),
                source: error.into(),
            })?;
        if !more {
            return Ok(keys);
        }
        for (column, cell) in row.iter().enumerate() {
            let key = str::from_utf8(cell)
                .map_err(|_error| CellProblem::NotUtf8)
                .map(str::trim)
                .and_then(|cell| {
                    if cell.is_empty() {
                        return Ok(None);
                    }
                    parse_cell(cell, column).map(Some)
                })
                .map_err(|problem| ListError::Cell {
                    path: path.to_owned(),
                    line: line_of(text, &row),
                    problem,
                })?;
            keys.extend(key.map(|key| key.spki_bytes()));
        }
    }
}

/// Where a row starts, from 1. The reader's own count stops before the blank lines that it skips.
fn line_of(text: &[u8], row: &ByteRecord) -> u64 {
    let start = row.position().map_or(0, csv::Position::byte);
    let start = usize::try_from(start).unwrap_or(usize::MAX).min(text.len());
    let blank = text[start..]
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let line_ends = text[..start + blank].iter().filter(|byte| **byte == b'\n');
    line_ends.count() as u64 + 1
}

fn parse_cell(cell: &str, column: usize) -> Result<NodePublicKey, CellProblem> {
    if cell.starts_with("-----BEGIN") {
        return Err(CellProblem::Pem);
    }
    if cell.contains(['\n', '\r']) {
        return Err(CellProblem::LineBreak);
    }
    NodePublicKey::from_openssh(cell).map_err(|error| match error {
        NodeKeyError::KeyType(key_type) => CellProblem::KeyType(key_type),
        NodeKeyError::NotOpenSsh if column > 0 => CellProblem::AfterComma,
        NodeKeyError::NotOpenSsh => CellProblem::NotOpenSsh,
        _damaged => CellProblem::Damaged,
    })
}

/// What became of a key that was to be added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AddOutcome {
    /// It is on the list now.
    Added {
        /// Keys on the list, this one included.
        len: usize,
    },
    /// It was there before, maybe with another comment; the file is untouched.
    AlreadyListed {
        /// Keys on the list.
        len: usize,
    },
}

/// Why a public key list was not read or not written.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// A cell is not a key.
    #[error("line {line} of {}: {problem}", path.display())]
    Cell {
        /// The list.
        path: PathBuf,
        /// Where the row starts, from 1.
        line: u64,
        /// What is wrong and what to do.
        problem: CellProblem,
    },
    /// The list had keys and is now empty, as it is for a moment while an editor saves it. Said once; if the file is
    /// still the same at the next check, the empty list is taken.
    #[error("{} is empty now: the {kept} keys read before stay valid until the next check", path.display())]
    Emptied {
        /// The list.
        path: PathBuf,
        /// Keys that are still accepted.
        kept: usize,
    },
    /// There is no such file.
    #[error("{} does not exist: give the path of a CSV file of OpenSSH public keys, which may be empty", path.display())]
    Missing {
        /// The list.
        path: PathBuf,
    },
    /// The line to add is not a key.
    #[error("{problem}")]
    NewKey {
        /// What is wrong and what to do.
        problem: CellProblem,
    },
    /// The system did not let us read it.
    #[error("cannot read {}: check that it is a file that this user may read", path.display())]
    Unreadable {
        /// The list.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system did not let us add to it.
    #[error("cannot add to {}: check that it is a file that this user may write", path.display())]
    Unwritable {
        /// The list.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is wrong with a cell of a public key list.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CellProblem {
    /// Text that is no key follows a comma.
    #[error(
        "the text after a comma is not a key; if the comma belongs to a comment, put the line in quotes"
    )]
    AfterComma,
    /// Cut or changed in copying.
    #[error("the key data is damaged; copy the line of the .pub file again")]
    Damaged,
    /// A key of another kind.
    #[error(
        "{0} keys cannot be used; make a key with `flwr-quic keys node`, or `ssh-keygen -t ecdsa -b 384`"
    )]
    KeyType(String),
    /// A line break within quotes.
    #[error("a line break within a key; close the quotes on the line where they open")]
    LineBreak,
    /// Not a public key line at all.
    #[error(
        "not an OpenSSH public key; each line must be like `ecdsa-sha2-nistp384 AAAA... comment`"
    )]
    NotOpenSsh,
    /// Not text.
    #[error("not UTF-8 text; save the file as UTF-8")]
    NotUtf8,
    /// PEM, and probably a private key.
    #[error(
        "a PEM file, not a public key line; use the line of the .pub file and keep private keys out of the list"
    )]
    Pem,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
