"""A SuperLink with the peers of one test: clients, nodes and runs that are cleared away after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
from wire import AppIo, Control, Node

import harness
from harness import SuperLink

HOLD_OFF: list[str] = [] if harness.REFERENCE else ["--hold-seconds", "0"]
"""Flags that make the server under test answer at once; upstream always does and has no flag."""


class World:
    """The stock peers of one test against one SuperLink.

    `control` and `appio` are connected clients; `node()` and `run()` make nodes and running runs.
    `close()` deletes those nodes, stops those runs and drops every connection.
    """

    def __init__(self, link: SuperLink) -> None:
        self.link = link
        self.root_certificates = None if link.tls is None else link.tls.ca.read_bytes()
        self.control = Control(link.control, root_certificates=self.root_certificates)
        self.appio = AppIo(link.serverappio)
        self.nodes: list[Node] = []
        self.runs: list[int] = []

    def stranger(self, key: Any = None) -> Node:
        """Return a node that has not called CreateNode."""
        node = Node(self.link.fleet, key, root_certificates=self.root_certificates)
        self.nodes.append(node)
        return node

    def node(self, key: Any = None, heartbeat: float = 30.0) -> Node:
        """Return a node that has called CreateNode."""
        node = self.stranger(key)
        node.create(heartbeat)
        return node

    def pending(self, fab: bytes | None = None) -> int:
        """Start a run and leave it pending; returns its id."""
        run_id = self.control.start_run(fab)
        self.runs.append(run_id)
        return run_id

    def run(self, fab: bytes | None = None) -> int:
        """Start a run and take it to running; returns its id."""
        run_id = self.pending(fab)
        self.appio.running(run_id)
        return run_id

    def serves(self) -> None:
        """Require that every port answers an ordinary call."""
        self.control.list_runs()
        self.appio.get_run(0)
        node = self.stranger()
        node.create()
        assert node.heartbeat()
        node.delete()
        node.id = 0

    def close(self) -> None:
        """Clear away what this test made."""
        for node in self.nodes:
            if node.id:
                _ignore(node.delete)
            node.close()
        for run_id in self.runs:
            _ignore(self.control.stop_run, run_id)
        self.control.close()
        self.appio.close()


def _ignore(call: Any, *args: Any) -> None:
    try:
        call(*args, timeout=5.0)
    except grpc.RpcError:
        pass  # the test deleted, stopped or broke it already


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes. Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no resident memory")
