"""Whole federations of one kind: SuperLink, SuperNodes and launchers, with stock apps on them.

Ours are ours throughout (`flwr-quic superlink` and `flwr-quic supernode`, each with its own launcher),
stock ones are stock throughout. Apps are stock in both.
"""

import statistics
import subprocess
import time
from contextlib import contextmanager

from . import machine, rounds
from .servers import Server, environment, free_ports
from .wire import Channel

IDLE_S = 30
SETTLE_S = 5


def measure_rounds(kind, children, folder, count):
    """{"noop": {...}}: the median round of `count` in which nobody computes, 1 MiB to each of two nodes."""
    with _federation(kind, children, folder, 2) as (server, control, _nodes):
        sample = rounds.run(server, control, {"rounds": count, "nodes": 2})
    return {"noop": {**sample, "value": statistics.median(sample["seconds"])}}


def measure_large_round(kind, children, folder, megabytes):
    """{"large": {...}}: wall clock of a round in which two nodes get `megabytes` and answer with as much."""
    with _federation(kind, children, folder, 2) as (server, control, _nodes):
        config = {"rounds": 1, "nodes": 2, "array-bytes": megabytes * 1_000_000}
        sample = rounds.run(server, control, config)
    return {"large": {**sample, "value": sample["seconds"][0]}}


def measure_node_memory(kind, children, folder, megabytes):
    """{"node-memory": {...}}: peak resident MB of a SuperNode while so much passes through it and back."""
    with _federation(kind, children, folder, 1) as (server, control, nodes):
        before = machine.memory_bytes(nodes[0].pid)[0]
        config = {"rounds": 1, "nodes": 1, "array-bytes": megabytes * 1_000_000}
        sample = rounds.run(server, control, config)
        peak = machine.memory_bytes(nodes[0].pid)[1]
    return {"node-memory": {"value": peak / 1e6, "before_mb": before / 1e6, "seconds": sample["seconds"]}}


def measure_idle(kind, children, folder):
    """{"idle-memory": {...}, "idle-cpu": {...}}: resident MB and per cent of a core of a SuperNode without work."""
    with _federation(kind, children, folder, 1) as (_server, _control, nodes):
        time.sleep(SETTLE_S)
        cpu = machine.cpu_seconds(nodes[0].pid)
        time.sleep(IDLE_S)
        cpu = machine.cpu_seconds(nodes[0].pid) - cpu
        memory = machine.memory_bytes(nodes[0].pid)[0]
    return {"idle-memory": {"value": memory / 1e6}, "idle-cpu": {"value": 100 * cpu / IDLE_S}}


@contextmanager
def _federation(kind, children, folder, count):
    with Server(kind, children, folder, tls=True, isolation="subprocess") as server:
        nodes = [_spawn(server, children, folder, number) for number in range(count)]
        try:
            with Channel(server.control, server.tls_folder) as control:
                yield server, control, nodes
        finally:
            for node in nodes:
                children.stop(node)


def _spawn(server, children, folder, number):
    (port,) = free_ports(1)
    argv = [*server.kind.node_command, "--superlink", server.fleet]
    argv += ["--root-certificates", server.tls_folder / "ca.crt"]
    argv += ["--clientappio-api-address", f"127.0.0.1:{port}"]
    home = folder / f"home-{server.kind.label}-node-{number}"
    with (folder / f"{server.kind.label}-node-{number}.log").open("ab") as log:
        return children.spawn(
            argv, env=environment(home), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
