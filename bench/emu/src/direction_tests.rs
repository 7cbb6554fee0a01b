use super::*;

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const SIZE: usize = 1_500;

/// 20 ms one way, 120 Mbit/s: a packet of 1,500 bytes takes 0.1 ms.
fn parameters() -> Parameters {
    Parameters {
        rate: Rate::from_mbit(120.0).unwrap(),
        delay_ns: 20 * MILLISECOND,
        jitter_ns: 0,
        loss: LossRate::new(0.0, 1.0).unwrap(),
        queue_bytes_max: 1 << 20,
    }
}

/// A packet that knows its number.
fn packet(number: usize) -> Packet {
    let mut packet = vec![0; SIZE];
    packet[..8].copy_from_slice(&(number as u64).to_be_bytes());
    packet.into()
}

fn number(packet: &[u8]) -> u64 {
    u64::from_be_bytes(packet[..8].try_into().unwrap())
}

/// Lets the time pass from one event to the next: when which packet came out.
fn drain(direction: &mut Direction) -> Vec<(u64, u64)> {
    let mut delivered = Vec::new();
    while let Some(now_ns) = direction.next_ns() {
        while let Some(packet) = direction.deliver(now_ns) {
            delivered.push((now_ns, number(&packet)));
        }
    }
    delivered
}

#[test]
fn a_single_packet_takes_serialisation_and_delay() {
    let mut direction = Direction::new(parameters(), 1, 0);
    direction.arrive(5 * MILLISECOND, packet(0));
    assert_eq!(direction.next_ns(), Some(25 * MILLISECOND + 100_000));
    assert_eq!(direction.deliver(25 * MILLISECOND + 99_999), None);
    assert_eq!(drain(&mut direction), [(25 * MILLISECOND + 100_000, 0)]);
    assert_eq!(direction.next_ns(), None);
}

#[test]
fn packets_at_once_leave_at_the_rate_of_the_link() {
    let mut direction = Direction::new(parameters(), 1, 0);
    (0..500).for_each(|number| direction.arrive(0, packet(number)));
    let delivered = drain(&mut direction);
    let expected: Vec<_> = (0..500)
        .map(|number| (20 * MILLISECOND + (number + 1) * 100_000, number))
        .collect();
    assert_eq!(delivered, expected);
}

#[test]
fn a_late_reader_changes_neither_the_rate_nor_what_is_due() {
    let mut direction = Direction::new(parameters(), 1, 0);
    (0..100).for_each(|number| direction.arrive(0, packet(number)));
    let late_ns = 25 * MILLISECOND + 50_000;
    let delivered = std::iter::from_fn(|| direction.deliver(late_ns)).count();
    assert_eq!(delivered, 50);
    assert_eq!(direction.next_ns(), Some(25 * MILLISECOND + 100_000));
    assert_eq!(
        direction.counters().lateness_ns.percentile(100),
        late_ns - 20 * MILLISECOND - 100_000
    );
}

#[test]
fn an_overloaded_link_passes_its_rate_and_drops_the_rest() {
    let mut direction = Direction::new(parameters(), 1, 0);
    // Twice the rate for two seconds.
    (0..40_000).for_each(|number| direction.arrive(number as u64 * 50_000, packet(number)));
    let mut passed = 0;
    while direction.deliver(2 * SECOND + 20 * MILLISECOND).is_some() {
        passed += 1;
    }
    assert!((19_990..=20_000).contains(&passed), "{passed}");
    let counters = direction.counters();
    assert!(counters.queue_bytes_peak <= 1 << 20 && counters.queue_bytes_peak > (1 << 20) - SIZE);
    assert_eq!(counters.packets_in, 40_000);
    // When the last one came, 19,999 had been sent and the queue was full.
    let queued = (1 << 20) / SIZE as u64;
    assert_eq!(counters.tail_drops, 40_000 - 19_999 - queued);
}

#[test]
fn a_full_queue_drops_the_packet_that_comes() {
    let queue_bytes_max = 10 * SIZE;
    let mut direction = Direction::new(
        Parameters {
            queue_bytes_max,
            ..parameters()
        },
        1,
        0,
    );
    (0..15).for_each(|number| direction.arrive(0, packet(number)));
    assert_eq!(direction.counters().tail_drops, 5);
    // One place is free again when the first packet has been sent.
    direction.arrive(100_000, packet(15));
    direction.arrive(100_000, packet(16));
    assert_eq!(direction.counters().tail_drops, 6);
    let numbers: Vec<u64> = drain(&mut direction)
        .into_iter()
        .map(|(_, number)| number)
        .collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 15]);
}

