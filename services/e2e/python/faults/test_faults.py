"""Processes that are killed, hang, or are out of reach, and disks that fill up, around SuperNodes and
SuperExecs of ours: what does not concern a process, it outlives. Over gRPC, and over QUIC."""

from __future__ import annotations

import copy
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Iterator, Optional

import pytest

from federation import Cast, Federation, Run, SuperNode
from harness import OURS, Certificates, Process, binary, make_appio_tls, session_members, wait_for
from wires import TcpWire, UdpWire

APP_RAISED = 2
CAST = Cast(supernode=OURS, server_launcher=OURS, client_launcher=OURS)


class Carrier:
    """What carries Fleet in the test that runs: certificates where that is QUIC."""

    quic: Optional[Certificates] = None


@pytest.fixture(autouse=True, params=["grpc", "quic"])
def carrier(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[None]:
    """Every test runs over both."""
    Carrier.quic = certificates if request.param == "quic" else None
    yield
    Carrier.quic = None


def one_node(
    directory: Path, isolation: str = "subprocess", node_args: tuple[object, ...] = (), **more: object
) -> Federation:
    """A federation with one SuperNode, all ours."""
    if Carrier.quic is not None:
        node_args = (*node_args, "--transport", "quic")
        more = {"tls": Carrier.quic, "transport": "grpc,quic", **more}
    return Federation(
        directory, isolation=isolation, nodes=1, node_args=node_args, cast=CAST, **more  # type: ignore[arg-type]
    )


def sleeping(federation: Federation, **config: object) -> tuple[Run, int]:
    """A run whose ClientApp sleeps for ten minutes, and the pid of that app."""
    run = federation.app("probe").start(client="sleep", client_seconds=600.0, **config)
    (node,) = federation.nodes
    return run, int(wait_for(lambda: node.events("client"), 60, "the ClientApp to start")[-1]["pid"])


def serves(federation: Federation, timeout: float = 60.0) -> None:
    """The next run is served, by one node."""
    run = federation.app("probe").start().wait_completed(timeout)
    assert [reply["code"] for reply in run.events("reply")] == [None]


def is_running(pid: int) -> bool:
    """Whether the process runs (one that waits for its parent to take its status does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def superexec_of(process: Process) -> int:
    """The pid of the SuperExec that a daemon has launched."""

    def find() -> int:
        members = session_members(process.pid)
        found = [pid for pid, line in members.items() if " superexec " in line]
        return found[0] if len(found) == 1 else 0

    return wait_for(find, 20, f"the SuperExec of {process.name}")


@pytest.mark.parametrize("isolation", ["subprocess", "process"])
def test_a_killed_clientapp_is_answered_for_at_once(tmp_path: Path, isolation: str) -> None:
    with one_node(tmp_path, isolation) as federation:
        run, app = sleeping(federation)
        killed = time.monotonic()
        os.kill(app, signal.SIGKILL)
        run.wait_completed()
        (reply,) = run.events("reply")
        assert reply["code"] == APP_RAISED and "signal" in reply["reason"], reply
        assert time.monotonic() - killed < 10
        serves(federation)


@pytest.mark.parametrize("isolation", ["subprocess", "process"])
def test_a_killed_superexec_takes_its_app_along_and_the_node_answers(
    tmp_path: Path, isolation: str
) -> None:
    with one_node(tmp_path, isolation) as federation:
        run, app = sleeping(federation)
        (node,) = federation.nodes
        if node.superexec is not None:
            node.superexec.kill()
        else:
            os.kill(superexec_of(node), signal.SIGKILL)
        wait_for(lambda: not is_running(app), 10, "the ClientApp to follow its launcher")
        run.wait_completed()
        (reply,) = run.events("reply")
        assert reply["code"] == APP_RAISED, reply
        if node.superexec is not None:
            node.restart_superexec()
        serves(federation)


def test_a_hanging_clientapp_is_ended_when_its_run_is_stopped(tmp_path: Path) -> None:
    with one_node(tmp_path) as federation:
        run, app = sleeping(federation)
        federation.app("probe").flwr("stop", run.run_id, ".")
        assert run.wait_finished() == "finished:stopped"
        wait_for(lambda: not is_running(app), 20, "the hanging ClientApp to be ended")
        serves(federation)


def test_a_killed_serverapp_fails_its_run_at_once(tmp_path: Path) -> None:
    with one_node(tmp_path) as federation:
        run = federation.app("probe").start(nodes=0, rounds=0, server="wait")
        run.wait_event("rounds-done")
        os.kill(run.events("start")[0]["pid"], signal.SIGKILL)
        killed = time.monotonic()
        assert run.wait_finished() == "finished:failed"
        assert time.monotonic() - killed < 10
        assert "signal: 9" in run.details
        assert run.details in run.log()
        serves(federation)


def test_a_supernode_that_was_killed_and_started_again_serves(tmp_path: Path) -> None:
    with one_node(tmp_path) as federation:
        run, _app = sleeping(federation, timeout=5.0)
        (node,) = federation.nodes
        federation.kill(node)
        run.wait_completed()
        assert run.events("reply") == []
        with node.again() as again:
            again.wait_log("took its place again after a restart")
            served = federation.app("probe").start().wait_completed()
            assert [reply["code"] for reply in served.events("reply")] == [None]


def test_a_node_outlives_its_superlink_and_serves_the_next_one(
    tmp_path: Path, certificates: Certificates
) -> None:
    with one_node(tmp_path, tls=certificates) as federation:
        run, app = sleeping(federation)
        federation.link.process.kill()
        federation.link.restart()
        (node,) = federation.nodes
        node.wait_log("joining again")
        wait_for(lambda: not is_running(app), 30, "the app of the forgotten run to be ended")
        assert node.running
        serves(federation)
        # Its state was in memory, and its ServerApp went with it: nothing claims to have finished.
        assert run.run_id not in _runs(federation)


def _runs(federation: Federation) -> set[int]:
    listed = federation.app("probe").flwr("ls", ".", "--format", "json").json()
    return {int(run["run-id"]) for run in listed["runs"]}


@pytest.mark.slow
def test_a_superlink_out_of_reach_for_a_minute_is_waited_for(
    tmp_path: Path, certificates: Certificates
) -> None:
    quic = Carrier.quic is not None
    transport = "quic" if quic else "grpc"
    with Federation(
        tmp_path, tls=certificates, nodes=0, cast=CAST, transport=transport
    ) as federation:
        with (UdpWire if quic else TcpWire)(federation.link.fleet) as wire:
            link = copy.copy(federation.link)
            link.fleet = wire.address
            node = SuperNode(link, tmp_path, "far", kind=OURS, args=["--transport", transport])
            federation.nodes.append(node)
            with node:
                node.wait_log(r"joined the SuperLink node_id=(\d+)")
                run = federation.app("probe").start(client="sleep", client_seconds=10.0)
                wait_for(lambda: node.events("client"), 60, "the ClientApp to start")
                wire.cut()
                time.sleep(60)
                wire.mend()
                # By Flower's rules a node that was silent for so long has failed the round.
                run.wait_completed()
                served = federation.app("probe").start().wait_completed()
                assert [reply["code"] for reply in served.events("reply")] == [None]
                assert len(re.findall("joined the SuperLink", node.log)) == 1


def test_a_full_quota_is_an_error_reply_that_says_so(tmp_path: Path) -> None:
    with one_node(tmp_path, node_args=("--data-quota", "1M")) as federation:
        run = federation.app("probe").start(arrays=3, array_bytes=1_000_000).wait_completed()
        (reply,) = run.events("reply")
        assert reply["code"] is not None and "quota" in reply["reason"], reply
        serves(federation)


@pytest.mark.slow
def test_the_second_supernode_with_a_key_ends_and_says_why(tmp_path: Path) -> None:
    key = tmp_path / "site"
    subprocess.run([binary(), "keys", "node", "--out", key], check=True, capture_output=True)
    keys = ("--auth-supernode-private-key", key, "--auth-supernode-public-key", f"{key}.pub")
    with one_node(tmp_path, node_args=keys) as federation:
        second = SuperNode(
            federation.link, tmp_path, "second", args=[*keys, "--warm-apps", "off"], kind=OURS
        )
        with second:
            assert second.wait(150) == 1
            assert "another SuperNode that is online uses the same key" in second.log
        serves(federation)


@pytest.mark.slow
def test_a_supernode_that_lost_its_data_gets_its_key_back(tmp_path: Path) -> None:
    key = tmp_path / "site"
    subprocess.run([binary(), "keys", "node", "--out", key], check=True, capture_output=True)
    keys = ("--auth-supernode-private-key", key, "--auth-supernode-public-key", f"{key}.pub")
    with one_node(tmp_path, node_args=keys) as federation:
        (node,) = federation.nodes
        serves(federation)
        federation.kill(node)
        shutil.rmtree(node.home / "supernode")
        with node.again() as again:
            again.wait_log("is in use: waiting")
            again.wait_log("joined the SuperLink", timeout=90)


@pytest.mark.parametrize("warm", ["off", "fork"])
def test_an_app_does_not_inherit_the_secret_of_its_launcher(tmp_path: Path, warm: str) -> None:
    with one_node(tmp_path, node_args=("--warm-apps", warm)) as federation:
        (node,) = federation.nodes
        _run, app = sleeping(federation)
        secret = b"FLWR_QUIC_JOIN_SECRET"
        assert secret in Path(f"/proc/{superexec_of(node)}/environ").read_bytes()
        assert secret not in Path(f"/proc/{app}/environ").read_bytes()


def test_no_process_is_left_behind(tmp_path: Path) -> None:
    with one_node(tmp_path) as federation:
        serves(federation)
        (node,) = federation.nodes
        left = node.children()
        assert left, "the SuperExec and what it keeps warm"
        asked = time.monotonic()
        assert node.terminate() == 0
        assert time.monotonic() - asked < 10
        assert "SuperNode terminated gracefully." in node.log
        assert not [pid for pid in left if is_running(pid)]


def test_objects_that_are_here_cross_the_network_once(
    tmp_path: Path, certificates: Certificates
) -> None:
    appio = make_appio_tls(tmp_path, certificates)
    with one_node(tmp_path, "process", tls=certificates, appio=appio) as federation:
        app = federation.app("probe")
        for _ in range(2):
            # The same seed makes the same arrays in every run.
            app.start(arrays=2, array_bytes=3_000_000).wait_completed()
        (node,) = federation.nodes
        data = node.home / "supernode" / f"data-{node.clientappio.rpartition(':')[2]}"
        chunks = [file for file in data.rglob("*") if file.is_file() and file.stat().st_size > 2_000_000]
        assert len(chunks) == 2
