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
    renewal::{Holds, Material, Ready, Renewals},
};

/// The flags that name CA certificate, certificate and private key, in the order in which their files are looked at.
pub(super) type Flags = [&'static str; 3];

/// The files of a server: CA certificate, certificate and private key.
#[derive(Clone, Debug)]
pub(super) struct Files([PathBuf; 3]);

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
        purpose: &'static str,
        client_cas: Vec<PathBuf>,
        make: impl Fn(&ServerTls) -> Result<[Arc<ServerConfig>; N], Exit> + Send + Sync + 'static,
        renewals: &mut Renewals,
    ) -> Result<([Current<ServerConfig>; N], [u8; 32]), Exit> {
        let tls = self.load(SystemClock.now().seconds())?;
        for warning in &tls.warnings {
            warn!("{warning}");
        }
        let served = make(&tls)?.map(Current::from);
        let mut certificates = vec![(Holds::Own, self.0[1].clone())];
        certificates.extend(client_cas.iter().map(|ca| (Holds::Cas, ca.clone())));
        let replaced = served.clone();
        renewals.add(Material {
            purpose,
            files: self.0.iter().cloned().chain(client_cas).collect(),
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