#[test]
fn losses_have_the_asked_rate_and_take_their_time_on_the_link() {
    let loss = LossRate::new(1.0, 1.0).unwrap();
    let mut direction = Direction::new(
        Parameters {
            loss,
            ..parameters()
        },
        3,
        0,
    );
    let mut delivered = Vec::new();
    for sent in 0..100_000 {
        direction.arrive(sent as u64 * 100_000, packet(sent));
        while let Some(packet) = direction.deliver(sent as u64 * 100_000) {
            delivered.push(number(&packet));
        }
    }
    delivered.extend(drain(&mut direction).into_iter().map(|(_, number)| number));
    let counters = direction.counters();
    assert_eq!(counters.random_drops + counters.packets_out, 100_000);
    assert!(
        (900..1_100).contains(&counters.random_drops),
        "{}",
        counters.random_drops
    );
    assert!(delivered.is_sorted());
}

#[test]
fn the_seed_and_the_direction_decide_what_is_lost() {
    let numbers = |seed, direction| {
        let loss = LossRate::new(5.0, 1.0).unwrap();
        let mut direction = Direction::new(
            Parameters {
                loss,
                ..parameters()
            },
            seed,
            direction,
        );
        (0..600).for_each(|number| direction.arrive(0, packet(number)));
        drain(&mut direction)
    };
    assert_eq!(numbers(3, 0), numbers(3, 0));
    assert_ne!(numbers(3, 0), numbers(3, 1));
    assert_ne!(numbers(3, 0), numbers(4, 0));
}

#[test]
fn jitter_stays_in_its_range_and_keeps_the_order() {
    let jitter_ns = 5 * MILLISECOND;
    let mut direction = Direction::new(
        Parameters {
            jitter_ns,
            ..parameters()
        },
        1,
        0,
    );
    // 0.2 ms apart: jitter alone would overtake.
    (0..600).for_each(|number| direction.arrive(number as u64 * 200_000, packet(number)));
    let delivered = drain(&mut direction);
    assert!(delivered.iter().map(|&(_, number)| number).eq(0..600));
    let least_ns = |number| number * 200_000 + 100_000 + 20 * MILLISECOND;
    let extra: Vec<u64> = delivered
        .iter()
        .map(|&(at_ns, number)| at_ns - least_ns(number))
        .collect();
    assert!(extra.iter().all(|&extra_ns| extra_ns <= jitter_ns));
    assert!(extra.iter().any(|&extra_ns| extra_ns > jitter_ns * 9 / 10));

    // 10 ms apart nothing overtakes, and the mean is half of the range.
    let mut direction = Direction::new(
        Parameters {
            jitter_ns,
            ..parameters()
        },
        1,
        0,
    );
    let mut sum_ns = 0;
    for number in 0..1_000 {
        let at_ns = number as u64 * 100 * MILLISECOND;
        direction.arrive(at_ns, packet(number));
        sum_ns += drain(&mut direction)[0].0 - at_ns - 20 * MILLISECOND - 100_000;
    }
    let mean_ns = sum_ns / 1_000;
    assert!((2_350_000..2_650_000).contains(&mean_ns), "{mean_ns}");
}

#[test]
fn a_change_of_rate_counts_from_the_next_packet_on() {
    let mut direction = Direction::new(parameters(), 1, 0);
    (0..3).for_each(|number| direction.arrive(0, packet(number)));
    direction.change(0, Change::Rate(Rate::from_mbit(12.0).unwrap()));
    let times: Vec<u64> = drain(&mut direction)
        .into_iter()
        .map(|(at_ns, _)| at_ns)
        .collect();
    assert_eq!(times, [20_100_000, 21_100_000, 22_100_000]);
}

#[test]
fn a_direction_that_is_down_drops_what_waits_and_what_comes() {
    let mut direction = Direction::new(parameters(), 1, 0);
    (0..10).for_each(|number| direction.arrive(0, packet(number)));
    direction.change(250_000, Change::Down(true));
    direction.arrive(MILLISECOND, packet(10));
    direction.change(2 * MILLISECOND, Change::Down(false));
    direction.arrive(3 * MILLISECOND, packet(11));
    let delivered = drain(&mut direction);
    assert_eq!(
        delivered,
        [(20_100_000, 0), (20_200_000, 1), (23_100_000, 11)]
    );
    assert_eq!(direction.counters().down_drops, 9);
}

#[test]
fn a_change_of_loss_counts_at_once() {
    let mut direction = Direction::new(parameters(), 1, 0);
    direction.arrive(0, packet(0));
    direction.change(0, Change::Loss(LossRate::new(100.0, 1.0).unwrap()));
    direction.arrive(MILLISECOND, packet(1));
    assert_eq!(drain(&mut direction), []);
    assert_eq!(direction.counters().random_drops, 2);
}

#[test]
fn rates_are_positive_numbers() {
    for mbit in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        assert_eq!(Rate::from_mbit(mbit), None, "{mbit}");
    }
    assert_eq!(
        Rate::from_mbit(100.0).map(|rate| rate.bytes_in(50 * MILLISECOND)),
        Some(625_000)
    );
}
