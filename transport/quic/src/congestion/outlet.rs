//! A way out through a full window, one packet at a time.
//!
//! What is in flight is lost only once something later was acknowledged. So a path that swallowed a whole window and came
//! back stays silent until quinn's probe timeout, which has doubled with every probe meanwhile. The connection's owner
//! probes sooner: it may let one packet out, and sees here what the controller sees of the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quinn::Connection;

use super::LossTolerant;

/// Shared by a controller, its copies, and whoever watches its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlet(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    acks: AtomicU64,
    has_left: AtomicBool,
    has_sent: AtomicBool,
    is_open: AtomicBool,
}

impl Outlet {
    /// That of the path which the connection is on now, if its controller is [`LossTolerant`].
    pub(crate) fn of(connection: &Connection) -> Option<Self> {
        let controller = connection.congestion_state().into_any();
        let controller = controller.downcast::<LossTolerant>().ok()?;
        Some(controller.outlet.clone())
    }

    /// Acknowledgements of something that was not acknowledged before.
    pub(crate) fn acks(&self) -> u64 {
        self.0.acks.load(Ordering::Relaxed)
    }

    /// Whether something was in flight after the last acknowledgement.
    pub(crate) fn has_left(&self) -> bool {
        self.0.has_left.load(Ordering::Relaxed)
    }

    /// Whether packets were sent since. They may be acknowledgements, which are not acknowledged.
    pub(crate) fn has_sent(&self) -> bool {
        self.0.has_sent.load(Ordering::Relaxed)
    }

    /// Lets the next packet go whatever is in flight, and no other.
    pub(crate) fn let_one_out(&self) {
        self.0.is_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn on_sent(&self) {
        self.0.has_sent.store(true, Ordering::Relaxed);
        self.0.is_open.store(false, Ordering::Relaxed);
    }

    pub(super) fn on_acked(&self, in_flight: u64) {
        self.0.acks.fetch_add(1, Ordering::Relaxed);
        self.0.has_left.store(in_flight > 0, Ordering::Relaxed);
        self.0.has_sent.store(false, Ordering::Relaxed);
    }

    /// `window`, or enough for one packet more than what is in flight. quinn sends below the window, not up to it.
    pub(super) fn window(&self, window: u64, in_flight: u64, mtu: u64) -> u64 {
        if self.0.is_open.load(Ordering::Relaxed) {
            window.max(in_flight + 2 * mtu)
        } else {
            window
        }
    }
}
