//! Named links: what `profiles.toml` and the flags say, and the parameters of a direction that follow from it.

use std::collections::BTreeMap;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::direction::{Parameters, Rate, whole};
use crate::loss::{InvalidLoss, LossRate};

/// A link as it is asked for; `profiles.toml` explains the fields.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    rtt_ms: f64,
    rate_mbit: f64,
    #[serde(default)]
    loss_percent: f64,
    #[serde(default = "independent")]
    burst: f64,
    #[serde(default)]
    jitter_ms: f64,
    queue_bdp: Option<f64>,
    #[serde(default)]
    coalesce_us: f64,
}

impl Profile {
    pub(crate) fn with(self, overrides: &Overrides) -> Self {
        Self {
            rtt_ms: overrides.rtt_ms.unwrap_or(self.rtt_ms),
            rate_mbit: overrides.rate_mbit.unwrap_or(self.rate_mbit),
            loss_percent: overrides.loss_percent.unwrap_or(self.loss_percent),
            burst: overrides.burst.unwrap_or(self.burst),
            jitter_ms: overrides.jitter_ms.unwrap_or(self.jitter_ms),
            queue_bdp: overrides.queue_bdp.or(self.queue_bdp),
            coalesce_us: overrides.coalesce_us.unwrap_or(self.coalesce_us),
        }
    }

    /// Both directions are alike.
    pub(crate) fn parameters(&self) -> Result<Parameters, Error> {
        let rate =
            Rate::from_mbit(self.rate_mbit).ok_or(Error::Field("rate_mbit", self.rate_mbit))?;
        let rtt_ns = nanoseconds("rtt_ms", self.rtt_ms)?;
        Ok(Parameters {
            rate,
            delay_ns: rtt_ns / 2,
            jitter_ns: nanoseconds("jitter_ms", self.jitter_ms)?,
            loss: LossRate::new(self.loss_percent, self.burst)?,
            queue_bytes_max: self.queue_bytes_max(rate.bytes_in(rtt_ns))?,
        })
    }

    /// The least time between two batches of packets.
    pub(crate) fn coalesce_ns(&self) -> Result<u64, Error> {
        nanoseconds("coalesce_us", self.coalesce_us / 1e3)
            .map_err(|_| Error::Field("coalesce_us", self.coalesce_us))
    }

    fn queue_bytes_max(&self, bdp_bytes: u64) -> Result<usize, Error> {
        let Some(queue_bdp) = self.queue_bdp else {
            return Ok(usize::try_from(bdp_bytes)
                .unwrap_or(usize::MAX)
                .max(QUEUE_BYTES_LEAST));
        };
        let bytes =
            whole(queue_bdp * bdp_bytes as f64).and_then(|bytes| usize::try_from(bytes).ok());
        bytes
            .filter(|&bytes| bytes >= usize::from(crate::MTU))
            .ok_or(Error::Field("queue_bdp", queue_bdp))
    }
}

/// Fields that are not those of the profile.
#[derive(Debug, Default, Args)]
pub(crate) struct Overrides {
    /// Round trip in milliseconds, without queue and serialisation
    #[arg(long, value_name = "MS")]
    rtt_ms: Option<f64>,
    /// Megabits a second in each direction
    #[arg(long, value_name = "MBIT")]
    rate_mbit: Option<f64>,
    /// Loss in each direction
    #[arg(long, value_name = "PERCENT")]
    loss_percent: Option<f64>,
    /// Mean number of packets lost in a row
    #[arg(long, value_name = "PACKETS")]
    burst: Option<f64>,
    /// Added to the delay in each direction, uniform from 0 to this
    #[arg(long, value_name = "MS")]
    jitter_ms: Option<f64>,
    /// Queue in products of rate and round trip
    #[arg(long, value_name = "BDP")]
    queue_bdp: Option<f64>,
    /// Carry packets in batches, at least this long apart: less CPU, less exact delays
    #[arg(long, value_name = "US")]
    coalesce_us: Option<f64>,
}

