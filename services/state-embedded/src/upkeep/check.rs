//! Whether a state is whole.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::Path;

use flwr_api::{FabHash, ObjectId, Phase, RunId};
use flwr_state::rows::Rows;
use flwr_state::storage::Content;
use rusqlite::{Connection, OptionalExtension};

use super::{Place, bundles, digest, fit_together, open_beside};
use crate::error::{OpenError, failed};
use crate::reading::{self, Noted};
use crate::tables::LOGS;
use crate::{owner, schema};

/// What a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How much there is.
    pub totals: Totals,
    /// What is wrong, a sentence each; nothing if all is well.
    pub findings: Vec<String>,
}

/// How much there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Runs, finished ones as well.
    pub runs: usize,
    /// Nodes that have joined.
    pub nodes: usize,
    /// Instructions and replies under way.
    pub messages: usize,
    /// Objects that have arrived.
    pub objects: usize,
    /// Their bytes.
    pub object_bytes: u64,
    /// App bundles.
    pub bundles: usize,
    /// Entries of logs.
    pub log_entries: usize,
}

/// Looks at everything there is, and changes nothing. A SuperLink may be using it meanwhile.
///
/// # Errors
/// There is no database of ours, or it cannot be read at all.
pub fn check(place: &Place) -> Result<Report, OpenError> {
    let database = open_beside(&place.database)?;
    let mut check = Check {
        place,
        path: &place.database,
        database: &database,
        report: Report::default(),
        files: Vec::new(),
        needed_bundles: HashSet::new(),
    };
    check.all()?;
    Ok(check.report)
}

/// One thing to look at. Damage that it ends with is a finding.
type Part<C> = fn(&mut C) -> Result<(), OpenError>;

struct Check<'a> {
    place: &'a Place,
    path: &'a Path,
    database: &'a Connection,
    report: Report,
    /// Objects that are files, and how long these are.
    files: Vec<(ObjectId, u64)>,
    /// What the app bundles are that may still be started.
    needed_bundles: HashSet<FabHash>,
}

