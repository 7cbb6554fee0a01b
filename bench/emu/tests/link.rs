//! The emulator over real devices: what the peers of a link see. Without root and TUN these tests say so and pass.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, one that is skipped says so"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

#[test]
fn a_ping_takes_the_round_trip_that_was_asked_for() {
    let Some(link) = Link::start(&["--profile", "wan-20"]) else {
        return;
    };
    let mut times: Vec<f64> = (0..9)
        .map(|number| link.ping(number).expect("no loss was asked for"))
        .collect();
    times.sort_by(f64::total_cmp);
    assert!(times[0] >= 20.0, "{times:?}");
    assert!(times[4] < 23.0, "{times:?}");
    let statistics = link.close();
    assert_eq!(statistics["directions"]["forward"]["packets_in"], 9);
    assert_eq!(statistics["directions"]["backward"]["packets_out"], 9);
    assert_eq!(statistics["tx_dropped"], json!([0, 0]));
}

#[test]
fn the_seed_decides_which_packets_are_lost() {
    let arrived = |seed: &str| {
        let flags = ["--profile", "lan", "--loss-percent", "20", "--seed", seed];
        let link = Link::start(&flags)?;
        let arrived = link.datagrams(200);
        let statistics = link.close();
        assert_eq!(
            statistics["directions"]["forward"]["random_drops"],
            200 - arrived.len()
        );
        Some(arrived)
    };
    let Some(first) = arrived("3") else { return };
    assert!((130..190).contains(&first.len()), "{}", first.len());
    assert_eq!(Some(&first), arrived("3").as_ref());
    assert_ne!(Some(&first), arrived("4").as_ref());
}

#[test]
fn a_running_link_takes_requests_and_survives_nonsense() {
    let Some(mut link) = Link::start(&["--profile", "lan"]) else {
        return;
    };
    assert!(link.ping(0).is_some());
    link.send("nonsense");
    link.send(r#"{"fly": true}"#);
    link.send(r#"{"readdress": {"side": 1, "address": "10.77.0.1"}}"#);
    link.send(r#"{"down": true, "direction": "backward"}"#);
    assert_eq!(link.statistics()["final"], false);
    assert_eq!(link.ping(1), None);
    link.send(r#"{"down": false}"#);
    link.send(r#"{"readdress": {"side": 1, "address": "10.77.0.9"}}"#);
    assert_eq!(link.statistics()["directions"]["backward"]["down_drops"], 1);
    assert_eq!(link.ping(2), None, "the old address is gone");
    link.peer = Ipv4Addr::new(10, 77, 0, 9);
    assert!(link.ping(3).is_some());
    link.close();
}

#[test]
fn the_congestion_control_is_chosen_and_nothing_is_left_behind() {
    let allowed =
        || std::fs::read_to_string("/proc/sys/net/ipv4/tcp_allowed_congestion_control").unwrap();
    let before = allowed();
    let Some(mut link) = Link::start(&["--profile", "lan", "--tcp-congestion", "cubic,reno"])
    else {
        return;
    };
    let chosen = |name: &str| {
        within(name, || {
            std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap()
        })
    };
    assert_eq!(
        link.namespaces.each_ref().map(|name| chosen(name)),
        ["cubic\n", "reno\n"]
    );
    assert_eq!(allowed(), before);
    let pid = Pid::from_child(&link.child);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(link.line()["final"], true);
    assert!(link.child.wait().unwrap().success());
    for name in &link.namespaces {
        assert!(!Path::new("/run/netns").join(name).exists());
    }
}

#[test]
fn links_that_start_at_once_all_get_what_they_ask_for() {
    let links: Vec<_> = thread::scope(|scope| {
        let start = || Link::start(&["--profile", "lan", "--tcp-congestion", "cubic"]);
        let starting: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starting
            .into_iter()
            .map(|link| link.join().unwrap())
            .collect()
    });
    links.into_iter().flatten().for_each(|link| {
        link.close();
    });
}

/// A running emulator. It ends when it is dropped, since its stdin closes.
struct Link {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    namespaces: [String; 2],
    peer: Ipv4Addr,
}

impl Link {
    /// `None`, with a reason on stderr, where there can be no link.
    fn start(flags: &[&str]) -> Option<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flwr-emu"));
        command
            .arg("up")
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut stdout = BufReader::new(stdout);
        let mut ready = String::new();
        stdout.read_line(&mut ready).unwrap();
        if ready.is_empty() {
            let mut reason = String::new();
            child
                .stderr
                .take()
                .unwrap()
                .read_to_string(&mut reason)
                .unwrap();
            assert_eq!(child.wait().unwrap().code(), Some(77), "{reason}");
            eprintln!("skipped: {reason}");
            return None;
        }
        let ready: Value = serde_json::from_str(&ready).unwrap();
        let namespaces = serde_json::from_value(ready["namespaces"].clone()).unwrap();
        Some(Self {
            child,
            stdin,
            stdout,
            namespaces,
            peer: Ipv4Addr::new(10, 77, 0, 2),
        })
    }

    fn send(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn statistics(&mut self) -> Value {
        self.send(r#"{"stats": true}"#);
        self.line()
    }

    fn close(self) -> Value {
        let Self {
            mut child,
            stdin,
            mut stdout,
            ..
        } = self;
        drop(stdin);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert!(child.wait().unwrap().success());
        serde_json::from_str(rest.trim()).unwrap()
    }

    /// Milliseconds until the answer to an ICMP echo from side 0, or `None` after half a second.
    fn ping(&self, number: u8) -> Option<f64> {
        within(&self.namespaces[0], || {
            let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(500)))
                .unwrap();
            let begin = now();
            socket
                .send_to(
                    &echo_request(number),
                    &SocketAddr::from((self.peer, 0)).into(),
                )
                .ok()?;
            let mut answer = [0; 128];
            while let Ok(size) = socket.read(&mut answer) {
                // After the IP header: type 0 is an echo reply, the number is at its end.
                if size >= 28 && answer[20] == 0 && answer[27] == number {
                    return Some((now() - begin).as_secs_f64() * 1e3);
                }
            }
            None
        })
    }

    /// Sends so many numbered datagrams from side 0: the numbers that arrived.
    fn datagrams(&self, count: u8) -> Vec<u8> {
        let receiver = within(&self.namespaces[1], || {
            UdpSocket::bind((self.peer, 0)).unwrap()
        });
        receiver
            .set_read_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let to = receiver.local_addr().unwrap();
        within(&self.namespaces[0], || {
            let sender = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            (0..count).for_each(|number| assert_eq!(sender.send_to(&[number], to).unwrap(), 1));
        });
        let mut number = [0];
        std::iter::from_fn(|| receiver.recv(&mut number).ok().map(|_| number[0])).collect()
    }
}

/// Runs this in a thread inside the namespace. Sockets stay in it.
fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let handle = File::open(Path::new("/run/netns").join(namespace)).unwrap();
    let inside = || {
        move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

/// An echo request is all zeros but for its type, its number and the sum over both.
fn echo_request(number: u8) -> [u8; 8] {
    let sum = !(0x0800 + u16::from(number));
    let [high, low] = sum.to_be_bytes();
    [8, 0, high, low, 0, 0, 0, number]
}

fn now() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        now.tv_sec.cast_unsigned(),
        u32::try_from(now.tv_nsec).unwrap(),
    )
}
