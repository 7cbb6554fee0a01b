//! The signals that end the program: the first one gracefully, a second one at once.

use std::{io, process};

use tokio::signal::unix::{self, SignalKind};
use tracing::warn;

/// Catches the three signals that Flower's programs end on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    Interrupt,
    Quit,
    Terminate,
}

impl Signals {
    /// From now on the signals no longer end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            quit: unix::signal(SignalKind::quit())?,
            terminate: unix::signal(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signal::Terminate,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.quit.recv() => Signal::Quit,
        }
    }

    /// Waits for a second signal and ends the process with the status that a shell gives a process which that signal
    /// killed. Children notice by themselves that their parent is gone.
    pub(crate) async fn die_on_next(mut self) {
        let signal = self.next().await;
        warn!(signal = signal.name(), "Second signal, ending at once");
        process::exit(128 + signal.number());
    }
}

impl Signal {
    /// As in `kill -l`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Terminate => 15,
        }
    }
}
