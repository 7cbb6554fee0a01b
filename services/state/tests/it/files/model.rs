//! Random puts, gets, pins and restarts, compared with a model: a list in order of use.

use std::collections::HashSet;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use flwr_api::ObjectId;
use flwr_state::StoreError;
use flwr_state::files::{ObjectFiles, Pin, PutFile, Totals};
use flwr_transport::Body;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::damage::change;
use super::{assert_clean, interrupted, names, object, path, pieces, quota, read};

/// About five of the objects fit.
const QUOTA: u64 = 600;

#[derive(Clone, Debug)]
enum Step {
    Put { object: Index, announced: bool },
    PutBroken(Index),
    PutWrong(Index, Index),
    Get(Index),
    Pin(Vec<Index>),
    Unpin(Index),
    Remove(Index),
    Clear,
    Damage(Index),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        10 => (index(), any::<bool>()).prop_map(|(object, announced)| Step::Put { object, announced }),
        1 => index().prop_map(Step::PutBroken),
        1 => (index(), index()).prop_map(|(id, bytes)| Step::PutWrong(id, bytes)),
        6 => index().prop_map(Step::Get),
        3 => vec(index(), 0..3).prop_map(Step::Pin),
        3 => index().prop_map(Step::Unpin),
        1 => index().prop_map(Step::Remove),
        1 => Just(Step::Clear),
        1 => index().prop_map(Step::Damage),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn files_are_kept_as_in_a_list_in_order_of_use(steps in vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(steps));
    }
}

#[derive(Default)]
struct Model {
    /// Least recently used first, with lengths.
    kept: Vec<(ObjectId, u64)>,
    pins: Vec<Vec<ObjectId>>,
    damaged: HashSet<ObjectId>,
}

impl Model {
    fn is_pinned(&self, id: ObjectId) -> bool {
        self.pins.iter().flatten().any(|pinned| *pinned == id)
    }

    fn has(&self, id: ObjectId) -> bool {
        self.kept.iter().any(|(kept, _)| *kept == id)
    }

    fn touch(&mut self, id: ObjectId) {
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == id) {
            let used = self.kept.remove(at);
            self.kept.push(used);
        }
    }

    fn drop_object(&mut self, id: ObjectId) {
        self.kept.retain(|(kept, _)| *kept != id);
        self.damaged.remove(&id);
    }

    fn bytes(&self, which: impl Fn(ObjectId) -> bool) -> u64 {
        let of_those = self.kept.iter().filter(|(id, _)| which(*id));
        of_those.map(|(_, len)| len).sum()
    }

    /// Removes what has to go for `bytes` more; false, and nothing, if that is not enough.
    fn make_room(&mut self, bytes: u64) -> bool {
        if self.bytes(|id| self.is_pinned(id)) + bytes > QUOTA {
            return false;
        }
        while self.bytes(|_| true) + bytes > QUOTA {
            let mut ids = self.kept.iter().map(|(id, _)| *id);
            let oldest = ids.find(|id| !self.is_pinned(*id)).unwrap();
            self.drop_object(oldest);
        }
        true
    }

    fn totals(&self) -> Totals {
        Totals {
            objects: self.kept.len(),
            bytes: self.bytes(|_| true),
            pinned_bytes: self.bytes(|id| self.is_pinned(id)),
            reserved_bytes: 0,
        }
    }
}

