"""The emulated link: two network namespaces with `flwr-emu` between them. Needs root, TUN and iproute2."""

import json
import os
import queue
import secrets
import subprocess
import threading
from pathlib import Path


class Unable(Exception):
    """There can be no link on this machine; what flwr-emu said about it is on stderr."""


class Link:
    """A link of a profile between `namespaces[0]` and `namespaces[1]`; leaving the `with` block removes it.

    `flags` are further arguments of `flwr-emu up`: ["--loss-percent", "2", "--tcp-congestion", "cubic"].
    """

    READY_S = 20
    GRACE_S = 10
    UNABLE = 77

    def __init__(self, profile, seed=1, binary="flwr-emu", flags=()):
        token = f"flwr-emu-{os.getpid()}-{secrets.token_hex(3)}"
        self.namespaces = (f"{token}-0", f"{token}-1")
        self.addresses = None
        self.ready = None
        argv = [binary, "up", "--profile", profile, "--seed", seed, "--namespaces", ",".join(self.namespaces)]
        self._argv = [str(part) for part in (*argv, *flags)]
        self._child = None
        self._lines = queue.Queue()
        self._final = None

    def __enter__(self):
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C reaches this program, which then ends the child.
        self._child = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.ready = self._line(self.READY_S)
        except BaseException:
            self.close()
            if self._child.returncode == self.UNABLE:
                raise Unable("flwr-emu cannot work here") from None
            raise
        self.addresses = tuple(self.ready["addresses"])
        return self

    def __exit__(self, *_):
        self.close()

    def command(self, side, argv):
        """The argv that runs a program on side 0 or 1."""
        return ["ip", "netns", "exec", self.namespaces[side], *(str(part) for part in argv)]

    def send(self, request):
        """One request, such as {"down": True} or {"readdress": {"side": 0, "address": "10.77.0.9"}}."""
        self._child.stdin.write(json.dumps(request) + "\n")
        self._child.stdin.flush()

    def stats(self):
        """The statistics so far."""
        self.send({"stats": True})
        return self._line(self.GRACE_S)

    def close(self):
        """Removes the link: the final statistics, or None if there are none. More calls return the same."""
        child = self._child
        if child is None or child.stdout.closed:
            return self._final
        try:
            self._final = self._end()
        finally:
            for stop in (child.terminate, child.kill):
                if child.poll() is None:
                    stop()
                    _wait(child, self.GRACE_S)
            child.stdout.close()
            self._remove_namespaces()
        return self._final

    def _end(self):
        """Closing stdin is the sign; lines that nobody asked for come first."""
        try:
            self._child.stdin.close()
        except BrokenPipeError:
            pass
        _wait(self._child, self.GRACE_S)
        while True:
            try:
                line = self._line(1)
            except RuntimeError:
                return None
            if line.get("final"):
                return line

    def _line(self, seconds):
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise RuntimeError(f"flwr-emu says nothing for {seconds} s") from None
        if not line:
            self._lines.put(line)
            raise RuntimeError("flwr-emu has ended")
        return json.loads(line)

    def _read(self):
        """Every line of stdout, then an empty one."""
        for line in self._child.stdout:
            self._lines.put(line)
        self._lines.put("")

    def _remove_namespaces(self):
        """Those of an emulator that was killed."""
        for name in self.namespaces:
            if Path("/run/netns", name).exists():
                subprocess.run(["ip", "netns", "delete", name], check=False)


def _wait(child, seconds):
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
