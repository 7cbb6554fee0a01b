//! Where metrics are served, and what keeps them from being.

use std::{
    ffi::OsStr,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{SuperLink, World};

const PLAIN: &str = "--insecure --isolation process";

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_environment_says_where_they_are() {
    let world = World::new();
    for _attempt in 0..5 {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let address = format!("127.0.0.1:{port}");
        let environment = [("FLWR_QUIC_METRICS_ADDRESS", OsStr::new(&address))];
        let mut link = SuperLink::start(&world, PLAIN, &environment);
        let said = link.wait_for_any(&["Serving metrics on", "already in use"]);
        if said.contains("already in use") {
            continue;
        }
        assert!(
            said.contains(&format!("http://{address}/metrics")),
            "{said}"
        );
        assert!(get(port, "/healthz").ends_with("\r\n\r\nok\n"));
        let ready = get(port, "/readyz");
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(ready.ends_with("\r\n\r\nready\n"), "{ready}");
        let metrics = get(port, "/metrics");
        assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
        assert!(
            metrics.contains("\n# TYPE flwr_quic_connections gauge\n"),
            "{metrics}"
        );
        return;
    }
    panic!("no free port");
}

#[test]
fn nothing_is_served_where_nothing_is_said() {
    let world = World::new();
    let mut link = SuperLink::start(
        &world,
        PLAIN,
        &[("FLWR_QUIC_METRICS_ADDRESS", OsStr::new(""))],
    );
    link.signal(rustix::process::Signal::TERM);
    assert_eq!(link.end().code(), Some(0), "{:#?}", link.said);
    assert!(
        !link.said.iter().any(|line| line.contains("metrics")),
        "{:#?}",
        link.said
    );
}

#[test]
fn an_address_that_is_none_or_taken_is_explained() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, parts) in [
        ("9100", ["cannot be parsed", "(9100)"]),
        (taken.as_str(), ["already in use", "--metrics-address"]),
        (
            "203.0.113.7:9100",
            ["not an address of this machine", "--metrics-address"],
        ),
    ] {
        let ended = world.run_on_free_ports(
            |ports| format!("{PLAIN} {} --metrics-address {address}", ports.flags()),
            |ended| ended.stderr.contains("--metrics-address"),
        );
        assert_eq!(ended.status, Some(1), "{ended:?}");
        for part in parts {
            assert!(ended.reason().contains(part), "{address}: {ended:?}");
        }
    }
}
