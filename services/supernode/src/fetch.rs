//! Bringing an instruction here: what its run is, its app, and its objects, in parallel and only
//! those that are not here yet. One that breaks off goes on at the byte where it stopped.

use std::sync::Arc;
use std::time::Duration;

use flwr_api::fleet::{
    ConfirmMessage, GetFab, GetRun, ObjectState, Parcel, PullObject, ResumePull,
};
use flwr_api::{Delivery, NodeId, ObjectId, RunId};
use flwr_state::{Arrival, Fabs as _, Partial, Pin, PutFile, StoreError};
use flwr_transport::{Body, Code, Status};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::metrics::count_received;
use crate::node::Core;
use crate::patience::{Backoff, Insisting, is_final, long};
use crate::runs::Run;

/// How long an announced object is waited for in all (Flower 1.22, `common/inflatable_utils.py`).
const OBJECT_PATIENCE: Duration = Duration::from_secs(7200);

/// How long the SuperLink may hold the call for an object that has not arrived there.
const OBJECT_HOLD: Duration = Duration::from_secs(10);

/// How often an object that arrives damaged or cut is fetched.
const TRIES_MAX: u32 = 10;

/// Why an instruction cannot be worked off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// Its run is over, or unknown.
    #[error("the run is over")]
    RunOver,
    /// The app does not fit the run.
    #[error("the app cannot be configured: {0}")]
    App(String),
    /// The SuperLink refuses a call.
    #[error("the SuperLink refuses: {0}")]
    Refused(Status),
    /// An object is not to be had, or not to be kept.
    #[error("an object of the message cannot be had: {0}")]
    Object(String),
}

impl From<Status> for FetchError {
    fn from(status: Status) -> Self {
        if status.code == Code::PermissionDenied {
            Self::RunOver
        } else {
            Self::Refused(status)
        }
    }
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Object(describe(&error))
    }
}

impl Core {
    /// What is known of the instruction's run; asks for it once.
    pub(crate) async fn run(&self, node: NodeId, id: RunId) -> Result<Arc<Run>, FetchError> {
        if let Some(run) = self.runs.get(id) {
            return Ok(run);
        }
        let described = self.fleet.run(GetRun { node, run: id }, long()).await?;
        let described = described.ok_or(FetchError::RunOver)?;
        let hash = described.fab.hash;
        let call = GetFab {
            node,
            run: id,
            hash,
        };
        let fab = self.fleet.fab(call, long()).await?;
        let broken = |why: String| FetchError::App(why);
        if flwr_api::FabHash::of(&fab.content) != hash {
            return Err(broken("the app bundle does not hash to its name".into()));
        }
        let defaults = flwr_fab::default_config(&fab.content);
        let defaults = defaults.map_err(|error| broken(error.to_string()))?;
        let config = flwr_fab::fuse(defaults, described.overrides.clone());
        let config = config.map_err(|error| broken(error.to_string()))?;
        self.fabs.put_fab(hash, fab.content).await?;
        Ok(self.runs.add(Run::new(described, node, config)))
    }

    /// Brings the objects of an instruction here and keeps them for as long as the pin lives.
    pub(crate) async fn objects(&self, node: NodeId, parcel: &Parcel) -> Result<Pin, FetchError> {
        let delivery = &parcel.delivery;
        let ids = delivery.tree.ids();
        let pin = self.objects.pin(ids.iter().copied());
        for (id, bytes) in &parcel.objects {
            if !self.objects.has(*id) {
                // What is wrong with it shows when it is fetched alone.
                self.keep(*id, &mut None, Body::from_bytes(bytes.clone()))
                    .await?;
            }
        }
        let missing = self.objects.missing(&ids);
        debug!(
            run_id = delivery.message.metadata.run.0,
            objects = ids.len(),
            missing = missing.len(),
            "fetching the objects of an instruction"
        );
        let run = delivery.message.metadata.run;
        self.fetch(node, run, missing, self.config.transfers_max)
            .await?;
        Ok(pin)
    }

    /// Brings objects here, so many at once.
    pub(crate) async fn fetch(
        &self,
        node: NodeId,
        run: RunId,
        objects: Vec<ObjectId>,
        at_once: usize,
    ) -> Result<(), FetchError> {
        stream::iter(objects)
            .map(|id| self.object(node, run, id))
            .buffer_unordered(at_once.max(1))
            .try_collect()
            .await
    }

