//! The thread that moves the packets.

use std::io::Write;
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::thread::{gettid, set_current_timer_slack};
use tun_rs::SyncDevice;

use crate::control::Directions;
use crate::direction::{Change, Direction};
use crate::statistics::Report;
use crate::{Error, now_ns};

/// A handle on the thread. The other end of `wake` is closed when the thread has ended.
#[derive(Debug)]
pub(crate) struct Pump {
    requests: SyncSender<Request>,
    wake: UnixStream,
    thread: JoinHandle<Result<(), Error>>,
}

#[derive(Debug)]
enum Request {
    Change(Directions, Change),
    Report(SyncSender<[Report; 2]>),
    Stop,
}

impl Pump {
    /// `directions[side]` takes what comes from `devices[side]`.
    pub(crate) fn start(
        devices: [SyncDevice; 2],
        directions: [Direction; 2],
        coalesce_ns: u64,
    ) -> Result<Self, Error> {
        mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
            .unwrap_or_else(|error| crate::warn(&format!("cannot lock the memory: {error}")));
        let (requests, queue) = sync_channel(16);
        let (wake, woken) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let worker = Worker {
            devices,
            directions,
            queue,
            woken,
            coalesce_ns,
        };
        let thread = thread::Builder::new()
            .name("packets".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            requests,
            wake,
            thread,
        })
    }

    /// Readable when the thread has ended.
    pub(crate) fn ended(&self) -> &UnixStream {
        &self.wake
    }

    pub(crate) fn change(&self, directions: Directions, change: Change) {
        self.send(Request::Change(directions, change));
    }

    /// `None` if the thread has ended.
    pub(crate) fn report(&self) -> Option<[Report; 2]> {
        let (answer, reports) = sync_channel(1);
        self.send(Request::Report(answer));
        reports.recv().ok()
    }

    pub(crate) fn stop(self) -> Result<(), Error> {
        self.send(Request::Stop);
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A thread that has ended needs no request; [`stop`](Self::stop) tells why it did.
    fn send(&self, request: Request) {
        if self.requests.send(request).is_ok() {
            (&self.wake).write_all(&[0]).ok();
        }
    }
}

struct Worker {
    devices: [SyncDevice; 2],
    directions: [Direction; 2],
    queue: Receiver<Request>,
    woken: UnixStream,
    coalesce_ns: u64,
}

impl Worker {
    fn run(mut self) -> Result<(), Error> {
        hurry();
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut readable = [false; 2];
        loop {
            for (side, readable) in readable.into_iter().enumerate() {
                if readable {
                    self.read(side, &mut buffer)?;
                }
                self.write(side);
            }
            self.coalesce()?;
            let requested;
            [readable[0], readable[1], requested] = self.wait()?;
            if requested && self.answer(&mut buffer)? {
                return Ok(());
            }
        }
    }

    /// Takes in what the device has, up to a limit: packets that are due must not wait for long.
    fn read(&mut self, side: usize, buffer: &mut [u8]) -> Result<(), Error> {
        for _ in 0..PACKETS_MAX {
            match rustix::io::read(&self.devices[side], &mut *buffer) {
                Ok(size) => self.directions[side].arrive(now_ns(), buffer[..size].into()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Hands the other side what is due, up to a limit.
    fn write(&mut self, side: usize) {
        for _ in 0..PACKETS_MAX {
            let Some(packet) = self.directions[side].deliver(now_ns()) else {
                break;
            };
            if rustix::io::write(&self.devices[1 - side], &packet).is_err() {
                self.directions[side].write_failed();
            }
        }
    }

    /// Lets packets gather.
    fn coalesce(&self) -> Result<(), Error> {
        if self.coalesce_ns > 0 {
            let mut waits = [PollFd::new(&self.woken, PollFlags::IN)];
            match poll(&mut waits, Some(&timespec(self.coalesce_ns))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Until a device or a request can be read or a packet is due: whether the devices and requests can.
    fn wait(&self) -> Result<[bool; 3], Error> {
        let next_ns = self.directions.iter().filter_map(Direction::next_ns).min();
        let timeout = next_ns.map(|next_ns| timespec(next_ns.saturating_sub(now_ns())));
        let mut waits = [
            PollFd::new(&self.devices[0], PollFlags::IN),
            PollFd::new(&self.devices[1], PollFlags::IN),
            PollFd::new(&self.woken, PollFlags::IN),
        ];
        match poll(&mut waits, timeout.as_ref()) {
            Ok(_) => Ok(waits.map(|wait| !wait.revents().is_empty())),
            Err(Errno::INTR) => Ok([false; 3]),
            Err(error) => Err(Error::Io(error.into())),
        }
    }

    /// True if this was the end.
    fn answer(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        match rustix::io::read(&self.woken, &mut *buffer) {
            Ok(0) => return Ok(true),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(Error::Io(error.into())),
        }
        for request in self.queue.try_iter() {
            match request {
                Request::Stop => return Ok(true),
                Request::Report(answer) => {
                    // Who asked may have gone.
                    answer
                        .send(
                            self.directions
                                .each_ref()
                                .map(|direction| direction.counters().into()),
                        )
                        .ok();
                }
                Request::Change(directions, change) => {
                    for (side, direction) in self.directions.iter_mut().enumerate() {
                        if directions.include(side) {
                            direction.change(now_ns(), change);
                        }
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Real-time priority and exact timers for this thread, as far as this machine allows them.
fn hurry() {
    if let Err(error) = set_current_timer_slack(NonZeroU64::new(1)) {
        crate::warn(&format!("cannot set the timer slack: {error}"));
    }
    let thread = gettid().as_raw_pid().to_string();
    let mut chrt = Command::new("chrt");
    chrt.args(["--fifo", "--pid", PRIORITY, &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    match chrt.status() {
        Ok(status) if status.success() => {}
        Ok(status) => crate::warn(&format!("no real-time priority: chrt: {status}")),
        Err(error) => crate::warn(&format!("no real-time priority: chrt: {error}")),
    }
}

fn timespec(nanoseconds: u64) -> Timespec {
    let (seconds, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    Timespec {
        tv_sec: seconds.cast_signed(),
        tv_nsec: rest.cast_signed(),
    }
}

const PRIORITY: &str = "50";
const PACKETS_MAX: usize = 64;
const PACKET_BYTES_MAX: usize = 1 << 16;
