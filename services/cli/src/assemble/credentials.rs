//! What a SuperNode's or SuperExec's flags say about whom it trusts and who it is.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use flwr_certs::{ClientCertificate, ClientTls, KeyType, NodeKeyPair, NodePublicKey};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::Current;
use rustls::ClientConfig;
use tracing::{debug, info, warn};

use crate::{
    args::supernode::{ClientTransport, KeyFlags, SuperNodeOptions},
    exit::{Code, Exit, sentence},
    renewal::{Certificate, Material, Ready, Renewals, Seen},
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

/// TLS to a peer, as the files are now.
#[derive(Clone)]
pub(super) struct PeerTls {
    pub(super) tcp: Current<ClientTls>,
    pub(super) quic: Current<ClientConfig>,
}

/// The files of TLS to a peer, and the keys of the node that goes there.
#[derive(Clone)]
pub(super) struct PeerFiles {
    /// The CAs that the peer is judged by; those of the system without it.
    roots: Option<PathBuf>,
    /// The certificate that is shown to it.
    certificate: Option<PathBuf>,
    /// The key of that, unless it is the node's.
    key: Option<PathBuf>,
    node: Option<Arc<NodeKeyPair>>,
}

impl PeerFiles {
    /// Those that the flags name.
    pub(super) fn given(
        roots: Option<&OsStr>,
        shown: [Option<&Path>; 2],
        node: Option<&Arc<NodeKeyPair>>,
    ) -> Self {
        let [certificate, key] = shown.map(|path| path.map(PathBuf::from));
        Self {
            roots: roots.map(PathBuf::from),
            certificate,
            key,
            node: node.map(Arc::clone),
        }
    }

    /// Reads them now and whenever they change. `peer_ca` is what metrics call the CAs of the peer.
    pub(super) fn load(
        self,
        peer_ca: &'static str,
        renewals: &mut Renewals,
    ) -> Result<PeerTls, Exit> {
        let roots = self
            .roots
            .iter()
            .map(|path| Certificate::cas(peer_ca, path));
        let own = self.certificate.iter();
        let own = own.map(|path| Certificate::own("client", path));
        let certificates: Vec<_> = roots.chain(own).collect();
        let files = certificates.iter().map(|one| &one.path);
        let seen = Seen::now(files.chain(&self.key).cloned().collect());
        let (tcp, quic) = self.read(SystemClock.now().seconds())?;
        let tls = PeerTls {
            tcp: Current::new(tcp),
            quic: quic.into(),
        };
        let replaced = tls.clone();
        renewals.add(Material {
            purpose: "for connecting",
            seen,
            certificates,
            read: Box::new(move |now_unix| {
                let (tcp, quic) = self.read(now_unix).map_err(|exit| exit.to_string())?;
                let replaced = replaced.clone();
                Ok(Ready {
                    warnings: Vec::new(),
                    take_up: Box::new(move || {
                        replaced.tcp.replace(Arc::new(tcp));
                        replaced.quic.replace(quic);
                    }),
                })
            }),
        });
        Ok(tls)
    }

    /// Over QUIC, a node without a certificate of a CA shows its key.
    fn read(&self, now_unix: f64) -> Result<(ClientTls, Arc<ClientConfig>), Exit> {
        let tls = ClientTls::load(self.roots.as_deref(), None).map_err(|error| {
            Exit::Problem(format!("TLS cannot be set up: {}.", sentence(&error)))
        })?;
        if let Some(path) = &self.certificate {
            let loaded =
                ClientCertificate::load(path, self.key.as_deref(), self.node.as_deref(), now_unix);
            let certificate = loaded.map_err(|error| {
                Exit::Problem(format!("`--ssl-client-certfile`: {}.", sentence(&error)))
            })?;
            let tls = tls.showing(&certificate);
            let quic = tls.config();
            return Ok((tls, quic));
        }
        let quic = match &self.node {
            Some(keys) => {
                let shown = keys.shown_by(&tls.config());
                Arc::new(shown.map_err(|error| Exit::because(&error))?)
            }
            None => tls.config(),
        };
        Ok((tls, quic))
    }
}

/// Whether the flags of a client's certificate make sense, before any of the files is read.
pub(super) fn check_client_certificate(
    [certificate, key]: [Option<&Path>; 2],
    is_encrypted: bool,
) -> Result<(), Exit> {
    match (certificate, key) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Exit::Problem(
            "`--ssl-client-keyfile` is the key of a certificate: give also `--ssl-client-certfile`.".into(),
        )),
        (Some(_), _) if is_encrypted => Ok(()),
        (Some(_), _) => Err(Exit::Problem(
            "Conflicting options: `--ssl-client-certfile` is shown in TLS, which `--insecure` and `http://` do without. \
             Leave one of them out."
                .into(),
        )),
    }
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
