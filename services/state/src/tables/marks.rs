//! Which rows have changed, for whoever keeps a copy of the tables.

use std::collections::HashSet;
use std::hash::Hash;

/// The keys of the rows of one table that have changed. What the row is by then is looked up when
/// the marks are taken, so a row that changes twice in a step is copied once.
#[derive(Debug)]
pub(super) struct Marks<K> {
    /// Whether anybody keeps a copy.
    is_on: bool,
    now: Vec<K>,
    later: HashSet<K>,
}

impl<K: Clone + Eq + Hash> Marks<K> {
    pub(super) fn turn_on(&mut self) {
        self.is_on = true;
    }

    /// The row has to be copied before anybody hears of this step.
    pub(super) fn mark(&mut self, key: K) {
        if self.is_on {
            self.now.push(key);
        }
    }

    /// The row has to be copied at the next opportunity: being behind does no harm.
    pub(super) fn mark_later(&mut self, key: K) {
        if self.is_on {
            self.later.insert(key);
        }
    }

    /// The keys that were marked, each once.
    pub(super) fn take(&mut self) -> Vec<K> {
        let mut keys = std::mem::take(&mut self.now);
        if keys.len() > 1 {
            let mut seen = HashSet::with_capacity(keys.len());
            keys.retain(|key| seen.insert(key.clone()));
        }
        for key in &keys {
            self.later.remove(key);
        }
        keys
    }

    /// Makes what could wait a part of this step.
    pub(super) fn hurry(&mut self) {
        self.now.extend(self.later.drain());
    }
}

// Keys need no defaults.
impl<K> Default for Marks<K> {
    fn default() -> Self {
        Self {
            is_on: false,
            now: Vec::new(),
            later: HashSet::new(),
        }
    }
}
