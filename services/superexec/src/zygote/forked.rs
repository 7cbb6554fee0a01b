//! A process that a zygote has forked.

use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::sync::{mpsc, oneshot};

use super::Ask;
use super::connection::Newborn;
use crate::process::Ended;

/// A process of which a zygote is the parent. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Forked {
    newborn: Newborn,
    /// Which zygote's child it is.
    generation: u64,
    asks: mpsc::Sender<Ask>,
    /// The answer to come, once the process has ended and its zygote was asked how.
    reaping: Option<oneshot::Receiver<Ended>>,
}

impl Forked {
    pub(super) fn new(newborn: Newborn, generation: u64, asks: mpsc::Sender<Ask>) -> Self {
        Self {
            newborn,
            generation,
            asks,
            reaping: None,
        }
    }

    /// Lets the process begin.
    pub(super) fn go(&mut self) {
        self.newborn.go();
    }

    pub(crate) fn pid(&self) -> Pid {
        self.newborn.pid
    }

    /// Whether the id may be somebody else's by now.
    pub(crate) fn is_reaped(&self) -> bool {
        self.reaping.is_some()
    }

    /// Waits for the end and takes the process off the system's list. Cancel safe; returns once.
    pub(crate) async fn ended(&mut self) -> Ended {
        if self.newborn.pidfd.readable().await.is_err() {
            return Ended::Unknown;
        }
        let reaping = match &mut self.reaping {
            Some(reaping) => reaping,
            None => {
                let Ok(room) = self.asks.reserve().await else {
                    return Ended::Unknown;
                };
                let (reply, reaping) = oneshot::channel();
                room.send(Ask::Reap(self.newborn.pid, self.generation, reply));
                self.reaping.insert(reaping)
            }
        };
        reaping.await.unwrap_or(Ended::Unknown)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        if self.reaping.is_some() {
            return;
        }
        // An error says that it has ended already.
        pidfd_send_signal(self.newborn.pidfd.get_ref(), Signal::KILL).ok();
        let (reply, _nobody) = oneshot::channel();
        // Without room it stays a zombie until its zygote ends.
        self.asks
            .try_send(Ask::Reap(self.newborn.pid, self.generation, reply))
            .ok();
    }
}
