//! What the system grants to UDP sockets, and what the path lets through.

use std::fs;

use flwr_transport_quic::{Probed, udp::BUFFER_BYTES};

use super::finding::{Check, Finding};

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

/// How large packets may be on the way that was probed.
pub(super) fn judge_path(subject: &str, probed: Probed) -> Finding {
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

/// What a usual link takes: Ethernet less a header or two.
const USUAL_BYTES: u16 = 1400;

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
