//! What is known of the objects without looking at the disk: which are here, which may go, and how
//! much room is spoken for. Plain data; whoever changes it moves the files to match.
//!
//! Room is taken by objects, by reservations of puts under way, and by files that are being
//! removed. Together these never exceed the quota.

use std::collections::{BTreeMap, HashMap, hash_map};

use flwr_api::ObjectId;

use super::Totals;
use super::check::Checksum;
use crate::error::Limit;

pub(super) struct Index {
    quota: u64,
    objects: HashMap<ObjectId, Entry>,
    /// How often each id is pinned, whether its object is here or not.
    pins: HashMap<ObjectId, usize>,
    /// The objects that are not pinned, by last use.
    idle: BTreeMap<Moment, ObjectId>,
    bytes: u64,
    idle_bytes: u64,
    reserved: u64,
    /// The part of `reserved` that the disk does not know of yet.
    unwritten: u64,
    leaving: u64,
    /// How many bytes may be reserved before the disk is asked again.
    disk_left: u64,
    now: Moment,
}

/// Counts uses, arrivals included.
pub(super) type Moment = u64;

struct Entry {
    len: u64,
    arrived: Moment,
    used: Moment,
    /// How often it was read, as far as this process knows.
    reads: u32,
    checksum: Option<Checksum>,
}

/// An object that was found.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub(super) len: u64,
    /// Tells this object from one that comes later under the same id.
    pub(super) arrived: Moment,
    /// What its bytes come to, if this process has seen them fit the id.
    pub(super) checksum: Option<Checksum>,
}

/// What to do for room.
pub(super) enum Room {
    /// Nothing: it is reserved.
    Reserved,
    /// Remove this object, then ask again.
    Remove(ObjectId),
    /// Nothing helps.
    None(Limit),
}

/// Which object to remove.
#[derive(Clone, Copy)]
pub(super) enum Which {
    /// The one that arrived then, even if it is pinned.
    Arrived(Moment),
    /// Whichever it is, unless it is pinned.
    Idle,
}

impl Index {
    pub(super) fn new(quota: u64) -> Self {
        Self {
            quota,
            objects: HashMap::new(),
            pins: HashMap::new(),
            idle: BTreeMap::new(),
            bytes: 0,
            idle_bytes: 0,
            reserved: 0,
            unwritten: 0,
            leaving: 0,
            disk_left: 0,
            now: 0,
        }
    }

