//! How much memory a daemon uses for what passes through it, and how that is shared out.
//!
//! What is bounded is what grows with models and with how many peers there are at once: messages under way, objects that
//! are kept in memory, what QUIC holds for its peers, and buffers kept for the next message. The rest of a process is
//! some tens of megabytes.

use std::fs;
use std::path::{Path, PathBuf};

use flwr_compat_grpc::Limits;
use flwr_state::Bounds;
use flwr_transport::MemoryBudget;

/// Bytes for all of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory(u64);

impl Memory {
    /// What was asked for, or half of what this process can have.
    pub(crate) fn new(asked: Option<u64>) -> Self {
        Self(asked.unwrap_or_else(|| (available(Path::new("/")) / 2).max(BYTES_MIN)))
    }

    /// All of it.
    pub(crate) fn bytes(self) -> u64 {
        self.0
    }

    /// For messages under way: a quarter.
    pub(crate) fn of_calls(self) -> MemoryBudget {
        MemoryBudget::new(self.0 / 4)
    }

    /// What senders may send unread: less where there is little. Flower sends eight messages of a connection at once, and
    /// the window of a connection holds those of nine streams: those that wait for room leave some to those that have it.
    pub(crate) fn within(self, limits: Limits) -> Limits {
        const STREAMS: u32 = 9;
        let stream = (self.0 / 64).min(limits.stream_window_bytes.into());
        let stream = u32::try_from(stream).unwrap_or(limits.stream_window_bytes);
        Limits {
            stream_window_bytes: stream,
            connection_window_bytes: STREAMS * stream,
            ..limits
        }
    }

    /// For objects, where there is no database: half.
    pub(crate) fn of_objects(self) -> Bounds {
        Bounds::of(self.0 / 2)
    }

    /// For what QUIC holds, unless it was said: an eighth, and no more than 1 GiB.
    pub(crate) fn of_quic(self) -> u64 {
        (self.0 / 8).min(1 << 30)
    }

    /// For buffers that nobody uses at present: an eighth, and no more than `bytes_max`.
    pub(crate) fn of_buffers(self, bytes_max: usize) -> usize {
        usize::try_from(self.0 / 8).map_or(bytes_max, |bytes| bytes.min(bytes_max))
    }
}

/// The least that anything can be done with.
pub(crate) const BYTES_MIN: u64 = 32 << 20;

/// What this process can have: the least of what its control groups allow for and the machine has. All there could be,
/// where nothing says.
fn available(root: &Path) -> u64 {
    let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| limits(root, line));
    limits.chain(machine(root)).min().unwrap_or(u64::MAX)
}

/// The limits of a control group and those above it. `line` is `id:controllers:path`, without controllers for version 2.
fn limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mounted, file) = match controllers {
        "" => ("sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|name| name == "memory") => {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let mounted = root.join(mounted);
    let group: PathBuf = mounted.join(path.trim_start_matches('/'));
    let above = group
        .ancestors()
        .take_while(|group| group.starts_with(&mounted));
    // `max` is no number: there is no limit.
    above
        .filter_map(|group| read(&group.join(file))?.trim().parse().ok())
        .collect()
}

/// What the machine has.
fn machine(root: &Path) -> Option<u64> {
    let info = read(&root.join("proc/meminfo"))?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What would be available on a machine with these files.
    fn on(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available(root.path())
    }

    #[test]
    fn the_least_limit_counts() {
        let machine = ("proc/meminfo", "MemTotal:       24576 kB\nMemFree: 1 kB\n");
        let within = ("proc/self/cgroup", "0::/system.slice/a.service\n");
        let limit = |bytes| ("sys/fs/cgroup/system.slice/a.service/memory.max", bytes);
        assert_eq!(on(&[machine]), 24 << 20);
        assert_eq!(on(&[machine, within, limit("1048576\n")]), 1 << 20);
        assert_eq!(on(&[machine, within, limit("max\n")]), 24 << 20);
        let above = ("sys/fs/cgroup/system.slice/memory.max", "4096\n");
        assert_eq!(on(&[machine, within, limit("1048576\n"), above]), 4096);
        // A container sees its own group as the root.
        let inside = ("proc/self/cgroup", "0::/\n");
        let of_root = ("sys/fs/cgroup/memory.max", "8192\n");
        assert_eq!(on(&[machine, inside, of_root]), 8192);
        let first = ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a\n0::/\n");
        let of_first = ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "12288\n");
        assert_eq!(on(&[machine, first, of_first]), 12288);
        assert_eq!(on(&[]), u64::MAX);
    }

    #[test]
    fn the_shares_are_the_whole() {
        let memory = Memory(1 << 30);
        let shares = memory.of_calls().bytes()
            + memory.of_objects().bytes_max
            + memory.of_quic()
            + memory.of_buffers(usize::MAX) as u64;
        assert_eq!(shares, 1 << 30);
    }
}
