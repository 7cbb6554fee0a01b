//! What apps find in their environment.

use tokio::process::Command;

use crate::config::{JOIN_SECRET_VARIABLE, Kind};

/// How the environment of apps differs from this process's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    added: Vec<(&'static str, &'static str)>,
}

impl Environment {
    /// For apps of `kind`. `is_set` says which variables this process has: those are left as they
    /// are.
    ///
    /// An app copies a model a dozen times on its way to arrays and back, and glibc returns large
    /// blocks to the system as soon as they are freed, so that half of an app's time goes into
    /// getting them again, page by page. One that works for one message or one run needs as much
    /// again at once, so here the allocator keeps what it has. Simulations are left alone: their
    /// actors are many and live long.
    pub fn new(kind: Kind, is_set: impl Fn(&str) -> bool) -> Self {
        let added = match kind {
            Kind::ClientApp | Kind::ServerApp => &KEEP_MEMORY[..],
            Kind::Simulation => &[],
        };
        let added = added.iter().filter(|(name, _)| !is_set(name));
        Self {
            added: added.copied().collect(),
        }
    }

    pub(crate) fn apply(&self, command: &mut Command) {
        command
            .env_remove(JOIN_SECRET_VARIABLE)
            .envs(self.added.iter().copied());
    }
}

/// Settings of glibc's allocator (mallopt(3)): large blocks come from the heap, which grows by 64 MiB
/// and is not given back. With one heap for all threads the peak is what it is without these.
const KEEP_MEMORY: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "4294967296"),
    ("MALLOC_TOP_PAD_", "67108864"),
    ("MALLOC_TRIM_THRESHOLD_", "17179869184"),
];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn applied(kind: Kind, is_set: impl Fn(&str) -> bool) -> Vec<(String, Option<String>)> {
        let mut command = Command::new("app");
        Environment::new(kind, is_set).apply(&mut command);
        let text = |text: &OsStr| text.to_str().unwrap().to_owned();
        let all = command.as_std().get_envs();
        all.map(|(name, value)| (text(name), value.map(text)))
            .collect()
    }

    #[test]
    fn apps_keep_their_memory_unless_told_otherwise() {
        let no_secret = (JOIN_SECRET_VARIABLE.to_owned(), None);
        for kind in [Kind::ClientApp, Kind::ServerApp] {
            let mut expected = vec![no_secret.clone()];
            expected
                .extend(KEEP_MEMORY.map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
            assert_eq!(applied(kind, |_| false), expected);
            expected.remove(1);
            assert_eq!(applied(kind, |name| name == "MALLOC_ARENA_MAX"), expected);
        }
        assert_eq!(applied(Kind::Simulation, |_| false), [no_secret]);
    }
}
