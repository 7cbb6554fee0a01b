//! The windows of one connection at the end that accepts, which grow and shrink with its bodies and the budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Connection;
use tokio::sync::OwnedSemaphorePermit;

use crate::Tuning;
use crate::budget::{Budget, LEAST_BYTES, Loan};
use crate::pulse::{Awaited, Pulse};

/// The windows of a connection.
#[derive(Debug)]
pub(crate) struct Windows {
    pulse: Arc<Pulse>,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    receive: Loan,
    send: Loan,
    /// Bytes of bodies that are still to come.
    coming: u128,
    /// Bodies under way, in either direction.
    bodies: usize,
    /// Those of them that go out.
    sending: usize,
}

/// A body, or a long head, that comes in.
#[derive(Debug)]
pub(crate) struct Receiving {
    windows: Arc<Windows>,
    left: u64,
    /// Whether `left` is what its sender says.
    is_announced: bool,
}

/// A body, or a long head, that goes out.
#[derive(Debug)]
pub(crate) struct Sending {
    windows: Arc<Windows>,
    _awaited: Awaited,
}

impl Windows {
    /// Of a connection that began with [`least`].
    pub(crate) fn new(connection: Connection, budget: Arc<Budget>, usual: &Tuning) -> Self {
        Self {
            pulse: Pulse::new(connection, least(usual).receive_window),
            budget,
            state: Mutex::new(State {
                receive: Loan::new(usual.receive_window.into()),
                send: Loan::new(usual.send_window),
                coming: 0,
                bodies: 0,
                sending: 0,
            }),
        }
    }

    /// The end of an answer is to be acknowledged.
    pub(crate) fn awaiting(&self) -> Awaited {
        self.pulse.awaiting()
    }

    /// Bytes of any stream were read.
    pub(crate) fn read(&self, bytes: u64) {
        self.state().receive.settle(bytes, &self.budget);
    }

    /// Room to collect a long head in, waited for.
    pub(crate) async fn head(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        self.budget.head(bytes).await
    }

    /// `bytes` are to come on one stream; as many as the usual window has if it is not known.
    pub(crate) fn receiving(self: &Arc<Self>, bytes: Option<u64>) -> Receiving {
        let mut state = self.state();
        let left = bytes.unwrap_or_else(|| state.receive.usual());
        self.begin(&mut state);
        state.coming += u128::from(left);
        self.fit_receive(&mut state);
        Receiving {
            windows: Arc::clone(self),
            left,
            is_announced: bytes.is_some(),
        }
    }

    /// Many bytes are to go out on one stream.
    pub(crate) fn sending(self: &Arc<Self>) -> Sending {
        let mut state = self.state();
        self.begin(&mut state);
        state.sending += 1;
        self.fit_send(&mut state);
        Sending {
            windows: Arc::clone(self),
            _awaited: self.awaiting(),
        }
    }

    fn begin(&self, state: &mut State) {
        if state.bodies == 0 {
            self.budget.enter();
        }
        state.bodies += 1;
    }

    fn end(&self, state: &mut State) {
        state.bodies -= 1;
        if state.bodies == 0 {
            self.budget.leave();
        }
    }

    fn fit_receive(&self, state: &mut State) {
        let coming = u64::try_from(state.coming).unwrap_or(u64::MAX);
        if let Some(bytes) = state.receive.for_bodies(coming, &self.budget) {
            self.pulse.set_receive_window(bytes);
        }
    }

    fn fit_send(&self, state: &mut State) {
        let window = if state.sending > 0 {
            state.send.for_bodies(u64::MAX, &self.budget)
        } else {
            state.send.for_none(&self.budget)
        };
        if let Some(bytes) = window {
            self.pulse.connection().set_send_window(bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiving {
    /// `bytes` of it were read.
    pub(crate) fn read(&mut self, bytes: u64) {
        let mut state = self.windows.state();
        state.receive.settle(bytes, &self.windows.budget);
        if self.is_announced {
            let came = bytes.min(self.left);
            self.left -= came;
            state.coming -= u128::from(came);
        }
        self.windows.fit_receive(&mut state);
    }
}

impl Sending {
    /// Some of it was written: what is not acknowledged fits into the window again.
    pub(crate) fn written(&self) {
        let mut state = self.windows.state();
        state.send.settle(u64::MAX, &self.windows.budget);
        self.windows.fit_send(&mut state);
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut state = self.windows.state();
        state.coming -= u128::from(self.left);
        self.windows.end(&mut state);
        self.windows.fit_receive(&mut state);
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let mut state = self.windows.state();
        state.sending -= 1;
        self.windows.end(&mut state);
        self.windows.fit_send(&mut state);
        if state.sending == 0 {
            // All of it is acknowledged, or was given up and is not kept.
            state.send.settle(u64::MAX, &self.windows.budget);
        }
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        state.receive.end(&self.budget);
        state.send.end(&self.budget);
    }
}

/// What a connection begins with.
pub(crate) fn least(usual: &Tuning) -> Tuning {
    let least = u32::try_from(LEAST_BYTES).unwrap_or(u32::MAX);
    Tuning {
        receive_window: usual.receive_window.min(least),
        send_window: usual.send_window.min(LEAST_BYTES),
        ..usual.clone()
    }
}
