"""Forks a process for each app out of an interpreter that has imported what apps begin with.

    python -c THIS SCRIPT        with a Unix stream socket as standard input

SCRIPT is the console script of an app's program. Messages in both directions are JSON behind its
length (four bytes, little endian). The first says {"ready": true}; after that every request has one
answer, in order, and the end of the socket is the end of this process.

    {"fork": [argument, ...]}, with three files: standard output, standard error, and a pipe that
                               says when to go; the answer is {"pid": id} or {"refused": why}
    {"reap": id}               takes a child that has ended off the system's list; the answer is
                               {"status": what waitpid said}

A child runs the script as the interpreter would. It holds no file but its first three, and nothing
is shared with other children but memory that was never written to.
"""

import atexit
import gc
import importlib
import importlib.metadata
import json
import os
import runpy
import signal
import socket
import struct
import sys
import threading

# What Flower 1.22's apps import once they work, found with -X importtime. All of it is Flower's or
# of packages that Flower needs, and none of it starts a thread.
LATER = [
    "grpc",
    "grpc._channel",
    "grpc._simple_stubs",
    "grpc.experimental",
    "numpy",
    "numpy.random",
    "encodings.cp437",
    "flwr.app",
    "flwr.clientapp",
    "flwr.serverapp",
]
FILES = 3


def main(script):
    """Import, then fork for each request until the launcher is gone."""
    gc.disable()  # what is collected now leaves holes that children would fill, page by page
    with socket.socket(fileno=os.dup(0)) as launcher:
        _replace(os.open(os.devnull, os.O_RDONLY), 0)
        _import(script)
        gc.collect()
        gc.freeze()
        _send(launcher, {"ready": True})
        while True:
            request, files = _receive(launcher)
            if request is None:
                return
            if "reap" in request:
                _send(launcher, {"status": _reap(request["reap"])})
                continue
            answer = _fork(launcher, script, request["fork"], files)
            for file in files:
                os.close(file)
            _send(launcher, answer)


def _import(script):
    open_before = os.listdir("/proc/self/fd")
    if not getattr(sys.flags, "safe_path", False) and not sys.flags.isolated:
        sys.path[0] = os.path.dirname(os.path.realpath(script))
    _entry_point(os.path.basename(script)).load()
    for module in LATER:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            pass
    if threading.active_count() != 1:
        sys.exit(f"imports have started threads: {threading.enumerate()}")
    if len(os.listdir("/proc/self/fd")) != len(open_before):
        sys.exit("imports keep files open")


def _entry_point(name):
    found = importlib.metadata.entry_points()
    if hasattr(found, "select"):
        scripts = found.select(group="console_scripts")
    else:  # Python 3.9
        scripts = found.get("console_scripts", [])
    for script in scripts:
        if script.name == name:
            return script
    sys.exit(f"no package has the console script {name}")


def _fork(launcher, script, arguments, files):
    if len(files) != FILES:
        return {"refused": "files are missing"}
    if threading.active_count() != 1:
        return {"refused": f"there are threads: {threading.enumerate()}"}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        launcher.detach()
        try:
            _become_app(*files)
        except OSError as error:
            sys.stderr.write(f"the app's process cannot be set up: {error}\n")
            sys.stderr.flush()
            os._exit(1)
        _run(script, arguments)
    return {"pid": pid}


def _reap(pid):
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


# -- in the child ---------------------------------------------------------------------------------


def _become_app(stdout, stderr, go):
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.dup2(go, 0)
    for file in [int(name) for name in os.listdir("/proc/self/fd")]:
        if file > 2:
            try:
                os.close(file)
            except OSError:
                pass  # the listing's own
    # The launcher says go once it watches this process. If it never will, nobody needs it.
    if os.read(0, 1) != b"g":
        os._exit(0)
    _replace(os.open(os.devnull, os.O_RDONLY), 0)
    # Python seeds its own generator anew after a fork.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    gc.enable()


def _run(script, arguments):
    """Run the script, and end with the status that the interpreter would end with."""
    sys.argv = [script, *arguments]
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exit:
        status = _status_of(exit)
    except BaseException as error:
        status = _report(error, script)
    _finish_threads()
    try:
        atexit._run_exitfuncs()
    except BaseException as error:
        _report(error, script)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        status = status or 120
    if "ctypes" in sys.modules:
        sys.modules["ctypes"].CDLL(None).fflush(None)
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


def _status_of(exit):
    if exit.code is None:
        return 0
    if isinstance(exit.code, int):
        return exit.code
    try:
        print(exit.code, file=sys.stderr)
    except (OSError, ValueError):
        pass
    return 1


def _report(error, script):
    # From the script on, as if there was nothing around it.
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    trace = trace or error.__traceback__
    sys.excepthook(type(error), error.with_traceback(trace), trace)
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _finish_threads():
    try:
        threading._shutdown()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)


# -- messages -------------------------------------------------------------------------------------


def _send(launcher, answer):
    text = json.dumps(answer).encode()
    launcher.sendall(struct.pack("<I", len(text)) + text)


def _receive(launcher):
    """The next request and the files that came with it; nothing at the end."""
    head, files, _, _ = socket.recv_fds(launcher, 4, FILES)
    head = _exactly(launcher, 4, head)
    text = head and _exactly(launcher, struct.unpack("<I", head)[0])
    return (json.loads(text) if text else None), files


def _exactly(launcher, length, text=b""):
    while len(text) < length:
        part = launcher.recv(length - len(text))
        if not part:
            return None
        text += part
    return text


def _replace(file, number):
    os.dup2(file, number)
    os.close(file)


main(sys.argv[1])
