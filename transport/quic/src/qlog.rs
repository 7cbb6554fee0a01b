//! Traces of connections, for those who look into one (draft-ietf-quic-qlog-main-schema).

use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use quinn_proto::{QlogConfig, QlogStream};
use tracing::{debug, warn};

/// A trace of a connection with `peer` in a new file of `folder`. Without one the connection goes on
/// untraced.
pub(crate) fn start(folder: &Path, peer: SocketAddr) -> Option<QlogStream> {
    match create(folder, peer) {
        Ok(stream) => stream,
        Err(error) => {
            let folder = folder.display();
            warn!(%folder, %error, "a connection is not traced");
            None
        }
    }
}

fn create(folder: &Path, peer: SocketAddr) -> io::Result<Option<QlogStream>> {
    static STARTED: AtomicU64 = AtomicU64::new(0);
    fs::create_dir_all(folder)?;
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    let name = format!("{}-{number}-{peer}.sqlog", std::process::id());
    let path = folder.join(name.replace([':', '[', ']'], "_"));
    let file = File::create_new(&path)?;
    debug!(path = %path.display(), "tracing a connection");
    let mut config = QlogConfig::default();
    config
        .writer(Box::new(BufWriter::new(file)))
        .title(Some(format!("flwr-quic with {peer}")));
    Ok(config.into_stream())
}
