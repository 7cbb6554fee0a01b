//! What the kernel says about this process and its network namespace.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::Serialize;

use crate::Error;

/// What the process has used, in seconds and bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Usage {
    cpu_user_seconds: f64,
    cpu_system_seconds: f64,
    /// Since the start of the process, whatever else is counted from when.
    rss_peak_bytes: u64,
}

/// Counters of the network namespace. There may be others in it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Kernel {
    tcp_congestion: String,
    tcp_segments_out: u64,
    tcp_segments_retransmitted: u64,
    udp_datagrams_in: u64,
    udp_datagrams_out: u64,
    /// Datagrams that found the buffer of their socket full.
    udp_receive_buffer_errors: u64,
}

impl Usage {
    pub(crate) fn now() -> Result<Self, Error> {
        let usage = getrusage(UsageWho::RUSAGE_SELF).map_err(std::io::Error::from)?;
        Ok(Self {
            cpu_user_seconds: seconds(usage.user_time()),
            cpu_system_seconds: seconds(usage.system_time()),
            rss_peak_bytes: rss_peak_bytes(&fs::read_to_string("/proc/self/status")?).unwrap_or(0),
        })
    }

    /// The CPU time since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_user_seconds: self.cpu_user_seconds - earlier.cpu_user_seconds,
            cpu_system_seconds: self.cpu_system_seconds - earlier.cpu_system_seconds,
            rss_peak_bytes: self.rss_peak_bytes,
        }
    }
}

impl Kernel {
    pub(crate) fn now() -> Result<Self, Error> {
        let counters = fs::read_to_string("/proc/self/net/snmp")?;
        let congestion = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
        let counter = |protocol, name| counter(&counters, protocol, name).unwrap_or(0);
        Ok(Self {
            tcp_congestion: congestion.trim().to_owned(),
            tcp_segments_out: counter("Tcp", "OutSegs"),
            tcp_segments_retransmitted: counter("Tcp", "RetransSegs"),
            udp_datagrams_in: counter("Udp", "InDatagrams"),
            udp_datagrams_out: counter("Udp", "OutDatagrams"),
            udp_receive_buffer_errors: counter("Udp", "RcvbufErrors"),
        })
    }
}

/// A counter of `/proc/net/snmp`, where each protocol has a line of names and one of values.
fn counter(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text
        .lines()
        .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|found| found == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

/// The peak in `/proc/self/status`; that of getrusage includes what ran in this process before exec.
fn rss_peak_bytes(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

fn seconds(time: TimeVal) -> f64 {
    let whole = Duration::from_secs(time.tv_sec().cast_unsigned());
    (whole + Duration::from_micros(time.tv_usec().cast_unsigned())).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_stands_below_its_name() {
        let text = "Tcp: OutSegs RetransSegs\nTcp: 12 3\nUdp: InDatagrams\nUdp: 4\nUdpLite: InDatagrams\nUdpLite: 9\n";
        assert_eq!(counter(text, "Tcp", "RetransSegs"), Some(3));
        assert_eq!(counter(text, "Udp", "InDatagrams"), Some(4));
        assert_eq!(counter(text, "Udp", "OutSegs"), None);
        assert_eq!(counter(text, "Icmp", "OutSegs"), None);
    }

    #[test]
    fn the_peak_is_in_kib() {
        let status = "Name:\tflwr-link\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(rss_peak_bytes(status), Some(2 << 20));
        assert_eq!(rss_peak_bytes("Name:\tflwr-link\n"), None);
    }

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::now().unwrap();
        assert!(usage.rss_peak_bytes > 1 << 20, "{usage:?}");
        assert!(!Kernel::now().unwrap().tcp_congestion.is_empty());
    }
}
