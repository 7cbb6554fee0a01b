//! What turns the messages of one range of Flower releases into a service's calls.

use bytes::Bytes;
use flwr_api::{ObjectId, RunId};
use flwr_transport::{Bearer, Body, Protocol, Reply, Status};
use futures_util::stream::BoxStream;

/// Pure functions: bytes to call, and reply or refusal to what is sent.
pub trait Dialect<P: Protocol>: Send + Sync + 'static {
    /// The gRPC service that is spoken, such as `flwr.proto.Fleet`.
    const SERVICE: &'static str;

    /// Reads the request of a method.
    ///
    /// # Errors
    /// [`Code::Unimplemented`](flwr_transport::Code::Unimplemented) for an unknown method,
    /// [`Code::InvalidArgument`](flwr_transport::Code::InvalidArgument) for a message that does not
    /// fit it.
    fn decode(&self, method: &str, message: Bytes) -> Result<Question<P>, Status>;

    /// Where an object begins in the request of a method, from what has come of `message_bytes`.
    fn split(&self, method: &str, seen: &[u8], message_bytes: u64) -> Split {
        let _ = (method, seen, message_bytes);
        Split::Whole
    }

    /// Writes a reply.
    fn encode(&self, reply: Reply<P>) -> Answer;

    /// Puts a refusal of a call about `subject` into the words that this release's programs look
    /// for.
    fn refuse(&self, status: &Status, subject: Subject) -> tonic::Status;
}

/// A call as it was asked.
#[derive(Debug)]
pub struct Question<P: Protocol> {
    /// What is asked.
    pub request: P::Request,
    /// The claim presented with it.
    pub bearer: Option<Bearer>,
    /// Bytes that go with it.
    pub body: Option<Body>,
    /// What it is about, for texts that name it.
    pub subject: Subject,
}

/// What the first bytes of a request tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Not enough yet.
    More,
    /// The rest of the message, from `object` on, are an object's bytes. Those before `head` are a request without it.
    At {
        /// The end of the request without its object.
        head: usize,
        /// The object's first byte.
        object: usize,
    },
    /// The message has to be read whole.
    Whole,
}

/// What a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing in particular.
    None,
    /// An object.
    Object(ObjectId),
    /// A run.
    Run(RunId),
}

/// A reply as it is sent.
pub enum Answer {
    /// One message: `head`, then the bytes of `tail` if there is one. The tail's length is known.
    Message {
        /// The encoded message, up to the tail's bytes.
        head: Bytes,
        /// The end of the message.
        tail: Option<Body>,
    },
    /// Messages until the stream ends.
    Stream(BoxStream<'static, Result<Bytes, Status>>),
}

impl<P: Protocol> Question<P> {
    /// A call without anything beside the request.
    pub fn new(request: P::Request) -> Self {
        Self {
            request,
            bearer: None,
            body: None,
            subject: Subject::None,
        }
    }

    /// The same call with the claim presented with it.
    #[must_use]
    pub fn bearing(mut self, claim: String) -> Self {
        self.bearer = Some(Bearer::new(claim));
        self
    }

    /// The same call with bytes that go with it.
    #[must_use]
    pub fn with_body(mut self, bytes: Bytes) -> Self {
        self.body = Some(Body::from_bytes(bytes));
        self
    }

    /// The same call with what it is about.
    #[must_use]
    pub fn about(mut self, subject: Subject) -> Self {
        self.subject = subject;
        self
    }
}

impl Answer {
    /// One message that is wholly encoded.
    pub fn message(message: &impl prost::Message) -> Self {
        Self::Message {
            head: message.encode_to_vec().into(),
            tail: None,
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Message { head, tail } => f
                .debug_struct("Message")
                .field("head_bytes", &head.len())
                .field("tail", tail)
                .finish(),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}
