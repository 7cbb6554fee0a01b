//! The controller inside real quinn-proto connections, on a simulated clock and path.

mod bbr1;
mod changes;
mod fairness;
mod host;
mod interrupted;
mod link;
mod links;
mod lulls;
mod sim;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use quinn_proto::congestion::ControllerFactory;

use super::{LossTolerant, LossTolerantConfig};
use link::Path;
use sim::Sim;

type Factory = Arc<dyn ControllerFactory + Send + Sync>;

fn ours() -> Factory {
    Arc::new(LossTolerantConfig::default())
}

/// The origin of simulated time, the same at every call.
pub(super) fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "simulated time starts here; no clock is read after it"
    )]
    *ORIGIN.get_or_init(Instant::now)
}

/// What the controller of a flow of ours believes.
fn state(sim: &Sim, flow: usize) -> LossTolerant {
    let state = sim.flows[flow]
        .sender
        .connection()
        .congestion_state()
        .clone_box()
        .into_any();
    *state.downcast::<LossTolerant>().expect("ours")
}

/// What a transfer of a single flow came to.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    /// Of the application, from its first byte to its last, over what the link carries.
    goodput: f64,
    /// The 99th percentile of the queue after start-up, in bandwidth-delay products.
    queue_p99: f64,
    /// Bytes sent over bytes the application got, headers and repeats included.
    overhead: f64,
}

fn transfer(path: Path, seed: u64, mb: u64) -> Transfer {
    transfer_by(path, seed, mb, ours())
}

fn transfer_by(path: Path, seed: u64, mb: u64, factory: Factory) -> Transfer {
    let mut sim = Sim::new(path, seed);
    let flow = sim.flow(factory);
    sim.watch(path.rtt * 14);
    let bytes = mb * 1_000_000;
    sim.write(flow, bytes, Duration::ZERO);
    let took = sim.run_until_received(flow, bytes, Duration::from_secs(300)) - path.rtt; // the handshake
    Transfer {
        goodput: bytes as f64 / took.as_secs_f64() / path.bytes_per_second(),
        queue_p99: sim.backlog_p99() / path.bdp_bytes(),
        overhead: sim.flows[flow].sent_bytes as f64 / bytes as f64,
    }
}

/// A flow that always has something to send, one second or so after its start-up.
fn steady(path: Path, seed: u64) -> Sim {
    let mut sim = Sim::new(path, seed);
    let flow = sim.flow(ours());
    sim.write(flow, ENDLESS, Duration::ZERO);
    sim.run_for(path.rtt * 20);
    sim
}

const ENDLESS: u64 = 1 << 40;
