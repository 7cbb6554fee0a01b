"""Simulations: stock flower-superexec and flwr-simulation, with ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation import APPS, SIMULATED_NODES, App, superexec
from harness import Certificates, SuperLink

pytest.importorskip("ray", reason="ray has no wheel for this Python")

SIMULATION_SECONDS = 180.0


def _app(link: SuperLink, directory: Path) -> App:
    home = directory / "cli-home"
    home.mkdir()
    return App(APPS["probe"], directory / "probe", link, home, [])


def _check_a_simulation(link: SuperLink, directory: Path) -> None:
    run = _app(link, directory).start(rounds=2, nodes=SIMULATED_NODES, arrays=2)
    run.wait_completed(SIMULATION_SECONDS)
    replies = run.events("reply")
    assert [reply["code"] for reply in replies] == [None] * 2 * SIMULATED_NODES
    # State of simulated nodes lasts from round to round.
    assert sorted(reply["saw"]["calls"] for reply in replies) == [1, 1, 2, 2]


@pytest.mark.slow
def test_127_a_simulation_in_subprocess_isolation(
    tmp_path: Path, certificates: Certificates
) -> None:
    with SuperLink(tmp_path, certificates, "subprocess", simulation=True) as link:
        _check_a_simulation(link, tmp_path)


@pytest.mark.slow
def test_127_a_simulation_in_process_isolation_is_stopped(tmp_path: Path) -> None:
    with SuperLink(tmp_path, simulation=True) as link:
        launcher = superexec("simulation", link.simulationio, tmp_path, link.home)
        with launcher:
            run = _app(link, tmp_path).start(rounds=1, nodes=1, server="wait")
            run.wait_event("rounds-done", SIMULATION_SECONDS)
            output = _app_stop(link, tmp_path, run.run_id)
            assert "success" in output.lower(), output
            assert run.status == "finished:stopped"


def _app_stop(link: SuperLink, directory: Path, run_id: int) -> str:
    stopper = App(APPS["probe"], directory / "probe", link, directory / "cli-home", [])
    return stopper.flwr("stop", run_id).text
