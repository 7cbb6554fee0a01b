//! A launcher at work, for a toy daemon and with a toy program.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flwr_api::appio::{AppIoClient, Serve};
use flwr_superexec::{
    Config, Endpoint, Environment, Kind, Launcher, Opened, Output, Reach, Relay, Warm,
};
use flwr_transport::{Acceptor as _, Connector as _, Drain, DynCaller, memory};
use rustix::process::{Pid, Signal};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::daemon::Daemon;

/// What a world is made of, to be changed before it starts.
pub(crate) struct Plan {
    pub(crate) daemon: Daemon,
    pub(crate) kind: Kind,
    pub(crate) warm: Warm,
    pub(crate) apps_max: usize,
    pub(crate) idle_max: usize,
    pub(crate) is_relayed: bool,
    folder: Arc<tempfile::TempDir>,
}

pub(crate) struct World {
    pub(crate) daemon: Daemon,
    pub(crate) endpoint: Arc<Endpoints>,
    said: Said,
    drain: Drain,
    running: Option<JoinHandle<()>>,
    folder: Arc<tempfile::TempDir>,
}

/// Relays that apps would call at `relay-0:1`, `relay-1:1` and so on.
#[derive(Debug, Default)]
pub(crate) struct Endpoints(Mutex<Vec<Arc<Relay>>>);

/// What was written on stdout (first) and stderr.
#[derive(Clone, Debug, Default)]
struct Said([Arc<Mutex<Vec<u8>>>; 2]);

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Plan {
    /// A launcher of ClientApps, cold and one at a time, whose program is a shell script.
    pub(crate) fn shell(script: &str) -> Self {
        Self::program(&format!("#!/bin/sh\n{script}\n"))
    }

    /// The program is a Python script with an entry point in an installed package, which does what
    /// `code` says. `here` is the folder it is in.
    pub(crate) fn python(code: &str) -> Self {
        let plan = Self::program(
            "#!/usr/bin/env python3\n\
             import sys\n\
             from toy import main\n\
             if __name__ == '__main__':\n    sys.exit(main())\n",
        );
        plan.write("toy-1.0.dist-info/METADATA", "Name: toy\nVersion: 1.0\n");
        let scripts: String = [Kind::ClientApp, Kind::ServerApp]
            .map(|kind| format!("{} = toy:main\n", kind.program()))
            .concat();
        let entry_points = format!("[console_scripts]\n{scripts}");
        plan.write("toy-1.0.dist-info/entry_points.txt", &entry_points);
        let toy = "import os, pathlib, random, sys, time, threading\n\
                   here = pathlib.Path(__file__).parent\n\
                   def main():\n    exec((here / 'plan.txt').read_text(), globals())\n";
        plan.write("toy.py", toy);
        plan.write("plan.txt", code);
        plan
    }

    fn program(text: &str) -> Self {
        let plan = Self {
            daemon: Daemon::default(),
            kind: Kind::ClientApp,
            warm: Warm::Off,
            apps_max: 1,
            idle_max: 0,
            is_relayed: false,
            folder: Arc::new(tempfile::tempdir().unwrap()),
        };
        for kind in [Kind::ClientApp, Kind::ServerApp] {
            plan.write(kind.program(), text);
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(plan.path(kind.program()), mode).unwrap();
        }
        plan
    }

    /// The same program, for another launcher.
    pub(crate) fn twin(&self, warm: Warm) -> Self {
        Self {
            daemon: Daemon::default(),
            warm,
            folder: Arc::clone(&self.folder),
            ..*self
        }
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn start(self) -> World {
        let (connector, acceptor) = memory::pair(memory::Options::default());
        let serving = Drain::new();
        tokio::spawn(acceptor.serve(Arc::new(Serve(self.daemon.clone())), serving));
        let caller: Arc<dyn DynCaller<_>> = Arc::new(connector.connect().await.unwrap());
        let endpoint = Arc::new(Endpoints::default());
        let reach = if self.is_relayed {
            Reach::Relayed(Arc::clone(&endpoint) as Arc<dyn Endpoint>)
        } else {
            Reach::Direct("daemon:9094".into())
        };
        let config = Config {
            kind: self.kind,
            flwr_dir: "/flwr home".into(),
            environment: Environment::new(self.kind, |_| false),
            path: OsString::from(self.folder.path()),
            apps_max: self.apps_max,
            warm: self.warm,
            idle_max: self.idle_max,
        };
        let said = Said::default();
        let [out, err] = said.0.clone().map(Writer);
        let output = Output::to(out, err).unwrap();
        let launcher = Launcher::new(config, reach, AppIoClient::new(caller), output).unwrap();
        let drain = Drain::new();
        World {
            daemon: self.daemon,
            endpoint,
            said,
            running: Some(tokio::spawn(launcher.run(drain.clone(), Drain::new()))),
            drain,
            folder: self.folder,
        }
    }
}

impl World {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The lines on stdout so far.
    pub(crate) fn said(&self) -> Vec<String> {
        lines(&self.said.0[0])
    }

    /// The lines on stderr so far.
    pub(crate) fn complained(&self) -> Vec<String> {
        lines(&self.said.0[1])
    }

    /// Waits for a line of a run on stdout that starts with `start`, and gives the rest of it.
    pub(crate) async fn hears(&self, run: u64, start: &str) -> String {
        let start = format!("[run {run}] {start}");
        let find = || {
            let lines = self.said();
            lines
                .iter()
                .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
        };
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(rest) = find() {
                return rest;
            }
            let all = (self.said(), self.complained());
            assert!(Instant::now() < end, "no {start:?} in {all:#?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks the launcher to end.
    pub(crate) fn ask_to_end(&self) {
        self.drain.begin();
    }

    /// Waits until the launcher has ended.
    pub(crate) async fn end(&mut self) {
        self.ask_to_end();
        let running = self.running.take().expect("it ends once");
        let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
        ended.expect("it ends").expect("it does not panic");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

impl Endpoints {
    pub(crate) fn relay(&self, index: usize) -> Arc<Relay> {
        Arc::clone(&self.0.lock().unwrap()[index])
    }
}

impl Endpoint for Endpoints {
    fn open(&self, relay: Arc<Relay>) -> io::Result<Opened> {
        let mut relays = self.0.lock().unwrap();
        relays.push(relay);
        Ok(Opened {
            address: format!("relay-{}:1", relays.len() - 1),
            guard: Box::new(()),
        })
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lines(said: &Mutex<Vec<u8>>) -> Vec<String> {
    let said = said.lock().unwrap();
    let text = String::from_utf8_lossy(&said);
    text.lines().map(str::to_owned).collect()
}

/// Whether a process is there, be it as a zombie.
pub(crate) fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

pub(crate) fn kill(pid: i32) {
    rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// Waits until something is so.
pub(crate) async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}
