//! Objects that have been here and are not needed any more.
//!
//! Whoever has pushed an object and got no answer pushes it again. By then its receiver may have
//! confirmed it. To say that nobody has announced it would end a stock app.

use std::collections::{HashMap, VecDeque};

use flwr_api::ObjectId;

/// How many are remembered: as many as go in minutes.
const OBJECTS_MAX: usize = 1 << 16;

/// The latest objects that went because they were confirmed.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Oldest first.
    order: VecDeque<(u64, ObjectId)>,
    numbers: HashMap<ObjectId, u64>,
    next: u64,
}

impl Gone {
    /// Remembers an object; returns the numbers of the rows that have changed by that.
    pub(super) fn add(&mut self, id: ObjectId) -> impl Iterator<Item = u64> {
        let number = self.next;
        self.restore(number, id);
        let too_old = (self.order.len() > OBJECTS_MAX).then(|| self.order.pop_front());
        let too_old = too_old.flatten().map(|(number, id)| {
            // It may have gone once more since.
            if self.numbers.get(&id) == Some(&number) {
                self.numbers.remove(&id);
            }
            number
        });
        [number].into_iter().chain(too_old)
    }

    pub(super) fn contains(&self, id: ObjectId) -> bool {
        self.numbers.contains_key(&id)
    }

    /// What the row with this number says now.
    pub(super) fn row(&self, number: u64) -> Option<ObjectId> {
        let (first, _) = self.order.front()?;
        let at = usize::try_from(number.checked_sub(*first)?).ok()?;
        self.order.get(at).map(|(_, id)| *id)
    }

    /// Takes a row. They come in the order of their numbers.
    pub(super) fn restore(&mut self, number: u64, id: ObjectId) {
        self.order.push_back((number, id));
        self.numbers.insert(id, number);
        self.next = number + 1;
    }
}
