//! Congestion control for long and lossy paths: [`LossTolerant`], a relative of BBR made for quinn.
//!
//! Model: the path delivers `rate`, the largest delivery rate of ten rounds, and takes `min_rtt`,
//! the smallest round trip of ten seconds. Their product, the BDP, is what must be in flight. A
//! rate below 0.6 of the model for three rounds is the new model: the path got slower.
//!
//! Steering: quinn ignores a controller's pacing rate and sends 1.25 windows a smoothed round trip,
//! so the window alone sets rate and queue: in flight beyond the BDP is a standing queue. Hence
//! small gains; what BBR does with a gain of 2 costs a full queue here. Phases, in BDPs:
//!
//! - start-up, 3.0: grows threefold each round. What it may have in flight goes out in half a round
//!   trip, so one without a queue means that the path carries twice as much, and growing threefold is
//!   what doubling is to others. Doubles, 2.0, once a round trip shows 1.1 `min_rtt`, holds at 1.25,
//!   ends at 1.4, after three rounds without growth, or on heavy loss. Then drain, 1.0, until the
//!   queue is gone.
//! - probe, 1.5, one round: finds what the path has more. It is also how flows become fair: the
//!   smaller one gains the larger share. Under a loss ceiling it goes on for up to four rounds.
//! - settle, 0.95, two rounds: empties the queue, and so confirms `min_rtt` without a special phase.
//! - cruise, 1.2, five to eight rounds: enough to hide late acknowledgements and random loss, and to
//!   grow by a fifth each round where the path has room. The length differs from turn to turn, so
//!   that flows do not probe in step.
//! - refresh, 0.5, 200 ms: only if nothing came near `min_rtt` for ten seconds. Flows that share a
//!   queue saw its last low together, and so refresh together.
//!
//! On top of each gain comes room for quinn's batches and for lumps of acknowledgements.
//!
//! Contest: some keep the queue full, cubic until it drops something, BBR whatever is dropped, and would take everything
//! from a flow that does not. If the queue was never empty in a turn, and the rate fell meanwhile or much was lost of a
//! window that fills no queue, then what remained of the queue is somebody else's. It counts as a part of the path to the
//! extent that this goes on: the BDP is taken with a round trip between `min_rtt` and the turn's shortest.
//!
//! Longer paths: three slow rounds may also mean that the path got longer. If the queue is not seen empty within a second
//! although no more is in flight than a slower path carries, `min_rtt` is refreshed.
//!
//! Loss: up to 5 % of a round is noise. More, with a queue or twice in a row, lowers a ceiling to 0.8
//! of the window but never below the BDP, or in a contest what cruise needs; probes lift it by 15 % a
//! round. If cuts change nothing though no more than the BDP is in flight, the loss is not ours, and
//! that much of it is tolerated. Persistent congestion starts over.
//!
//! Busy machines: round trips include waiting for the processor, and the pacer forgets what it could
//! not send in time. While the window is not within reach, quinn is told a larger one: 1.25 windows
//! a *bare* round trip, and bursts of what is late. What is in flight stays within the true window.
//!
//! Silence: what is in flight when a path is interrupted fills the window, and only an acknowledgement of something later
//! says that it is lost. Whoever watches the connection may therefore let out one packet at a time (`outlet.rs`).
//!
//! Left out: ECN (quinn reports it without the share of marks), and coupling between connections.

mod aggregation;
mod config;
mod controller;
mod cycle;
mod delivery;
mod filter;
mod loss;
mod outlet;
mod pace;
#[cfg(test)]
mod tests;

pub use config::LossTolerantConfig;
pub use controller::LossTolerant;
pub(crate) use outlet::Outlet;
