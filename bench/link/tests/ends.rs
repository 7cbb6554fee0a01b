//! Both ends over the loopback, as a benchmark starts them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;

#[test]
fn every_byte_arrives_over_every_transport_in_both_directions() {
    let certs = certs();
    for transport in ["quic", "grpc", "tls"] {
        for (direction, counter) in [("up", "bytes_received"), ("down", "bytes_sent")] {
            let server = Server::start(transport, certs.path(), &[]);
            let flags = [
                "--direction",
                direction,
                "--objects",
                "5",
                "--object-bytes",
                "700001",
            ];
            let report = server.run(transport, certs.path(), &flags);
            let last = server.end();
            let named = format!("{transport} {direction}: {report} {last}");
            assert_eq!(report["transport"], transport);
            assert_eq!(report["bytes"], 3_500_005, "{named}");
            assert_eq!(report["capped"], false, "{named}");
            assert_eq!(last[counter], 3_500_005, "{named}");
            assert!(report["ttfb_ms"].as_f64().unwrap() > 0.0, "{named}");
            assert!(report["goodput_mbit"].as_f64().unwrap() > 0.0, "{named}");
            assert!(
                last["usage"]["rss_peak_bytes"].as_u64() > Some(1 << 20),
                "{named}"
            );
        }
    }
}

#[test]
fn small_calls_are_made_before_and_beside_a_transfer() {
    let certs = certs();
    for transport in ["quic", "grpc"] {
        let server = Server::start(transport, certs.path(), &["--hash"]);
        let flags = [
            "--direction",
            "up",
            "--object-bytes",
            "4000000",
            "--warm-up",
            "--control-period-ms",
            "1",
        ];
        let report = server.run(transport, certs.path(), &flags);
        assert_eq!(report["bytes"], 32_000_000);
        assert_eq!(report["control"]["idle"]["calls"], 20);
        assert!(
            report["control"]["loaded"]["p99_ms"].as_f64().unwrap() > 0.0,
            "{report}"
        );
        assert_eq!(server.end()["bytes_received"], 36_000_000);
    }
}

#[test]
fn a_client_comes_back_and_moves_the_same() {
    let certs = certs();
    for transport in ["quic", "grpc", "tls"] {
        let server = Server::start(transport, certs.path(), &[]);
        let flags = ["--direction", "up", "--object-bytes", "100000", "--again"];
        let report = server.run(transport, certs.path(), &flags);
        assert_eq!(report["bytes"], 800_000, "{report}");
        assert_eq!(server.end()["bytes_received"], 800_000);
    }
}

#[test]
fn a_transfer_is_given_up_when_its_time_is_over() {
    let certs = certs();
    for transport in ["quic", "grpc", "tls"] {
        let server = Server::start(transport, certs.path(), &[]);
        let flags = [
            "--direction",
            "down",
            "--objects",
            "1000",
            "--object-bytes",
            "500000000",
            "--seconds-max",
            "1",
        ];
        let report = server.run(transport, certs.path(), &flags);
        assert_eq!(report["capped"], true, "{transport}: {report}");
        assert!(report["bytes"].as_u64() > Some(0), "{transport}: {report}");
    }
}

#[test]
fn whoever_receives_says_when_bytes_came() {
    let certs = certs();
    let ways = ["quic", "grpc", "tls"].map(|transport| [(transport, "up"), (transport, "down")]);
    for (transport, direction) in ways.into_iter().flatten() {
        let server = Server::start(transport, certs.path(), &["--arrivals"]);
        let flags = [
            "--direction",
            direction,
            "--objects",
            "3",
            "--object-bytes",
            "1000000",
            "--arrivals",
        ];
        let report = server.run(transport, certs.path(), &flags);
        let served = server.end();
        let receiver = if direction == "up" { &served } else { &report };
        let arrivals = &receiver["arrivals"];
        let bytes = arrivals["bytes"].as_array().unwrap();
        let sum: u64 = bytes.iter().filter_map(Value::as_u64).sum();
        assert_eq!(sum, 3_000_000, "{transport}: {arrivals}");
        assert!(
            arrivals["last_s"].as_f64() >= arrivals["gaps"][0]["at_s"].as_f64(),
            "{transport}: {arrivals}"
        );
    }
}

#[test]
fn a_connection_has_the_congestion_control_that_was_asked_for() {
    let certs = certs();
    let server = Server::start("tls", certs.path(), &[]);
    // Every kernel has it.
    let flags = [
        "--direction",
        "up",
        "--objects",
        "1",
        "--tcp-congestion",
        "reno",
    ];
    let report = server.run("tls", certs.path(), &flags);
    assert_eq!(report["tcp_congestion"], "reno", "{report}");
    let server = Server::start("grpc", certs.path(), &[]);
    let output = server.try_run("grpc", certs.path(), &flags);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("leave out --tcp-congestion"), "{said}");
}

#[test]
fn small_windows_carry_every_byte() {
    let certs = certs();
    let server = Server::start("grpc", certs.path(), &["--default-windows"]);
    for direction in ["up", "down"] {
        let flags = [
            "--default-windows",
            "--direction",
            direction,
            "--objects",
            "2",
            "--object-bytes",
            "400000",
        ];
        let report = server.run("grpc", certs.path(), &flags);
        assert_eq!(report["bytes"], 800_000, "{report}");
    }
}

#[test]
fn what_cannot_be_is_an_error() {
    let certs = certs();
    let server = Server::start("tls", certs.path(), &[]);
    let flags = ["--direction", "up", "--control-period-ms", "5"];
    let output = server.try_run("tls", certs.path(), &flags);
    assert!(!output.status.success());
    let options = ["serve", "--transport", "quic", "--listen", "127.0.0.1:0"];
    let mut command = flwr_link();
    command
        .args(options)
        .args(["--congestion", "hope", "--certs"])
        .arg(certs.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("known are bbr, cubic"), "{said}");
}

/// `flwr-link serve`; killed if the test fails.
struct Server {
    child: Child,
    lines: BufReader<ChildStdout>,
    address: String,
}

impl Server {
    fn start(transport: &str, certs: &Path, flags: &[&str]) -> Self {
        let mut command = flwr_link();
        command
            .args([
                "serve",
                "--transport",
                transport,
                "--listen",
                "127.0.0.1:0",
                "--certs",
            ])
            .arg(certs)
            .args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut ready = String::new();
        lines.read_line(&mut ready).unwrap();
        let ready: Value = serde_json::from_str(&ready).unwrap();
        Self {
            child,
            lines,
            address: ready["address"].as_str().unwrap().to_owned(),
        }
    }

    fn run(&self, transport: &str, certs: &Path, flags: &[&str]) -> Value {
        let output = self.try_run(transport, certs, flags);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{transport} {flags:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn try_run(&self, transport: &str, certs: &Path, flags: &[&str]) -> Output {
        let mut command = flwr_link();
        command
            .args([
                "run",
                "--transport",
                transport,
                "--server",
                &self.address,
                "--certs",
            ])
            .arg(certs)
            .args(flags);
        command.output().unwrap()
    }

    /// Closing stdin is the sign.
    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let mut last = String::new();
        self.lines.read_to_string(&mut last).unwrap();
        assert!(self.child.wait().unwrap().success());
        serde_json::from_str(&last).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn certs() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let output = flwr_link()
        .arg("certs")
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    directory
}

fn flwr_link() -> Command {
    Command::new(env!("CARGO_BIN_EXE_flwr-link"))
}
