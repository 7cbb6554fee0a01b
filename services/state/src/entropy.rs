//! Where random bytes come from.

use std::fmt;

use flwr_api::Token;

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

/// An app's token: 128 random bytes as text.
pub fn token(entropy: &dyn Entropy) -> Token {
    let mut bytes = [0; 128];
    entropy.fill(&mut bytes);
    Token::from_random(&bytes)
}

/// A random number from 0 up to 1.
pub fn fraction(entropy: &dyn Entropy) -> f64 {
    let mut bytes = [0; 4];
    entropy.fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
