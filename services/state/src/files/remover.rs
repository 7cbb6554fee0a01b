//! The thread that removes the files of objects that nothing speaks of any more.

use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use flwr_api::ObjectId;

use super::ObjectFiles;
use crate::storage::Content;

/// Objects that are gone, and where their bytes were.
pub type Removed = Vec<(ObjectId, Content)>;

/// The thread. It ends, and is waited for, when the other end of its channel is dropped: that has to be before this.
#[derive(Debug)]
pub struct Remover(Option<JoinHandle<()>>);

impl Remover {
    /// Removes what comes, one after the other.
    #[must_use]
    pub fn start(files: ObjectFiles, removed: Receiver<Removed>) -> Self {
        let work = move || {
            for contents in removed {
                for (object, content) in contents {
                    let is_file = matches!(content, Content::File(..));
                    // Unpins it; somebody else may have pinned it meanwhile.
                    drop(content);
                    if is_file && let Err(error) = files.remove_now(object) {
                        tracing::warn!(%object, %error, "the file of an object that is not needed stays until the next start");
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("state-remover".into());
        Self(thread.spawn(work).ok())
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that removes files died");
        }
    }
}
