//! What the system grants to UDP sockets, whether QUIC gets through, and what the path lets through.

use std::{fs, time::Duration};

use flwr_api::fleet::Fleet;
use flwr_transport_quic::{Connector, Probed, Target, Tuning, udp::BUFFER_BYTES};
use tokio::time::timeout;

use super::{
    finding::{Check, Finding},
    network::{Looking, told},
};
use crate::{address::Address, args::supernode::ClientTransport, peer};

/// Whether QUIC gets the buffers that it asks for.
pub(super) fn check_buffers() -> Vec<Finding> {
    ["rmem_max", "wmem_max"]
        .map(|name| {
            let text = fs::read_to_string(format!("/proc/sys/net/core/{name}"));
            judge_buffer(name, text.ok().and_then(|text| text.trim().parse().ok()))
        })
        .into()
}

fn judge_buffer(name: &str, granted: Option<u64>) -> Finding {
    let subject = format!("net.core.{name}");
    let wanted = BUFFER_BYTES as u64;
    match granted {
        // In containers it belongs to the host.
        None => Check::UdpBuffers.skipped(subject, "cannot be read here: look on the host"),
        Some(bytes) if bytes >= wanted => {
            Check::UdpBuffers.ok(subject, format!("{bytes} bytes, enough for QUIC"))
        }
        Some(bytes) => Check::UdpBuffers
            .warning(
                subject.clone(),
                format!(
                    "{bytes} bytes: bursts of fast QUIC transfers are lost; {wanted} are asked for"
                ),
            )
            .mended_by(format!("sudo sysctl -w {subject}={wanted}")),
    }
}

/// Whether a server answers over QUIC.
pub(super) async fn quic(looking: &Looking, address: &Address, subject: &str) -> Vec<Finding> {
    let Some(tls) = &looking.tls else {
        return vec![Check::Quic.skipped(subject, "QUIC is always encrypted")];
    };
    let target = Target {
        host: address.host.clone(),
        port: address.port,
    };
    let (tls, host) = (tls.clone(), address.host.clone());
    let connector = Connector::<Fleet>::new(target, tls.config(), &Tuning::connecting());
    let connector = match connector {
        Ok(connector) => {
            connector.explaining(move |alert, why| peer::explain_alert(&tls, &host, alert, why))
        }
        Err(error) => return vec![told(Check::Quic, subject, &error)],
    };
    let probed = timeout(looking.patience + PROBING, connector.probe()).await;
    match probed {
        Ok(Ok(probed)) => {
            let ms = probed.rtt.as_secs_f64() * 1e3;
            let says = format!("{} answers over UDP in {ms:.1} ms", probed.address);
            let there = Check::Quic.ok(subject, says);
            vec![there, judge_path(subject, probed)]
        }
        Ok(Err(error)) => vec![judge_no_quic(
            subject,
            address.port,
            looking.transport,
            &error.message,
        )],
        Err(_elapsed) => {
            let why = format!("{address} does not answer over UDP");
            vec![judge_no_quic(
                subject,
                address.port,
                looking.transport,
                &why,
            )]
        }
    }
}

fn judge_no_quic(subject: &str, port: u16, transport: ClientTransport, why: &str) -> Finding {
    let finding = match transport {
        ClientTransport::Quic => Check::Quic.problem(subject, why),
        ClientTransport::Auto | ClientTransport::Grpc => {
            Check::Quic.warning(subject, format!("{why}; gRPC has to do"))
        }
    };
    finding.mended_by(format!(
        "start the SuperLink with --transport grpc,quic, and open UDP port {port} on the way: sudo ufw allow {port}/udp"
    ))
}

/// How large packets may be on the way that was probed.
fn judge_path(subject: &str, probed: Probed) -> Finding {
    let Probed { payload_bytes, .. } = probed;
    if payload_bytes >= USUAL_BYTES {
        return Check::PathMtu.ok(
            subject,
            format!("datagrams of {payload_bytes} bytes get through"),
        );
    }
    Check::PathMtu
        .warning(
            subject,
            format!(
                "only datagrams of {payload_bytes} bytes get through, where Ethernet takes 1472: a tunnel or a VPN is on \
                 the way, or something drops larger ones; transfers cost more CPU time"
            ),
        )
        .mended_by("raise the MTU of the tunnel if you can; QUIC works as it is")
}

/// What probing takes beside connecting.
const PROBING: Duration = Duration::from_secs(4);
/// What a usual link takes: Ethernet less a header or two.
const USUAL_BYTES: u16 = 1400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn small_buffers_are_warned_of_with_the_command() {
        let small = judge_buffer("rmem_max", Some(212_992));
        assert_eq!(small.level, Level::Warning);
        let command = format!("sudo sysctl -w net.core.rmem_max={BUFFER_BYTES}");
        assert_eq!(small.remedy, Some(command));
        assert_eq!(judge_buffer("rmem_max", Some(1 << 30)).level, Level::Ok);
        assert_eq!(judge_buffer("rmem_max", None).level, Level::Skipped);
    }

    #[test]
    fn narrow_paths_are_warned_of() {
        let probed = |payload_bytes| Probed {
            address: ([127, 0, 0, 1], 1).into(),
            rtt: Duration::ZERO,
            payload_bytes,
        };
        assert_eq!(judge_path("a", probed(1200)).level, Level::Warning);
        assert_eq!(judge_path("a", probed(1472)).level, Level::Ok);
    }

    #[test]
    fn quic_that_does_not_get_through_is_as_bad_as_it_has_to() {
        let level = |transport| judge_no_quic("a", 9092, transport, "silence").level;
        assert_eq!(level(ClientTransport::Auto), Level::Warning);
        assert_eq!(level(ClientTransport::Quic), Level::Problem);
    }
}
