//! What passes between the SuperNode and its SuperLink, and what goes wrong with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flwr_api::fleet::{Fleet, Request};
use flwr_transport::{
    Body, BodyError, Call, Code, Context, Handler, Presence, Reply, Status, Tail,
};
use futures_util::stream;
use tokio::time::Instant;

/// What reached the SuperLink, and the call that it cannot answer.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    all: Mutex<Vec<(Instant, Request)>>,
    broken: Mutex<Option<&'static str>>,
    /// The calls whose next body breaks off, and after how many bytes.
    cut: Mutex<Vec<(&'static str, usize)>>,
    /// Whether the SuperLink is too old to go on with what broke off.
    forgetful: AtomicBool,
    /// Bytes of objects that have passed, one way or the other.
    moved: Arc<AtomicU64>,
    /// Whether no further call is answered.
    pub(crate) dead: AtomicBool,
    /// Whether the SuperLink knows parcels.
    parcels: AtomicBool,
    /// Whether the SuperLink hears the node between its calls.
    heard: AtomicBool,
    /// Whether bodies that break off are silent from then on.
    silent: AtomicBool,
}

impl Calls {
    pub(crate) fn all(&self) -> Vec<(Instant, Request)> {
        self.all.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Request) -> bool) -> usize {
        self.all().iter().filter(|(_, call)| wanted(call)).count()
    }

    /// From now on calls of this name fail.
    pub(crate) fn break_for_good(&self, name: &'static str) {
        *self.broken.lock().unwrap() = Some(name);
    }

    /// The next body of a call of this name breaks off after so many bytes.
    pub(crate) fn cut(&self, name: &'static str, bytes: usize) {
        self.cut.lock().unwrap().push((name, bytes));
    }

    /// The next body of a call of this name stands still after so many bytes, for ever.
    pub(crate) fn stall(&self, name: &'static str, bytes: usize) {
        self.silent.store(true, Ordering::Relaxed);
        self.cut(name, bytes);
    }

    /// From now on the SuperLink knows no calls that Flower has not.
    pub(crate) fn forget_own_calls(&self) {
        self.forgetful.store(true, Ordering::Relaxed);
    }

    /// From now on the SuperLink knows parcels.
    pub(crate) fn take_parcels(&self) {
        self.parcels.store(true, Ordering::Relaxed);
    }

    /// From now on the SuperLink hears the node between its calls.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Bytes of objects that have passed, one way or the other.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Counts a body's bytes, and breaks it off if that is due.
    fn pass(&self, name: &'static str, body: Body) -> Body {
        let mut due = self.cut.lock().unwrap();
        let at = due.iter().position(|(due, _)| *due == name);
        let left = at.map_or(usize::MAX, |at| due.remove(at).1);
        let is_silent = self.silent.load(Ordering::Relaxed);
        let (len, moved) = (body.len(), Arc::clone(&self.moved));
        let passed = stream::unfold((Some(body), left), move |(body, left)| {
            let moved = Arc::clone(&moved);
            async move {
                let mut body = body?;
                if left == 0 && is_silent {
                    std::future::pending::<()>().await;
                }
                let mut piece = match body.next().await? {
                    Ok(piece) if left > 0 => piece,
                    _ => return Some((Err(BodyError::Interrupted), (None, 0))),
                };
                piece.truncate(left);
                moved.fetch_add(piece.len() as u64, Ordering::Relaxed);
                let left = left - piece.len();
                Some((Ok(piece), (Some(body), left)))
            }
        });
        Body::from_stream(len, passed)
    }
}

/// A handler that writes down what it is asked.
pub(crate) struct Recorded<H> {
    pub(crate) calls: Arc<Calls>,
    pub(crate) inner: H,
}

impl<H: Handler<Fleet>> Handler<Fleet> for Recorded<H> {
    async fn handle(
        &self,
        mut context: Context,
        mut call: Call<Fleet>,
    ) -> Result<Reply<Fleet>, Status> {
        let entry = (Instant::now(), call.request.clone());
        let name = flwr_transport::Request::name(&call.request);
        self.calls.all.lock().unwrap().push(entry);
        if *self.calls.broken.lock().unwrap() == Some(name) {
            return Err(Status::new(Code::Internal, "out of order"));
        }
        if self.calls.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let is_own = matches!(
            name,
            "GetReceived" | "ResumePush" | "ResumePull" | "WatchRun" | "Attend" | "GetAnnounced"
        );
        if is_own && self.calls.forgetful.load(Ordering::Relaxed) {
            return Err(Status::unimplemented(name));
        }
        let is_parcel = matches!(name, "PullParcel" | "PushParcel");
        if is_parcel && !self.calls.parcels.load(Ordering::Relaxed) {
            return Err(Status::unimplemented(name));
        }
        if self.calls.heard.load(Ordering::Relaxed) {
            context.presence = Some(Presence::new(|| Duration::ZERO));
        }
        call.body = call.body.map(|body| self.calls.pass(name, body));
        let mut reply = self.inner.handle(context, call).await?;
        if let Tail::Body(body) = reply.tail {
            reply.tail = Tail::Body(self.calls.pass(name, body));
        }
        Ok(reply)
    }
}