    pub(super) fn len(&self, id: ObjectId) -> Option<u64> {
        self.objects.get(&id).map(|entry| entry.len)
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            objects: self.objects.len(),
            bytes: self.bytes,
            pinned_bytes: self.bytes - self.idle_bytes,
            reserved_bytes: self.reserved,
        }
    }

    /// The object that was not used for the longest time of those that may go.
    pub(super) fn oldest(&self) -> Option<ObjectId> {
        self.idle.first_key_value().map(|(_, id)| *id)
    }

    /// Counts a use of an object; nothing if it is not here.
    pub(super) fn touch(&mut self, id: ObjectId) -> Option<Found> {
        self.now += 1;
        let entry = self.objects.get_mut(&id)?;
        if self.idle.remove(&entry.used).is_some() {
            self.idle.insert(self.now, id);
        }
        entry.used = self.now;
        Some(Found {
            len: entry.len,
            arrived: entry.arrived,
            checksum: entry.checksum,
        })
    }

    /// Counts a use of an object that is to be read; nothing if it is not here.
    pub(super) fn read(&mut self, id: ObjectId) -> Option<Found> {
        let found = self.touch(id)?;
        if let Some(entry) = self.objects.get_mut(&id) {
            entry.reads = entry.reads.saturating_add(1);
        }
        Some(found)
    }

    /// Leaves those that are here, large, and were read once at most.
    pub(super) fn retain_large_and_new(&self, ids: &mut Vec<ObjectId>) {
        ids.retain(|id| {
            let entry = self.objects.get(id);
            entry.is_some_and(|entry| entry.len >= LARGE_BYTES && entry.reads <= 1)
        });
    }

    /// Notes what the bytes of an object come to that fit its id.
    pub(super) fn vouch(&mut self, id: ObjectId, arrived: Moment, checksum: Checksum) {
        if let Some(entry) = self.objects.get_mut(&id)
            && entry.arrived == arrived
        {
            entry.checksum = Some(checksum);
        }
    }

    /// Adds an object that has arrived; false if it is here already.
    pub(super) fn insert(&mut self, id: ObjectId, len: u64, checksum: Option<Checksum>) -> bool {
        self.now += 1;
        let hash_map::Entry::Vacant(place) = self.objects.entry(id) else {
            return false;
        };
        place.insert(Entry {
            len,
            arrived: self.now,
            used: self.now,
            reads: 0,
            checksum,
        });
        self.bytes += len;
        if !self.pins.contains_key(&id) {
            self.idle.insert(self.now, id);
            self.idle_bytes += len;
        }
        true
    }

    pub(super) fn pin(&mut self, id: ObjectId) {
        let pins = self.pins.entry(id).or_default();
        *pins += 1;
        if *pins == 1
            && let Some(entry) = self.objects.get(&id)
        {
            self.idle.remove(&entry.used);
            self.idle_bytes -= entry.len;
        }
    }

    pub(super) fn unpin(&mut self, id: ObjectId) {
        let hash_map::Entry::Occupied(mut pins) = self.pins.entry(id) else {
            return;
        };
        *pins.get_mut() -= 1;
        if *pins.get() > 0 {
            return;
        }
        pins.remove();
        self.now += 1;
        if let Some(entry) = self.objects.get_mut(&id) {
            entry.used = self.now;
            self.idle.insert(self.now, id);
            self.idle_bytes += entry.len;
        }
    }

    /// Takes an object out, whose file is to be removed then. Its room stays taken until
    /// [`Index::left`], or it comes [`Index::back`].
    pub(super) fn take(&mut self, id: ObjectId, which: Which) -> Option<u64> {
        let entry = self.objects.get(&id)?;
        let is_pinned = self.pins.contains_key(&id);
        match which {
            Which::Arrived(then) if then != entry.arrived => return None,
            Which::Idle if is_pinned => return None,
            Which::Arrived(_) | Which::Idle => {}
        }
        let entry = self.objects.remove(&id)?;
        if !is_pinned {
            self.idle.remove(&entry.used);
            self.idle_bytes -= entry.len;
        }
        self.bytes -= entry.len;
        self.leaving += entry.len;
        Some(entry.len)
    }

    /// A file is gone.
    pub(super) fn left(&mut self, len: u64) {
        self.leaving -= len;
    }

    /// A file could not be removed.
    pub(super) fn back(&mut self, id: ObjectId, len: u64) {
        self.leaving -= len;
        self.insert(id, len, None);
    }

    /// Reserves bytes if there is room for them.
    pub(super) fn reserve(&mut self, bytes: u64) -> bool {
        let fits = self.wanting(bytes) == 0 && bytes <= self.disk_left;
        if fits {
            self.reserved += bytes;
            self.unwritten += bytes;
            self.disk_left -= bytes;
        }
        fits
    }

    /// Reserves bytes or says which object to remove for that: none unless it helps.
    pub(super) fn make_room(&mut self, bytes: u64) -> Room {
        if self.reserve(bytes) {
            return Room::Reserved;
        }
        if self.wanting(bytes) > self.idle_bytes {
            return Room::None(Limit::Quota {
                wanted: bytes,
                held: self.taken() - self.idle_bytes,
                quota: self.quota,
            });
        }
        match self.oldest() {
            Some(oldest) if bytes.saturating_sub(self.disk_left) <= self.idle_bytes => {
                Room::Remove(oldest)
            }
            _ => Room::None(Limit::FreeSpace {
                wanted: bytes,
                free: self.disk_left,
            }),
        }
    }

    /// Learns how many bytes the disk has left for objects.
    pub(super) fn measured(&mut self, free: u64) {
        self.disk_left = free.saturating_sub(self.unwritten);
    }

    /// Counts the room of a removed file, which the disk may show a moment later.
    pub(super) fn credit(&mut self, len: u64) {
        self.disk_left += len;
    }

    /// Asks the disk again after this many more bytes at the latest.
    pub(super) fn measure_after(&mut self, bytes: u64) {
        self.disk_left = self.disk_left.min(bytes);
    }

    /// A part of what was reserved is on the disk.
    pub(super) fn written(&mut self, bytes: u64) {
        self.unwritten -= bytes;
    }

    /// Ends a reservation.
    pub(super) fn release(&mut self, bytes: u64, unwritten: u64) {
        self.reserved -= bytes;
        self.unwritten -= unwritten;
    }

    fn taken(&self) -> u64 {
        self.bytes + self.reserved + self.leaving
    }

    /// By how much the quota would be exceeded.
    fn wanting(&self, bytes: u64) -> u64 {
        let taken = self.taken().saturating_add(bytes);
        taken.saturating_sub(self.quota)
    }
}

/// The smallest object whose pages are worth a thought.
const LARGE_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_objects_that_are_not_read_again_are_new() {
        let mut index = Index::new(1 << 30);
        let [large, small, absent] = ["a", "b", "c"].map(|name| ObjectId::of(name.as_bytes()));
        index.insert(large, LARGE_BYTES, None);
        index.insert(small, LARGE_BYTES - 1, None);
        for expected in [vec![large], vec![large], vec![]] {
            let mut ids = vec![small, absent, large];
            index.retain_large_and_new(&mut ids);
            assert_eq!(ids, expected);
            index.read(large).unwrap();
        }
    }
}
