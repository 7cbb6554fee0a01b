//! Objects as rows: what has changed, the table made of rows again, and bytes that turned out to be
//! lost.

use std::collections::{HashMap, HashSet};
use std::mem::take;
use std::sync::Arc;

use flwr_api::{ObjectId, ObjectTree};

use super::{Entry, ObjectKey, Objects, Refused, Shape, TREE_DEPTH_MAX};
use crate::storage::Content;
use crate::tables::rows::{Change, ObjectRow, Rows};

impl Objects {
    /// A row as it is now; nothing if another one says it. Bytes that are in memory are handed over
    /// to whoever keeps the rows.
    pub(crate) fn change(&mut self, key: &ObjectKey) -> Option<Change> {
        match *key {
            ObjectKey::Object(id) => {
                let children = |entry: &Entry| entry.shape.children.iter().map(|c| c.id).collect();
                Some(Change::Object(id, self.entries.get(&id).map(children)))
            }
            ObjectKey::Content(id) => {
                let entry = self.entries.get_mut(&id)?;
                let row = entry.content.as_mut().map(|content| {
                    let len = content.len();
                    match std::mem::replace(content, Content::Row(len)) {
                        Content::Here(bytes) => (len, Some(bytes)),
                        kept => {
                            *content = kept;
                            (len, None)
                        }
                    }
                });
                Some(Change::Content(id, row))
            }
            ObjectKey::Hold(run, id) => {
                let holds = self.held.get(&run).is_some_and(|held| held.contains(&id));
                Some(Change::Hold(run, id, holds))
            }
            ObjectKey::Gone(number) => Some(Change::Gone(number, self.gone.row(number))),
        }
    }

    /// Takes objects from rows.
    ///
    /// # Errors
    /// The rows do not fit together.
    pub(crate) fn restore(&mut self, rows: &mut Rows) -> Result<(), Damaged> {
        rows.gone.sort_unstable();
        for (number, id) in take(&mut rows.gone) {
            self.gone.restore(number, id);
        }
        let ids: Vec<ObjectId> = rows.objects.iter().map(|row| row.id).collect();
        let objects = take(&mut rows.objects).into_iter();
        let mut objects: HashMap<_, _> = objects.map(|row| (row.id, row)).collect();
        for id in ids {
            self.restore_tree(id, &mut objects, 0)?;
        }
        for (run, id) in take(&mut rows.holds) {
            if !self.hold(run, id) {
                return Err(Damaged(id));
            }
        }
        Ok(())
    }

    fn restore_tree(
        &mut self,
        id: ObjectId,
        rows: &mut HashMap<ObjectId, ObjectRow>,
        level: usize,
    ) -> Result<(), Damaged> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        // An object that is its own ancestor was taken out already.
        let row = rows.remove(&id).filter(|_| level < TREE_DEPTH_MAX);
        let row = row.ok_or(Damaged(id))?;
        for child in &row.children {
            self.restore_tree(*child, rows, level + 1)?;
        }
        let children = row.children.into_iter().map(ObjectTree::leaf).collect();
        self.insert(&ObjectTree { id, children })
            .map_err(|Refused| Damaged(id))?;
        if let Some(content) = row.content {
            self.put(id, content);
        }
        Ok(())
    }

    /// Forgets the bytes of objects, which nobody can read any more.
    pub(crate) fn lose(&mut self, ids: &HashSet<ObjectId>) {
        for id in ids {
            let content = self.entries.get_mut(id).and_then(|e| e.content.take());
            if let Some(content) = content {
                self.bytes -= content.len();
                self.marks.mark(ObjectKey::Content(*id));
                self.removed.push((*id, Some(content)));
            }
        }
        self.count_again();
    }

    /// Finds out anew what is complete.
    fn count_again(&mut self) {
        let mut complete = HashMap::with_capacity(self.entries.len());
        for entry in self.entries.values() {
            self.look_below(&entry.shape, &mut complete);
        }
        for entry in self.entries.values_mut() {
            entry.incomplete_children = 0;
            entry.waiting_parents.clear();
        }
        let shapes: Vec<_> = self
            .entries
            .values()
            .map(|e| Arc::clone(&e.shape))
            .collect();
        for shape in shapes {
            let is_incomplete = |child: &&Arc<Shape>| complete.get(&child.id) != Some(&true);
            let incomplete = shape.children.iter().filter(is_incomplete);
            let mut count = 0;
            for child in incomplete {
                count += 1;
                if let Some(entry) = self.entries.get_mut(&child.id) {
                    *entry.waiting_parents.entry(shape.id).or_default() += 1;
                }
            }
            if let Some(entry) = self.entries.get_mut(&shape.id) {
                entry.incomplete_children = count;
            }
        }
    }

    fn look_below(&self, shape: &Shape, complete: &mut HashMap<ObjectId, bool>) -> bool {
        if let Some(known) = complete.get(&shape.id) {
            return *known;
        }
        let mut all = self
            .entries
            .get(&shape.id)
            .is_some_and(|e| e.content.is_some());
        for child in &shape.children {
            all &= self.look_below(child, complete);
        }
        complete.insert(shape.id, all);
        all
    }
}

/// The rows of this object do not fit those of others.
#[derive(Debug)]
pub(crate) struct Damaged(pub(crate) ObjectId);
