"""The engine, the images and the deployment that the tests share; without an engine all of them are skipped."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Iterator

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "python"), str(Path(__file__).parents[1] / "python" / "mix")]

import engine as engines
from deployment import Deployment, run

# A module goes on with what the one before it has started, and the last ones take all of it away.
ORDER = ("static", "rows", "images", "scripts", "single", "overlays", "transports", "secure", "operations", "teardown")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts modules."""
    items.sort(key=lambda item: ORDER.index(item.path.stem.removeprefix("test_")))


@pytest.fixture(scope="session")
def engine() -> Iterator[None]:
    """Docker and Compose."""
    try:
        started = engines.Engine()
    except engines.Unavailable as why:
        if os.environ.get("FLWR_DOCKER_TESTS") == "must":
            raise
        pytest.skip(f"no Docker engine: {why}")
    try:
        if started.own:
            clear(taken())
        elif taken():
            # Whose names these are: they would be used, and in the end removed.
            raise RuntimeError(f"there is a federation on this machine, of which the tests would take away {taken()}")
        unnamed = engines.unnamed_images()
        yield
        if not started.own:
            clear({"image": sorted(engines.unnamed_images() - unnamed)})
    finally:
        started.close()


def taken() -> dict[str, list[str]]:
    """What has the names that the deployment uses, by kind."""
    formats = {
        "container": "docker ps -a --format '{{.Names}}'",
        "volume": "docker volume ls --format '{{.Name}}'",
        "network": "docker network ls --format '{{.Name}}'",
        "image": "docker images --format '{{.Repository}}:{{.Tag}}'",
    }
    found = {
        kind: [name for name in run(command).split() if name.startswith(("flower-", "flwr-quic/"))]
        for kind, command in formats.items()
    }
    return {kind: names for kind, names in found.items() if names}


def clear(names: dict[str, list[str]]) -> None:
    """Removes what a session before this one has left, or this one."""
    for kind, those in names.items():
        if not those:
            continue
        force = "" if kind == "network" else "--force"
        # Again: some are made of others.
        for _ in range(2):
            run(f"docker {kind} rm {force} {' '.join(those)} || true")


@pytest.fixture(scope="session")
def binary() -> Path:
    """The flwr-quic under test."""
    named = os.environ.get("FLWR_QUIC_BIN")
    path = Path(named) if named else engines.REPOSITORY / "target" / "release" / "flwr-quic"
    assert path.is_file(), f"there is no {path}: cargo build --release -p flwr-quic, or FLWR_QUIC_BIN"
    return path.resolve()


@pytest.fixture(scope="session")
def deployment(engine: None, binary: Path) -> Iterator[Deployment]:
    """A deployment with certificates for two nodes, not started; removed with all that is its own."""
    # Not below pytest's folder, into which nobody else may look.
    made = Deployment(Path(tempfile.mkdtemp(prefix="flwr-deployment-")), binary, Path(sys.executable).parent)
    try:
        made.make_certificates()
        yield made
    finally:
        made.try_shell("./scripts/stop-secure.sh --all")
        shutil.rmtree(made.root, ignore_errors=True)


@pytest.fixture(scope="session")
def built(deployment: Deployment) -> Deployment:
    """With images: those of the deployment, and those with Python."""
    deployment.build()
    deployment.build(compose_file="docker-compose.development.yml")
    return deployment


@pytest.fixture(scope="module")
def secure(built: Deployment) -> Deployment:
    """Started as its operator does."""
    built.start()
    return built
