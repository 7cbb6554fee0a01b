//! Flags of QUIC, which all daemons have.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use flwr_transport_quic::tuning;

use super::{OURS, size};
use crate::memory::Memory;

/// How QUIC sends, as given.
#[derive(Args, Clone, Debug)]
pub(crate) struct QuicOptions {
    /// What decides how fast QUIC sends: `bbr`, our own, which keeps its pace when packets are lost by chance; or
    /// `cubic`, which slows down at every loss
    #[arg(long, value_enum, default_value_t = Congestion::Bbr, help_heading = OURS, hide_possible_values = true,
          env = "FLWR_QUIC_CONGESTION")]
    congestion: Congestion,

    /// Write a trace of every QUIC connection to this folder, in the format qlog; it grows quickly and slows QUIC down
    #[arg(long, value_name = "DIR", help_heading = OURS, env = "FLWR_QUIC_QLOG_DIR")]
    qlog_dir: Option<PathBuf>,
}

/// How QUIC sends and is served, as given.
#[derive(Args, Clone, Debug)]
pub(crate) struct QuicServerOptions {
    #[command(flatten)]
    pub(crate) link: QuicOptions,

    /// How much all QUIC connections of one address together may hold that is not read or acknowledged yet: a number of
    /// bytes, or one with K, M, G or T. With many at work each gets less [default: an eighth of --memory-budget, and no
    /// more than 1G]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = OURS, env = "FLWR_QUIC_MEMORY")]
    quic_memory: Option<u64>,
}

/// A congestion controller.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Congestion {
    /// Ours.
    Bbr,
    /// RFC 9438.
    Cubic,
}

impl QuicServerOptions {
    /// How much all connections of one address may hold, in bytes.
    pub(crate) fn memory_max(&self, memory: Memory) -> u64 {
        self.quic_memory.unwrap_or_else(|| memory.of_quic())
    }
}

impl QuicOptions {
    /// `usual` with what was asked for.
    pub(crate) fn tuning(&self, usual: tuning::Tuning) -> tuning::Tuning {
        tuning::Tuning {
            congestion: match self.congestion {
                Congestion::Bbr => tuning::Congestion::Bbr,
                Congestion::Cubic => tuning::Congestion::Cubic,
            },
            qlog_dir: self.qlog_dir.clone(),
            ..usual
        }
    }
}
