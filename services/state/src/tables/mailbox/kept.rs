//! Messages as rows: what has changed, and the table made of rows again.

use std::mem::take;

use super::{Instruction, MailKey, Mailbox, Name, Reply};
use crate::tables::objects::Objects;
use crate::tables::rows::{Change, InstructionRow, Of, ReplyRow, Rows};
use crate::tables::shelves::{Place, shelve};

impl Mailbox {
    /// A row as it is now.
    pub(crate) fn change(&self, key: MailKey) -> Change {
        match key {
            MailKey::Instruction(run, name) => {
                let instruction = self.boxes.get(&run).and_then(|b| b.instructions.get(&name));
                let row = instruction.map(|instruction| InstructionRow {
                    run,
                    message: instruction.message.clone(),
                    arrival: instruction.arrival,
                    offered: instruction.offered,
                    confirmed: instruction.confirmed,
                    retired: instruction.place == Place::Out,
                });
                Change::Instruction(run, name.text(), row)
            }
            MailKey::Reply(run, name, of) => {
                let of_run = self.boxes.get(&run);
                let reply = of_run.and_then(|of_run| match of {
                    Of::Instruction => of_run.instructions.get(&name)?.reply.as_ref(),
                    Of::Nothing => of_run.errors.get(&name),
                });
                let row = reply.map(|reply| ReplyRow {
                    run,
                    of,
                    message: reply.message.clone(),
                    settled: reply.settled,
                    synthetic: reply.synthetic,
                });
                Change::Reply(run, name.text(), of, row)
            }
            MailKey::Unwanted(run, root) => {
                let of_run = self.boxes.get(&run);
                let is_unwanted = of_run.is_some_and(|of_run| of_run.unwanted.contains(&root));
                Change::Unwanted(run, root, is_unwanted)
            }
            MailKey::Abandoned(node, run, root) => {
                let shelves = self.shelves.get(&node);
                let is_abandoned = shelves.is_some_and(|s| s.abandoned.contains(&(run, root)));
                Change::Abandoned(node, run, root, is_abandoned)
            }
            MailKey::Run(run) => Change::NoMessages(run),
        }
    }

    /// Takes messages from rows. Their objects are there already.
    pub(crate) fn restore(&mut self, rows: &mut Rows, objects: &Objects) {
        for row in take(&mut rows.instructions) {
            let name = Name::of(&row.message.metadata.id);
            self.arrivals = self.arrivals.max(row.arrival + 1);
            let mut instruction = Instruction {
                arrival: row.arrival,
                place: Place::Out,
                offered: row.offered,
                confirmed: row.confirmed,
                reply: None,
                message: row.message,
            };
            let root = instruction.message.metadata.id.root();
            let place = match root {
                _ if row.retired => Place::Out,
                _ if row.offered => Place::Offered,
                Some(root) if objects.is_complete(root) => Place::Ready,
                Some(root) if objects.shape(root).is_some() => Place::Incomplete,
                _ => Place::Unannounced,
            };
            shelve(&mut self.shelves, row.run, &name, &mut instruction, place);
            let of_run = self.boxes.entry(row.run).or_default();
            of_run.instructions.insert(name, instruction);
        }
        for row in take(&mut rows.replies) {
            let name = Name::of(&row.message.metadata.reply_to);
            let of_run = self.boxes.entry(row.run).or_default();
            let root = row.message.metadata.id.root();
            of_run.replies.extend(root.map(|root| (root, name.clone())));
            let reply = Reply {
                message: row.message,
                settled: row.settled,
                synthetic: row.synthetic,
            };
            match (row.of, of_run.instructions.get_mut(&name)) {
                (Of::Instruction, Some(instruction)) => instruction.reply = Some(reply),
                (Of::Instruction, None) | (Of::Nothing, _) => {
                    of_run.errors.insert(name, reply);
                }
            }
        }
        for (run, root) in take(&mut rows.unwanted) {
            self.boxes.entry(run).or_default().unwanted.insert(root);
        }
        for (node, run, root) in take(&mut rows.abandoned) {
            let shelves = self.shelves.entry(node).or_default();
            shelves.abandoned.push((run, root));
        }
    }
}
