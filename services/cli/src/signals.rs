//! The signals that end the program: the first one gracefully, a second one at once; and SIGHUP, which has it look at its
//! certificates.
//!
//! SIGHUP also tells that the terminal is gone in which a program runs. Then it ends, as it would without us; and where it
//! was started to ignore that, as with `nohup`, it does.

use std::{
    fs::{self, File},
    io, process,
    sync::Arc,
};

use tokio::{
    signal::unix::{self, SignalKind},
    sync::Notify,
};
use tracing::warn;

/// Catches the three signals that Flower's programs end on.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: unix::Signal,
    quit: unix::Signal,
    terminate: unix::Signal,
    /// Nothing if it is ignored.
    hangup: Option<unix::Signal>,
    had_terminal: bool,
    hangups: Arc<Notify>,
}

/// Which signal came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    /// The terminal is gone.
    Hangup,
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
            hangup: match ignores_hangup() {
                true => None,
                false => Some(unix::signal(SignalKind::hangup())?),
            },
            had_terminal: has_terminal(),
            hangups: Arc::default(),
        })
    }

    /// Is told when SIGHUP asks to read files again.
    pub(crate) fn hangups(&self) -> Arc<Notify> {
        Arc::clone(&self.hangups)
    }

    /// Waits for the next one. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                biased;
                _ = self.terminate.recv() => return Signal::Terminate,
                _ = self.interrupt.recv() => return Signal::Interrupt,
                _ = self.quit.recv() => return Signal::Quit,
                () = received(self.hangup.as_mut()) => {
                    if self.had_terminal && !has_terminal() {
                        return Signal::Hangup;
                    }
                    self.hangups.notify_one();
                }
            }
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
            Self::Hangup => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
        }
    }

    const fn number(self) -> i32 {
        match self {
            Self::Hangup => 1,
            Self::Interrupt => 2,
            Self::Quit => 3,
            Self::Terminate => 15,
        }
    }
}

async fn received(signal: Option<&mut unix::Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether there is a terminal that controls this process; one that was closed does not.
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

fn ignores_hangup() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, 1))
}

/// Whether a process whose `/proc/PID/status` this is ignores a signal (proc(5)).
fn ignores(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        let status = "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001004\n";
        assert!(ignores(status, 3) && ignores(status, 13));
        assert!(!ignores(status, 1) && !ignores("", 1));
        assert!(ignores("SigIgn:\t0000000000000001\n", 1));
    }
}
