//! Flows that have little to send, and what quinn does to a controller beside sending.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{Controller, ControllerFactory};

use super::link::{Path, Rng};
use super::sim::Sim;
use super::{LossTolerant, LossTolerantConfig, origin, ours, state, steady};

/// A flow that moved `mb` and then fell silent.
fn quiet(path: Path, seed: u64, mb: u64) -> Sim {
    let mut sim = Sim::new(path, seed);
    let flow = sim.flow(ours());
    sim.write(flow, mb * 1_000_000, Duration::ZERO);
    sim.run_until_received(flow, mb * 1_000_000, Duration::from_secs(60));
    sim
}

#[test]
fn small_calls_neither_lose_nor_inflate_the_estimate() {
    let path = Path::new(50, 0.001, 50.0);
    let mut sim = quiet(path, 1, 10);
    let known = state(&sim, 0).rate();
    for call in 0..300 {
        sim.write(0, 2_000, Duration::from_millis(call * 100));
    }
    sim.run_for(Duration::from_secs(31));
    let after = state(&sim, 0);
    assert!(
        (0.7..=1.05).contains(&(after.rate() / known)),
        "{known} {after:?}"
    );
    assert!(
        Controller::window(&after) as f64 <= 2.0 * path.bdp_bytes(),
        "{after:?}"
    );
}

#[test]
fn resumes_at_once_after_idling() {
    let path = Path::new(50, 0.001, 50.0);
    let mut sim = quiet(path, 2, 10);
    sim.run_for(Duration::from_secs(20));
    let before = sim.flows[0].receiver.received;
    let drops = sim.link.tail_drops;
    sim.write(0, 5_000_000, Duration::ZERO);
    let took = sim.run_until_received(0, before + 5_000_000, Duration::from_secs(10));
    assert!(took < Duration::from_millis(1150), "{took:?}");
    assert!(sim.link.tail_drops - drops < 20);
}

#[test]
fn small_calls_first_do_not_slow_the_bulk_that_follows() {
    let path = Path::new(50, 0.001, 50.0);
    let mut sim = Sim::new(path, 3);
    let flow = sim.flow(ours());
    for call in 0..50 {
        sim.write(flow, 2_000, Duration::from_millis(call * 100));
    }
    sim.run_for(Duration::from_secs(6));
    let before = sim.flows[flow].receiver.received;
    sim.write(flow, 20_000_000, Duration::ZERO);
    let took = sim.run_until_received(flow, before + 20_000_000, Duration::from_secs(20));
    assert!(
        20e6 / took.as_secs_f64() >= 0.8 * path.bytes_per_second(),
        "{took:?}"
    );
}

#[test]
fn a_copy_for_a_new_port_goes_on_where_it_was() {
    let sim = steady(Path::new(50, 0.001, 50.0), 4);
    let state = state(&sim, 0);
    let copy = state.clone_box();
    assert_eq!(copy.window(), Controller::window(&state));
    assert_eq!(
        copy.metrics().congestion_window,
        state.metrics().congestion_window
    );
}

#[test]
fn a_new_path_starts_afresh() {
    let mut sim = steady(Path::new(50, 0.001, 50.0), 5);
    let now = sim.now;
    sim.flows[0]
        .sender
        .connection_mut()
        .expect("connected")
        .path_changed(now);
    assert_eq!(state(&sim, 0).rate(), 0.0);
    sim.run_for(Duration::from_secs(2));
    let share = sim.shares(Duration::from_secs(2))[0];
    assert!(share >= 0.88, "{share}");
}

#[test]
fn a_smaller_mtu_leaves_room_for_its_packets() {
    let sim = Sim::new(Path::new(50, 0.0, 50.0), 6);
    let config = Arc::new(LossTolerantConfig {
        initial_window_bytes: 1,
        ..LossTolerantConfig::default()
    });
    let mut controller = config.build(sim.now, 1452);
    assert_eq!(controller.window(), 4 * 1452);
    controller.on_mtu_update(9000);
    assert_eq!(controller.window(), 4 * 9000);
    controller.on_mtu_update(1200);
    assert!(controller.window() >= 4 * 1200);
}

#[test]
fn persistent_congestion_starts_over() {
    let sim = steady(Path::new(50, 0.001, 50.0), 7);
    let mut state = state(&sim, 0);
    state.on_congestion_event(sim.now, sim.now, true, 100_000);
    assert!(Controller::window(&state) <= 4 * 1452);
}

/// Whatever order and times quinn calls in, the window stays sane.
#[test]
fn no_sequence_of_calls_breaks_the_window() {
    for seed in 0..20 {
        let mut rng = Rng(seed);
        let mut now = origin();
        let mut controller = LossTolerant::new(Arc::default(), now, 1200);
        for packet in 0..2000 {
            now += Duration::from_micros(rng.next() % 3 * (rng.next() % 20_000));
            let ago = now
                .checked_sub(Duration::from_micros(rng.next() % 100_000))
                .unwrap_or(now);
            let bytes = rng.next() % 20_000;
            let rtt = Duration::from_micros(rng.next() % 200_000);
            match rng.next() % 16 {
                0..6 => controller.on_sent(now, bytes, packet),
                6..12 => controller.on_packet_acked(now, ago, bytes, bytes.is_multiple_of(5), rtt),
                12..14 => {
                    controller.on_end_acks(now, bytes * 10, bytes.is_multiple_of(3), Some(packet))
                }
                14 => controller.on_congestion_event(now, ago, bytes.is_multiple_of(50), bytes),
                _ => controller.on_mtu_update(if bytes.is_multiple_of(2) { 1200 } else { 1452 }),
            }
            let window = Controller::window(&controller);
            assert!(
                (4 * 1200..1 << 50).contains(&window),
                "seed {seed}: {controller:?}"
            );
            let _ = controller.metrics();
        }
    }
}
