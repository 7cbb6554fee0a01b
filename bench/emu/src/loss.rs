//! Which packets are lost: independent losses, or bursts after Gilbert and Elliott.

use crate::random::Random;

/// How much is lost. A loss that no chain of good and bad states can produce cannot be built.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LossRate {
    probability: f64,
    /// Mean number of packets that are lost in a row; 1 stands for independent losses.
    burst_mean: f64,
}

impl LossRate {
    pub(crate) fn new(percent: f64, burst_mean: f64) -> Result<Self, InvalidLoss> {
        let probability = percent / 100.0;
        if !(0.0..=1.0).contains(&probability) {
            return Err(InvalidLoss::Percent(percent));
        }
        if !(1.0..=1e6).contains(&burst_mean) {
            return Err(InvalidLoss::Burst(burst_mean));
        }
        let rate = Self {
            probability,
            burst_mean,
        };
        if burst_mean > 1.0 && rate.enter() > 1.0 {
            return Err(InvalidLoss::TooShort {
                percent,
                burst_mean,
            });
        }
        Ok(rate)
    }

    /// The same bursts at another rate.
    pub(crate) fn with_percent(self, percent: f64) -> Result<Self, InvalidLoss> {
        Self::new(percent, self.burst_mean)
    }

    /// From the good state to the bad one, such that the share of bad packets is `probability`.
    fn enter(self) -> f64 {
        self.probability / (self.burst_mean * (1.0 - self.probability))
    }

    fn leave(self) -> f64 {
        1.0 / self.burst_mean
    }
}

/// The losses of one direction. Every packet in the bad state is lost, none in the good one.
#[derive(Debug)]
pub(crate) struct Loss {
    rate: LossRate,
    bad: bool,
    random: Random,
}

impl Loss {
    pub(crate) fn new(rate: LossRate, random: Random) -> Self {
        Self {
            rate,
            bad: false,
            random,
        }
    }

    /// From the next packet on. A burst that is under way ends, or a loss of zero would still take the rest of it.
    pub(crate) fn change(&mut self, rate: LossRate) {
        self.rate = rate;
        self.bad = false;
    }

    /// Whether the next packet is lost.
    pub(crate) fn next(&mut self) -> bool {
        self.bad = if self.rate.burst_mean <= 1.0 {
            self.random.chance(self.rate.probability)
        } else if self.bad {
            !self.random.chance(self.rate.leave())
        } else {
            self.random.chance(self.rate.enter())
        };
        self.bad
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum InvalidLoss {
    #[error("a loss of {0} percent: give 0 to 100")]
    Percent(f64),
    #[error("bursts of {0} packets: give 1 to 1000000")]
    Burst(f64),
    #[error("a loss of {percent} percent needs bursts of more than {burst_mean} packets")]
    TooShort { percent: f64, burst_mean: f64 },
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: usize = 1_000_000;

    fn losses(percent: f64, burst_mean: f64, seed: u64) -> Vec<bool> {
        let mut loss = Loss::new(
            LossRate::new(percent, burst_mean).unwrap(),
            Random::new(seed, 0),
        );
        (0..PACKETS).map(|_| loss.next()).collect()
    }

    fn percent_lost(losses: &[bool]) -> f64 {
        losses.iter().filter(|&&lost| lost).count() as f64 / losses.len() as f64 * 100.0
    }

    fn burst_mean(losses: &[bool]) -> f64 {
        let bursts = losses
            .split(|&lost| !lost)
            .filter(|burst| !burst.is_empty());
        let lengths: Vec<usize> = bursts.map(<[bool]>::len).collect();
        lengths.iter().sum::<usize>() as f64 / lengths.len() as f64
    }

    #[test]
    fn independent_losses_have_the_rate_that_was_asked_for() {
        for percent in [0.1, 0.5, 1.0, 2.0, 50.0] {
            let lost = percent_lost(&losses(percent, 1.0, 3));
            assert!(
                (lost / percent - 1.0).abs() < 0.1,
                "{lost} instead of {percent}"
            );
        }
        assert_eq!(percent_lost(&losses(0.0, 1.0, 3)), 0.0);
        assert_eq!(percent_lost(&losses(100.0, 1.0, 3)), 100.0);
    }

    #[test]
    fn bursts_have_the_rate_and_the_mean_length_that_were_asked_for() {
        for (percent, burst) in [(1.0, 5.0), (2.0, 3.0), (10.0, 20.0)] {
            let losses = losses(percent, burst, 4);
            let (lost, mean) = (percent_lost(&losses), burst_mean(&losses));
            assert!(
                (lost / percent - 1.0).abs() < 0.1,
                "{lost} instead of {percent}"
            );
            assert!(
                (mean / burst - 1.0).abs() < 0.1,
                "{mean} instead of {burst}"
            );
        }
        let independent = burst_mean(&losses(1.0, 1.0, 4));
        assert!((independent - 1.01).abs() < 0.02, "{independent}");
    }

    #[test]
    fn a_change_ends_a_burst() {
        let mut loss = Loss::new(LossRate::new(50.0, 1e6).unwrap(), Random::new(6, 0));
        assert!(
            (0..PACKETS * 100).any(|_| loss.next()),
            "no burst has begun"
        );
        loss.change(LossRate::new(0.0, 1e6).unwrap());
        assert!(!(0..100).any(|_| loss.next()));
    }

    #[test]
    fn the_seed_decides_which_packets_are_lost() {
        assert_eq!(losses(1.0, 1.0, 5), losses(1.0, 1.0, 5));
        assert_ne!(losses(1.0, 1.0, 5), losses(1.0, 1.0, 6));
        assert_eq!(losses(1.0, 5.0, 5), losses(1.0, 5.0, 5));
    }

    #[test]
    fn impossible_losses_are_refused() {
        assert_eq!(LossRate::new(-1.0, 1.0), Err(InvalidLoss::Percent(-1.0)));
        assert!(matches!(
            LossRate::new(f64::NAN, 1.0),
            Err(InvalidLoss::Percent(_))
        ));
        assert_eq!(LossRate::new(1.0, 0.5), Err(InvalidLoss::Burst(0.5)));
        let too_short = InvalidLoss::TooShort {
            percent: 90.0,
            burst_mean: 2.0,
        };
        assert_eq!(LossRate::new(90.0, 2.0), Err(too_short));
    }
}
