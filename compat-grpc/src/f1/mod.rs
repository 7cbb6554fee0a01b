//! The dialect of Flower 1.22: Fleet F1, ServerAppIo A1 with its variants for ClientApps and
//! simulations, Control K1, the gRPC adapter and Fleet over plain HTTP.

mod adapter;
mod appio;
pub mod ask;
mod clientappio;
mod control;
mod convert;
mod fleet;
pub mod look;
mod pushed;
mod rest;
mod simulationio;

use bytes::Bytes;
use flwr_api::Reason;
use flwr_transport::{Code, Status};

pub use adapter::Adapter;
pub use appio::AppIoF1;
pub use clientappio::ClientAppIoF1;
pub use control::ControlF1;
pub use fleet::FleetF1;
pub use rest::RestListener;
pub use simulationio::SimulationIoF1;

use crate::dialect::Subject;
use crate::status::{plain, to_grpc};

/// The words Flower 1.22's programs look for, or show, byte for byte (protocol sections 2.0.4, 2.4,
/// 5.1.2).
fn refuse(status: &Status, subject: Subject) -> tonic::Status {
    let Some(reason) = Reason::of(status) else {
        return plain(status);
    };
    let text = match (reason, subject) {
        (Reason::RunPending, _) => "Run is pending.".into(),
        (Reason::RunStarting, _) => "Run is starting.".into(),
        (Reason::RunFinished, _) => "Run is finished.".into(),
        (Reason::RunStopped, _) => "Run is finished. Stopped by user.".into(),
        (Reason::RunUnknown, _) => "Run ID not found".into(),
        (Reason::RunAlreadyFinished, Subject::Run(run)) => {
            format!("Run ID {run} is already finished")
        }
        (Reason::RunNotStartable, _) => format!("Failed to start run: {}", status.message),
        (Reason::TokenInvalid, _) => "Invalid token.".into(),
        (Reason::NodeMismatch, _) => "Invalid node ID".into(),
        (Reason::KeyInUse, _) => "Public key already in use".into(),
        (Reason::NotSuperLinkNode, _) => "Unexpected node ID.".into(),
        (Reason::ObjectMalformed, Subject::Object(object)) => format!(
            "Object with ID '{object}' has an unexpected structure. {}",
            status.message
        ),
        (Reason::MessageMalformed, _) => format!("Malformed PushMessages: {}", status.message),
        (Reason::NoArtifactProvider, _) => {
            "ControlServicer initialized without artifact provider".into()
        }
        (Reason::NoUserAuth, _) => "ControlServicer initialized without user authentication".into(),
        (
            Reason::FabUnknown
            | Reason::NoFederationOptions
            | Reason::NoRoom
            | Reason::ObjectMalformed
            | Reason::RunAlreadyFinished,
            _,
        ) => status.message.to_string(),
    };
    ask::telling(reason, tonic::Status::new(to_grpc(status.code), text))
}

/// Decodes a request's message.
fn parse<M: prost::Message + Default>(message: Bytes) -> Result<M, Status> {
    M::decode(message).map_err(|error| malformed(format!("the request cannot be decoded: {error}")))
}

fn malformed(why: String) -> Status {
    Status::new(Code::InvalidArgument, why)
}
