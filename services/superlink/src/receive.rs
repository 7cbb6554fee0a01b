//! Objects on their way in: what came of one that a node pushes stays if the push breaks off.

use std::sync::Arc;

use flwr_api::{ObjectId, Reason, RunId};
use flwr_state::{Arrived, Beginning, Fabs, LinkState, Put, StoreError};
use flwr_transport::{Body, Code, Context, Status};
use tracing::{debug, warn};

use crate::metrics::Way::Received;
use crate::partials::{Key, Writing};
use crate::superlink::{SuperLink, unavailable};

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// Stores an object's bytes for a caller that may; false if they do not fit or are not wanted.
    pub(crate) async fn store_object(
        &self,
        context: &Context,
        (run, object): (RunId, ObjectId),
        body: Body,
    ) -> Result<bool, Status> {
        let body = self.incoming(context, run, body);
        let arrived = self.state().receive_object(object, None, body).await;
        self.judge(context, (run, object), arrived).await
    }

    /// Stores an object's bytes as [`store_object`](Self::store_object) does, for a node that can go on with what broke off.
    pub(crate) async fn push(
        &self,
        context: &Context,
        key: Key,
        body: Body,
    ) -> Result<bool, Status> {
        let partials = &self.core.partials;
        // Only who can ask for it can go on.
        let is_kept = context.is_native
            && !body.is_here()
            && body.len().is_some_and(|bytes| partials.takes(bytes));
        if !is_kept {
            return self
                .store_object(context, (key.run, key.object), body)
                .await;
        }
        self.write(context, partials.begin(key), None, body).await
    }

    /// Stores the rest of an object that broke off; false if its beginning is not here, or not as long as the node believes.
    pub(crate) async fn push_rest(
        &self,
        context: &Context,
        key: Key,
        offset: u64,
        rest: Body,
    ) -> Result<bool, Status> {
        let partials = &self.core.partials;
        let bytes = rest.len().unwrap_or(0).saturating_add(offset);
        if !partials.takes(bytes) {
            return Ok(false);
        }
        let Some((writing, begun)) = partials.resume(key, offset).await else {
            return Ok(false);
        };
        debug!(object_id = %key.object, node_id = key.node.0, offset, "push goes on");
        self.write(context, writing, Some(begun), rest).await
    }

    /// Stores what comes, and puts away what came if it breaks off.
    async fn write(
        &self,
        context: &Context,
        writing: Writing,
        begun: Option<Beginning>,
        body: Body,
    ) -> Result<bool, Status> {
        let Key { run, object, .. } = writing.key();
        let body = self.incoming(context, run, body).until(writing.over());
        let state = Arc::clone(&self.core.state);
        // Nobody waits for the call of a connection that broke, but what came has to be put away.
        let receiving = tokio::spawn(async move {
            match state.receive_object(object, begun, body).await? {
                Arrived::BrokeOff(beginning, why) => {
                    writing.leave(beginning);
                    Ok(Arrived::BrokeOff(None, why))
                }
                over @ Arrived::Over(_) => Ok(over),
            }
        });
        let arrived = receiving
            .await
            .unwrap_or_else(|ended| match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_cancelled) => Err(StoreError::Stopped),
            });
        self.judge(context, (run, object), arrived).await
    }

    /// The body of an object, counted as it comes.
    fn incoming(&self, context: &Context, run: RunId, body: Body) -> Body {
        self.core.progress.moved(run);
        Received.count_bytes(context.peer.transport, body)
    }

    /// What a caller is told.
    async fn judge(
        &self,
        context: &Context,
        (run, object): (RunId, ObjectId),
        arrived: Result<Arrived, StoreError>,
    ) -> Result<bool, Status> {
        match arrived {
            Ok(Arrived::Over(Put::Stored | Put::Present)) => {
                Received.count_objects(context.peer.transport, 1);
                Ok(true)
            }
            Ok(Arrived::Over(Put::WrongHash)) => {
                warn!(object_id = %object, "object refused: its bytes do not hash to its id");
                Ok(false)
            }
            Ok(Arrived::Over(Put::Unannounced)) => {
                // Its run may have ended while it came.
                self.require_running(run).await?;
                debug!(object_id = %object, "object refused: no message announced it");
                Ok(false)
            }
            Ok(Arrived::Over(Put::Malformed(why))) => {
                Err(Reason::ObjectMalformed.refuse(why.to_string()))
            }
            Ok(Arrived::BrokeOff(_, StoreError::Body(why))) => {
                debug!(object_id = %object, %why, "push broken off");
                let why = "the object did not arrive whole";
                Err(Status::new(Code::Unavailable, why))
            }
            Ok(Arrived::BrokeOff(_, error)) | Err(error) => {
                if matches!(error, StoreError::Full { .. }) {
                    // Room is for what comes, not for what has broken off.
                    self.core.partials.forget_left();
                }
                Err(unavailable(error))
            }
        }
    }
}
