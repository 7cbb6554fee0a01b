//! The table of tokens.

use std::collections::HashMap;

use flwr_api::{RunId, Token, UnixTime};

use crate::link::LAUNCH_LEASE_SECONDS;

/// The last token of each run.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    rows: HashMap<Token, Claim>,
    by_run: HashMap<RunId, Token>,
}

/// A run's token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim {
    pub(super) run: RunId,
    issued_at: UnixTime,
    /// Whether it was given back.
    pub(super) spent: bool,
}

impl Tokens {
    /// Binds a token to a pending run; false if that has a live one, or if the token is taken.
    pub(super) fn issue(&mut self, run: RunId, token: Token, now: UnixTime) -> bool {
        if self.launch_end(run).is_some_and(|end| end > now) || self.rows.contains_key(&token) {
            return false;
        }
        if let Some(dead) = self.by_run.insert(run, token.clone()) {
            self.rows.remove(&dead);
        }
        let claim = Claim {
            run,
            issued_at: now,
            spent: false,
        };
        self.rows.insert(token, claim);
        true
    }

    pub(super) fn get(&self, token: &Token) -> Option<Claim> {
        self.rows.get(token).copied()
    }

    pub(super) fn spend(&mut self, token: &Token) {
        if let Some(claim) = self.rows.get_mut(token) {
            claim.spent = true;
        }
    }

    /// The moment from which on the token of a run that is still pending is dead.
    pub(super) fn launch_end(&self, run: RunId) -> Option<UnixTime> {
        let claim = self.rows.get(self.by_run.get(&run)?)?;
        Some(claim.launch_end())
    }
}

impl Claim {
    /// See [`Tokens::launch_end`].
    pub(super) fn launch_end(&self) -> UnixTime {
        self.issued_at.plus(LAUNCH_LEASE_SECONDS)
    }
}
