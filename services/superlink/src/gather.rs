//! Objects on their way in from nodes: what came of one that breaks off stays.

use flwr_api::Reason;
use flwr_state::{Fabs, LinkState, Object};
use flwr_transport::{Body, BodyError, Code, Status};
use tracing::debug;

use crate::partials::{Key, Pushing};
use crate::superlink::{SuperLink, unavailable};

impl<S: LinkState, F: Fabs> SuperLink<S, F> {
    /// The whole of an object that is awaited, of which the beginning stays here if it breaks off.
    /// Other bodies, and those that come in one piece, are handed on as they are. The room is the body's.
    pub(crate) async fn gather(
        &self,
        key: Key,
        body: Body,
    ) -> Result<(Body, Option<Pushing>), Status> {
        let partials = &self.core.partials;
        let Some(bytes) = body.len().filter(|bytes| partials.takes(*bytes)) else {
            return Ok((body, None));
        };
        let known = self.state().object(key.object).await.map_err(unavailable)?;
        if !matches!(known, Object::Pending) {
            return Ok((body, None));
        }
        let mut body = body.checked();
        let first = body.next().await.transpose().map_err(broken_off)?;
        let first = first.unwrap_or_default();
        if first.len() as u64 == bytes {
            return match body.next().await {
                // Whoever has it in one piece has room for it.
                None => Ok((Body::from_bytes(first), None)),
                Some(_) => Err(broken_off(BodyError::TooLong { max: bytes })),
            };
        }
        let room = partials.room(key.node, bytes).await.map_err(no_room)?;
        let writing = partials.begin(key, bytes);
        writing.append(&first).map_err(broken_off)?;
        drop(first);
        let whole = writing.fill(body).await.map_err(broken_off)?;
        Ok((Body::from_bytes(whole), Some(room)))
    }

    /// The whole of an object whose beginning is here and whose rest is the body; nothing if fewer
    /// bytes are here than the node believes.
    pub(crate) async fn gather_rest(
        &self,
        key: Key,
        offset: u64,
        rest: Body,
    ) -> Result<Option<(Body, Pushing)>, Status> {
        let partials = &self.core.partials;
        let bytes = rest.len().unwrap_or(0).saturating_add(offset);
        // Room is for what can become an object, not for what somebody says.
        if !partials.takes(bytes) || partials.len(key) < offset {
            return Ok(None);
        }
        let room = partials.room(key.node, bytes).await.map_err(no_room)?;
        let Some(writing) = partials.resume(key, offset) else {
            return Ok(None);
        };
        debug!(object_id = %key.object, node_id = key.node.0, offset, "push goes on");
        let whole = writing.fill(rest.checked()).await.map_err(broken_off)?;
        Ok(Some((Body::from_bytes(whole), room)))
    }
}

/// The refusal of a push that nothing is decided about: its turn comes.
fn no_room(none: Status) -> Status {
    Reason::NoRoom.refuse(none.message)
}

/// The refusal of a push that did not arrive whole.
#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn broken_off(error: BodyError) -> Status {
    debug!(%error, "push broken off");
    Status::new(Code::Unavailable, "the object did not arrive whole")
}
