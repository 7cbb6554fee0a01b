//! The secret that launchers of apps prove themselves with: made, kept in a file, presented, and recognised.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::{constant_time, digest, rand};

use crate::files::{self, Mode, NewFile, WriteError};

/// The header that a launcher presents its secret in.
pub const JOIN_SECRET_HEADER: &str = "flwr-quic-join-secret";

/// What a launcher is told that presents another secret.
pub const WRONG_JOIN_SECRET: &str = "the join secret is not this daemon's: give the one in the file that its \
                                     --appio-join-secret-file names";

/// What a launcher knows: 32 to 256 visible ASCII characters. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinSecret(String);

/// What the server keeps of it: enough to recognise it and not enough to present it.
#[derive(Clone)]
pub struct JoinSecretDigest(digest::Digest);

/// A secret from a file.
#[derive(Debug)]
pub struct LoadedSecret {
    /// The secret.
    pub secret: JoinSecret,
    /// One sentence if others may read the file.
    pub warning: Option<String>,
}

impl JoinSecret {
    /// Makes a secret of 256 random bits.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, JoinSecretError> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_error| JoinSecretError::NoRandomness)?;
        Ok(Self(bytes.map(|byte| format!("{byte:02x}")).concat()))
    }

    /// Reads a secret; blanks and line ends around it do not count.
    ///
    /// # Errors
    /// When it is too short or too long, or has other characters than visible ASCII.
    pub fn parse(text: &str) -> Result<Self, JoinSecretError> {
        let text = text.trim();
        if !(LEN_MIN..=LEN_MAX).contains(&text.len()) {
            return Err(JoinSecretError::Length(text.len()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(JoinSecretError::Characters);
        }
        Ok(Self(text.to_owned()))
    }

    /// Reads the secret that a file consists of.
    ///
    /// # Errors
    /// When the file cannot be read, or as [`parse`](Self::parse).
    pub fn load(path: &Path) -> Result<LoadedSecret, JoinSecretError> {
        let unreadable = |source| JoinSecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode();
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        let warning = (mode & 0o077 != 0).then(|| {
            format!(
                "the join secret in {} can be read by other users of this machine: `chmod 600` it",
                path.display()
            )
        });
        Ok(LoadedSecret {
            secret: Self::parse(&text)?,
            warning,
        })
    }

    /// Writes it to a file that only its owner can read.
    ///
    /// # Errors
    /// When the file exists and `overwrite` is off, or cannot be written.
    pub fn save(&self, path: &Path, overwrite: bool) -> Result<(), JoinSecretError> {
        let file = NewFile {
            path: path.to_owned(),
            contents: format!("{}\n", self.0).into_bytes(),
            mode: Mode::Secret(0o600),
        };
        files::write_all(&[file], overwrite)?;
        Ok(())
    }

    /// The secret itself, for [`JOIN_SECRET_HEADER`]. Never log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a server recognises it by.
    #[must_use]
    pub fn digest(&self) -> JoinSecretDigest {
        JoinSecretDigest(digest_of(self.0.as_bytes()))
    }
}

impl JoinSecretDigest {
    /// Whether this is the secret. How long it takes does not tell how much of it is right.
    #[must_use]
    pub fn recognises(&self, presented: &[u8]) -> bool {
        (LEN_MIN..=LEN_MAX).contains(&presented.len())
            && constant_time::verify_slices_are_equal(
                self.0.as_ref(),
                digest_of(presented).as_ref(),
            )
            .is_ok()
    }
}

fn digest_of(secret: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, secret)
}

impl fmt::Debug for JoinSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecret(secret)")
    }
}

impl fmt::Debug for JoinSecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinSecretDigest(secret)")
    }
}

/// Why there is no join secret.
#[derive(Debug, thiserror::Error)]
pub enum JoinSecretError {
    /// It would not survive a header or a shell.
    #[error(
        "the join secret may have visible ASCII characters only: make one with `flwr-quic keys join-secret`"
    )]
    Characters,
    /// Too short to be safe, or too long to be one.
    #[error(
        "the join secret has {0} characters and needs {LEN_MIN} to {LEN_MAX}: make one with `flwr-quic keys join-secret`"
    )]
    Length(usize),
    /// The system has none.
    #[error("the system has no randomness to give: try again")]
    NoRandomness,
    /// The system did not let us read it.
    #[error("cannot read the join secret in {}: check that it is a text file that this user may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

const LEN_MIN: usize = 32;
const LEN_MAX: usize = 256;
/// A secret, and more blanks than anybody leaves around it.
const FILE_BYTES_MAX: u64 = 4096;
