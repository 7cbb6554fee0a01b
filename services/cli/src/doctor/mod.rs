//! `flwr-quic doctor`: everything that an operator would look at when nothing works, in one go, and what mends it.
//!
//! Each check is a function from what is there to a [`Finding`]; what is there is read beside it. Nothing is changed, and
//! nothing is asked of a server that it does not tell anybody.

mod clock;
mod files;
mod finding;
mod network;
mod permissions;
mod ports;
mod udp;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flwr_compat_grpc::f1::look::Service;
use flwr_state::{Clock as _, SystemClock};

use crate::{
    address::Address,
    args::{
        doctor::{DoctorOptions, OutputFormat},
        supernode::ClientTransport,
    },
    exit::Exit,
    output::{Said, say},
    peer,
};
use finding::{Check, Finding, as_json, for_people, is_well};
use network::Looking;

/// Looks at everything that the flags name, and prints the report. False if something does not work.
///
/// # Errors
/// When the flags name nothing, or nothing that can be looked at.
pub(crate) async fn run(options: DoctorOptions) -> Result<bool, Exit> {
    let dir = certificates(&options);
    let servers = Servers::parse(&options)?;
    if dir.is_none() && servers.is_empty() && options.free.is_empty() {
        return Err(Exit::Problem(
            "there is nothing to look at: give --certificates DIR, --superlink HOST:PORT, --control HOST:PORT, --appio \
             HOST:PORT, --health HOST:PORT or --free PORTS"
                .into(),
        ));
    }
    let mut findings = Vec::new();
    if let Some(dir) = &dir {
        let hosts = servers.hosts(&options.host);
        findings.extend(files::check(&files::Expected {
            dir,
            hosts: &hosts,
            uid: options.uid,
            strict: options.strict,
            now_unix: SystemClock.now().seconds(),
        }));
    }
    findings.extend(ports::check_free(&options.free));
    if options.transport != ClientTransport::Grpc {
        findings.extend(udp::check_buffers());
    }
    findings.extend(servers.look(&options, dir.as_deref()).await);
    let said = say(&match options.format {
        OutputFormat::Human => for_people(&findings),
        OutputFormat::Json => as_json(&findings),
    });
    Ok(is_well(&findings) && said != Said::Failed)
}

/// The directory of the certificates, if there is one.
fn certificates(options: &DoctorOptions) -> Option<PathBuf> {
    let usual = || Some(PathBuf::from("certificates")).filter(|dir| dir.is_dir());
    options.certificates.clone().or_else(usual)
}

/// The addresses to look at.
struct Servers {
    apis: Vec<(Service, Address)>,
    health: Option<Address>,
}

impl Servers {
    fn parse(options: &DoctorOptions) -> Result<Self, Exit> {
        let given = [
            (Service::Fleet, &options.superlink),
            (Service::Control, &options.control),
            (Service::ServerAppIo, &options.appio),
        ];
        let mut apis = Vec::new();
        for (service, address) in given {
            if let Some(address) = address {
                apis.push((service, Address::parse(address)?));
            }
        }
        let health = options.health.as_deref().map(Address::parse).transpose()?;
        Ok(Self { apis, health })
    }

    fn is_empty(&self) -> bool {
        self.apis.is_empty() && self.health.is_none()
    }

    /// What the server's certificate has to be valid for. AppIo can have another.
    fn hosts(&self, more: &[String]) -> Vec<String> {
        let link = self.apis.iter();
        let link = link.filter(|(service, _)| *service != Service::ServerAppIo);
        let mut hosts: Vec<_> = link.map(|(_, address)| address.host.clone()).collect();
        hosts.extend(more.iter().cloned());
        hosts.sort();
        hosts.dedup();
        hosts
    }

    async fn look(&self, options: &DoctorOptions, dir: Option<&Path>) -> Vec<Finding> {
        if self.is_empty() {
            return Vec::new();
        }
        let tls = match peer::client_tls(&options.trust, dir.and_then(files::ca_in)) {
            Ok(tls) => tls,
            Err((path, why)) => {
                let remedy = "give the certificate of the CA with --root-certificates, or have certificates renewed";
                return vec![
                    Check::Files
                        .problem(path.display().to_string(), why)
                        .mended_by(remedy),
                ];
            }
        };
        let looking = Looking {
            tls,
            patience: Duration::from_secs(options.timeout),
            transport: options.transport,
        };
        let mut findings = Vec::new();
        for (service, address) in &self.apis {
            findings.extend(looking.server(address, *service).await);
        }
        if let Some(health) = &self.health {
            findings.extend(looking.health(health).await);
        }
        findings
    }
}
