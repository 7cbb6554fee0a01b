"""Child processes: each is started here, known by its pid, and ended here.

A child leads a process group of its own, so Ctrl-C reaches only this program, which then ends
every group that it started. Nothing else on the machine is ever signalled.
"""

import os
import signal
import subprocess
import time


class Children:
    """The children alive; leaving the `with` block ends them all, whatever the reason."""

    GRACE_S = 6

    def __init__(self):
        self._alive = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A second Ctrl-C, or the time limit, must not stop the clean-up half way.
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        previous = [signal.signal(number, signal.SIG_IGN) for number in signals]
        try:
            for child in list(reversed(self._alive)):
                self.stop(child)
        finally:
            for number, handler in zip(signals, previous):
                signal.signal(number, handler)

    def spawn(self, argv, **options):
        """Starts a program; `options` are those of subprocess.Popen."""
        child = subprocess.Popen([str(part) for part in argv], start_new_session=True, **options)
        self._alive.append(child)
        return child

    def stop(self, child):
        """SIGTERM to the child, SIGKILL to its group once it has gone or the grace is over."""
        if child not in self._alive:
            return
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(self.GRACE_S)
            except subprocess.TimeoutExpired:
                pass
        # What the child had started itself (SuperExec, apps) is in its group and may live on.
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        self._alive.remove(child)
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe:
                pipe.close()


def wait_for(condition, seconds, what, child=None, pause_s=0.05):
    """Polls until `condition()` is true; fails at the deadline or when `child` has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        if child is not None and child.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with status {child.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(pause_s)
