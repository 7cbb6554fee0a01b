"""Server CPU per GB of objects and peak memory, in one round with a large model."""

import json
import select
import subprocess
import sys
import time
from pathlib import Path

from . import machine
from .objects import CHUNK_BYTES
from .servers import Server, environment
from .wire import Channel, make_fab, start_run

NODES = 2
SEED = 20250915
READY_S = 60
ROUND_S = 300
APP = Path(__file__).resolve().parents[1] / "apps" / "noop"


def measure(kind, children, folder, model_bytes):
    """One round with a fresh server: {"bytes": {...}, "memory": {...}}."""
    chunks = max(1, round(model_bytes / CHUNK_BYTES))
    with Server(kind, children, folder, tls=True) as server:
        with Channel(server.control, server.tls_folder) as control:
            start_run(control, make_fab(APP))
        common = {"seed": SEED, "chunks": chunks, "nodes": NODES}
        nodes = [
            Worker(children, folder, role="node", name=f"node{number}", address=server.fleet, tls=True, **common)
            for number in range(NODES)
        ]
        for node in nodes:
            node.expect("ready", READY_S)
        app = Worker(children, folder, role="serverapp", name="app", address=server.appio, tls=False, **common)
        workers = [*nodes, app]
        try:
            app.expect("ready", READY_S)
            return _round(server, workers)
        finally:
            for worker in workers:
                children.stop(worker.process)


def _round(server, workers):
    before = machine.memory_bytes(server.pid)[0]
    begin, cpu = time.monotonic(), machine.cpu_seconds(server.pid)
    with machine.MemorySampler(server.pid) as sampler:
        for worker in workers:
            worker.go()
        reports = [worker.read(ROUND_S) for worker in reversed(workers)]
        cpu, wall = machine.cpu_seconds(server.pid) - cpu, time.monotonic() - begin
    after, peak = machine.memory_bytes(server.pid)
    moved = sum(report["bytes"] for report in reports)
    alive = peak_alive_bytes([event for report in reports for event in report["events"]])
    return {
        "bytes": {"value": cpu / (moved / 1e9), "cpu_s": cpu, "gb_in_and_out": moved / 1e9, "wall_s": wall},
        "memory": {
            "value": peak / alive,
            "peak_mb": peak / 1e6,
            "peak_sampled_mb": sampler.peak()[1] / 1e6,
            "distinct_alive_mb": alive / 1e6,
            "before_mb": before / 1e6,
            "after_mb": after / 1e6,
        },
    }


def peak_alive_bytes(events):
    """The most bytes of distinct objects that had to be kept at one time.

    An object counts once, from the answer to its push until the last message that holds it
    is being confirmed. Objects still on their way count as nothing.
    """
    stored, sizes, ends = {}, {}, {}
    confirmed = {name: at for what, at, name, _ in events if what == "confirm"}
    for what, at, name, detail in events:
        if what == "stored":
            stored[name] = min(at, stored.get(name, at))
            sizes[name] = detail
        elif what == "message":
            for object_id in detail:
                ends[object_id] = max(confirmed.get(name, float("inf")), ends.get(object_id, 0))
    changes = [(at, sizes[name]) for name, at in stored.items()]
    changes += [(ends[name], -sizes[name]) for name in stored if ends[name] != float("inf")]
    alive = peak = 0
    for _, change in sorted(changes):
        alive += change
        peak = max(peak, alive)
    return peak


class Worker:
    """A peer in a process of its own; see worker.py."""

    def __init__(self, children, folder, *, tls, **config):
        self.name = config["name"]
        config["tls_folder"] = str(folder) if tls else None
        argv = [sys.executable, Path(__file__).with_name("worker.py"), json.dumps(config)]
        self._errors = folder / f"worker-{self.name}.log"
        with self._errors.open("wb") as log:
            self.process = children.spawn(
                argv,
                env=environment(folder / "home-workers"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def go(self):
        """Lets the peer play its part."""
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def expect(self, value, seconds):
        """The next value must be this one."""
        if (got := self.read(seconds)) != value:
            raise RuntimeError(f"{self.name} said {got!r} instead of {value!r}")

    def read(self, seconds):
        """The next value that the peer says."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            tail = self._errors.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{self.name} {'failed' if ready else f'said nothing in {seconds} s'}\n{tail}")
        return json.loads(line)
