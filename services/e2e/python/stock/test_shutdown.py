"""Ending the SuperLink by signal: exit status 0, a farewell, no process left behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from federation import Federation, Roster
from harness import SuperLink, session_members, wait_for

FAREWELL = "SuperLink terminated gracefully."


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_an_idle_superlink(tmp_path: Path, number: signal.Signals) -> None:
    with SuperLink(tmp_path) as link:
        # Ports open before upstream installs its handlers; a served call comes after that.
        Roster(link).close()
        link.process.signal(number)
        assert link.process.wait(10) == 0
        assert FAREWELL in link.log and "Traceback" not in link.log


def test_sigterm_in_mid_run_leaves_no_process_behind(tmp_path: Path) -> None:
    with Federation(tmp_path, nodes=1) as federation:
        run = federation.app("probe").start(client="sleep", client_seconds=60.0)
        run.wait_event("round")
        superlink = federation.link.process
        assert "superexec" in " ".join(superlink.children().values())
        assert superlink.terminate(10) == 0
        assert FAREWELL in superlink.log
        wait_for(
            lambda: not session_members(superlink.pid),
            15,
            "the SuperExec and the ServerApp to end with the SuperLink",
        )


def test_sigterm_releases_held_calls_and_the_supernode_waits_for_a_successor(
    tmp_path: Path,
) -> None:
    with Federation(tmp_path, isolation="process", nodes=1) as federation:
        (node,) = federation.nodes
        # A SuperExec would take the roster's run; this test needs none.
        assert federation.superexec is not None
        federation.superexec.close()
        Roster(federation.link).wait_online(1)
        assert federation.link.process.terminate(10) == 0
        assert FAREWELL in federation.link.log
        assert node.running, node.tail()


def test_a_superlink_can_follow_another_on_the_same_ports(tmp_path: Path) -> None:
    with SuperLink(tmp_path) as link:
        first = link.process.pid
        assert link.process.terminate() == 0
        link.restart()
        assert link.process.pid != first
        assert Roster(link).online() == set()


def test_a_port_in_use_is_a_sentence_and_status_1(tmp_path: Path) -> None:
    with SuperLink(tmp_path / "first") as first:
        second = SuperLink(tmp_path / "second")
        second.control = first.control
        with second.launch() as process:
            assert process.wait(30) == 1
            assert first.control.rpartition(":")[2] in process.log
            assert "already in use" in process.log and "Traceback" not in process.log
