//! Several flows share one bottleneck with a queue of one bandwidth-delay product.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, CubicConfig};

use super::bbr1::Bbr1;
use super::link::Path;
use super::sim::Sim;
use super::{ENDLESS, Factory, ours};

/// Shares of the link over `seconds`, once all have started, two seconds apart.
fn compete(path: Path, seed: u64, flows: &[Factory], seconds: u64) -> (Vec<f64>, Sim) {
    let mut sim = Sim::new(path, seed);
    for factory in flows {
        let flow = sim.flow(factory.clone());
        sim.write(flow, ENDLESS, Duration::ZERO);
        sim.run_for(Duration::from_secs(2));
    }
    (sim.shares(Duration::from_secs(seconds)), sim)
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    sum * sum / (shares.len() as f64 * shares.iter().map(|share| share * share).sum::<f64>())
}

fn cubic() -> Factory {
    Arc::new(CubicConfig::default())
}

fn bbr1() -> Factory {
    Arc::new(Bbr1)
}

#[test]
fn two_of_ours_share_evenly() {
    let paths = [
        (Path::new(50, 0.0, 20.0), 1, 25),
        (Path::new(100, 0.01, 20.0), 2, 25),
        (Path::new(20, 0.001, 50.0), 3, 10),
    ];
    for (path, seed, seconds) in paths {
        let (shares, sim) = compete(path, seed, &[ours(), ours()], seconds);
        assert!(jain(&shares) > 0.9, "{path:?}: {shares:?}");
        assert!(shares.iter().sum::<f64>() > 0.88, "{path:?}: {shares:?}");
        let drops = sim.link.tail_drops as f64 / sim.link.accepted as f64;
        assert!(drops < 0.02, "{path:?}: {drops}");
    }
}

#[test]
fn four_of_ours_share_evenly() {
    // Logarithms and roots differ in their last bits from one processor to the next, and what follows from them by
    // much more: a single run says little.
    let runs = [1, 2, 3, 4, 5].map(|seed| {
        let path = Path::new(50, 0.0, 40.0);
        let (shares, sim) = compete(path, seed, &[ours(), ours(), ours(), ours()], 40);
        let drops = sim.link.tail_drops as f64 / sim.link.accepted as f64;
        (jain(&shares), drops)
    });
    let mean_drops = runs.iter().map(|(_, drops)| drops).sum::<f64>() / runs.len() as f64;
    assert!(runs.iter().all(|(jain, _)| *jain > 0.9), "{runs:?}");
    assert!(mean_drops < 0.04, "{runs:?}");
}

#[test]
fn shares_with_a_flow_that_follows_losses() {
    for (path, seconds) in [
        (Path::new(50, 0.0, 20.0), 30),
        (Path::new(20, 0.0, 50.0), 12),
    ] {
        for flows in [[ours(), cubic()], [cubic(), ours()]] {
            let (shares, _) = compete(path, 5, &flows, seconds);
            assert!(
                shares.iter().all(|share| *share >= 0.125),
                "{path:?}: {shares:?}"
            );
        }
    }
}

#[test]
fn shares_with_a_flow_that_holds_the_queue() {
    for flows in [[ours(), bbr1()], [bbr1(), ours()]] {
        let (shares, _) = compete(Path::new(50, 0.0, 20.0), 6, &flows, 25);
        assert!(shares.iter().all(|share| *share >= 0.125), "{shares:?}");
    }
}

/// It would be 0.22 without.
#[test]
fn a_contest_is_worth_a_share() {
    let path = Path::new(20, 0.0005, 50.0);
    let shares: Vec<_> = (1..=3)
        .flat_map(|seed| {
            let (first, _) = compete(path, seed, &[ours(), bbr1()], 25);
            let (second, _) = compete(path, seed, &[bbr1(), ours()], 25);
            [first[0], second[1]]
        })
        .collect();
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    assert!(mean >= 0.27, "{shares:?}");
}

#[test]
fn leaves_no_queue_when_the_other_is_gone() {
    for other in [bbr1(), cubic()] {
        let path = Path::new(50, 0.0, 20.0);
        let mut sim = Sim::new(path, 6);
        let (first, second) = (sim.flow(other), sim.flow(ours()));
        sim.write(first, 40 << 20, Duration::ZERO);
        sim.write(second, ENDLESS, Duration::from_secs(2));
        sim.run_until_received(first, 40 << 20, Duration::from_secs(100));
        sim.run_for(Duration::from_secs(5));
        sim.watch(Duration::ZERO);
        let share = sim.shares(Duration::from_secs(8))[second];
        let queue = sim.backlog_p99() / path.bdp_bytes();
        assert!(share > 0.9 && queue < 0.75, "{share} {queue}");
    }
}

/// `cargo test -p flwr-transport-quic -- --ignored report_fairness` panics with the table of results.
#[test]
#[ignore = "prints a table instead of checking one"]
fn report_fairness() {
    let mut table = String::new();
    for rtt in [20, 50, 100] {
        for (name, other) in [("bbr1", bbr1()), ("cubic", cubic()), ("ours", ours())] {
            for flows in [[ours(), other.clone()], [other.clone(), ours()]] {
                let path = Path::new(rtt, 0.0, 50.0);
                let (shares, sim) = compete(path, 1, &flows, 30);
                let halves: Vec<_> = shares.iter().map(|share| share * 2.0).collect();
                let drops = sim.link.tail_drops as f64 / sim.link.accepted as f64;
                let _ = writeln!(table, "{rtt} ms {name} | {halves:.2?} | {drops:.3}");
            }
        }
    }
    panic!("of a fair half | dropped\n{table}");
}

/// quinn's BBR sends half as much again as the link carries. Against that, only not to starve can be asked for.
#[test]
fn is_not_starved_by_a_flood() {
    let (shares, _) = compete(
        Path::new(50, 0.0, 20.0),
        7,
        &[ours(), Arc::new(BbrConfig::default())],
        20,
    );
    assert!(shares[0] >= 0.03, "{shares:?}");
}
