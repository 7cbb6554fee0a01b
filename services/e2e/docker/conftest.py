"""The engine, the images and the deployment that the tests share; without an engine all of them are skipped."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Iterator

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "python"), str(Path(__file__).parents[1] / "python" / "mix")]

import engine as engines
from deployment import Deployment


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """Docker and Compose."""
    try:
        started = engines.Engine()
    except engines.Unavailable as why:
        if os.environ.get("FLWR_DOCKER_TESTS") == "must":
            raise
        pytest.skip(f"no Docker engine: {why}")
    yield
    started.close()


@pytest.fixture(scope="session")
def binary() -> Path:
    """The flwr-quic under test."""
    named = os.environ.get("FLWR_QUIC_BIN")
    path = Path(named) if named else engines.REPOSITORY / "target" / "release" / "flwr-quic"
    assert path.is_file(), f"there is no {path}: cargo build --release -p flwr-quic, or FLWR_QUIC_BIN"
    return path.resolve()


@pytest.fixture(scope="session")
def deployment(engine: None, binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A deployment with certificates for two nodes and images, not started; removed with all that is its own."""
    made = Deployment(tmp_path_factory.mktemp("deployment"), binary, Path(sys.executable).parent)
    # Whose names these are, nobody else's containers may have.
    taken = made.shell("docker ps -a --filter name=flower- --format '{{.Names}}'").split()
    if taken:
        pytest.skip(f"a federation is deployed on this machine: {', '.join(taken)}")
    made.make_certificates()
    try:
        yield made
    finally:
        made.try_shell("./scripts/stop-secure.sh --all")
        shutil.rmtree(made.root, ignore_errors=True)
