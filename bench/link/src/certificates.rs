//! The certificates of both ends.

use std::path::Path;

use flwr_certs::{
    CaOptions, ClientTls, LeafOptions, ServerTls, WriteOptions, create_ca, create_server,
};
use rustls::pki_types::UnixTime;

use crate::Error;

/// Writes a CA and a server's certificate. Existing files are an error.
pub(crate) fn make(directory: &Path) -> Result<(), Error> {
    let (write, now) = (WriteOptions::default(), now());
    let leaf = LeafOptions {
        names: NAMES.map(str::to_owned).into(),
        ..LeafOptions::default()
    };
    create_ca(directory, &CaOptions::default(), &write, now)?;
    create_server(directory, &leaf, &write, now)?;
    Ok(())
}

pub(crate) fn server(directory: &Path) -> Result<ServerTls, Error> {
    let [ca, certificate, key] =
        ["ca.crt", "server.pem", "server.key"].map(|name| directory.join(name));
    Ok(ServerTls::load(&ca, &certificate, &key, now())?)
}

pub(crate) fn client(directory: &Path) -> Result<ClientTls, Error> {
    Ok(ClientTls::load(Some(&directory.join("ca.crt")), None)?)
}

fn now() -> f64 {
    std::time::Duration::from_secs(UnixTime::now().as_secs()).as_secs_f64()
}

/// The loopback and both sides of the emulated link.
const NAMES: [&str; 4] = ["localhost", "127.0.0.1", "10.77.0.1", "10.77.0.2"];
