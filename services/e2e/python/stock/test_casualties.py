"""Processes that die in the middle of a run: the run ends, and the ServerApp is told."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Iterator

import pytest

from federation import Federation, Run
from harness import wait_for

NODE_UNAVAILABLE = 5
# A node is online for 60 s after its last heartbeat, a run is alive as long after its own.
LEASE_SECONDS = 60.0


class Casualties:
    """A SuperNode killed in one run, a ServerApp killed in the next, both at about one time."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        app = federation.app("probe")
        self.bereft = app.start(
            nodes=2, client="sleep", client_seconds=600.0, client_partition=0
        )
        victim = federation.nodes[0]
        wait_for(lambda: victim.events("client"), 60, "the doomed node's ClientApp to start")
        federation.kill(victim)
        self.node_killed = time.monotonic()
        self.orphan = app.start(nodes=0, rounds=0, server="wait")
        self.orphan.wait_event("rounds-done")
        os.kill(self.orphan.events("start")[0]["pid"], signal.SIGKILL)
        self.server_killed = time.monotonic()


@pytest.fixture(scope="module")
def casualties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Casualties]:
    # A stock SuperExec reports no ends, so leases have to run out.
    with Federation(
        tmp_path_factory.mktemp("casualties"),
        isolation="process",
        node_isolation="subprocess",
        nodes=2,
    ) as federation:
        yield Casualties(federation)


def test_a_short_timeout_ends_the_round_without_the_dead_nodes_reply(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=1) as federation:
        run = federation.app("probe").start(client="sleep", client_seconds=600.0, timeout=5.0)
        (victim,) = federation.nodes
        wait_for(lambda: victim.events("client"), 60, "the doomed node's ClientApp to start")
        federation.kill(victim)
        run.wait_completed(60)
        (done,) = run.events("round-done")
        # Never earlier than asked, and late by at most one pause or hold of the pulling loop.
        assert done["replies"] == 0 and 5.0 <= done["seconds"] < 30.0


@pytest.mark.slow
def test_the_serverapp_receives_code_5_for_the_dead_node(casualties: Casualties) -> None:
    run: Run = casualties.bereft
    run.wait_completed(LEASE_SECONDS + 60)
    seconds = time.monotonic() - casualties.node_killed
    assert seconds < LEASE_SECONDS + 30
    replies = run.events("reply")
    assert sorted(reply["code"] for reply in replies if reply["code"] is not None) == [
        NODE_UNAVAILABLE
    ]
    assert len(replies) == 2
    (lost,) = [reply for reply in replies if reply["code"] is not None]
    assert lost["reason"].startswith("Error: Node Unavailable")


@pytest.mark.slow
def test_the_run_of_a_killed_serverapp_fails_when_its_lease_ends(casualties: Casualties) -> None:
    run: Run = casualties.orphan
    status = run.wait_finished(LEASE_SECONDS + 60)
    seconds = time.monotonic() - casualties.server_killed
    assert seconds < LEASE_SECONDS + 30
    assert status == "finished:failed"
    assert run.details == "No heartbeat received from the run."


@pytest.mark.slow
def test_the_survivors_serve_the_next_run(casualties: Casualties) -> None:
    casualties.bereft.wait_finished(LEASE_SECONDS + 60)
    run = casualties.federation.app("probe").start().wait_completed()
    assert len(run.events("nodes")[0]["nodes"]) == 1
    assert [reply["code"] for reply in run.events("reply")] == [None]


def test_a_clientapp_that_dies_does_not_end_its_supernode(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=1) as federation:
        app = federation.app("probe")
        run = app.start(client="sleep", client_seconds=600.0, timeout=5.0)
        (node,) = federation.nodes
        event = wait_for(lambda: node.events("client"), 60, "the ClientApp to start")[0]
        os.kill(event["pid"], signal.SIGKILL)
        run.wait_completed(60)
        assert run.events("round-done")[0]["replies"] == 0
        assert node.running
