//! How long the server keeps a stock client's call waiting for something to answer.
//!
//! Stock programs of Flower 1.22 sleep for 1 to 3 s after an empty answer, so a long hold is most
//! of the latency that can be saved. The limits come from what those programs bear: none sets a
//! deadline on these calls, but a middle box may end a call that is silent for 30 s or more.
//! ClientApps speak to a daemon of their own site, without middle boxes.

use std::time::Duration;

/// The longest wait for each call that may be held. All others answer at once: heartbeats because
/// their callers wait for them at exit or have a short deadline, the rest because it gains nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holds {
    /// `Fleet.PullMessages`: the SuperNode's main thread has nothing else to do.
    pub instruction: Duration,
    /// `ServerAppIo.PullMessages` while there is no reply: overshoots a user's timeout by as much.
    pub first_reply: Duration,
    /// `ServerAppIo.PullMessages` once there is one. A stock caller sleeps for 3 s after a partial
    /// answer, so waiting for less than that gains it nothing, and a node that is a second later
    /// than another makes a round of 3 s one of 6.
    pub other_replies: Duration,
    /// `ListAppsToLaunch`: the SuperExec's only business.
    pub launch: Duration,
    /// `PullClientAppInputs` until its token is bound to a run: a ClientApp that was started ahead
    /// of its work.
    pub inputs: Duration,
    /// `ClientAppIo.PullMessage` until the instruction is there: the ClientApp's only business.
    pub message: Duration,
    /// `PullObject` of an object that was announced and has not arrived.
    pub object: Duration,
}

impl Default for Holds {
    fn default() -> Self {
        Self {
            instruction: Duration::from_secs(25),
            first_reply: Duration::from_secs(10),
            other_replies: Duration::from_millis(2_500),
            launch: Duration::from_secs(25),
            inputs: UNLIMITED,
            message: UNLIMITED,
            object: Duration::from_secs(10),
        }
    }
}

/// As long as a call without a deadline is kept.
const UNLIMITED: Duration = Duration::from_secs(24 * 3600);

impl Holds {
    /// The same limits, none longer than `cap`.
    #[must_use]
    pub fn capped(self, cap: Duration) -> Self {
        Self {
            instruction: self.instruction.min(cap),
            first_reply: self.first_reply.min(cap),
            other_replies: self.other_replies.min(cap),
            launch: self.launch.min(cap),
            inputs: self.inputs.min(cap),
            message: self.message.min(cap),
            object: self.object.min(cap),
        }
    }
}
