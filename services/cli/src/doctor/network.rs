//! The way to a server, step by step: name, TCP, TLS, what is served there; and QUIC beside it.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use flwr_certs::{CertInfo, ClientTls, format_iso};
use flwr_compat_grpc::{
    client::Questioner,
    f1::look::{self, Service},
};
use flwr_state::{Clock as _, SystemClock};
use flwr_transport::{ConnectError, Current};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    clock,
    finding::{Check, Finding},
    udp,
};
use crate::{address::Address, args::supernode::ClientTransport};

/// How servers are looked at.
pub(super) struct Looking {
    /// Nothing where there is no encryption.
    pub(super) tls: Option<ClientTls>,
    pub(super) patience: Duration,
    /// Whether Fleet has to be there over QUIC.
    pub(super) transport: ClientTransport,
}

/// How far one gets to a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// Its name is not known.
    Unknown,
    /// Nobody takes connections.
    Closed,
    Open,
}

impl Looking {
    /// One API.
    pub(super) async fn server(&self, address: &Address, expected: Service) -> Vec<Finding> {
        let subject = format!("{} at {address}", expected.name());
        let (mut findings, way) = self.reach(address, &subject).await;
        if way == Way::Open {
            let questioner = self.questioner(address);
            match self.tls(&questioner, &subject).await {
                Err(refused) => findings.push(refused),
                Ok(shaken) => {
                    findings.push(shaken);
                    findings.push(service(&questioner, &subject, expected).await);
                    if expected == Service::Control {
                        findings.extend(clock(&questioner, &subject).await);
                    }
                }
            }
        }
        let has_quic = expected == Service::Fleet && self.transport != ClientTransport::Grpc;
        if way != Way::Unknown && has_quic {
            findings.extend(udp::quic(self, address, &subject).await);
        }
        findings
    }

    /// Health checks, which are never encrypted.
    pub(super) async fn health(&self, address: &Address) -> Vec<Finding> {
        let subject = format!("health at {address}");
        let (mut findings, way) = self.reach(address, &subject).await;
        if way == Way::Open {
            let plain = Questioner::new(&address.host, address.port, None, self.patience);
            findings.push(match look::health(&plain).await {
                Ok(()) => Check::Health.ok(subject, "it serves"),
                Err(error) => told(Check::Health, &subject, &error),
            });
        }
        findings
    }

    fn questioner(&self, address: &Address) -> Questioner {
        let tls = self.tls.clone().map(Current::new);
        Questioner::new(&address.host, address.port, tls, self.patience)
    }

    /// Name and TCP.
    async fn reach(&self, address: &Address, subject: &str) -> (Vec<Finding>, Way) {
        let host = address.host.as_str();
        let found = timeout(self.patience, lookup_host((host, address.port))).await;
        let found: Vec<SocketAddr> = match found {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        let named = judge_name(subject, host, &found);
        if found.is_empty() {
            return (vec![named], Way::Unknown);
        }
        let mut outcome = Err(ErrorKind::NotFound);
        for addr in found {
            outcome = match timeout(self.patience, TcpStream::connect(addr)).await {
                Ok(connected) => connected.map(drop).map_err(|error| error.kind()),
                Err(_elapsed) => Err(ErrorKind::TimedOut),
            };
            if outcome.is_ok() {
                break;
            }
        }
        let way = if outcome.is_ok() {
            Way::Open
        } else {
            Way::Closed
        };
        (vec![named, judge_tcp(subject, address.port, outcome)], way)
    }

    /// What is shown, or why there is no encryption.
    async fn tls(&self, there: &Questioner, subject: &str) -> Result<Finding, Finding> {
        let shaken = there.shake().await;
        let shaken = shaken.map_err(|error| told(Check::Tls, subject, &error))?;
        let now = SystemClock.now().seconds();
        let shown = shaken.chain.first();
        let shown = shown.and_then(|der| CertInfo::of(der, now));
        let version = shaken.version.as_deref();
        Ok(judge_shown(subject, shown.as_ref(), version))
    }
}

fn judge_name(subject: &str, host: &str, found: &[SocketAddr]) -> Finding {
    if found.is_empty() {
        return Check::Dns
            .problem(subject, format!("the name {host} has no address here"))
            .mended_by(format!(
                "check its spelling with `getent hosts {host}`; names of containers are known in their network only"
            ));
    }
    let list: Vec<_> = found.iter().map(|addr| addr.ip().to_string()).collect();
    Check::Dns.ok(subject, list.join(", "))
}

fn judge_tcp(subject: &str, port: u16, outcome: Result<(), ErrorKind>) -> Finding {
    match outcome {
        Ok(()) => Check::Tcp.ok(subject, "somebody listens"),
        Err(ErrorKind::ConnectionRefused) => Check::Tcp
            .problem(subject, "nobody listens there")
            .mended_by(format!(
                "start it, or see there what listens: ss -ltnp 'sport = :{port}'"
            )),
        Err(ErrorKind::TimedOut) => Check::Tcp
            .problem(
                subject,
                "no answer: the machine is off, or a firewall drops what is sent there",
            )
            .mended_by(format!(
                "open TCP port {port} on the way, for example: sudo ufw allow {port}/tcp"
            )),
        Err(kind) => Check::Tcp
            .problem(subject, format!("there is no way: {kind}"))
            .mended_by("check the routes and the network: ip route"),
    }
}

fn judge_shown(subject: &str, shown: Option<&CertInfo>, version: Option<&str>) -> Finding {
    let (Some(shown), Some(version)) = (shown, version) else {
        return Check::Tls.warning(subject, "not encrypted, as asked for with --insecure");
    };
    let until = format_iso(shown.not_after);
    if shown.days_left < DAYS_MIN {
        let days = shown.days_left;
        return Check::Expiry
            .warning(
                subject,
                format!("the certificate that is shown expires on {until}, in {days} days"),
            )
            .mended_by("flwr-quic certs renew, on the server's machine");
    }
    Check::Tls.ok(
        subject,
        format!("{version}, {}, valid until {until}", shown.subject),
    )
}

async fn service(there: &Questioner, subject: &str, expected: Service) -> Finding {
    match look::identify(there).await {
        Err(error) => told(Check::Service, subject, &error),
        Ok(server) => judge_service(subject, expected, &server),
    }
}

fn judge_service(subject: &str, expected: Service, server: &look::Server) -> Finding {
    let who = match &server.version {
        Some(version) => format!("flwr-quic {version}"),
        None => "not flwr-quic, so probably a stock program of Flower".to_owned(),
    };
    match server.serves {
        Some(service) if service == expected || is_appio(service) && is_appio(expected) => {
            Check::Service.ok(subject, format!("the {} API, of {who}", service.name()))
        }
        Some(other) => Check::Service
            .problem(
                subject,
                format!("the {} API is there instead, of {who}", other.name()),
            )
            .mended_by(format!("give another port: {}", usual(expected))),
        None => Check::Service
            .problem(subject, "no API of Flower is there")
            .mended_by(format!("give another port: {}", usual(expected))),
    }
}

const fn is_appio(service: Service) -> bool {
    matches!(service, Service::ClientAppIo | Service::ServerAppIo)
}

fn usual(service: Service) -> &'static str {
    match service {
        Service::Control => "Control usually is at 9093",
        Service::Fleet => "Fleet usually is at 9092",
        Service::ServerAppIo | Service::ClientAppIo => {
            "AppIo usually is at 9091 of a SuperLink and at 9094 of a SuperNode"
        }
    }
}

