//! What can end the emulator or tell it something: signals and stdin.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::Error;

/// Signals and lines of stdin.
#[derive(Debug)]
pub(crate) struct Input {
    signals: UnixStream,
    stdin: io::Stdin,
    unread: Vec<u8>,
}

pub(crate) enum Event {
    Line(String),
    /// A signal came, stdin was closed or the pump has ended.
    End,
}

impl Input {
    /// From now on SIGINT, SIGTERM and SIGHUP do nothing but make [`next`](Self::next) return.
    pub(crate) fn open() -> Result<Self, Error> {
        let (signals, writer) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        Ok(Self {
            signals,
            stdin: io::stdin(),
            unread: Vec::new(),
        })
    }

    /// Waits; `ended` becomes readable when the pump ends.
    pub(crate) fn next(&mut self, ended: &UnixStream) -> Result<Event, Error> {
        loop {
            if let Some(line) = self.line() {
                return Ok(Event::Line(line));
            }
            let mut waits = [
                PollFd::new(&self.signals, PollFlags::IN),
                PollFd::new(ended, PollFlags::IN),
                PollFd::new(&self.stdin, PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Err(Errno::INTR) => continue,
                result => result.map_err(io::Error::from)?,
            };
            let [signal, ended, stdin] = waits.map(|wait| !wait.revents().is_empty());
            if signal || ended || (stdin && self.read()? == 0) {
                return Ok(Event::End);
            }
        }
    }

    /// The next complete line. One that is far too long is cut: then it makes no sense, and says so.
    fn line(&mut self) -> Option<String> {
        let end = match self.unread.iter().position(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if self.unread.len() > LINE_BYTES_MAX => self.unread.len(),
            None => return None,
        };
        let line: Vec<u8> = self.unread.drain(..end).collect();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    fn read(&mut self) -> Result<usize, Error> {
        let mut buffer = [0; 4096];
        let size = loop {
            match rustix::io::read(&self.stdin, &mut buffer) {
                Err(Errno::INTR) => {}
                result => break result.map_err(io::Error::from)?,
            }
        };
        self.unread.extend_from_slice(&buffer[..size]);
        Ok(size)
    }
}

const LINE_BYTES_MAX: usize = 1 << 16;