impl Check<'_> {
    fn all(&mut self) -> Result<(), OpenError> {
        // All that is in the database is looked at as of one moment.
        self.run("BEGIN")?;
        let parts: [Part<Self>; 6] = [
            Self::structure,
            |check| schema::check(check.database, check.path),
            Self::rows,
            Self::contents,
            Self::logs,
            Self::owner,
        ];
        for part in parts {
            match part(self) {
                Err(OpenError::Damaged { what, .. }) => self.found(what),
                result => result?,
            }
        }
        self.run("COMMIT")?;
        for (object, len) in std::mem::take(&mut self.files) {
            self.file(object, len)?;
        }
        self.bundles()
    }

    fn found(&mut self, what: impl Into<String>) {
        self.report.findings.push(what.into());
    }

    fn run(&self, statement: &str) -> Result<(), OpenError> {
        let done = self.database.execute_batch(statement);
        done.map_err(failed("read", self.path))
    }

    fn structure(&mut self) -> Result<(), OpenError> {
        let lines = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self.database.prepare("PRAGMA integrity_check")?;
            let lines = statement.query_map([], |row| row.get(0))?;
            lines.collect()
        };
        let lines = lines().map_err(failed("check", self.path))?;
        let findings = lines.iter().flat_map(|line| line.lines());
        let findings = findings.filter(|line| *line != "ok" && !line.starts_with("***"));
        self.report.findings.extend(findings.map(ToOwned::to_owned));
        Ok(())
    }

    fn rows(&mut self) -> Result<(), OpenError> {
        let (mut files, mut totals) = (Vec::new(), Totals::default());
        let mut arrived = |id, noted| {
            let bytes = match noted {
                Noted::Nothing => return None,
                Noted::Row(bytes) => bytes,
                Noted::File(bytes) => {
                    files.push((id, bytes));
                    bytes
                }
            };
            totals.objects += 1;
            totals.object_bytes += bytes;
            Some(Content::Row(bytes))
        };
        let read = reading::read(self.database, &mut arrived);
        let (rows, damaged) = read.map_err(failed("read", self.path))?;
        totals.runs = rows.runs.len();
        totals.nodes = rows.nodes.len();
        totals.messages = rows.instructions.len() + rows.replies.len();
        self.report.totals = totals;
        self.files = files;
        let unfinished = |phase| phase != Phase::Finished;
        let runs = rows.runs.iter().map(|row| &row.run);
        let needed = runs.filter(|run| unfinished(run.status.phase));
        self.needed_bundles = needed.map(|run| run.fab.hash).collect();
        self.report
            .findings
            .extend(damaged.iter().map(ToString::to_string));
        if !damaged.is_empty() {
            // Of course the others do not fit what is not there.
            return Ok(());
        }
        self.report.findings.extend(strays(&rows));
        fit_together(rows, self.path)
    }

    /// The bytes of small objects.
    fn contents(&mut self) -> Result<(), OpenError> {
        let look = || -> rusqlite::Result<Vec<String>> {
            let mut findings = Vec::new();
            let mut statement = self.database.prepare(
                "SELECT object, bytes, content, object IN (SELECT id FROM objects) FROM contents
                 WHERE content IS NOT NULL",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (object, bytes): (Vec<u8>, i64) = (row.get(0)?, row.get(1)?);
                let content: Vec<u8> = row.get(2)?;
                let id = ObjectId::of(&content);
                if id.0.as_slice() != object || content.len() as u64 != bytes.cast_unsigned() {
                    findings.push(format!(
                        "object {} is not as it was written",
                        crate::tables::hex(&object)
                    ));
                }
                if !row.get::<_, bool>(3)? {
                    findings.push(format!("object {id} has bytes and is not registered"));
                }
            }
            Ok(findings)
        };
        let findings = look().map_err(failed("read", self.path))?;
        self.report.findings.extend(findings);
        Ok(())
    }

    fn logs(&mut self) -> Result<(), OpenError> {
        let mut entries = 0;
        let damaged = LOGS.read(self.database, |_| {
            entries += 1;
            Ok(())
        });
        self.report.totals.log_entries = entries;
        match damaged.map_err(failed("read", self.path))? {
            0 => Ok(()),
            damaged => {
                self.found(format!(
                    "{damaged} entries of logs are not as they were written"
                ));
                Ok(())
            }
        }
    }

    fn owner(&mut self) -> Result<(), OpenError> {
        let id = schema::id(self.database, self.path)?;
        let owner = owner::read(&self.place.objects)?;
        if owner != Some(id) && (owner.is_some() || !self.files.is_empty()) {
            let folder = self.place.objects.display();
            self.found(format!("{folder} holds the objects of another database"));
        }
        Ok(())
    }

    /// The bytes of a large object, whose run may have ended since the rows were read.
    fn file(&mut self, object: ObjectId, len: u64) -> Result<(), OpenError> {
        let path = self.place.object(object);
        let mut what = "missing".to_owned();
        for _ in 0..LOOKS {
            match digest(&path) {
                Ok((hash, read)) if hash == object.0 && read == len => return Ok(()),
                Ok(_) => "not as it was written".clone_into(&mut what),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => what = format!("not readable: {error}"),
            }
            if !is_noted(self.database, object).map_err(failed("read", self.path))? {
                return Ok(());
            }
        }
        self.found(format!("object {object} is {what} ({})", path.display()));
        Ok(())
    }

    fn bundles(&mut self) -> Result<(), OpenError> {
        let folder = &self.place.objects;
        let bundles = bundles(folder)?;
        self.report.totals.bundles = bundles.len();
        for bundle in bundles {
            self.needed_bundles.remove(&bundle);
            let path = folder.join(bundle.to_string());
            match digest(&path) {
                Ok((hash, _)) if hash == bundle.0 => {}
                Ok(_) => self.found(format!("app bundle {bundle} is not as it was written")),
                Err(error) => self.found(format!("app bundle {bundle} is not readable: {error}")),
            }
        }
        for missing in std::mem::take(&mut self.needed_bundles) {
            self.found(format!(
                "app bundle {missing} is missing, of a run that has not finished"
            ));
        }
        Ok(())
    }
}

/// Whether the database says now that the object is a file.
fn is_noted(database: &Connection, object: ObjectId) -> rusqlite::Result<bool> {
    let found = database
        .prepare_cached("SELECT 1 FROM contents WHERE object = ?1 AND content IS NULL")?
        .query_row([object.0], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// Rows of runs that are not there.
fn strays(rows: &Rows) -> Vec<String> {
    let runs: HashSet<RunId> = rows.runs.iter().map(|row| row.run.id).collect();
    let count = |of: &mut dyn Iterator<Item = RunId>| of.filter(|run| !runs.contains(run)).count();
    let strays = [
        ("tokens", count(&mut rows.tokens.iter().map(|row| row.run))),
        (
            "instructions",
            count(&mut rows.instructions.iter().map(|row| row.run)),
        ),
        (
            "replies",
            count(&mut rows.replies.iter().map(|row| row.run)),
        ),
        (
            "unwanted",
            count(&mut rows.unwanted.iter().map(|row| row.0)),
        ),
        (
            "abandoned",
            count(&mut rows.abandoned.iter().map(|row| row.1)),
        ),
        ("holds", count(&mut rows.holds.iter().map(|row| row.0))),
    ];
    let strays = strays.into_iter().filter(|(_, rows)| *rows > 0);
    strays
        .map(|(table, rows)| {
            format!("{rows} rows of its table {table} are of runs that are not there")
        })
        .collect()
}

/// How often a file is looked at that does not fit, since its object may come and go.
const LOOKS: usize = 3;