async fn compare(steps: Vec<Step>) {
    let objects: Vec<_> = (0..12)
        .map(|n| object(n, 50 + 11 * usize::from(n)))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let mut files = ObjectFiles::open(folder.path(), quota(QUOTA)).unwrap();
    let mut pins: Vec<Pin> = Vec::new();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Put { object, announced } => {
                let (id, bytes) = object.get(&objects);
                let body = pieces(bytes, 20, announced);
                check_put(&files, &mut model, *id, body, bytes.len(), PutFile::Stored).await;
            }
            Step::PutBroken(object) => {
                let (id, bytes) = object.get(&objects);
                // It breaks off before anything is reserved.
                let body = interrupted(&bytes.slice(..9), Some(bytes.len() as u64));
                let put = files.put(*id, body).await.unwrap();
                let present = model.has(*id);
                assert_eq!(put == PutFile::Present, present);
                model.touch(*id);
            }
            Step::PutWrong(object, other) => {
                let (id, (right, bytes)) = (object.get(&objects).0, other.get(&objects));
                if id != *right {
                    let body = Body::from_bytes(bytes.clone());
                    check_put(
                        &files,
                        &mut model,
                        id,
                        body,
                        bytes.len(),
                        PutFile::WrongHash,
                    )
                    .await;
                }
            }
            Step::Get(object) => get(&files, &mut model, object.get(&objects)).await,
            Step::Pin(ids) => {
                let ids: Vec<_> = ids.iter().map(|at| at.get(&objects).0).collect();
                pins.push(files.pin(ids.clone()));
                model.pins.push(ids);
            }
            Step::Unpin(at) if !pins.is_empty() => {
                let at = at.index(pins.len());
                drop(pins.remove(at));
                for id in model.pins.remove(at) {
                    if !model.is_pinned(id) {
                        model.touch(id);
                    }
                }
            }
            Step::Unpin(_) => {}
            Step::Remove(object) => {
                let id = object.get(&objects).0;
                let removed = files.remove(id).await.unwrap();
                assert_eq!(removed, model.has(id) && !model.is_pinned(id));
                if removed {
                    model.drop_object(id);
                }
            }
            Step::Clear => {
                files.clear().await.unwrap();
                for (id, _) in model.kept.clone() {
                    if !model.is_pinned(id) {
                        model.drop_object(id);
                    }
                }
            }
            Step::Damage(object) => {
                let id = object.get(&objects).0;
                if model.has(id) {
                    change(&path(folder.path(), id), 0);
                    model.damaged.insert(id);
                }
            }
            Step::Reopen => {
                pins.clear();
                drop(files);
                files = ObjectFiles::open(folder.path(), quota(QUOTA)).unwrap();
                model.pins.clear();
                let by_use = |(id, _): &(ObjectId, u64)| (used(folder.path(), *id), *id);
                model.kept.sort_by_key(by_use);
            }
        }
        agree(&files, &model, folder.path(), &objects);
    }
}

async fn check_put(
    files: &ObjectFiles,
    model: &mut Model,
    id: ObjectId,
    body: Body,
    len: usize,
    outcome: PutFile,
) {
    let put = files.put(id, body).await;
    if model.has(id) {
        assert_eq!(put.unwrap(), PutFile::Present);
        model.touch(id);
    } else if !model.make_room(len as u64) {
        assert!(matches!(put, Err(StoreError::Full { .. })), "{put:?}");
    } else {
        assert_eq!(put.unwrap(), outcome);
        if outcome == PutFile::Stored {
            model.kept.push((id, len as u64));
        }
    }
}

async fn get(files: &ObjectFiles, model: &mut Model, (id, bytes): &(ObjectId, Bytes)) {
    let read = read(files, *id).await;
    if model.has(*id) && !model.damaged.contains(id) {
        assert_eq!(read, Some(Ok(bytes.to_vec())));
        model.touch(*id);
    } else {
        assert_eq!(read, None);
        model.drop_object(*id);
    }
}

fn used(folder: &Path, id: ObjectId) -> SystemTime {
    let metadata = path(folder, id).metadata().unwrap();
    metadata.modified().unwrap()
}

fn agree(files: &ObjectFiles, model: &Model, folder: &Path, objects: &[(ObjectId, Bytes)]) {
    for (id, _) in objects {
        assert_eq!(files.has(*id), model.has(*id), "{id}");
        assert_eq!(path(folder, *id).exists(), model.has(*id), "{id}");
    }
    let ids: Vec<_> = objects.iter().map(|(id, _)| *id).collect();
    let missing = ids.iter().filter(|id| !model.has(**id)).copied();
    assert_eq!(files.missing(&ids), missing.collect::<Vec<_>>());
    assert_eq!(files.totals(), model.totals());
    assert_clean(folder, files);
    assert!(names(&folder.join("objects")).len() <= objects.len());
}
