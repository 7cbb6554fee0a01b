//! The battery every transport must pass.
//!
//! A transport's tests implement [`Harness`] and expand [`conformance!`](crate::conformance!),
//! which makes one test of every rule here. Rules are functions over a harness, grouped by what
//! they are about: [`calls`], [`bodies`], [`broken_bodies`], [`events`], [`drain`] and
//! [`connections`]. They speak a protocol of their own ([`Toy`]) with a service in the same
//! process, so they see both ends.
//!
//! Rules run in real time, as sockets do. They wait for what must happen and give up after a time
//! that only a broken transport needs; nothing is proved by sleeping.

pub mod bodies;
pub mod broken_bodies;
pub mod calls;
pub mod connections;
pub mod drain;
pub mod events;
mod fixture;
mod pattern;
mod toy;

use std::future::Future;
use std::time::Duration;

use crate::peer::Identity;
use crate::serve::{Acceptor, Connector};
use fixture::Fixture;

pub use pattern::{Counter, Flow, Plan};
pub use toy::{Answer, Ask, Feed, Service, Then, Tick, Toy};

/// A transport under test: makes pairs of ends, each of which reaches only the other.
pub trait Harness: Send + Sync + 'static {
    /// The connecting end.
    type Connector: Connector<Toy>;
    /// The accepting end.
    type Acceptor: Acceptor<Toy>;

    /// The label the transport gives its peers.
    const TRANSPORT: &'static str;

    /// Makes a pair on the loopback. The acceptor listens already, but does not serve.
    fn pair(&self, setup: Setup) -> impl Future<Output = (Self::Connector, Self::Acceptor)> + Send;

    /// Every kind of identity the transport can prove, for the connecting end.
    fn identities(&self) -> Vec<Identity> {
        vec![Identity::Anonymous]
    }

    /// How many bytes of a body travel before the reader has to make room.
    fn window_bytes(&self) -> u64;

    /// How many bytes of a body or of events the transport may hold for a reader that does not
    /// read, counting the buffers of both ends and the system's.
    fn held_bytes_max(&self) -> u64 {
        8 << 20
    }
}

/// What a rule needs of a pair.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What the connecting end proves to be; one of [`Harness::identities`].
    pub identity: Identity,
    /// How long a drain waits for calls under way.
    pub grace: Duration,
}

/// Runs one rule, which fails if it takes longer than any working transport needs.
///
/// # Panics
/// If the rule is broken.
pub async fn run(rule: impl Future<Output = ()>) {
    tokio::time::timeout(RULE_TIME_MAX, rule)
        .await
        .expect("the rule ends in time");
}

const RULE_TIME_MAX: Duration = Duration::from_secs(150);

/// Makes a module of tests for every group of rules: `flwr_transport::conformance!(Harness)`.
///
/// The argument is an expression of a type that implements
/// [`Harness`](crate::conformance::Harness). The crate that expands it depends on tokio.
#[macro_export]
macro_rules! conformance {
    (@tests $harness:expr; $($group:ident { $($rule:ident)+ })+) => {
        fn conformance_harness() -> impl $crate::conformance::Harness {
            $harness
        }

        $(mod $group {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let harness = super::conformance_harness();
                    $crate::conformance::run($crate::conformance::$group::$rule(&harness)).await;
                }
            )+
        })+
    };
    ($harness:expr) => {
        $crate::conformance! { @tests $harness;
            calls {
                echo_returns_what_was_sent
                every_code_travels_unharmed
                bearer_arrives
                both_ends_know_the_other
                deadline_is_enforced
                deadline_arrives
                dropped_call_drops_the_handler
                many_calls_while_one_is_held
                panic_is_internal_and_kills_nothing_else
            }
            bodies {
                uploads_of_every_size
                downloads_of_every_size
                no_body_is_not_an_empty_body
                large_upload
                large_download
                body_goes_both_ways_at_once
                many_bodies_at_once
                slow_reader_stops_the_upload
                slow_reader_stops_the_download
            }
            broken_bodies {
                broken_upload_is_seen_as_failed
                broken_download_is_seen_as_failed
                upload_is_held_to_its_announcement
                download_is_held_to_its_announcement
                handler_that_drops_the_upload_stops_its_writer
                handler_may_answer_before_the_upload_ends
                dropped_call_breaks_its_upload
                dropped_call_breaks_a_body_in_other_hands
                dropped_download_stops_its_writer
            }
            events {
                events_come_in_order_and_end
                events_end_with_their_status
                panic_among_events_is_internal
                slow_reader_stops_the_events
                dropped_events_stop_an_idle_service
            }
            drain {
                idle_acceptor_drains_at_once
                drain_refuses_new_calls
                drain_refuses_new_connections
                drain_lets_a_download_finish
                drain_lets_an_upload_finish
                drain_ends_events_cleanly
                drain_releases_held_handlers
                drain_cuts_after_the_grace
                drain_cuts_an_unfinished_body
            }
            connections {
                connections_are_independent
                call_after_close_is_unavailable
                close_ends_calls_under_way
                close_breaks_tails
                closed_tells_who_closed
                vanished_acceptor_is_unavailable
                vanished_acceptor_breaks_tails
            }
        }
    };
}

#[cfg(test)]
mod tests {
    /// A rule that no test is made of proves nothing.
    #[test]
    fn the_macro_knows_every_rule() {
        let groups = [
            include_str!("bodies.rs"),
            include_str!("broken_bodies.rs"),
            include_str!("calls.rs"),
            include_str!("connections.rs"),
            include_str!("drain.rs"),
            include_str!("events.rs"),
        ];
        let expanded: Vec<_> = include_str!("mod.rs").lines().map(str::trim).collect();
        let mut rules = 0;
        for line in groups.into_iter().flat_map(str::lines) {
            let Some(rest) = line.strip_prefix("pub async fn ") else {
                continue;
            };
            let name = rest.split('<').next();
            assert!(name.is_some_and(|name| expanded.contains(&name)), "{line}");
            rules += 1;
        }
        assert_eq!(rules, 48);
    }
}
