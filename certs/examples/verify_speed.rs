//! Prints the cost of checking one signed request, beside that of the bare signature verification.
//!
//! `cargo run --release -p flwr-certs --example verify_speed`

use std::io::Write as _;

use flwr_certs::{KeyCache, NodeKeyPair, format_iso, verify_node_request};

const ROUNDS: u32 = 2_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pair = NodeKeyPair::generate()?;
    let pem = pair.public().to_pem();
    let now = 1_757_925_000.25;
    let timestamp = format_iso(now);
    let signature = pair.sign(timestamp.as_bytes())?;
    let cache = KeyCache::default();
    let request = || {
        verify_node_request(
            Some(pem.as_bytes()),
            Some(timestamp.as_bytes()),
            Some(&signature),
            now,
            None,
            &cache,
        )
        .is_ok()
    };
    let bare = || pair.public().verify(timestamp.as_bytes(), &signature);
    let mut out = std::io::stdout();
    for round in 1..=3 {
        let (bare, request) = (time(bare), time(request));
        writeln!(
            out,
            "round {round}: signature {bare} ns, whole request {request} ns"
        )?;
    }
    Ok(())
}

/// Mean nanoseconds of a call that must answer true.
fn time(call: impl Fn() -> bool) -> u128 {
    #[expect(clippy::disallowed_methods, reason = "a measurement of real time")]
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        assert!(call(), "the request is a good one");
    }
    start.elapsed().as_nanos() / u128::from(ROUNDS)
}
