//! Running the binary: to its end, or beside the test.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::Instant;

/// A directory of its own, which is also the home directory of what runs in it.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

/// What a program said until its end.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            dir: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, in this directory, with nothing of the environment but what is given here.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flwr-quic"));
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.dir.path())
            .env("PATH", self.path("bin"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, line: &str) -> Ended {
        Ended::of(&mut self.command(line))
    }

    /// Starts a SuperLink that cannot run, on ports that were free a moment ago; again if one of them is taken now and
    /// `is_meant` does not know the address that is complained of.
    pub(crate) fn run_on_free_ports(
        &self,
        flags: impl Fn(Ports) -> String,
        is_meant: impl Fn(&Ended) -> bool,
    ) -> Ended {
        for _attempt in 0..5 {
            let ended = self.run(&format!("superlink {}", flags(Ports::free())));
            if !ended.stderr.contains("already in use") || is_meant(&ended) {
                return ended;
            }
        }
        panic!("no free ports");
    }

    /// Runs it, and expects it to end well.
    pub(crate) fn good(&self, line: &str) -> String {
        let ended = self.run(line);
        assert_eq!(ended.status, Some(0), "{line}: {ended:?}");
        ended.stdout
    }
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The lines that say why it ended, without time and level.
    pub(crate) fn reason(&self) -> &str {
        self.stderr
            .split_once(" ERROR ")
            .map_or("", |(_, reason)| reason.trim_end())
    }
}

/// A SuperLink beside the test, killed with it. All that it says on stderr is kept.
pub(crate) struct SuperLink {
    child: Child,
    lines: Receiver<String>,
    pub(crate) said: Vec<String>,
    pub(crate) ports: Ports,
}

/// Of Control, ServerAppIo and Fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) control: u16,
    pub(crate) serverappio: u16,
    pub(crate) fleet: u16,
}

impl Ports {
    pub(crate) fn free() -> Self {
        let probes = [(); 3].map(|()| TcpListener::bind("0.0.0.0:0").unwrap());
        let [control, serverappio, fleet] = probes.map(|probe| probe.local_addr().unwrap().port());
        Self {
            control,
            serverappio,
            fleet,
        }
    }

    pub(crate) fn flags(self) -> String {
        format!(
            "--control-api-address 127.0.0.1:{} --serverappio-api-address 0.0.0.0:{} --fleet-api-address 127.0.0.1:{}",
            self.control, self.serverappio, self.fleet
        )
    }
}

impl SuperLink {
    /// Starts one on free ports and waits until it serves.
    pub(crate) fn start(world: &World, flags: &str, environment: &[(&str, &OsStr)]) -> Self {
        // Between choosing ports and binding them another process may take one.
        for _attempt in 0..5 {
            let ports = Ports::free();
            let mut command = world.command(&format!("superlink {} {flags}", ports.flags()));
            command
                .envs(environment.iter().copied())
                .stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let stderr = BufReader::new(child.stderr.take().unwrap());
            let (sender, lines) = channel();
            thread::spawn(move || {
                for line in stderr.lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
            let mut link = Self {
                child,
                lines,
                said: Vec::new(),
                ports,
            };
            let line = link.wait_for_any(&["Starting Fleet API", "already in use"]);
            if line.contains("Starting Fleet API") {
                return link;
            }
        }
        panic!("no free ports");
    }

    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        self.wait_for_any(&[part])
    }

    /// The next line that holds one of the parts.
    pub(crate) fn wait_for_any(&mut self, parts: &[&str]) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if parts.iter().any(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("never said {parts:?}: {:#?}", self.said)
                }
            }
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Its status, if it has ended.
    pub(crate) fn try_end(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for its end, and for all it said.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        let deadline = Instant::now() + PATIENCE;
        // A child of its own may keep stderr open.
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let is_last = line.contains("terminated gracefully");
            self.said.push(line);
            if is_last {
                break;
            }
        }
        status
    }
}

impl Drop for SuperLink {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Whether a process with this id runs; one that has ended and waits for its status to be taken does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Polls until something is so.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::park_timeout(Duration::from_millis(10));
    }
}

pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// For a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);
