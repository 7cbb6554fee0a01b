"""Simulations: stock flower-superexec and flwr-simulation, with ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from federation import APPS, SIMULATED_NODES, App, Run, superexec
from harness import Certificates, SuperLink, wait_for

pytest.importorskip("ray", reason="ray has no wheel for this Python")

SIMULATION_SECONDS = 120.0
RAY_IS_DOWN = "Failed to start GCS"


def _app(link: SuperLink, directory: Path) -> App:
    home = directory / "cli-home"
    home.mkdir()
    return App(APPS["probe"], directory / "probe", link, home, [])


def _simulate(app: App, said: Callable[[], str], event: str, **config: object) -> Run:
    """A run that has emitted an event. `said` is what its launcher has logged.

    On a busy machine ray now and then does not come up, and the simulation hangs, whatever the
    SuperLink; that is recognised by what ray says, and such a run gets another try.
    """
    for _ in range(3):
        run, before = app.start(**config), len(said())
        wait_for(
            lambda: run.events(event) or RAY_IS_DOWN in said()[before:],
            SIMULATION_SECONDS,
            f"event {event} of run {run.run_id}",
        )
        if run.events(event):
            return run
        app.flwr("stop", run.run_id)
    raise AssertionError(f"ray did not start\n{said()}")


@pytest.mark.slow
def test_127_a_simulation_in_subprocess_isolation(
    tmp_path: Path, certificates: Certificates
) -> None:
    with SuperLink(tmp_path, certificates, "subprocess", simulation=True) as link:
        app, config = _app(link, tmp_path), {"rounds": 2, "nodes": SIMULATED_NODES, "arrays": 2}
        run = _simulate(app, lambda: link.log, "end", **config).wait_completed()
        replies = run.events("reply")
        assert [reply["code"] for reply in replies] == [None] * 2 * SIMULATED_NODES
        # State of simulated nodes lasts from round to round.
        assert sorted(reply["saw"]["calls"] for reply in replies) == [1, 1, 2, 2]


@pytest.mark.slow
def test_127_a_simulation_in_process_isolation_is_stopped(tmp_path: Path) -> None:
    with SuperLink(tmp_path, simulation=True) as link:
        with superexec("simulation", link.simulationio, tmp_path, link.home) as launcher:
            app = _app(link, tmp_path)
            run = _simulate(app, lambda: launcher.log, "rounds-done", server="wait")
            assert "success" in app.flwr("stop", run.run_id).text.lower()
            assert run.status == "finished:stopped"
