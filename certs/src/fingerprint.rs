//! Whether files have changed, by what is in them.
//!
//! Times and inodes are not asked: a file that is mounted alone into a container, or is behind a link that is switched, as
//! Kubernetes does it, changes neither reliably, and reading a few small files again costs nothing.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    path::Path,
};

use aws_lc_rs::digest::{Context, SHA256};

/// What is in a set of files; the same for the same contents, and where the same ones cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Reads the files, of each a mebibyte at most.
    #[must_use]
    pub fn of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut hash = Context::new(&SHA256);
        for path in paths {
            match read(path) {
                Ok(contents) => {
                    hash.update(&(contents.len() as u64 + 1).to_le_bytes());
                    hash.update(&contents);
                }
                Err(kind) => {
                    hash.update(&[0; 8]);
                    hash.update(kind.to_string().as_bytes());
                }
            }
        }
        let digest = hash.finish();
        let bytes = digest.as_ref().try_into();
        Self(bytes.expect("SHA-256 has 32 bytes"))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ErrorKind> {
    let mut contents = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BYTES_MAX).read_to_end(&mut contents))
        .map_err(|error| error.kind())?;
    Ok(contents)
}

const BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn contents_count_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, link] = ["one", "two", "link"].map(|name| dir.path().join(name));
        let of = |paths: &[&Path]| Fingerprint::of(paths.iter().copied());
        let missing = of(&[&one]);
        fs::write(&one, "a").unwrap();
        let first = of(&[&one]);
        assert_ne!(first, missing);
        fs::write(&one, "b").unwrap();
        assert_ne!(of(&[&one]), first);
        fs::write(&one, "a").unwrap();
        assert_eq!(of(&[&one]), first);
        // A link that is switched.
        fs::write(&two, "b").unwrap();
        symlink(&one, &link).unwrap();
        assert_eq!(of(&[&link]), first);
        fs::remove_file(&link).unwrap();
        symlink(&two, &link).unwrap();
        assert_ne!(of(&[&link]), first);
        // What belongs to which file.
        fs::write(&one, "").unwrap();
        assert_ne!(of(&[&one, &two]), of(&[&two, &one]));
    }
}
