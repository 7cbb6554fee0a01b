//! What a SuperNode's or SuperExec's flags say about whom it trusts and who it is.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use flwr_certs::{ClientCertificate, ClientTls, KeyType, NodeKeyPair, NodePublicKey};
use flwr_state::{Clock as _, SystemClock};
use tracing::{debug, info, warn};

use crate::{
    args::supernode::{ClientTransport, KeyFlags, SuperNodeOptions},
    exit::{Code, Exit, sentence},
};

/// TLS to `server`, or none with `--insecure`.
pub(super) fn load_client_tls(
    insecure: bool,
    root_certificates: Option<&OsStr>,
    server: &str,
) -> Result<Option<ClientTls>, Exit> {
    if insecure {
        if root_certificates.is_some() {
            return Err(Exit::Problem(
                "Conflicting options: `--insecure` does without TLS, but `--root-certificates` was also given. Leave \
                 one of them out."
                    .into(),
            ));
        }
        warn!("Option `--insecure` was set. Starting insecure HTTP channel to {server}.");
        return Ok(None);
    }
    let roots = root_certificates.map(PathBuf::from);
    match &roots {
        None => info!("Using system certificates"),
        Some(path) if !path.is_file() => {
            return Err(Exit::Problem(format!(
                "Path argument `--root-certificates` does not point to a file: there is none at {}.",
                path.display()
            )));
        }
        Some(path) => debug!(
            "Starting secure HTTPS channel to {server} with the certificates in {}.",
            path.display()
        ),
    }
    let tls = ClientTls::load(roots.as_deref(), None);
    tls.map(Some)
        .map_err(|error| Exit::Problem(format!("TLS cannot be set up: {}.", sentence(&error))))
}

/// The certificate of a CA that the node shows to its SuperLink, if it has one.
pub(super) fn load_client_certificate(
    options: &SuperNodeOptions,
    keys: &NodeKeyPair,
    is_encrypted: bool,
) -> Result<Option<ClientCertificate>, Exit> {
    let (path, key) = match options.client_certificate() {
        [Some(path), key] => (path, key),
        [None, None] => return Ok(None),
        [None, Some(_)] => {
            return Err(Exit::Problem(
                "`--ssl-client-keyfile` is the key of a certificate: give also `--ssl-client-certfile`.".into(),
            ));
        }
    };
    if !is_encrypted {
        return Err(Exit::Problem(
            "Conflicting options: `--ssl-client-certfile` is shown in TLS, which `--insecure` and `http://` do without. \
             Leave one of them out."
                .into(),
        ));
    }
    let loaded = ClientCertificate::load(path, key, keys, SystemClock.now().seconds());
    let certificate = loaded.map_err(|error| {
        Exit::Problem(format!("`--ssl-client-certfile`: {}.", sentence(&error)))
    })?;
    Ok(Some(certificate))
}

/// The node's key pair: the one in the files, or one of its own, which is in `data_folder` from its first start on.
pub(super) fn load_keys(
    options: &SuperNodeOptions,
    data_folder: impl FnOnce() -> Result<PathBuf, Exit>,
) -> Result<NodeKeyPair, Exit> {
    match options.keys() {
        KeyFlags::Neither => own_key(&data_folder()?.join(OWN_KEY)),
        KeyFlags::One => Err(Exit::Code(
            Code::NODE_KEYS_REQUIRED,
            "Only one of the two key files is given.".into(),
        )),
        KeyFlags::Both(private, public) => {
            let pair = load_pair(private, public)?;
            if pair.public().key_type() == KeyType::Ed25519
                && options.transport != ClientTransport::Quic
            {
                warn!(
                    "This node's key is an Ed25519 key: over gRPC, only a SuperLink of flwr-quic knows such keys. For \
                     stock SuperLinks, make a P-384 key with `flwr-quic keys node --out FILE`."
                );
            }
            Ok(pair)
        }
    }
}

/// A node that was restarted is the same to the SuperLink if it has the same key.
fn own_key(path: &Path) -> Result<NodeKeyPair, Exit> {
    if path.exists() {
        debug!(
            "This node proves itself with its own key in {}",
            path.display()
        );
        return NodeKeyPair::load(path).map_err(|error| {
            Exit::Problem(format!(
                "`--data-dir`: this node's own key in {} cannot be used: {}. Remove the file to have a new one made.",
                path.display(),
                sentence(&error)
            ))
        });
    }
    debug!("This node proves itself with a key that is made now");
    let made = NodeKeyPair::generate().and_then(|pair| {
        pair.save(path, "flwr-quic supernode", false)?;
        Ok(pair)
    });
    made.map_err(|error| Exit::Problem(format!("`--data-dir`: {}.", sentence(&error))))
}

fn load_pair(private: &Path, public: &Path) -> Result<NodeKeyPair, Exit> {
    let invalid = |context: String| Exit::Code(Code::NODE_KEYS_INVALID, context);
    let pair = NodeKeyPair::load(private).map_err(|error| {
        let why = sentence(&error);
        invalid(format!(
            "Unable to parse the private key file {}: {why}.",
            private.display()
        ))
    })?;
    let text = fs::read_to_string(public).map_err(|error| {
        invalid(format!(
            "Unable to parse the public key file {}: {error}.",
            public.display()
        ))
    })?;
    let key = NodePublicKey::from_text(&text).map_err(|error| {
        invalid(format!(
            "Unable to parse the public key file {}: {error}.",
            public.display()
        ))
    })?;
    if key != *pair.public() {
        return Err(invalid(format!(
            "The public key in {} does not belong to the private key in {}.",
            public.display(),
            private.display()
        )));
    }
    info!("Node key {}", key.fingerprint());
    Ok(pair)
}

/// The file of the key that a node has made for itself; its public half lies beside it.
const OWN_KEY: &str = "node_key";
