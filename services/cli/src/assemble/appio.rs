//! How a daemon serves AppIo: with and without TLS, who may launch, and what an operator should know of it.

use std::sync::Arc;

use flwr_api::Launchers;
use flwr_certs::{JoinSecret, JoinSecretDigest};
use tracing::{info, warn};

use super::tls;
use crate::{
    address::Address,
    args::{appio::AppIoOptions, superlink::Isolation},
    exit::{Code, Exit, sentence},
    listen::{Binder, Listener},
};

/// The AppIo service of one kind of daemon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// How Flower says that it starts the API, up to the address.
    pub(crate) starting: &'static str,
    /// The flag of its address.
    pub(crate) flag: &'static str,
}

/// What the flags say of its security; all files are read.
#[derive(Debug)]
pub(crate) struct Security {
    tls: Option<Arc<rustls::ServerConfig>>,
    secret: Option<JoinSecretDigest>,
    plaintext: Option<Address>,
}

/// One address that it is served on.
#[derive(Debug)]
pub(crate) struct Port {
    /// Listens for apps and SuperExecs.
    pub(crate) listener: Listener,
    /// Without it they are served in the clear.
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    /// Who may launch apps.
    pub(crate) launchers: Launchers,
    /// What launchers prove themselves with.
    pub(crate) secret: Option<JoinSecretDigest>,
}

impl Security {
    /// Reads the files that the flags name.
    ///
    /// # Errors
    /// When files are missing or unusable, or the flags contradict each other.
    pub(crate) fn load(options: &AppIoOptions) -> Result<Self, Exit> {
        let tls = tls::load(CERTIFICATE_FLAGS, options.certificate_paths())?;
        let plaintext = options.appio_plaintext_address.as_deref();
        let plaintext = plaintext.map(Address::parse).transpose()?;
        if tls.is_none() && plaintext.is_some() {
            return Err(Exit::Code(
                Code::INVALID_ARGUMENTS,
                "`--appio-plaintext-address` is for an AppIo API with TLS; without `--appio-ssl-certfile`, \
                 `--appio-ssl-keyfile` and `--appio-ssl-ca-certfile` there is none."
                    .into(),
            ));
        }
        let secret = options.join_secret_file().map(|file| {
            let loaded = JoinSecret::load(&file).map_err(|error| {
                Exit::Problem(format!("`--appio-join-secret-file`: {}.", sentence(&error)))
            })?;
            if let Some(warning) = &loaded.warning {
                warn!("{warning}");
            }
            Ok(loaded.secret.digest())
        });
        Ok(Self {
            tls,
            secret: secret.transpose()?,
            plaintext,
        })
    }

    /// Whether somebody can launch apps.
    ///
    /// # Errors
    /// When nobody could; says what to give.
    pub(crate) fn check(&self, isolation: Isolation) -> Result<(), Exit> {
        let refuse = |sentence: &str| Err(Exit::Problem(sentence.into()));
        match isolation {
            Isolation::Process if self.tls.is_some() && self.secret.is_none() => refuse(
                "Where the AppIo API has TLS, SuperExecs prove themselves with a join secret: make one with `flwr-quic \
                 keys join-secret --out join-secret`, give `--appio-join-secret-file join-secret`, and give the same \
                 file to the SuperExecs.",
            ),
            // Stock SuperExecs have neither TLS nor join secrets.
            Isolation::Subprocess if self.tls.is_some() && self.plaintext.is_none() => refuse(
                "The `flower-superexec` that is launched in subprocess isolation speaks plain text only: give also \
                 `--appio-plaintext-address 127.0.0.1:9097`, or `--isolation process` and start a SuperExec yourself.",
            ),
            Isolation::Subprocess if self.tls.is_none() && self.secret.is_some() => refuse(
                "The `flower-superexec` that is launched in subprocess isolation knows no join secrets: leave \
                 `--appio-join-secret-file` out, or give `--isolation process` and start a SuperExec yourself.",
            ),
            _ => Ok(()),
        }
    }

    /// Takes the ports: that of `address`, and the one for plain text if it was asked for.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(crate) async fn bind(
        self,
        service: Service,
        address: Address,
        binder: &mut Binder,
    ) -> Result<Vec<Port>, Exit> {
        let main = Port {
            listener: binder.bind(address, service.flag).await?,
            launchers: if self.tls.is_some() || self.secret.is_some() {
                Launchers::Proven
            } else {
                Launchers::Anyone
            },
            tls: self.tls,
            secret: self.secret,
        };
        info!("{} {}", service.starting, main.listener.address);
        main.warn_if_exposed(service.flag);
        let mut ports = vec![main];
        if let Some(address) = self.plaintext {
            let plain = Port {
                listener: binder.bind(address, PLAINTEXT_FLAG).await?,
                tls: None,
                launchers: Launchers::Anyone,
                secret: None,
            };
            info!(
                "{} {} without TLS",
                service.starting, plain.listener.address
            );
            plain.warn_if_exposed(PLAINTEXT_FLAG);
            ports.push(plain);
        }
        Ok(ports)
    }
}

impl Port {
    /// Where stock programs may launch apps.
    pub(crate) fn is_for_stock(&self) -> bool {
        self.tls.is_none() && self.launchers == Launchers::Anyone
    }

    fn warn_if_exposed(&self, flag: &str) {
        if self.tls.is_some() || self.listener.is_loopback() {
            return;
        }
        let risk = match self.launchers {
            Launchers::Anyone => {
                "whoever reaches it can launch apps, act as one, and read and change models"
            }
            Launchers::Proven => {
                "whoever is on the way can read the join secret, and read and change models"
            }
        };
        let tls = if flag == PLAINTEXT_FLAG {
            String::new()
        } else {
            let [ca, certificate, key] = CERTIFICATE_FLAGS;
            format!("`{certificate}`, `{key}`, `{ca}` and `--appio-join-secret-file`, or with ")
        };
        let Address { port, .. } = self.listener.address;
        warn!(
            "The AppIo API on {} has no TLS: {risk}. Close it with {tls}`{flag} 127.0.0.1:{port}`.",
            self.listener.address
        );
    }
}

const CERTIFICATE_FLAGS: tls::Flags = [
    "--appio-ssl-ca-certfile",
    "--appio-ssl-certfile",
    "--appio-ssl-keyfile",
];
const PLAINTEXT_FLAG: &str = "--appio-plaintext-address";
