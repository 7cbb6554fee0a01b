//! How many messages wait for what, and for how long.

use super::{Instruction, Mailbox};
use crate::link::{Census, Queue};
use crate::tables::objects::Objects;
use crate::tables::shelves::Place;

impl Mailbox {
    /// Adds all instructions to the census.
    pub(in crate::tables) fn count(&self, objects: &Objects, census: &mut Census) {
        for of_run in self.boxes.values() {
            for instruction in of_run.instructions.values() {
                if let Some(queue) = queue_of(instruction, objects, census) {
                    queue.add(instruction);
                }
            }
        }
    }
}

/// Where an instruction counts: one that has expired, and was not answered, nowhere.
fn queue_of<'a>(
    instruction: &Instruction,
    objects: &Objects,
    census: &'a mut Census,
) -> Option<&'a mut Queue> {
    Some(match (&instruction.reply, instruction.place) {
        (Some(reply), _) if reply.is_complete(objects) => &mut census.answered,
        // Its reply is on its way.
        (Some(_), _) => &mut census.working,
        (None, Place::Unannounced | Place::Incomplete) => &mut census.incomplete,
        (None, Place::Ready) => &mut census.ready,
        (None, Place::Offered) => &mut census.offered,
        (None, Place::Out) if instruction.confirmed => &mut census.working,
        (None, Place::Out) => return None,
    })
}

impl Queue {
    fn add(&mut self, instruction: &Instruction) {
        let made = instruction.message.metadata.created_at;
        self.len += 1;
        self.oldest = Some(self.oldest.map_or(made, |oldest| oldest.min(made)));
    }
}
