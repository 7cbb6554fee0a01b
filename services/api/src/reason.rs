//! The refusals that peers tell apart.
//!
//! Services fail with a code and one of these; the words a particular Flower release expects are
//! chosen at the edge.

use flwr_transport::{Code, Status};

use crate::run::{Phase, RunStatus, SubStatus};

/// Why a call was refused. The numbers are part of the wire and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Reason {
    /// The run has not been started.
    RunPending = 1,
    /// The run's app has not begun.
    RunStarting = 2,
    /// The run has ended.
    RunFinished = 3,
    /// A user has stopped the run.
    RunStopped = 4,
    /// No such run.
    RunUnknown = 5,
    /// The run could not be handed to its app.
    RunNotStartable = 6,
    /// The run has ended already and cannot be stopped.
    RunAlreadyFinished = 7,
    /// The app's token is not valid.
    TokenInvalid = 10,
    /// The key belongs to another node, or to none.
    NodeMismatch = 20,
    /// The key belongs to a node that is online.
    KeyInUse = 21,
    /// The caller must act as the SuperLink's own node.
    NotSuperLinkNode = 22,
    /// An object's bytes do not follow the object format.
    ObjectMalformed = 30,
    /// A message breaks a rule.
    MessageMalformed = 31,
    /// There is no memory for an object at present.
    NoRoom = 32,
    /// No such Flower App Bundle.
    FabUnknown = 40,
    /// No artifact provider is configured.
    NoArtifactProvider = 50,
    /// No user authentication is configured.
    NoUserAuth = 51,
    /// No federation options were given for the run.
    NoFederationOptions = 52,
}

impl Reason {
    const ALL: [Self; 18] = [
        Self::RunPending,
        Self::RunStarting,
        Self::RunFinished,
        Self::RunStopped,
        Self::RunUnknown,
        Self::RunNotStartable,
        Self::RunAlreadyFinished,
        Self::TokenInvalid,
        Self::NodeMismatch,
        Self::KeyInUse,
        Self::NotSuperLinkNode,
        Self::ObjectMalformed,
        Self::MessageMalformed,
        Self::NoRoom,
        Self::FabUnknown,
        Self::NoArtifactProvider,
        Self::NoUserAuth,
        Self::NoFederationOptions,
    ];

    /// The reason with this number.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|reason| *reason as u16 == status.reason)
    }

    /// A refusal for this reason; the message is for logs and for peers without words of their own.
    pub fn refuse(self, message: impl Into<std::borrow::Cow<'static, str>>) -> Status {
        Status::new(self.code(), message).with_reason(self as u16)
    }

    /// The refusal of a call that needs a running run.
    #[must_use]
    pub fn run_not_running(status: &RunStatus) -> Status {
        match (status.phase, status.sub) {
            (Phase::Pending, _) => Self::RunPending.refuse("the run is pending"),
            (Phase::Starting, _) => Self::RunStarting.refuse("the run is starting"),
            (_, SubStatus::Stopped) => Self::RunStopped.refuse("the run was stopped by a user"),
            _ => Self::RunFinished.refuse("the run is finished"),
        }
    }

    fn code(self) -> Code {
        match self {
            Self::RunPending
            | Self::RunStarting
            | Self::RunFinished
            | Self::RunStopped
            | Self::TokenInvalid => Code::PermissionDenied,
            Self::RunUnknown | Self::FabUnknown => Code::NotFound,
            Self::NodeMismatch | Self::KeyInUse => Code::Unauthenticated,
            Self::RunNotStartable
            | Self::RunAlreadyFinished
            | Self::NotSuperLinkNode
            | Self::ObjectMalformed
            | Self::NoFederationOptions => Code::FailedPrecondition,
            Self::MessageMalformed => Code::InvalidArgument,
            Self::NoRoom => Code::Unavailable,
            Self::NoArtifactProvider | Self::NoUserAuth => Code::Unimplemented,
        }
    }
}
