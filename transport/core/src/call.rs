//! What travels: a protocol's calls and replies.

use std::fmt;
use std::ops::RangeInclusive;

use futures_util::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::body::Body;
use crate::peer::Bearer;
use crate::status::Status;

/// A value that can cross a process boundary.
pub trait Wire: Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + fmt::Debug + Send + Sync + 'static> Wire for T {}

/// One service's calls, named by a marker type.
pub trait Protocol: fmt::Debug + Send + Sync + 'static {
    /// The name peers agree on, such as `flwr.fleet`.
    const NAME: &'static str;
    /// The versions of the protocol this build speaks.
    const VERSIONS: RangeInclusive<u16>;
    /// Everything that can be asked.
    type Request: Request;
    /// Everything that can be answered.
    type Response: Wire;
    /// What a reply can go on telling.
    type Event: Wire;
}

/// What a transport must know of a request. It can be cloned so that it can be repeated.
pub trait Request: Wire + Clone {
    /// The name of the call, for logs and metrics.
    fn name(&self) -> &'static str;
    /// Whether executing the call twice is the same as executing it once, so that a transport may
    /// repeat it after a broken connection.
    fn idempotent(&self) -> bool;
}

/// One question to a service.
pub struct Call<P: Protocol> {
    /// What is asked.
    pub request: P::Request,
    /// The claim the caller presents; transports hand it to the service in
    /// [`Context::bearer`](crate::Context::bearer).
    pub bearer: Option<Bearer>,
    /// Bytes that go with the question.
    pub body: Option<Body>,
    /// When the caller stops waiting for the reply's head.
    pub deadline: Instant,
}

/// One answer.
pub struct Reply<P: Protocol> {
    /// What is answered.
    pub response: P::Response,
    /// What follows the answer.
    pub tail: Tail<P>,
}

/// What follows a reply's head.
pub enum Tail<P: Protocol> {
    /// Nothing.
    None,
    /// One stream of bytes.
    Body(Body),
    /// Events until the service or the caller ends it.
    Events(EventStream<P::Event>),
}

/// Events a service sends after its reply. A status ends the stream as failed.
pub type EventStream<E> = BoxStream<'static, Result<E, Status>>;

impl<P: Protocol> Call<P> {
    /// A call without bearer and body.
    pub fn new(request: P::Request, deadline: Instant) -> Self {
        Self {
            request,
            bearer: None,
            body: None,
            deadline,
        }
    }

    /// The same call with a body.
    #[must_use]
    pub fn with_body(mut self, body: Body) -> Self {
        self.body = Some(body);
        self
    }

    /// The same call once more, if it may be made twice.
    #[must_use]
    pub fn again(&self) -> Option<Self> {
        let may = self.request.idempotent() && self.body.is_none();
        may.then(|| Self {
            request: self.request.clone(),
            bearer: self.bearer.clone(),
            body: None,
            deadline: self.deadline,
        })
    }

    /// The same call with a bearer.
    #[must_use]
    pub fn with_bearer(mut self, bearer: Bearer) -> Self {
        self.bearer = Some(bearer);
        self
    }
}

impl<P: Protocol> Reply<P> {
    /// An answer with nothing after it.
    pub fn new(response: P::Response) -> Self {
        Self {
            response,
            tail: Tail::None,
        }
    }
}

impl<P: Protocol> fmt::Debug for Call<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("request", &self.request)
            .field("body", &self.body)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

impl<P: Protocol> fmt::Debug for Reply<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("response", &self.response)
            .field("tail", &self.tail)
            .finish()
    }
}

impl<P: Protocol> fmt::Debug for Tail<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Body(body) => f.debug_tuple("Body").field(body).finish(),
            Self::Events(_) => f.write_str("Events"),
        }
    }
}
