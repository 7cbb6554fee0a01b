//! TLS of a server: its files checked in Flower's order, what is made of them, and made again when they change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use flwr_certs::{ServerTls, demanding_certificates};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::Current;
use rustls::ServerConfig;
use tracing::warn;

use crate::{
    exit::{Exit, sentence},
    renewal::{Certificate, Material, Ready, Renewals, Seen},
};

/// The flags that name CA certificate, certificate and private key, in the order in which their files are looked at.
pub(super) type Flags = [&'static str; 3];

/// The files of a server: CA certificate, certificate and private key.
#[derive(Clone, Debug)]
pub(super) struct Files([PathBuf; 3]);

/// What certificates are for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Purpose {
    /// As the log calls it.
    pub(super) says: &'static str,
    /// As metrics call the server's certificate.
    pub(super) own: &'static str,
    /// As metrics call its CA.
    pub(super) ca: &'static str,
}

impl Files {
    /// The files that the flags name; nothing if none is given.
    pub(super) fn given(flags: Flags, paths: [Option<PathBuf>; 3]) -> Result<Option<Self>, Exit> {
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
        Ok(Some(Self(files)))
    }

    fn load(&self, now_unix: f64) -> Result<ServerTls, Exit> {
        let [ca, certificate, key] = &self.0;
        ServerTls::load(ca, certificate, key, now_unix)
            .map_err(|error| Exit::Problem(format!("TLS cannot be set up: {}.", sentence(&error))))
    }

    /// Has `make` make configurations of them and of `client_cas`, now and whenever they change. Also gives the secret of
    /// those there are now.
    pub(super) fn served<const N: usize>(
        self,
        purpose: Purpose,
        client_cas: Vec<Certificate>,
        make: impl Fn(&ServerTls) -> Result<[Arc<ServerConfig>; N], Exit> + Send + Sync + 'static,
        renewals: &mut Renewals,
    ) -> Result<([Current<ServerConfig>; N], [u8; 32]), Exit> {
        let Purpose { says, own, ca } = purpose;
        let more = client_cas.iter().map(|one| one.path.clone());
        let seen = Seen::now(self.0.iter().cloned().chain(more).collect());
        let tls = self.load(SystemClock.now().seconds())?;
        for warning in &tls.warnings {
            warn!("{warning}");
        }
        let served = make(&tls)?.map(Current::from);
        let mut certificates = vec![
            Certificate::own(own, &self.0[1]),
            Certificate::cas(ca, &self.0[0]),
        ];
        certificates.extend(client_cas);
        let replaced = served.clone();
        renewals.add(Material {
            purpose: says,
            seen,
            certificates,
            read: Box::new(move |now_unix| {
                let made = self.load(now_unix).and_then(|tls| Ok((make(&tls)?, tls)));
                let (configs, tls) = made.map_err(|exit| exit.to_string())?;
                let replaced = replaced.clone();
                Ok(Ready {
                    warnings: tls.warnings,
                    take_up: Box::new(move || {
                        for (current, config) in replaced.iter().zip(configs) {
                            current.replace(config);
                        }
                    }),
                })
            }),
        });
        Ok((served, tls.restart_secret))
    }
}

/// `config` for clients that show a certificate which a CA in the file has signed, if `flag` names one.
pub(super) fn demanding(
    config: &Arc<ServerConfig>,
    flag: &str,
    ca: Option<&Path>,
) -> Result<Arc<ServerConfig>, Exit> {
    let Some(ca) = ca else {
        return Ok(Arc::clone(config));
    };
    demanding_certificates(config, ca)
        .map(Arc::new)
        .map_err(|error| Exit::Problem(format!("`{flag}`: {}.", sentence(&error))))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flwr_certs::{
        CaOptions, LeafOptions, RenewOptions, WriteOptions, create_ca, create_server, renew,
    };
    use flwr_transport::Drain;
    use tokio::{sync::Notify, time::timeout};

    use super::*;

    #[tokio::test]
    async fn what_changes_while_a_daemon_starts_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemClock.now().seconds();
        let write = WriteOptions::default();
        create_ca(dir.path(), &CaOptions::default(), &write, now).unwrap();
        create_server(dir.path(), &LeafOptions::default(), &write, now).unwrap();
        let files = Files(["ca.crt", "server.pem", "server.key"].map(|name| dir.path().join(name)));
        let purpose = Purpose {
            says: "of a test",
            own: "test",
            ca: "test_ca",
        };
        let mut renewals = Renewals::default();
        let make = |tls: &ServerTls| Ok([Arc::clone(&tls.config)]);
        let served = files.served(purpose, Vec::new(), make, &mut renewals);
        let ([current], _) = served.unwrap();
        let before = current.load();

        // The database is opened, ports are taken.
        let options = RenewOptions {
            all: true,
            new_keys: true,
            ..RenewOptions::default()
        };
        renew(dir.path(), &options, now).unwrap();
        let drain = Drain::new();
        let watching = tokio::spawn(renewals.watch(Arc::new(Notify::new()), drain.clone()));
        let taken_up = async {
            while Arc::ptr_eq(&current.load(), &before) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), taken_up).await.unwrap();
        drain.begin();
        watching.await.unwrap();
    }
}
