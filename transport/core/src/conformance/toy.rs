//! The protocol the battery speaks and the service that answers it.

use std::future;
use std::ops::{ControlFlow, RangeInclusive};
use std::sync::{Mutex, PoisonError};

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};

use super::pattern::{CountDrop, Counter, Flow, Plan};
use crate::body::Body;
use crate::call::{Call, EventStream, Protocol, Reply, Request, Tail};
use crate::serve::{Context, Handler};
use crate::status::{Code, Status};

/// A protocol with a call for every way a transport can be used.
#[derive(Debug)]
pub struct Toy;

impl Protocol for Toy {
    const NAME: &'static str = "flwr.toy";
    const VERSIONS: RangeInclusive<u16> = 1..=1;
    type Request = Ask;
    type Response = Answer;
    type Event = Tick;
}

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Answers with the same text.
    Echo(String),
    /// Fails.
    Fail(Status),
    /// Panics.
    Panic,
    /// Does not answer; if `until_drain`, then only until the acceptor drains.
    Hold {
        /// Whether a drain releases the call.
        until_drain: bool,
    },
    /// Reads the call's body to its end.
    Sink,
    /// Reads the first piece of the call's body and drops the rest; then answers, or holds the
    /// call until the acceptor drains.
    Taste {
        /// Whether to hold the call.
        hold: bool,
    },
    /// Has a task of its own read the call's body to its end, and answers when that has.
    Adopt,
    /// Sends the call's body back, a piece at a time.
    Relay,
    /// Sends a body.
    Source(Plan),
    /// Sends events.
    Subscribe(Feed),
}

/// What can be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The text that was sent.
    Echo(String),
    /// Nothing to tell.
    Done,
    /// The body that came: its announced length and its length, in bytes.
    Received(Option<u64>, u64),
    /// The call was held until the drain.
    Released,
}

/// A stream of events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Feed {
    /// How many ticks come.
    pub ticks: u64,
    /// Bytes of padding in each.
    pub padding: usize,
    /// What follows the last.
    pub then: Then,
}

/// What follows the last tick.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Then {
    /// A clean end.
    End,
    /// An end with a status.
    Fail(Status),
    /// A panic in the service.
    Panic,
    /// Nothing, for ever.
    Wait,
}

/// One event: its number, counted from 0, and padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick(pub u64, pub String);

impl Request for Ask {
    fn name(&self) -> &'static str {
        match self {
            Self::Echo(_) => "Echo",
            Self::Fail(_) => "Fail",
            Self::Panic => "Panic",
            Self::Hold { .. } => "Hold",
            Self::Sink => "Sink",
            Self::Taste { .. } => "Taste",
            Self::Adopt => "Adopt",
            Self::Relay => "Relay",
            Self::Source(_) => "Source",
            Self::Subscribe(_) => "Subscribe",
        }
    }

    fn idempotent(&self) -> bool {
        matches!(self, Self::Echo(_))
    }
}

/// Answers [`Toy`] and shows the test, which runs in the same process, how it fares.
#[derive(Debug, Default)]
pub struct Service {
    /// Calls whose handler began.
    pub entered: Counter,
    /// Calls whose handler's future is gone, finished or not.
    pub left: Counter,
    /// Bodies from the callers.
    pub uploads: Flow,
    /// Bodies to the callers.
    pub downloads: Flow,
    /// Events given to the transport.
    pub ticks: Counter,
    /// Event streams the transport has let go of.
    pub feeds_let_go: Counter,
    last_context: Mutex<Option<Context>>,
}

impl Service {
    /// The context of the call that came last.
    #[must_use]
    pub fn last_context(&self) -> Option<Context> {
        let last = self.last_context.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn sink(&self, body: Option<Body>) -> Result<Reply<Toy>, Status> {
        let Some(mut body) = body else {
            return Ok(Reply::new(Answer::Done));
        };
        let announced = body.len();
        let read = self.uploads.read(&mut body, u64::MAX).await;
        let bytes =
            read.map_err(|failure| Status::new(Code::InvalidArgument, failure.to_string()))?;
        Ok(Reply::new(Answer::Received(announced, bytes)))
    }

    async fn taste(&self, context: &Context, body: Option<Body>, hold: bool) -> Answer {
        if let Some(mut body) = body {
            self.uploads.read(&mut body, 1).await.ok();
        }
        if hold {
            context.drain.requested().await;
            return Answer::Released;
        }
        Answer::Done
    }

    async fn adopt(&self, body: Option<Body>) -> Answer {
        if let Some(mut body) = body {
            let flow = self.uploads.clone();
            let adopted = tokio::spawn(async move { flow.read(&mut body, u64::MAX).await });
            // Its outcome is in the flow.
            adopted.await.ok();
        }
        Answer::Done
    }

    fn relay(&self, body: Option<Body>) -> Tail<Toy> {
        let Some(body) = body else {
            return Tail::None;
        };
        let announced = body.len();
        let flow = self.uploads.clone();
        let chunks = stream::unfold(body, async |mut body| {
            let piece = body.next().await?;
            Some((piece, body))
        });
        let chunks = chunks.inspect(move |piece| {
            flow.read.add(piece.as_ref().map_or(0, |p| p.len() as u64));
        });
        Tail::Body(Body::from_stream(announced, chunks))
    }

    fn subscribe(&self, feed: Feed) -> EventStream<Tick> {
        let let_go = CountDrop(self.feeds_let_go.clone());
        let given = self.ticks.clone();
        let padding = "x".repeat(feed.padding);
        let ticks = stream::iter(0..feed.ticks).map(move |number| {
            given.add(1);
            Ok(Tick(number, padding.clone()))
        });
        let last = stream::once(async {
            match feed.then {
                Then::End => ControlFlow::Break(()),
                Then::Fail(status) => ControlFlow::Continue(Err(status)),
                Then::Panic => panic!("asked to panic among events"),
                Then::Wait => future::pending().await,
            }
        });
        let last = last.filter_map(async |last| match last {
            ControlFlow::Continue(status) => Some(status),
            ControlFlow::Break(()) => None,
        });
        let all = ticks.chain(last).inspect(move |_| {
            // Owned by this closure, the guard goes when the whole stream does.
            let _ = &let_go;
        });
        all.boxed()
    }
}

impl Handler<Toy> for Service {
    async fn handle(&self, context: Context, call: Call<Toy>) -> Result<Reply<Toy>, Status> {
        let _left = CountDrop(self.left.clone());
        {
            let mut last = self
                .last_context
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *last = Some(context.clone());
        }
        self.entered.add(1);
        let reply = match call.request {
            Ask::Echo(text) => Reply::new(Answer::Echo(text)),
            Ask::Fail(status) => return Err(status),
            Ask::Panic => panic!("asked to panic"),
            Ask::Hold { until_drain: true } => {
                context.drain.requested().await;
                Reply::new(Answer::Released)
            }
            Ask::Hold { until_drain: false } => future::pending().await,
            Ask::Sink => self.sink(call.body).await?,
            Ask::Taste { hold } => Reply::new(self.taste(&context, call.body, hold).await),
            Ask::Adopt => Reply::new(self.adopt(call.body).await),
            Ask::Relay => Reply {
                response: Answer::Done,
                tail: self.relay(call.body),
            },
            Ask::Source(plan) => Reply {
                response: Answer::Done,
                tail: Tail::Body(self.downloads.body(plan)),
            },
            Ask::Subscribe(feed) => Reply {
                response: Answer::Done,
                tail: Tail::Events(self.subscribe(feed)),
            },
        };
        Ok(reply)
    }
}
