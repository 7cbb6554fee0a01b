//! Processes that are forked from a zygote.

use std::fs;

use flwr_superexec::Warm;
use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Plan, World, is_there, kill, wait_until};

fn forking(code: &str) -> Plan {
    let mut plan = Plan::python(code);
    plan.warm = Warm::Fork;
    plan
}

/// Runs one app to its end; what it wrote on stdout and stderr, and how it ended.
async fn run_one(world: &World, run: u64) -> (Vec<String>, Vec<String>, String) {
    let (said, complained) = (world.said().len(), world.complained().len());
    world.daemon.submit([run]);
    let how = world.daemon.exit_of(run).await;
    let label = format!("[run {run}] ");
    let own = |lines: Vec<String>, from: usize| {
        let own = lines[from..]
            .iter()
            .filter_map(|line| line.strip_prefix(&label));
        own.map(str::to_owned).collect()
    };
    // The report and the last lines come at the same time.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    (
        own(world.said(), said),
        own(world.complained(), complained),
        how,
    )
}

/// The parent of the app's process: its zygote, or this process.
async fn parent(world: &World, run: u64) -> i32 {
    world.daemon.submit([run]);
    world.hears(run, "parent ").await.parse().unwrap()
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap()
}

const WAIT: &str = "print('parent', os.getppid(), flush=True)\n\
                    while not (here / 'end').exists(): time.sleep(0.02)\n";

#[tokio::test]
async fn each_process_is_fresh() {
    let plan = forking(
        "print('seen', 'appmodule' in sys.modules)\n\
         import appmodule, uuid\n\
         appmodule.count += 1\n\
         print('count', appmodule.count)\n\
         print('files', sorted(os.listdir('/proc/self/fd')), os.readlink('/proc/self/fd/0'))\n\
         print('session', os.getsid(0) == os.getpid() == os.getpgrp())\n\
         import numpy.random\n\
         print('numpy', numpy.random.seeds)\n\
         print('random', random.random(), random.getrandbits(64), uuid.uuid4())\n\
         print('pid', os.getpid())\n",
    );
    plan.write("appmodule.py", "count = 0\n");
    plan.write("numpy/__init__.py", "");
    plan.write(
        "numpy/random.py",
        "seeds = 0\ndef seed():\n    global seeds\n    seeds += 1\n",
    );
    let mut world = plan.start().await;
    let mut both = Vec::new();
    for run in [1, 2] {
        let (said, complained, how) = run_one(&world, run).await;
        assert_eq!((complained, how.as_str()), (vec![], "exit status: 0"));
        // The fourth file is the listing itself.
        let expected = [
            "seen False",
            "count 1",
            "files ['0', '1', '2', '3'] /dev/null",
            "session True",
            "numpy 1",
        ];
        assert_eq!(said[..5], expected);
        both.push(said[5..].to_vec());
    }
    assert_ne!(both[0][0], both[1][0], "random numbers");
    assert_ne!(both[0][1], both[1][1], "process ids");
    world.end().await;
}

#[tokio::test]
async fn a_forked_program_cannot_tell() {
    let plan = Plan::python("");
    let twin = plan.twin(Warm::Fork);
    let mut worlds = [plan.start().await, twin.start().await];
    for (run, code) in (1_u64..).zip([
        "print(sys.argv[:4], sys.argv[6:], sys.path[0], __name__)",
        "import __main__; print(__main__.__file__, __main__.__name__, __main__.main is main)",
        "print(os.getcwd(), sorted(os.environ.items()), os.umask(0o22))",
        "import resource; print([resource.getrlimit(n) for n in range(9)])",
        "import signal; print([signal.getsignal(n) for n in range(1, 32)])",
        "print(sys.stdin.read() == '', sys.stdout.isatty(), sys.stdout.line_buffering)",
        "import gc; print(gc.isenabled(), gc.get_threshold(), threading.active_count())",
        "print(threading.current_thread() is threading.main_thread())",
        "import atexit; atexit.register(print, 'at exit'); print('first')",
        "threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()",
        "threading.Thread(target=lambda: time.sleep(60), daemon=True).start(); print('left')",
        "sys.stdout.write('unfinished')",
        "os.write(1, b'raw'); os._exit(7)",
        "sys.exit(3)",
        "sys.exit(True)",
        "sys.exit(259)",
        "sys.exit(-1)",
        "sys.exit('a reason')",
        "sys.exit([1])",
        "print('before'); raise ValueError('a problem')",
        "try: 1 / 0\nexcept Exception as e: raise RuntimeError('next') from e",
        "raise KeyboardInterrupt",
        "os.kill(os.getpid(), 15)",
        "os.abort()",
        "import subprocess; print(subprocess.run(['sh', '-c', 'ls /proc/self/fd'], capture_output=True))",
        "pid = os.fork()\nif pid == 0: print('child'); os._exit(0)\nos.waitpid(pid, 0)",
        "import concurrent.futures as f; print(list(f.ThreadPoolExecutor(2).map(abs, [-1, -2])))",
        "import ctypes; ctypes.CDLL(None).printf(b'from C\\n')",
    ]) {
        fs::write(worlds[0].path("plan.txt"), code).unwrap();
        let both = (run_one(&worlds[0], run), run_one(&worlds[1], run));
        let (started, forked) = tokio::join!(both.0, both.1);
        assert_eq!(started, forked, "{code}");
    }
    for world in &mut worlds {
        world.end().await;
    }
}