async fn clock(there: &Questioner, subject: &str) -> Vec<Finding> {
    let before = SystemClock.now().seconds();
    let Ok(seen) = look::list_runs(there).await else {
        return vec![Check::Clock.skipped(subject, "the SuperLink does not tell its time")];
    };
    let after = SystemClock.now().seconds();
    seen.now
        .map(|theirs| {
            clock::judge(
                subject,
                before.midpoint(after) - theirs,
                (after - before) / 2.0,
            )
        })
        .into_iter()
        .collect()
}

/// What went wrong, and what the words say that mends it.
pub(super) fn told(check: Check, subject: &str, error: &ConnectError) -> Finding {
    let words = error.message.as_str();
    if words.contains("CertificateRequired") {
        return check
            .problem(subject, "the server demands a certificate")
            .mended_by("give one with --ssl-client-certfile and --ssl-client-keyfile");
    }
    let words = match words.strip_prefix("no connection to ") {
        Some(rest) => rest.split_once(": ").map_or(rest, |(_, why)| why),
        None => words,
    };
    match words.split_once(": ") {
        Some((what, remedy)) => check.problem(subject, what).mended_by(remedy),
        None => check
            .problem(subject, words)
            .mended_by("look into the log of the server"),
    }
}

/// Enough to hand out a new one.
const DAYS_MIN: i64 = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn each_way_to_fail_has_its_remedy() {
        for (outcome, level, part) in [
            (Ok(()), Level::Ok, ""),
            (
                Err(ErrorKind::ConnectionRefused),
                Level::Problem,
                "ss -ltnp",
            ),
            (
                Err(ErrorKind::TimedOut),
                Level::Problem,
                "ufw allow 9092/tcp",
            ),
            (
                Err(ErrorKind::NetworkUnreachable),
                Level::Problem,
                "ip route",
            ),
        ] {
            let finding = judge_tcp("a", 9092, outcome);
            assert_eq!(finding.level, level, "{outcome:?}");
            assert!(finding.remedy.unwrap_or_default().contains(part));
        }
    }

    #[test]
    fn names_without_address_are_a_problem() {
        assert_eq!(judge_name("a", "nowhere", &[]).level, Level::Problem);
        let found = [([127, 0, 0, 1], 1).into()];
        assert_eq!(judge_name("a", "here", &found).says, "127.0.0.1");
    }

    #[test]
    fn another_service_is_named() {
        let server = |serves| look::Server {
            serves,
            version: Some("0.1.0".into()),
        };
        let judge = |serves| judge_service("a", Service::Fleet, &server(serves));
        assert_eq!(judge(Some(Service::Fleet)).level, Level::Ok);
        let wrong = judge(Some(Service::Control));
        assert!(
            wrong.says.contains("the Control API is there instead"),
            "{wrong:?}"
        );
        assert!(wrong.remedy.unwrap().contains("9092"));
        assert_eq!(judge(None).level, Level::Problem);
    }

    #[test]
    fn words_are_parted_into_what_and_remedy() {
        let error = |message: &str| ConnectError {
            retryable: false,
            message: message.into(),
        };
        let parted = told(
            Check::Tls,
            "a",
            &error("no connection to b:1: it is old: make it new"),
        );
        assert_eq!(
            (parted.says.as_str(), parted.remedy.as_deref()),
            ("it is old", Some("make it new"))
        );
        let demanded = error("no connection to b:1: received fatal alert: CertificateRequired");
        let demanded = told(Check::Service, "a", &demanded);
        assert!(demanded.remedy.unwrap().contains("--ssl-client-certfile"));
    }
}
