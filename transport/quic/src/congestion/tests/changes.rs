//! Paths and machines that change under a flow.

use std::time::Duration;

use super::link::Path;
use super::sim::Sim;
use super::{ENDLESS, ours, state, steady};

#[test]
fn follows_a_link_that_slows_to_a_quarter() {
    let mut sim = steady(Path::new(50, 0.005, 80.0), 1);
    sim.set_mbit(20.0);
    sim.run_for(Duration::from_secs(2));
    let drops = sim.link.tail_drops;
    sim.watch(Duration::ZERO);
    let share = sim.shares(Duration::from_secs(4))[0];
    assert!(share >= 0.88, "{share}");
    assert!(
        sim.link.tail_drops - drops < 20,
        "{}",
        sim.link.tail_drops - drops
    );
    let queue = sim.backlog_p99() / Path::new(50, 0.0, 20.0).bdp_bytes();
    assert!(queue <= 0.8, "{queue}");
}

#[test]
fn follows_a_link_that_quadruples() {
    let mut sim = steady(Path::new(50, 0.005, 20.0), 2);
    sim.run_for(Duration::from_secs(2));
    sim.set_mbit(80.0);
    sim.run_for(Duration::from_millis(1500));
    let share = sim.shares(Duration::from_secs(2))[0];
    assert!(share >= 0.88, "{share}");
}

#[test]
fn follows_a_path_that_gets_longer() {
    let mut sim = steady(Path::new(20, 0.001, 50.0), 3);
    sim.extra_delay(0, Duration::from_millis(80));
    sim.run_for(Duration::from_secs(4));
    let share = sim.shares(Duration::from_secs(3))[0];
    assert!(share >= 0.85, "{share} {:?}", state(&sim, 0));
}

#[test]
fn shrugs_off_a_spike_of_the_round_trip() {
    let mut sim = steady(Path::new(50, 0.001, 50.0), 4);
    for _ in 0..3 {
        sim.extra_delay(0, Duration::from_millis(150));
        sim.run_for(Duration::from_millis(200));
        sim.extra_delay(0, Duration::ZERO);
        sim.run_for(Duration::from_millis(600));
    }
    sim.run_for(Duration::from_millis(500));
    let share = sim.shares(Duration::from_secs(2))[0];
    assert!(share >= 0.88, "{share} {:?}", state(&sim, 0));
}

#[test]
fn comes_back_after_an_outage() {
    let mut sim = steady(Path::new(50, 0.001, 50.0), 5);
    sim.cut(true);
    sim.run_for(Duration::from_secs(4));
    sim.cut(false);
    sim.run_for(Duration::from_secs(5));
    let share = sim.shares(Duration::from_secs(2))[0];
    assert!(share >= 0.88, "{share} {:?}", state(&sim, 0));
}

/// Both ends get the processor this seldom; the fewest of a link's bytes they must carry.
#[test]
fn works_on_a_busy_machine() {
    for (stall_ms, wanted) in [(2, 0.88), (5, 0.85), (10, 0.6), (20, 0.4)] {
        let path = Path::new(20, 0.0, 100.0);
        let mut sim = Sim::new(path, 6);
        let flow = sim.flow(ours());
        sim.flows[flow].sender.stall = Some(Duration::from_millis(stall_ms));
        sim.flows[flow].receiver.stall = Some(Duration::from_millis(stall_ms));
        sim.write(flow, ENDLESS, Duration::ZERO);
        sim.run_for(Duration::from_secs(1));
        let share = sim.shares(Duration::from_secs(3))[0];
        assert!(share >= wanted, "{stall_ms} ms: {share}");
    }
}

/// The estimate of 50 ms stays one, though nothing but the flow's own draining ever shows it.
#[test]
fn keeps_the_round_trip_honest() {
    let mut sim = steady(Path::new(50, 0.001, 20.0), 7);
    for _ in 0..6 {
        let share = sim.shares(Duration::from_secs(5))[0];
        assert!(share >= 0.9, "{share}");
    }
    let rtt = state(&sim, 0).min_rtt().expect("measured");
    assert!(rtt <= Duration::from_millis(52), "{rtt:?}");
}
