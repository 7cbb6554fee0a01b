//! Where ids come from.

use flwr_api::{NodeId, RunId};
use flwr_state::Entropy;

/// A node id: any but nobody's and the SuperLink's.
pub(crate) fn node_id(entropy: &dyn Entropy) -> NodeId {
    loop {
        let id = NodeId(number(entropy));
        if id != NodeId::NONE && id != NodeId::SUPERLINK {
            return id;
        }
    }
}

/// A run id. Never 0, which Flower's command line takes for a failure.
pub(crate) fn run_id(entropy: &dyn Entropy) -> RunId {
    RunId(series(entropy))
}

/// A run series: any number but 0.
pub(crate) fn series(entropy: &dyn Entropy) -> u64 {
    loop {
        let id = number(entropy);
        if id != 0 {
            return id;
        }
    }
}

fn number(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
