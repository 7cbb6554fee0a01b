//! The TLS files of a server, checked in Flower's order.

use std::path::PathBuf;

use flwr_certs::ServerTls;
use flwr_state::{Clock as _, SystemClock};
use tracing::warn;

use crate::exit::{Exit, sentence};

/// The flags that name CA certificate, certificate and private key, in the order in which their files are looked at.
pub(super) type Flags = [&'static str; 3];

/// What is made of the files; nothing if no file was given.
pub(super) fn load(flags: Flags, paths: [Option<PathBuf>; 3]) -> Result<Option<ServerTls>, Exit> {
    let Some(files) = all_or_none(flags, paths)? else {
        return Ok(None);
    };
    for (flag, path) in flags.iter().zip(&files) {
        if !path.is_file() {
            return Err(Exit::Problem(format!(
                "Path argument `{flag}` does not point to a file: there is none at {}.",
                path.display()
            )));
        }
    }
    let [ca, certificate, key] = files;
    let tls = ServerTls::load(&ca, &certificate, &key, SystemClock.now().seconds())
        .map_err(|error| Exit::Problem(format!("TLS cannot be set up: {}.", sentence(&error))))?;
    for warning in &tls.warnings {
        warn!("{warning}");
    }
    Ok(Some(tls))
}

fn all_or_none(flags: Flags, paths: [Option<PathBuf>; 3]) -> Result<Option<[PathBuf; 3]>, Exit> {
    let paths = match paths {
        [Some(ca), Some(certificate), Some(key)] => return Ok(Some([ca, certificate, key])),
        [None, None, None] => return Ok(None),
        partial => partial,
    };
    let missing: Vec<_> = flags
        .iter()
        .zip(&paths)
        .filter(|(_, path)| path.is_none())
        .map(|(flag, _)| format!("`{flag}`"))
        .collect();
    let [ca, certificate, key] = flags;
    Err(Exit::Problem(format!(
        "A secure connection needs `{ca}`, `{certificate}` and `{key}` together: give also {}.",
        missing.join(" and ")
    )))
}
