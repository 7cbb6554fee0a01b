//! Paths that carry nothing for a while.

use std::time::Duration;

use super::link::Path;
use super::sim::Sim;
use super::{state, steady};

/// A flow with everything in flight that it may have, of which nothing arrives, and whose next probe is seconds away.
fn cut(seed: u64) -> Sim {
    let mut sim = steady(Path::new(50, 0.0, 50.0), seed);
    sim.cut(true);
    sim.run_for(Duration::from_secs(3));
    sim
}

/// Has the connection run, without any news for it; the packets that it sends.
fn run(sim: &mut Sim) -> u64 {
    let before = sim.link.accepted;
    for _ in 0..10 {
        sim.write(0, 0, Duration::ZERO);
        sim.run_for(Duration::from_micros(1));
    }
    sim.link.accepted - before
}

#[test]
fn a_full_window_lets_out_one_packet_at_a_time() {
    let mut sim = cut(1);
    assert_eq!(run(&mut sim), 0);
    for _ in 0..20 {
        state(&sim, 0).outlet.let_one_out();
        assert_eq!(run(&mut sim), 1);
        sim.run_for(Duration::from_millis(100));
    }
}

#[test]
fn one_packet_is_enough_to_go_on() {
    let mut sim = cut(2);
    let before = sim.flows[0].receiver.received;
    sim.cut(false);
    sim.run_for(Duration::from_millis(200));
    assert_eq!(sim.flows[0].receiver.received, before);
    let acks = state(&sim, 0).outlet.acks();
    state(&sim, 0).outlet.let_one_out();
    assert_eq!(run(&mut sim), 1);
    // The packet, its acknowledgement, what was lost.
    let took = sim.run_until_received(0, before + 1, Duration::from_secs(1));
    assert!(took < Duration::from_millis(90), "{took:?}");
    assert!(state(&sim, 0).outlet.acks() > acks);
    sim.run_for(Duration::from_secs(1));
    let share = sim.shares(Duration::from_secs(2))[0];
    assert!(share >= 0.88, "{share}");
}

#[test]
fn what_is_acknowledged_is_no_longer_in_flight() {
    let mut sim = steady(Path::new(50, 0.0, 50.0), 3);
    assert!(state(&sim, 0).outlet.has_left());
    sim.flows[0].sender.unwritten = 0;
    sim.run_for(Duration::from_secs(30));
    let outlet = state(&sim, 0).outlet;
    assert!(!outlet.has_left() && !outlet.has_sent());
    sim.write(0, 1, Duration::ZERO);
    sim.run_for(Duration::from_millis(10));
    assert!(!outlet.has_left() && outlet.has_sent());
}
