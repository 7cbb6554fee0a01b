//! What to make of losses: noise up to a share of a round, a full queue or a policer beyond it.

/// Counts a round's losses and holds the ceiling that they taught.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    round_lost: u64,
    round_acked: u64,
    lossy_rounds: u32,
    /// The round after a cut still shows the losses from before it.
    after_cut: bool,
    /// The share that was lost when the ceiling was last lowered, and how often lowering it changed nothing.
    cut_share: f64,
    futile: u32,
    /// A share of losses that does not come from what this connection sends.
    foreign: f64,
    /// In flight above this, the path dropped too much.
    ceiling: Option<f64>,
}

impl Losses {
    pub(super) fn ceiling(&self) -> f64 {
        self.ceiling.unwrap_or(f64::INFINITY)
    }

    pub(super) fn on_lost(&mut self, bytes: u64) {
        self.round_lost += bytes;
    }

    pub(super) fn on_acked(&mut self, bytes: u64) {
        self.round_acked += bytes;
    }

    /// Ends a round: whether it lost more than `tolerated`. A single such round without a queue may be bad luck.
    /// A `lean` window has nothing left to cut.
    pub(super) fn end_round(&mut self, tolerated: f64, mtu: u64, queued: bool, lean: bool) -> bool {
        let share = self.round_lost as f64 / (self.round_lost + self.round_acked).max(1) as f64;
        let lossy = share > tolerated.max(FOREIGN_MARGIN * self.foreign)
            && self.round_lost > LOSSES_MIN * mtu;
        self.foreign = (0.95 * self.foreign + 0.05 * share).min(self.foreign);
        self.lossy_rounds = if lossy { self.lossy_rounds + 1 } else { 0 };
        self.round_lost = 0;
        self.round_acked = 0;
        let counts = lossy && (queued || self.lossy_rounds > 1) && !self.after_cut;
        self.after_cut = counts;
        if counts && lean {
            self.notice_futile(share);
        } else if !lossy {
            self.futile = 0;
        }
        counts
    }

    /// Cuts that change nothing are not for this connection to make.
    fn notice_futile(&mut self, share: f64) {
        self.futile = if share > FUTILE * self.cut_share {
            self.futile + 1
        } else {
            0
        };
        if self.futile > FUTILE_CUTS {
            self.foreign = share.min(FOREIGN_MAX);
            self.futile = 0;
        }
        self.cut_share = share;
    }

    /// Lowers the ceiling below `window`, but not below `floor`.
    pub(super) fn cut(&mut self, window: f64, floor: f64) {
        self.ceiling = Some((window * CUT).max(floor));
    }

    /// A probe went well with `window` in flight: allow more, and forget the ceiling once it is above `enough`. Whether
    /// there still is one.
    pub(super) fn raise(&mut self, window: f64, enough: f64) -> bool {
        self.ceiling = self
            .ceiling
            .map(|ceiling| ceiling.max(window * RAISE))
            .filter(|ceiling| *ceiling < enough);
        self.ceiling.is_some()
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Fewer lost packets than this in a round say nothing.
const LOSSES_MIN: u64 = 6;
const CUT: f64 = 0.8;
const RAISE: f64 = 1.15;
const FUTILE: f64 = 0.7;
const FUTILE_CUTS: u32 = 2;
const FOREIGN_MARGIN: f64 = 1.5;
const FOREIGN_MAX: f64 = 0.3;

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of 100 packets of which `lost` are.
    fn round(losses: &mut Losses, lost: u64, queued: bool) -> bool {
        losses.on_lost(lost * 1200);
        losses.on_acked((100 - lost) * 1200);
        losses.end_round(0.05, 1200, queued, true)
    }

    #[test]
    fn random_loss_is_noise() {
        let mut losses = Losses::default();
        assert!(!(0..50).any(|_| round(&mut losses, 3, true)));
    }

    #[test]
    fn a_full_queue_counts_at_once_and_a_bad_round_does_not() {
        assert!(round(&mut Losses::default(), 20, true));
        let mut losses = Losses::default();
        assert!(!round(&mut losses, 20, false));
        assert!(!round(&mut losses, 0, false));
        assert!(!round(&mut losses, 20, false));
        assert!(round(&mut losses, 20, false));
    }

    #[test]
    fn the_round_after_a_cut_is_not_held_against_it() {
        let mut losses = Losses::default();
        assert!(round(&mut losses, 20, true));
        assert!(!round(&mut losses, 20, true));
        assert!(round(&mut losses, 20, true));
    }

    #[test]
    fn loss_that_no_cut_changes_is_somebody_elses() {
        let mut losses = Losses::default();
        let cuts = (0..100).filter(|_| round(&mut losses, 15, true)).count();
        assert!(cuts <= 10, "{cuts}");
    }

    #[test]
    fn the_ceiling_rises_by_probing_and_goes() {
        let mut losses = Losses::default();
        losses.cut(100.0, 90.0);
        assert_eq!(losses.ceiling(), 90.0);
        assert!(losses.raise(90.0, 150.0));
        assert!(losses.ceiling() > 100.0);
        assert!(!losses.raise(140.0, 150.0));
        assert_eq!(losses.ceiling(), f64::INFINITY);
    }
}
