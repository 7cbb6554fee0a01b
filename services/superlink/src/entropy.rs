//! Where ids and tokens come from.

use std::fmt;

use flwr_api::{NodeId, RunId, Token};

/// A source of unpredictable bytes.
pub trait Entropy: fmt::Debug + Send + Sync + 'static {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has a random source");
    }
}

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

/// An app's token.
pub(crate) fn token(entropy: &dyn Entropy) -> Token {
    let mut bytes = [0; 128];
    entropy.fill(&mut bytes);
    Token::from_random(&bytes)
}

fn number(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
