//! Several flows share one bottleneck with a queue of one bandwidth-delay product.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, CubicConfig};

use super::link::Path;
use super::sim::Sim;
use super::{ENDLESS, Factory, LossTolerantConfig, ours};

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

/// Holds two bandwidth-delay products whoever else is there, as BBRv1 does.
fn bbr_like() -> Factory {
    let config = LossTolerantConfig {
        cruise_gain: 2.0,
        probe_gain: 2.5,
        contest_gain: 2.0,
        ..Default::default()
    };
    Arc::new(config)
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
    let (shares, sim) = compete(
        Path::new(50, 0.0, 40.0),
        4,
        &[ours(), ours(), ours(), ours()],
        40,
    );
    assert!(jain(&shares) > 0.9, "{shares:?}");
    let drops = sim.link.tail_drops as f64 / sim.link.accepted as f64;
    assert!(drops < 0.04, "{drops}");
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
    for flows in [[ours(), bbr_like()], [bbr_like(), ours()]] {
        let (shares, _) = compete(Path::new(50, 0.0, 20.0), 6, &flows, 25);
        assert!(shares.iter().all(|share| *share >= 0.125), "{shares:?}");
    }
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
