//! What the serving end does: it drops what is pushed, makes up what is pulled, and says yes to heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{self, SHA256};
use bytes::Bytes;
use flwr_api::fleet::{Fleet, ObjectState, Request, Response};
use flwr_transport::{Body, Call, Code, Context, Handler, Reply, Status, Tail};
use tokio::task::spawn_blocking;

use crate::arrivals::Arrivals;
use crate::source::{Source, object_bytes};

/// Bytes of objects, counted by the serving end.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    pub(crate) received: AtomicU64,
    pub(crate) sent: AtomicU64,
    /// When they were received, if that was asked for.
    pub(crate) arrivals: Option<Arrivals>,
}

impl Moved {
    pub(crate) fn receive(&self, bytes: u64) {
        self.received.fetch_add(bytes, Ordering::Relaxed);
        if let Some(arrivals) = &self.arrivals {
            arrivals.add(bytes);
        }
    }
}

/// Answers Fleet.
#[derive(Debug)]
pub(crate) struct Objects {
    pub(crate) moved: Arc<Moved>,
    pub(crate) source: Source,
    /// Whether what is pushed is hashed, as a server does that stores it.
    pub(crate) hash: bool,
}

impl Objects {
    async fn drop_body(&self, mut body: Body) -> Result<(), Status> {
        let mut hash = self.hash.then(|| digest::Context::new(&SHA256));
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| refused(&error))?;
            self.moved.receive(piece.len() as u64);
            if let Some(begun) = hash.take() {
                hash = Some(hashed(begun, piece).await?);
            }
        }
        Ok(())
    }

    /// Counts pieces as the transport takes them.
    fn counted(&self, len: u64) -> Body {
        let moved = Arc::clone(&self.moved);
        let pieces = self.source.pieces(len).map(move |piece| {
            moved.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        });
        Body::from_stream(Some(len), futures_util::stream::iter(pieces))
    }
}

impl Handler<Fleet> for Objects {
    async fn handle(&self, _: Context, call: Call<Fleet>) -> Result<Reply<Fleet>, Status> {
        match call.request {
            Request::Heartbeat(_) => Ok(Reply::new(Response::Heartbeat(true))),
            Request::PushObject(_) => {
                if let Some(body) = call.body {
                    self.drop_body(body).await?;
                }
                Ok(Reply::new(Response::PushObject(true)))
            }
            Request::PullObject(pull) => Ok(Reply {
                response: Response::PullObject(ObjectState::Available),
                tail: Tail::Body(self.counted(object_bytes(pull.object))),
            }),
            other => Err(Status::unimplemented(flwr_transport::Request::name(&other))),
        }
    }
}

/// Large pieces are hashed where nobody waits for them.
async fn hashed(mut hash: digest::Context, piece: Bytes) -> Result<digest::Context, Status> {
    if piece.len() <= INLINE_BYTES_MAX {
        hash.update(&piece);
        return Ok(hash);
    }
    let hashing = spawn_blocking(move || {
        hash.update(&piece);
        hash
    });
    hashing.await.map_err(|error| refused(&error))
}

fn refused(error: &impl ToString) -> Status {
    Status::new(Code::Internal, error.to_string())
}

const INLINE_BYTES_MAX: usize = 1 << 20;
