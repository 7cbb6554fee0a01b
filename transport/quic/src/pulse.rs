//! Notices when a connection falls silent though something is awaited of it, and asks again and again until it is heard.
//!
//! quinn's own probes come ever later while nothing is acknowledged, and an end that only receives has nothing to probe
//! with. But until the connecting end is heard from its new address, nothing can come back to it; and until something is
//! acknowledged, what was lost meanwhile is not sent again.
//!
//! What is awaited is held by an [`Awaited`]. While there is none, as while a call is merely held by the server, nothing is
//! watched and nothing sent. A peer that has acknowledged everything and says nothing more is asked once, not again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::time::{Instant, sleep};

use crate::congestion::Outlet;

/// Watches one connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    connection: Connection,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    receive_window: u64,
    awaited: usize,
    is_watched: bool,
}

/// Something is to be heard of the peer until this is dropped.
#[derive(Debug)]
pub(crate) struct Awaited(Arc<Pulse>);

/// What only grows while the peer is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    acks: u64,
    stream_frames: u64,
}

/// What was heard so far, and said.
#[derive(Debug)]
struct Listening {
    outlet: Outlet,
    heard: Heard,
    since: Instant,
    /// Stream frames that were sent when it was looked at last, and when it was before something was heard.
    told: u64,
    told_before: u64,
    asked: Asked,
}

/// Whether the peer was asked since its last bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Answered,
    No,
    Unanswered,
}

impl Pulse {
    /// Of a connection that began with this window.
    pub(crate) fn new(connection: Connection, receive_window: u32) -> Arc<Self> {
        Arc::new(Self {
            connection,
            state: Mutex::new(State {
                receive_window: receive_window.into(),
                awaited: 0,
                is_watched: false,
            }),
        })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Something is awaited from now on.
    pub(crate) fn awaiting(self: &Arc<Self>) -> Awaited {
        let mut state = self.state();
        state.awaited += 1;
        if !state.is_watched {
            state.is_watched = true;
            tokio::spawn(watch(Arc::downgrade(self)));
        }
        Awaited(Arc::clone(self))
    }

    /// Nobody else sets it.
    pub(crate) fn set_receive_window(&self, bytes: u64) {
        let mut state = self.state();
        state.receive_window = bytes;
        self.connection.set_receive_window(var_int(bytes));
    }

    /// Sends something that has to be acknowledged.
    fn ask(&self, outlet: &Outlet) {
        let state = self.state();
        let window = state.receive_window;
        // One byte more has to be told at once; it is taken back with what is read next.
        self.connection.set_receive_window(var_int(window + 1));
        outlet.let_one_out();
        self.connection.set_receive_window(var_int(window));
    }

    fn heard(&self, outlet: &Outlet) -> Heard {
        Heard {
            acks: outlet.acks(),
            stream_frames: self.connection.stats().frame_rx.stream,
        }
    }

    /// Stream frames that were sent.
    fn told(&self) -> u64 {
        self.connection.stats().frame_tx.stream
    }

    /// How long to wait for a sign of life after so much silence: an outage is to last little longer here than it does.
    fn patience(&self, silence: Duration) -> Duration {
        let lasting = (silence / SILENCE_SHARE).min(PATIENCE_MAX);
        let answer = self.connection.rtt() * PATIENCE_RTTS;
        answer.max(lasting).max(PATIENCE_MIN)
    }

    /// Whether nothing is awaited any more; then nobody watches any more.
    fn is_over(&self) -> bool {
        let mut state = self.state();
        state.is_watched = state.awaited > 0;
        !state.is_watched
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.state().awaited -= 1;
    }
}

/// Watches until nothing is awaited, or the connection is gone. It does not keep the connection.
async fn watch(pulse: Weak<Pulse>) {
    let mut listening: Option<Listening> = None;
    loop {
        let since = listening
            .as_ref()
            .map_or_else(Instant::now, |now| now.since);
        let patience = pulse.upgrade().map(|pulse| pulse.patience(since.elapsed()));
        let Some(patience) = patience else { return };
        sleep(patience).await;
        let Some(pulse) = pulse.upgrade() else { return };
        if pulse.is_over() || pulse.connection.close_reason().is_some() {
            return;
        }
        // What is over at once, as most calls are, is not looked at.
        listening = match listening {
            None => Listening::begin(&pulse),
            Some(now) => now.listen(&pulse),
        };
        if listening.is_none() {
            return;
        }
    }
}

impl Listening {
    /// Nothing without our controller: there is no way out but quinn's own.
    fn begin(pulse: &Pulse) -> Option<Self> {
        let outlet = Outlet::of(&pulse.connection)?;
        Some(Self {
            heard: pulse.heard(&outlet),
            outlet,
            since: Instant::now(),
            told: pulse.told(),
            told_before: 0,
            asked: Asked::No,
        })
    }

    /// Asks if nothing was heard since the last time.
    fn listen(mut self, pulse: &Pulse) -> Option<Self> {
        let told_last = self.told;
        self.told = pulse.told();
        let heard = pulse.heard(&self.outlet);
        if heard != self.heard {
            if heard.stream_frames != self.heard.stream_frames {
                self.asked = Asked::No;
            } else if self.asked == Asked::Unanswered {
                self.asked = Asked::Answered;
            }
            self.told_before = told_last;
            self.heard = heard;
            self.since = Instant::now();
            return Some(self);
        }
        // Since the peer has another address, there may be another controller.
        self.outlet = Outlet::of(&pulse.connection)?;
        self.heard = pulse.heard(&self.outlet);
        if self.is_owed() || self.asked != Asked::Answered {
            self.asked = Asked::Unanswered;
            pulse.ask(&self.outlet);
        }
        Some(self)
    }

    /// Whether the peer has to acknowledge something.
    fn is_owed(&self) -> bool {
        self.outlet.has_left() || self.outlet.has_sent() && self.told != self.told_before
    }
}

fn var_int(bytes: u64) -> VarInt {
    VarInt::from_u64(bytes).unwrap_or(VarInt::MAX)
}

/// quinn's own first probe mostly comes sooner, so nothing is asked for the sake of a packet or two.
const PATIENCE_RTTS: u32 = 2;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// An outage may seem longer by a 32nd, but not by more than a second.
const SILENCE_SHARE: u32 = 32;
const PATIENCE_MAX: Duration = Duration::from_secs(1);