/// All profiles of a file by name.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Profile>, Error> {
    Ok(toml::from_str(text)?)
}

/// One profile of a file.
pub(crate) fn named(text: &str, name: &str) -> Result<Profile, Error> {
    let mut profiles = parse(text)?;
    profiles.remove(name).ok_or_else(|| Error::Unknown {
        name: name.to_owned(),
        known: profiles.into_keys().collect::<Vec<_>>().join(", "),
    })
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read the profiles: {0}")]
    Syntax(#[from] toml::de::Error),
    #[error("no profile {name:?}: there are {known}")]
    Unknown { name: String, known: String },
    #[error("{0} cannot be {1}")]
    Field(&'static str, f64),
    #[error(transparent)]
    Loss(#[from] InvalidLoss),
}

fn nanoseconds(field: &'static str, milliseconds: f64) -> Result<u64, Error> {
    whole(milliseconds * 1e6)
        .filter(|&ns| ns <= DELAY_NS_MOST)
        .ok_or(Error::Field(field, milliseconds))
}

fn independent() -> f64 {
    1.0
}

/// What is built in.
pub(crate) const PROFILES: &str = include_str!("../profiles.toml");
const QUEUE_BYTES_LEAST: usize = 128 << 10;
const DELAY_NS_MOST: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(name: &str, overrides: &Overrides) -> Result<Parameters, Error> {
        named(PROFILES, name)?.with(overrides).parameters()
    }

    #[test]
    fn every_profile_has_parameters() {
        let profiles = parse(PROFILES).unwrap();
        assert_eq!(profiles.len(), 8);
        for (name, profile) in profiles {
            profile
                .parameters()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }

    #[test]
    fn the_round_trip_is_split_over_both_directions() {
        let found = parameters("wan-50-0.5", &Overrides::default()).unwrap();
        assert_eq!(found.delay_ns, 25_000_000);
        assert_eq!(found.queue_bytes_max, 625_000);
        assert_eq!(found.loss, LossRate::new(0.5, 1.0).unwrap());
    }

    #[test]
    fn a_queue_is_one_bdp_and_at_least_128_kib_unless_it_is_asked_for() {
        let queue = |name| {
            parameters(name, &Overrides::default())
                .unwrap()
                .queue_bytes_max
        };
        assert_eq!(queue("lan"), 128 << 10);
        assert_eq!(queue("wan-20"), 500_000);
        assert_eq!(queue("wan-50-0.5-shallow"), 156_250);
        let tiny = Overrides {
            queue_bdp: Some(0.001),
            ..Overrides::default()
        };
        assert!(matches!(
            parameters("wan-20", &tiny),
            Err(Error::Field("queue_bdp", _))
        ));
    }

    #[test]
    fn flags_override_single_fields() {
        let overrides = Overrides {
            rate_mbit: Some(10.0),
            jitter_ms: Some(2.0),
            ..Overrides::default()
        };
        let found = parameters("wan-100-1", &overrides).unwrap();
        assert_eq!(found.rate, Rate::from_mbit(10.0).unwrap());
        assert_eq!((found.delay_ns, found.jitter_ns), (50_000_000, 2_000_000));
        assert_eq!(found.loss, LossRate::new(1.0, 1.0).unwrap());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert!(matches!(
            named(PROFILES, "moon"),
            Err(Error::Unknown { .. })
        ));
        assert!(matches!(
            parse("[a]\nrtt_ms = 1\nrate_mbit = 1\nrate = 2"),
            Err(Error::Syntax(_))
        ));
        for overrides in [
            Overrides {
                rtt_ms: Some(-1.0),
                ..Overrides::default()
            },
            Overrides {
                rate_mbit: Some(0.0),
                ..Overrides::default()
            },
            Overrides {
                jitter_ms: Some(f64::NAN),
                ..Overrides::default()
            },
            Overrides {
                loss_percent: Some(101.0),
                ..Overrides::default()
            },
        ] {
            assert!(parameters("wan-20", &overrides).is_err(), "{overrides:?}");
        }
    }
}