#[tokio::test]
async fn children_of_a_zygote_are_reaped_and_ended_like_others() {
    let code = format!("import signal\nprint('pid', os.getpid())\n{WAIT}");
    let mut world = forking(&code).start().await;
    let zygote = parent(&world, 7).await;
    assert_ne!(zygote, own_pid(), "it was forked");
    let pid = world.hears(7, "pid ").await.parse().unwrap();
    world.daemon.dismiss(7);
    assert_eq!(
        world.daemon.exit_of(7).await,
        "ended because it was not wanted any more"
    );
    assert!(!is_there(pid), "it is no zombie either");

    assert_eq!(parent(&world, 8).await, zygote);
    let pid = world.hears(8, "pid ").await.parse().unwrap();
    world.end().await;
    assert!(!is_there(pid));
    assert!(!is_there(zygote));
}

#[tokio::test]
async fn a_killed_zygote_loses_nothing() {
    let mut plan = forking(WAIT);
    plan.apps_max = 4;
    let mut world = plan.start().await;
    let zygote = parent(&world, 7).await;
    kill(zygote);
    wait_until("gone", || !is_there(zygote)).await;
    assert_eq!(
        parent(&world, 8).await,
        own_pid(),
        "none is there for a moment"
    );
    let mut run = 9;
    let next = loop {
        let next = parent(&world, run).await;
        if next != own_pid() {
            break next;
        }
        fs::write(world.path("end"), "").unwrap();
        world.daemon.exit_of(run).await;
        fs::remove_file(world.path("end")).unwrap();
        run += 1;
    };
    assert_ne!(next, zygote);
    fs::write(world.path("end"), "").unwrap();
    // Only a parent learns how a process ended.
    assert_eq!(world.daemon.exit_of(7).await, "exit status unknown");
    assert_eq!(world.daemon.exit_of(8).await, "exit status: 0");
    assert_eq!(world.daemon.exit_of(run).await, "exit status: 0");
    world.end().await;
}

#[tokio::test]
async fn where_there_is_no_zygote_interpreters_are_started() {
    let threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n";
    let toy = |first: &str| {
        format!("{first}import os\ndef main(): print('parent', os.getppid(), flush=True)\n")
    };
    let check = async |why: &str, change: &dyn Fn(&Plan)| {
        let plan = forking("");
        plan.write("toy.py", &toy(""));
        change(&plan);
        let mut world = plan.start().await;
        assert_eq!(parent(&world, 7).await, own_pid(), "{why}");
        assert_eq!(world.daemon.exit_of(7).await, "exit status: 0", "{why}");
        world.end().await;
    };
    check("imports start threads", &|plan| {
        plan.write("toy.py", &toy(threads))
    })
    .await;
    check("imports keep files open", &|plan| {
        plan.write("toy.py", &toy("file = open(__file__)\n"));
    })
    .await;
    check("no entry point", &|plan| {
        plan.write("toy-1.0.dist-info/entry_points.txt", "");
    })
    .await;
    check("imports fail in the zygote only", &|plan| {
        plan.write("toy.py", &toy("import sys\nassert sys.argv[0] != '-c'\n"));
    })
    .await;
    check("no Python script", &|plan| {
        plan.write("flwr-clientapp", "#!/bin/sh\necho parent $PPID\n");
    })
    .await;
}

#[tokio::test]
async fn a_zygote_with_threads_does_not_fork() {
    let plan = forking("print('parent', os.getppid(), flush=True)\n");
    plan.write(
        "later.py",
        "import signal, threading, time\n\
         def start(*_): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n\
         signal.signal(signal.SIGUSR1, start)\n",
    );
    let toy = fs::read_to_string(plan.path("toy.py")).unwrap();
    plan.write("toy.py", &format!("import later\n{toy}"));
    let mut world = plan.start().await;
    let zygote = parent(&world, 7).await;
    assert_ne!(zygote, own_pid());
    kill_process(Pid::from_raw(zygote).unwrap(), Signal::USR1).unwrap();
    assert_eq!(parent(&world, 8).await, own_pid());
    world.end().await;
}

#[tokio::test]
async fn a_new_installation_gets_a_new_zygote() {
    let plan = forking("print('version', toy_version, os.getppid(), flush=True)\n");
    let toy = fs::read_to_string(plan.path("toy.py")).unwrap();
    plan.write("toy.py", &format!("toy_version = 1\n{toy}"));
    let mut world = plan.start().await;
    let (said, _, how) = run_one(&world, 7).await;
    assert!(said[0].starts_with("version 1 "), "{said:?} {how}");
    fs::write(world.path("toy.py"), format!("toy_version = 22\n{toy}")).unwrap();
    let script = fs::read_to_string(world.path("flwr-clientapp")).unwrap();
    fs::write(world.path("flwr-clientapp"), script).unwrap();
    let (said, _, how) = run_one(&world, 8).await;
    assert!(said[0].starts_with("version 22 "), "{said:?} {how}");
    assert!(
        !said[0].ends_with(&format!(" {}", own_pid())),
        "it was forked"
    );
    world.end().await;
}

#[tokio::test]
async fn a_launcher_that_is_dropped_leaves_no_process() {
    let code = format!("print('pid', os.getpid())\n{WAIT}");
    let world = forking(&code).start().await;
    let zygote = parent(&world, 7).await;
    let pid = world.hears(7, "pid ").await.parse().unwrap();
    drop(world);
    wait_until("gone", || !is_there(pid) && !is_there(zygote)).await;
}
