//! Where the files of a federation's certificates lie, and the three steps that write them.
//!
//! Two layouts are in use. Nested: `ca/ca.crt`, `ca/ca.key`, `server/server.crt`, `server/server.key`,
//! `clients/clientN.crt`, `clients/clientN.key`. Flat: `ca.crt`, `server.pem`, `server.key`. By default both are
//! written, with the CA's key and the clients in the nested one only. Each step writes all its files or none.

use std::{
    fmt, fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use crate::{
    ca::{Ca, CaOptions, CertError},
    files::{self, Mode, NewFile},
    leaf::{Leaf, LeafOptions},
    node_key::NodePublicKey,
};

/// Which files are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Layout {
    /// Nested, and the three files of the flat one beside it.
    #[default]
    Both,
    /// All in one directory: `ca.crt`, `ca.key`, `server.pem`, `server.key`, `clientN.pem`, `clientN.key`.
    Flat,
    /// One directory each for CA, server and clients.
    Nested,
}

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions {
    /// Which files.
    pub layout: Layout,
    /// Whether existing files are replaced.
    pub overwrite: bool,
    /// Permission bits of private keys; for containers that run as another user, 0o640 or 0o644.
    pub key_mode: u32,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            layout: Layout::Both,
            overwrite: false,
            key_mode: 0o600,
        }
    }
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A client, by number.
    Client(u32),
    /// The SuperLink.
    Server,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(number) => write!(f, "client {number}"),
            Self::Server => f.write_str("server"),
        }
    }
}

/// Makes a CA and writes it below `dir`. Gives the files written.
///
/// # Errors
/// When a file exists and `overwrite` is off, in which case nothing is written, or disk errors.
pub fn create_ca(
    dir: &Path,
    options: &CaOptions,
    write: &WriteOptions,
    now_unix: f64,
) -> Result<Vec<PathBuf>, CertError> {
    let ca = Ca::generate(options, now_unix)?;
    let certificate = ca.certificate_pem();
    let mut out = Vec::new();
    if write.layout != Layout::Flat {
        out.push(public(dir.join("ca/ca.crt"), certificate));
        out.push(secret(dir.join("ca/ca.key"), &ca.key_pem(), write));
    }
    if write.layout != Layout::Nested {
        out.push(public(dir.join("ca.crt"), certificate));
    }
    if write.layout == Layout::Flat {
        out.push(secret(dir.join("ca.key"), &ca.key_pem(), write));
    }
    Ok(files::write_all(&out, write.overwrite)?)
}

/// Makes a server certificate with the CA below `dir` and writes it there. Gives the files written.
///
/// # Errors
/// When there is no usable CA, a name is none, a file exists and `overwrite` is off, or disk errors.
pub fn create_server(
    dir: &Path,
    options: &LeafOptions,
    write: &WriteOptions,
    now_unix: f64,
) -> Result<Vec<PathBuf>, CertError> {
    let leaf = load_ca(dir)?.issue_server(options, now_unix)?;
    let mut out = Vec::new();
    if write.layout != Layout::Flat {
        out.extend(pair(
            dir.join("server/server.crt"),
            &leaf.certificate_pem,
            &leaf,
            write,
        ));
    }
    if write.layout != Layout::Nested {
        out.extend(pair(dir.join("server.pem"), &leaf.chain_pem, &leaf, write));
    }
    Ok(files::write_all(&out, write.overwrite)?)
}

/// Makes client certificates with the CA below `dir` and writes them there. Gives the files written.
///
/// # Errors
/// As [`create_server`].
pub fn create_clients(
    dir: &Path,
    numbers: RangeInclusive<u32>,
    options: &LeafOptions,
    write: &WriteOptions,
    now_unix: f64,
) -> Result<Vec<PathBuf>, CertError> {
    let ca = load_ca(dir)?;
    let mut out = Vec::new();
    for number in numbers {
        let leaf = ca.issue_client(number, options, now_unix)?;
        if write.layout == Layout::Flat {
            let path = dir.join(format!("client{number}.pem"));
            out.extend(pair(path, &leaf.chain_pem, &leaf, write));
        } else {
            let path = dir.join(format!("clients/client{number}.crt"));
            out.extend(pair(path, &leaf.certificate_pem, &leaf, write));
        }
    }
    Ok(files::write_all(&out, write.overwrite)?)
}

/// Makes the certificate of client `number` for a key that its node has already. Gives the file written.
///
/// # Errors
/// As [`create_server`].
pub fn create_client_for(
    dir: &Path,
    number: u32,
    node: &NodePublicKey,
    options: &LeafOptions,
    write: &WriteOptions,
    now_unix: f64,
) -> Result<Vec<PathBuf>, CertError> {
    let certificate = load_ca(dir)?.issue_for_node(number, node, options, now_unix)?;
    let path = match write.layout {
        Layout::Flat => dir.join(format!("client{number}.pem")),
        Layout::Both | Layout::Nested => dir.join(format!("clients/client{number}.crt")),
    };
    Ok(files::write_all(
        &[public(path, &certificate)],
        write.overwrite,
    )?)
}

/// Loads the CA below `dir`, of either layout.
///
/// # Errors
/// When there is none, or its files are unusable.
pub fn load_ca(dir: &Path) -> Result<Ca, CertError> {
    let (certificate, key) = ca_files(dir)?;
    Ca::load(&certificate, &key)
}

/// The certificate and key of the CA below `dir`, of either layout.
pub(crate) fn ca_files(dir: &Path) -> Result<(PathBuf, PathBuf), CertError> {
    let places = [dir.join("ca"), dir.to_owned()];
    let mut pairs = places
        .iter()
        .map(|place| (place.join("ca.crt"), place.join("ca.key")));
    pairs
        .find(|(certificate, key)| certificate.exists() && key.exists())
        .ok_or_else(|| CertError::NoCa { dir: dir.into() })
}

/// The certificates of servers that are below `dir`, in either layout.
#[must_use]
pub fn server_certificates(dir: &Path) -> Vec<PathBuf> {
    let names = ["server/server.crt", "server.pem"];
    let paths = names.map(|name| dir.join(name)).into_iter();
    paths.filter(|path| path.exists()).collect()
}

/// The certificates of clients that are below `dir`, in either layout, by number.
#[must_use]
pub fn client_certificates(dir: &Path) -> Vec<PathBuf> {
    let mut found = clients_in(&dir.join("clients"), "crt");
    found.extend(clients_in(dir, "pem"));
    found.sort();
    found.into_iter().map(|(_number, path)| path).collect()
}

fn clients_in(dir: &Path, extension: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let stem = name.to_str()?.strip_suffix(extension)?.strip_suffix('.')?;
            let number = stem.strip_prefix("client")?.parse().ok()?;
            Some((number, entry.path()))
        })
        .collect()
}

fn pair(certificate_path: PathBuf, pem: &str, leaf: &Leaf, write: &WriteOptions) -> [NewFile; 2] {
    let key_path = certificate_path.with_extension("key");
    [
        public(certificate_path, pem),
        secret(key_path, &leaf.key_pem, write),
    ]
}

fn public(path: PathBuf, pem: &str) -> NewFile {
    NewFile {
        path,
        contents: pem.into(),
        mode: Mode::Public,
    }
}

fn secret(path: PathBuf, pem: &str, write: &WriteOptions) -> NewFile {
    NewFile {
        path,
        contents: pem.into(),
        mode: Mode::Secret(write.key_mode),
    }
}
