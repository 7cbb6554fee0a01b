//! How a daemon serves AppIo: with and without TLS, who may launch, and what an operator should know of it.

use std::path::Path;

use flwr_api::Launchers;
use flwr_certs::JoinSecret;
use flwr_compat_grpc::CallerAuth;
use flwr_transport::Current;
use rustls::ServerConfig;
use tracing::{info, warn};

use super::{
    quic::Quic,
    tls::{self, Purpose, demanding},
};
use crate::{
    address::Address,
    args::{appio::AppIoOptions, quic::QuicServerOptions, superlink::Isolation},
    exit::{Code, Exit, sentence},
    listen::{Binder, Listener},
    renewal::{Certificate, Renewals},
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
    tls: Option<Tls>,
    secret: Option<JoinSecret>,
    plaintext: Option<Address>,
    /// Whether this process launches a SuperExec of its own.
    launches: bool,
}

/// TLS of it, as its files are now.
#[derive(Clone, Debug)]
struct Tls {
    config: Current<ServerConfig>,
    restart_secret: [u8; 32],
}

/// One address that it is served on.
#[derive(Debug)]
pub(crate) struct Port {
    /// Listens for apps and SuperExecs.
    pub(crate) listener: Listener,
    /// Without it they are served in the clear.
    pub(crate) tls: Option<Current<ServerConfig>>,
    /// Serves those that come by QUIC.
    pub(crate) quic: Option<Quic>,
    /// Who may launch apps.
    pub(crate) launchers: Launchers,
    /// What launchers prove themselves with.
    pub(crate) secret: Option<JoinSecret>,
}

/// Where this process's own SuperExec calls, in the clear and from this machine, and what lets it in.
#[derive(Clone, Debug)]
pub(crate) struct OwnLauncher {
    pub(crate) address: Address,
    pub(crate) secret: JoinSecret,
}

impl Security {
    /// Reads the files that the flags name. In subprocess isolation there is always a secret: the one in the file, or one
    /// that is made for this start.
    ///
    /// # Errors
    /// When files are missing or unusable, the flags contradict each other, or nobody could launch apps; says what to
    /// give.
    pub(crate) fn load(
        options: &AppIoOptions,
        isolation: Isolation,
        renewals: &mut Renewals,
    ) -> Result<Self, Exit> {
        let tls = load_tls(options, renewals)?;
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
        let launches = isolation == Isolation::Subprocess;
        let secret = match options.join_secret_file() {
            Some(file) => Some(load_secret(&file)?),
            None if launches => {
                Some(JoinSecret::generate().map_err(|error| Exit::because(&error))?)
            }
            None if tls.is_some() => {
                return Err(Exit::Problem(
                    "Where the AppIo API has TLS, SuperExecs prove themselves with a join secret: make one with \
                     `flwr-quic keys join-secret --out join-secret`, give `--appio-join-secret-file join-secret`, and \
                     give the same file to the SuperExecs."
                        .into(),
                ));
            }
            None => None,
        };
        Ok(Self {
            tls,
            secret,
            plaintext,
            launches,
        })
    }

    /// Takes the ports: that of `address`, over UDP as well if `quic` and there is TLS, the one for plain text if it was asked for, and one for this process's own
    /// SuperExec where the first has TLS.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub(crate) async fn bind(
        self,
        service: Service,
        address: Address,
        quic: Option<QuicServerOptions>,
        binder: &mut Binder,
    ) -> Result<(Vec<Port>, Option<OwnLauncher>), Exit> {
        let listener = binder.bind(address.clone(), service.flag).await?;
        let quic = match (&self.tls, quic) {
            (Some(tls), Some(options)) => Some(Quic {
                sockets: binder.bind_udp(&address, service.flag).await?,
                tls: tls.config.clone(),
                restart_secret: tls.restart_secret,
                options,
            }),
            _ => None,
        };
        let mut ports = vec![Port {
            listener,
            tls: self.tls.clone().map(|tls| tls.config),
            quic,
            launchers: if self.secret.is_some() {
                Launchers::Proven
            } else {
                Launchers::Anyone
            },
            secret: self.secret.clone(),
        }];
        info!("{} {}", service.starting, ports[0].listener.address);
        ports[0].warn_if_exposed(service.flag);
        if let Some(address) = self.plaintext {
            let plain = Port {
                listener: binder.bind(address, PLAINTEXT_FLAG).await?,
                tls: None,
                quic: None,
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
        let own = match self.secret {
            Some(secret) if self.launches => {
                if self.tls.is_some() {
                    ports.push(Port {
                        listener: binder.bind_loopback().await?,
                        tls: None,
                        quic: None,
                        launchers: Launchers::Proven,
                        secret: Some(secret.clone()),
                    });
                }
                let port = if self.tls.is_some() {
                    ports.last()
                } else {
                    ports.first()
                };
                port.map(|port| OwnLauncher {
                    address: port.listener.address.clone(),
                    secret,
                })
            }
            _ => None,
        };
        Ok((ports, own))
    }
}

/// What the callers of a port have to prove.
pub(crate) fn auth(secret: Option<&JoinSecret>) -> CallerAuth {
    match secret {
        Some(secret) => CallerAuth::join_secret(secret.digest()),
        None => CallerAuth::none(),
    }
}

fn load_tls(options: &AppIoOptions, renewals: &mut Renewals) -> Result<Option<Tls>, Exit> {
    let client_ca = options.client_ca();
    let Some(files) = tls::Files::given(CERTIFICATE_FLAGS, options.certificate_paths())? else {
        return match client_ca {
            None => Ok(None),
            Some(_) => {
                let [ca, certificate, key] = CERTIFICATE_FLAGS;
                Err(Exit::Problem(format!(
                    "`{CLIENT_CA}` is for an AppIo API with TLS, where certificates are shown: give also \
                     `{certificate}`, `{key}` and `{ca}`."
                )))
            }
        };
    };
    if let Some(ca) = &client_ca {
        let ca = ca.display();
        info!("SuperExecs have to show a certificate that a CA in {ca} signed");
    }
    let client_cas = client_ca.iter();
    let client_cas = client_cas
        .map(|ca| Certificate::cas("appio_client_ca", ca))
        .collect();
    let make = move |tls: &flwr_certs::ServerTls| {
        Ok([demanding(&tls.config, CLIENT_CA, client_ca.as_deref())?])
    };
    let ([config], restart_secret) = files.served(PURPOSE, client_cas, make, renewals)?;
    Ok(Some(Tls {
        config,
        restart_secret,
    }))
}

fn load_secret(file: &Path) -> Result<JoinSecret, Exit> {
    let loaded = JoinSecret::load(file).map_err(|error| {
        Exit::Problem(format!("`--appio-join-secret-file`: {}.", sentence(&error)))
    })?;
    if let Some(warning) = &loaded.warning {
        warn!("{warning}");
    }
    Ok(loaded.secret)
}

impl Port {
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
const PURPOSE: Purpose = Purpose {
    says: "of AppIo",
    own: "appio",
    ca: "appio_ca",
};
const CLIENT_CA: &str = "--appio-ssl-client-ca-certfile";
const PLAINTEXT_FLAG: &str = "--appio-plaintext-address";
