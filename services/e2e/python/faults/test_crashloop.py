"""The short form of ``crashloop.py``: what it kills goes on where it was."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crashloop import DAEMONS, ROLES, crash_loop

from federation import Cast
from harness import OURS, Certificates


@pytest.fixture(name="seed")
def fixture_seed() -> int:
    """Another one each time; it is in the output of a test that fails."""
    return random.SystemRandom().randrange(1 << 32)


def test_superlink_and_supernodes_over_grpc(tmp_path: Path, seed: int) -> None:
    """Every run completes with the weights of one that nobody disturbed."""
    outcomes = crash_loop(tmp_path, seed, kills=8)
    assert sum(len(outcome.killed) for outcome in outcomes) == 8


def test_superlink_and_supernodes_over_quic(
    tmp_path: Path, seed: int, certificates: Certificates
) -> None:
    """The same over QUIC."""
    crash_loop(
        tmp_path,
        seed,
        kills=6,
        tls=certificates,
        transport="grpc,quic",
        node_args=["--transport", "quic"],
    )


def test_superlink_with_stock_programs(tmp_path: Path, seed: int) -> None:
    """Flower's own SuperNodes, SuperExecs and apps ride through on their own retries."""
    crash_loop(tmp_path, seed, kills=4, roles=["superlink"], cast=Cast())


def test_superlink_that_launches_its_serverapps(tmp_path: Path, seed: int) -> None:
    """They go on under the SuperExec that has lost its SuperLink."""
    cast = Cast(supernode=OURS)
    crash_loop(tmp_path, seed, kills=4, cast=cast, isolation="subprocess", roles=DAEMONS)


def test_everything(tmp_path: Path, seed: int) -> None:
    """Every run ends, and is completed only if it is."""
    crash_loop(tmp_path, seed, kills=6, roles=ROLES)