    /// Tells the SuperLink that it need not keep the instruction. If the answer is lost it does not
    /// offer the instruction again, so giving up early would lose it; nor does one of Flower 1.22 if
    /// it cannot answer, so what is here is worked on then. A second offer is recognized.
    ///
    /// # Errors
    /// When the SuperLink says no.
    pub(crate) async fn confirm(&self, node: NodeId, delivery: &Delivery) -> Result<(), Status> {
        let mut insisting = Insisting::default();
        loop {
            let call = ConfirmMessage {
                node,
                run: delivery.message.metadata.run,
                message: delivery.tree.id,
            };
            match self.fleet.confirm_message(call, long()).await {
                Ok(()) => return Ok(()),
                Err(status) => match insisting.bear(status, &*self.entropy).await {
                    Ok(()) => {}
                    Err(status) if is_final(&status) => return Err(status),
                    Err(status) => {
                        warn!(
                            "an instruction is worked on though it could not be confirmed: {status}"
                        );
                        return Ok(());
                    }
                },
            }
        }
    }

    async fn object(&self, node: NodeId, run: RunId, id: ObjectId) -> Result<(), FetchError> {
        let begun = Instant::now();
        let patience = || Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        let (mut backoff, mut tries) = (patience(), 0);
        let (mut partial, mut most) = (None, 0);
        while begun.elapsed() < OBJECT_PATIENCE {
            let asked = Instant::now();
            let why = match self.pull(node, run, id, &mut partial).await? {
                (ObjectState::Available, Some(body)) => {
                    match self.keep(id, &mut partial, body).await? {
                        None => return Ok(()),
                        Some(why) => why,
                    }
                }
                (ObjectState::Unknown, _) => {
                    return Err(FetchError::Object(format!(
                        "the SuperLink has no object {id}"
                    )));
                }
                // It is on its way to the SuperLink.
                (ObjectState::Pending | ObjectState::Available, _) => {
                    if asked.elapsed() < OBJECT_HOLD / 2 {
                        backoff.pause(&*self.entropy).await;
                    }
                    continue;
                }
            };
            let came = partial.as_ref().map_or(0, Partial::len);
            if came > most {
                // A link that breaks again and again is borne as long as something gets through.
                (backoff, tries, most) = (patience(), 0, came);
            }
            tries += 1;
            warn!(object_id = %id, why, "an object has to be fetched again");
            if tries == TRIES_MAX {
                let why = format!("object {id} arrived damaged {TRIES_MAX} times: {why}");
                return Err(FetchError::Object(why));
            }
            backoff.pause(&*self.entropy).await;
        }
        let hours = OBJECT_PATIENCE.as_secs() / 3600;
        let why = format!("object {id} did not reach the SuperLink within {hours} hours");
        Err(FetchError::Object(why))
    }

    /// Asks for an object, or for the rest of one that has begun to come.
    async fn pull(
        &self,
        node: NodeId,
        run: RunId,
        object: ObjectId,
        begun: &mut Option<Partial>,
    ) -> Result<(ObjectState, Option<Body>), Status> {
        let wait = OBJECT_HOLD;
        if let Some(partial) = begun {
            let offset = partial.len();
            debug!(object_id = %object, offset, "an object goes on where it stopped");
            let call = ResumePull {
                node,
                run,
                object,
                offset,
                wait,
            };
            match self.fleet.resume_pull(call, long()).await {
                Err(status) if is_unknown_call(&status) => *begun = None,
                pulled => return pulled,
            }
        }
        let call = PullObject {
            node,
            run,
            object,
            wait,
        };
        self.fleet.pull_object(call, long()).await
    }

    /// Stores an object; says why it has to be fetched again.
    async fn keep(
        &self,
        id: ObjectId,
        partial: &mut Option<Partial>,
        body: Body,
    ) -> Result<Option<String>, FetchError> {
        let put = match self.objects.receive(id, partial.take(), body).await? {
            Arrival::Over(put) => put,
            Arrival::BrokeOff(came, error) => {
                *partial = Some(came).filter(|came| !came.is_empty());
                return Ok(Some(error.to_string()));
            }
        };
        Ok(match put {
            PutFile::Stored => {
                count_received(1);
                // It is on the way to the disk while the rest arrives; the ClientApp still finds its pages.
                self.objects.leave_memory(vec![id]).await;
                None
            }
            PutFile::Present => None,
            PutFile::Interrupted(error) => Some(error.to_string()),
            PutFile::WrongHash => Some("its bytes do not hash to its id".to_owned()),
            PutFile::Malformed(why) => {
                let why = format!("object {id} is malformed: {why}");
                return Err(FetchError::Object(why));
            }
        })
    }
}

/// Whether the other end does not know a call: it is Flower's, or older than the call.
pub(crate) fn is_unknown_call(status: &Status) -> bool {
    matches!(status.code, Code::Unimplemented | Code::InvalidArgument)
}

/// An error with its cause.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}
