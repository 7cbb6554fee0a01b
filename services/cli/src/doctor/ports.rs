//! Who listens on the ports of this machine, from `/proc`.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use super::finding::{Check, Finding};

/// A socket that takes connections or datagrams.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Listening {
    pub(super) port: u16,
    pub(super) transport: &'static str,
    inode: u64,
}

/// A process and what it is called.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Owner {
    pid: u32,
    name: String,
}

/// Whether the ports that have to be free are.
pub(super) fn check_free(ports: &[u16]) -> Vec<Finding> {
    let listening = listening();
    ports
        .iter()
        .map(|port| judge(*port, &listening, owner))
        .collect()
}

fn judge(port: u16, listening: &[Listening], owner: impl Fn(u64) -> Option<Owner>) -> Finding {
    let subject = format!("port {port}");
    let taken: Vec<_> = listening.iter().filter(|one| one.port == port).collect();
    let Some(first) = taken.first() else {
        return Check::Ports.ok(subject, "free");
    };
    let found = taken.iter().find_map(|one| Some((*one, owner(one.inode)?)));
    match found {
        Some((one, Owner { pid, name })) => Check::Ports
            .problem(
                subject,
                format!("in use over {} by {name} (process {pid})", one.transport),
            )
            .mended_by(format!("end it with `kill {pid}`, or choose another port")),
        None => Check::Ports
            .problem(
                subject,
                format!(
                    "in use over {} by a process of another user",
                    first.transport
                ),
            )
            .mended_by(format!(
                "sudo lsof -i :{port} shows by which; end it, or choose another port"
            )),
    }
}

/// Everything that listens.
fn listening() -> Vec<Listening> {
    let mut found = Vec::new();
    for (file, transport) in [
        ("tcp", "TCP"),
        ("tcp6", "TCP"),
        ("udp", "UDP"),
        ("udp6", "UDP"),
    ] {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        found.extend(parse(&table, transport));
    }
    found
}

/// A table of sockets (proc_pid_net(5)): of TCP those that listen, of UDP those without a peer.
fn parse(table: &str, transport: &'static str) -> Vec<Listening> {
    let wanted = if transport == "TCP" { "0A" } else { "07" };
    let lines = table.lines().skip(1);
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, state) = (fields.get(1)?, fields.get(3)?);
            if *state != wanted {
                return None;
            }
            let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
            let inode = fields.get(9)?.parse().ok()?;
            Some(Listening {
                port,
                transport,
                inode,
            })
        })
        .collect()
}

/// The process that has a socket; nothing if it is another user's.
fn owner(inode: u64) -> Option<Owner> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if has_open(&process.path(), &wanted) {
            let comm = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name = comm.trim().to_owned();
            return Some(Owner { pid, name });
        }
    }
    None
}

fn has_open(process: &Path, wanted: &str) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten();
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| target.as_os_str().as_bytes() == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::doctor::finding::Level;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0 100 0 0 10 0
   1: 0100007F:2385 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 4712 1 0 20 4 30 10 -1
";

    #[test]
    fn only_those_that_listen_count() {
        let found = parse(TABLE, "TCP");
        let expected = Listening {
            port: 9092,
            transport: "TCP",
            inode: 4711,
        };
        assert_eq!(found, [expected]);
        assert!(parse("", "TCP").is_empty() && parse("a\nb c", "UDP").is_empty());
    }

    #[test]
    fn a_taken_port_is_named_with_its_process() {
        let listening = parse(TABLE, "TCP");
        let owner = |inode| {
            (inode == 4711).then(|| Owner {
                pid: 12,
                name: "nginx".into(),
            })
        };
        let taken = judge(9092, &listening, owner);
        assert_eq!(taken.level, Level::Problem);
        assert!(taken.says.contains("by nginx (process 12)"), "{taken:?}");
        let hidden = judge(9092, &listening, |_| None);
        assert!(hidden.remedy.unwrap().contains("sudo lsof -i :9092"));
        assert_eq!(judge(9093, &listening, owner).level, Level::Ok);
    }

    #[test]
    fn sockets_of_this_process_are_found() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ports = [
            tcp.local_addr().unwrap().port(),
            udp.local_addr().unwrap().port(),
        ];
        let pid = std::process::id().to_string();
        for (finding, transport) in check_free(&ports).iter().zip(["TCP", "UDP"]) {
            assert_eq!(finding.level, Level::Problem);
            assert!(
                finding.says.contains(transport) && finding.says.contains(&pid),
                "{finding:?}"
            );
        }
    }
}
