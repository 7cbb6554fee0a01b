//! The table of tokens.

use std::collections::HashMap;

use flwr_api::{RunId, Token, UnixTime};

use super::Return;
use super::marks::Marks;
use super::rows::TokenRow;
use crate::link::LAUNCH_LEASE_SECONDS;

/// The last token of each run.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    rows: HashMap<Token, Claim>,
    by_run: HashMap<RunId, Token>,
    pub(super) marks: Marks<Token>,
}

/// A run's token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) run: RunId,
    issued_at: UnixTime,
    /// Whether it was given back.
    pub(super) spent: bool,
}

impl Tokens {
    /// Binds a token to a pending run; false if that has a live one, or if the token is taken.
    pub(crate) fn issue(&mut self, run: RunId, token: Token, now: UnixTime) -> bool {
        if self.launch_end(run).is_some_and(|end| end > now) || self.rows.contains_key(&token) {
            return false;
        }
        if let Some(dead) = self.by_run.insert(run, token.clone()) {
            self.rows.remove(&dead);
            self.marks.mark(dead);
        }
        let claim = Claim {
            run,
            issued_at: now,
            spent: false,
        };
        self.marks.mark(token.clone());
        self.rows.insert(token, claim);
        true
    }

    pub(crate) fn get(&self, token: &Token) -> Option<Claim> {
        self.rows.get(token).copied()
    }

    pub(crate) fn spend(&mut self, token: &Token) {
        if let Some(claim) = self.rows.get_mut(token) {
            claim.spent = true;
            self.marks.mark(token.clone());
        }
    }

    /// The run is forgotten.
    pub(crate) fn forget(&mut self, run: RunId) {
        if let Some(token) = self.by_run.remove(&run) {
            self.rows.remove(&token);
            self.marks.mark(token);
        }
    }

    /// The moment from which on the token of a run that is still pending is dead.
    pub(crate) fn launch_end(&self, run: RunId) -> Option<UnixTime> {
        let claim = self.rows.get(self.by_run.get(&run)?)?;
        Some(claim.launch_end())
    }

    pub(crate) fn row(&self, token: &Token) -> Option<TokenRow> {
        self.rows.get(token).map(|claim| TokenRow {
            token: token.clone(),
            run: claim.run,
            issued_at: claim.issued_at,
            spent: claim.spent,
        })
    }

    /// Takes tokens from rows.
    pub(crate) fn restore(&mut self, rows: Vec<TokenRow>, back: Return) {
        for row in rows {
            let claim = Claim {
                run: row.run,
                issued_at: back.put_off_start(row.issued_at),
                spent: row.spent,
            };
            self.by_run.insert(row.run, row.token.clone());
            self.marks.mark(row.token.clone());
            self.rows.insert(row.token, claim);
        }
    }
}

impl Claim {
    /// See [`Tokens::launch_end`].
    pub(crate) fn launch_end(&self) -> UnixTime {
        self.issued_at.plus(LAUNCH_LEASE_SECONDS)
    }
}
