//! Parsed keys by the PEM text they came in, so that a node's key is parsed once and not on every call.
//!
//! Bounded by two generations: when the young one is full it becomes the old one, and what was in the old one is
//! forgotten. A key that is used keeps moving into the young one, so eviction costs nothing per call.

use std::{
    collections::HashMap,
    fmt, mem,
    sync::{PoisonError, RwLock},
};

use crate::node_key::NodePublicKey;

/// Keys that have signed a request before. Shared by all connections.
pub struct KeyCache {
    generations: RwLock<Generations>,
    generation_max: usize,
}

type Generation = HashMap<Box<[u8]>, NodePublicKey>;

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

impl KeyCache {
    /// A cache of at most `keys_max` keys; fewer than two are taken as two. An entry takes about 2 KiB.
    #[must_use]
    pub fn new(keys_max: usize) -> Self {
        Self {
            generations: RwLock::default(),
            generation_max: (keys_max / 2).max(1),
        }
    }

    /// The key of this PEM text, if it was remembered.
    #[must_use]
    pub fn lookup(&self, pem: &[u8]) -> Option<NodePublicKey> {
        let key = {
            let generations = self
                .generations
                .read()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(key) = generations.young.get(pem) {
                return Some(key.clone());
            }
            generations.old.get(pem)?.clone()
        };
        self.remember(pem, &key);
        Some(key)
    }

    /// Keeps a key under the PEM text it came in.
    pub fn remember(&self, pem: &[u8], key: &NodePublicKey) {
        let mut generations = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if generations.young.len() >= self.generation_max && !generations.young.contains_key(pem) {
            generations.old = mem::take(&mut generations.young);
        }
        generations.young.insert(pem.into(), key.clone());
        generations.old.remove(pem);
    }

    /// How many keys are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        let generations = self
            .generations
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        generations.young.len() + generations.old.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        Self::new(KEYS_MAX)
    }
}

impl fmt::Debug for KeyCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyCache")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// More nodes than one SuperLink serves; at about 2 KiB each the cache stays below 130 MiB.
const KEYS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeKeyPair;

    #[test]
    fn bounded_and_keeps_what_is_used() {
        let key = NodeKeyPair::generate().unwrap().public().clone();
        let cache = KeyCache::new(8);
        cache.remember(b"used", &key);
        for index in 0..100_u32 {
            cache.remember(&index.to_be_bytes(), &key);
            assert!(cache.lookup(b"used").is_some(), "lost after {index}");
            assert!(cache.len() <= 8, "{} keys", cache.len());
        }
        assert!(cache.lookup(&0_u32.to_be_bytes()).is_none());
        assert!(cache.lookup(&99_u32.to_be_bytes()).is_some());
    }
}
