//! One flow on every kind of link: the targets of the project, and the extremes.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Loss, Path};
use super::sim::Sim;
use super::{ENDLESS, LossTolerantConfig, Transfer, ours, steady, transfer, transfer_by};

/// Link, megabytes to send, goodput wanted.
fn targets() -> [(Path, u64, f64); 6] {
    [
        (Path::new(20, 0.0, 200.0), 40, 0.90),
        (Path::new(20, 0.001, 200.0), 40, 0.90),
        (Path::new(50, 0.005, 100.0), 60, 0.88),
        (Path::new(50, 0.005, 100.0).queue(0.25), 60, 0.86),
        (Path::new(100, 0.01, 100.0), 84, 0.87),
        (Path::new(200, 0.02, 50.0), 60, 0.83),
    ]
}

fn check(at: usize) {
    let (path, mb, wanted) = targets()[at];
    for seed in 1..=2 {
        let Transfer {
            goodput,
            queue_p99,
            overhead,
        } = transfer(path, seed, mb);
        assert!(goodput >= wanted, "{path:?} seed {seed}: goodput {goodput}");
        assert!(
            overhead <= 1.10 + path.mean_loss(),
            "{path:?} seed {seed}: overhead {overhead}"
        );
        assert!(queue_p99 <= 0.65, "{path:?} seed {seed}: queue {queue_p99}");
    }
}

#[test]
fn fills_20_ms() {
    check(0);
}

#[test]
fn fills_20_ms_with_loss() {
    check(1);
}

#[test]
fn fills_50_ms_with_loss() {
    check(2);
}

#[test]
fn fills_50_ms_with_a_shallow_queue() {
    check(3);
}

#[test]
fn fills_100_ms_with_loss() {
    check(4);
}

#[test]
fn fills_200_ms_with_loss() {
    check(5);
}

#[test]
fn tolerates_bursts_of_losses() {
    let path = Path {
        loss: Loss::GilbertElliott(0.01, 5.0),
        ..Path::new(100, 0.0, 100.0)
    };
    let share = steady(path, 3).shares(Duration::from_secs(4))[0];
    assert!(share >= 0.88, "{share}");
}

#[test]
fn keeps_up_with_losses_that_are_not_its_own() {
    let share = steady(Path::new(50, 0.12, 20.0), 4).shares(Duration::from_secs(15))[0];
    assert!(share >= 0.7, "{share}");
}

#[test]
fn does_not_flood_a_policer() {
    let path = Path::new(50, 0.0, 50.0).queue(0.1);
    let mut sim = steady(path, 5);
    let (sent, drops) = (sim.link.accepted, sim.link.tail_drops);
    let share = sim.shares(Duration::from_secs(10))[0];
    let dropped = (sim.link.tail_drops - drops) as f64 / (sim.link.accepted - sent) as f64;
    assert!(share >= 0.80, "{share}");
    assert!(dropped <= 0.06, "{dropped}");
}

#[test]
fn fills_a_slow_link_without_swamping_it() {
    for rtt_ms in [20, 300] {
        let path = Path::new(rtt_ms, 0.0, 1.0);
        let mut sim = steady(path, 6);
        sim.run_for(Duration::from_secs(3));
        sim.watch(Duration::ZERO);
        let share = sim.shares(Duration::from_secs(30))[0];
        let queue_ms = sim.backlog_p99() / path.bytes_per_second() * 1e3;
        assert!(share >= 0.88, "{rtt_ms} ms: {share}");
        assert!(queue_ms <= 250.0, "{rtt_ms} ms: {queue_ms}");
    }
}

#[test]
fn fills_a_fast_link() {
    for (rtt_ms, wanted) in [(1, 0.90), (20, 0.90)] {
        let share = steady(Path::new(rtt_ms, 0.0, 1000.0), 7).shares(Duration::from_millis(300))[0];
        assert!(share >= wanted, "{rtt_ms} ms: {share}");
    }
}

#[test]
fn fills_300_ms() {
    let share = steady(Path::new(300, 0.01, 20.0), 8).shares(Duration::from_secs(10))[0];
    assert!(share >= 0.88, "{share}");
}

#[test]
fn starts_from_a_tiny_window() {
    let config = LossTolerantConfig {
        initial_window_bytes: 1,
        ..LossTolerantConfig::default()
    };
    let got = transfer_by(Path::new(20, 0.001, 100.0), 9, 20, Arc::new(config));
    assert!(got.goodput >= 0.83, "{got:?}");
}

#[test]
fn fills_with_rare_acknowledgements() {
    let path = Path::new(50, 0.005, 100.0);
    let mut sim = Sim::new(path, 10);
    sim.rare_acks = true;
    let flow = sim.flow(ours());
    sim.write(flow, ENDLESS, Duration::ZERO);
    sim.run_for(Duration::from_secs(1));
    let share = sim.shares(Duration::from_secs(3))[0];
    assert!(share >= 0.9, "{share}");
}

/// `cargo test -p flwr-transport-quic -- --ignored report_links` panics with the table of results.
#[test]
#[ignore = "prints a table instead of checking one"]
fn report_links() {
    let mut table = String::new();
    for (path, ..) in targets() {
        let runs: Vec<Transfer> = (1..=5).map(|seed| transfer(path, seed, 60)).collect();
        let median = |value: fn(&Transfer) -> f64| {
            let mut values: Vec<f64> = runs.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            format!("{:.3} [{:.3}-{:.3}]", values[2], values[0], values[4])
        };
        let [goodput, queue, overhead] = [
            median(|run| run.goodput),
            median(|run| run.queue_p99),
            median(|run| run.overhead),
        ];
        let (rtt, loss) = (path.rtt.as_millis(), path.mean_loss());
        let _ = writeln!(
            table,
            "{rtt} ms {loss} q{} | {goodput} | {queue} | {overhead}",
            path.queue_bdp
        );
    }
    panic!("goodput | queue p99 / BDP | overhead\n{table}");
}
