//! Whether an object that leaves is the one that arrived.
//!
//! An id is a SHA-256, which costs as much as everything else that is done with a large object. It is what an object is
//! judged by when it arrives and when this process reads it for the first time. From then on damage, which is all that
//! can have happened inside the folder, shows in a checksum of the same bytes that costs a tenth.

use std::hash::Hasher as _;

use aws_lc_rs::digest::{Context, SHA256};
use flwr_api::ObjectId;
use twox_hash::XxHash3_64;

/// What the bytes of an object come to, once they are known to fit its id: 64 bits of XXH3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checksum(u64);

/// Takes the bytes of an object in their order.
pub(super) struct Check {
    sum: XxHash3_64,
    expected: Expected,
}

enum Expected {
    Id(ObjectId, Context),
    Checksum(Checksum),
}

impl Check {
    /// Of bytes that nobody has vouched for.
    pub(super) fn id(id: ObjectId) -> Self {
        Self::new(Expected::Id(id, Context::new(&SHA256)))
    }

    /// Of bytes that were right once.
    pub(super) fn checksum(checksum: Checksum) -> Self {
        Self::new(Expected::Checksum(checksum))
    }

    fn new(expected: Expected) -> Self {
        Self {
            sum: XxHash3_64::new(),
            expected,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sum.write(bytes);
        if let Expected::Id(_, digest) = &mut self.expected {
            digest.update(bytes);
        }
    }

    /// The checksum of all the bytes, if they are what they should be.
    pub(super) fn finish(&self) -> Option<Checksum> {
        let sum = Checksum(self.sum.finish());
        let fits = match &self.expected {
            Expected::Id(id, digest) => digest.clone().finish().as_ref() == id.0,
            Expected::Checksum(expected) => *expected == sum,
        };
        fits.then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_judged_by_the_id_and_by_the_checksum_that_it_vouches_for() {
        let mut first = Check::id(ObjectId::of(b"one object"));
        first.update(b"one ");
        first.update(b"object");
        let checksum = first.finish().unwrap();

        for (bytes, expected) in [(&b"one object"[..], true), (b"one abject", false)] {
            let mut by_id = Check::id(ObjectId::of(b"one object"));
            by_id.update(bytes);
            assert_eq!(by_id.finish().is_some(), expected);
            let mut by_checksum = Check::checksum(checksum);
            by_checksum.update(bytes);
            assert_eq!(by_checksum.finish().is_some(), expected);
        }
    }
}
