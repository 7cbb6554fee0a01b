//! What turns a service's calls into the messages of one range of Flower releases, and answers back.

use std::fmt;

use bytes::Bytes;
use flwr_transport::{Bearer, Body, Protocol, Reply, Status};

/// The other side of a [`Dialect`](crate::Dialect): call to bytes, and bytes to reply or refusal.
pub trait Asking<P: Protocol>: fmt::Debug + Send + Sync + 'static {
    /// Writes a call. Its body of `body_bytes` will be appended to the head.
    ///
    /// # Errors
    /// [`Code::Unimplemented`](flwr_transport::Code::Unimplemented) for a call that these releases do not have.
    fn ask(
        &self,
        request: P::Request,
        bearer: Option<&Bearer>,
        body_bytes: Option<u64>,
    ) -> Result<Asked<P>, Status>;

    /// Reads a refusal.
    fn refused(&self, status: &tonic::Status) -> Status;
}

/// A call as it is sent, and how its answer is read.
pub struct Asked<P: Protocol> {
    /// The gRPC service, such as `flwr.proto.Fleet`.
    pub service: &'static str,
    /// Its method.
    pub method: &'static str,
    /// The message, up to the bytes of the call's body.
    pub head: Bytes,
    /// Whether the server is told how long the caller waits. Stock programs tell it with node heartbeats only.
    pub tells_deadline: bool,
    /// Where an object in the answer begins, for answers that can hold one.
    pub peek: Option<Peek>,
    /// Reads the answer. It is [`Code::Internal`](flwr_transport::Code::Internal) if it cannot be used.
    pub answer: Answer<P>,
}

/// Reads an answer.
pub type Answer<P> = Box<dyn FnOnce(Received) -> Result<Reply<P>, Status> + Send>;

/// An answer as it comes: a message, or one whose last field is still arriving.
#[derive(Debug)]
pub struct Received {
    /// The message, up to the bytes of `tail`.
    pub head: Bytes,
    /// The rest of the message, if [`Asked::peek`] found that it is an object's bytes.
    pub tail: Option<Body>,
}

/// Looks at the first bytes of a message of this length.
pub type Peek = fn(&[u8], u64) -> Peeked;

/// What the first bytes of a message tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peeked {
    /// Not enough yet.
    More,
    /// An object's bytes begin here and fill the rest of the message.
    ObjectAt(usize),
    /// The message has to be read whole.
    Whole,
}

impl<P: Protocol> Asked<P> {
    /// A call whose answer is read whole.
    pub fn new(
        service: &'static str,
        method: &'static str,
        message: &impl prost::Message,
        answer: impl FnOnce(Bytes) -> Result<Reply<P>, Status> + Send + 'static,
    ) -> Self {
        Self {
            service,
            method,
            head: message.encode_to_vec().into(),
            tells_deadline: false,
            peek: None,
            answer: Box::new(|received| answer(received.head)),
        }
    }
}

impl<P: Protocol> fmt::Debug for Asked<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked")
            .field("service", &self.service)
            .field("method", &self.method)
            .field("head_bytes", &self.head.len())
            .finish_non_exhaustive()
    }
}
