"""Memory limits: a control group for each process, of version 1 or 2."""

import os
from pathlib import Path

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


class Group:
    """A control group that may hold so many bytes, page cache included; `with` makes and removes it."""

    def __init__(self, name, limit):
        self._is_v1 = V1.is_dir()
        self._folder = (V1 if self._is_v1 else V2) / f"{name}-{os.getpid()}"
        self._limit = limit

    def __enter__(self):
        self._folder.mkdir()
        if self._is_v1:
            self._write("memory.limit_in_bytes", self._limit)
        else:
            self._write("memory.max", self._limit)
            self._write("memory.swap.max", 0)
        return self

    def __exit__(self, *_):
        self._folder.rmdir()

    def enter(self):
        """Moves the calling process into it."""
        self._write("cgroup.procs", os.getpid())

    def failures(self):
        """How often a process in it was killed for want of memory."""
        name = "memory.oom_control" if self._is_v1 else "memory.events"
        words = dict(line.split() for line in (self._folder / name).read_text().splitlines())
        return int(words["oom_kill"])

    def _write(self, name, value):
        (self._folder / name).write_text(f"{value}\n")
