"""Compose by hand, and how all of it is taken away again."""

from __future__ import annotations

import signal

import pytest

from deployment import CONTAINERS, VOLUMES, Deployment, wait_for

rows = pytest.mark.rows


def states(deployment: Deployment) -> set[str]:
    """What the containers do."""
    return {deployment.inspect(container)["State"]["Status"] for container in CONTAINERS}


@rows("S141", "S143", "S145")
def test_compose_by_hand(built: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    built.start()
    # What add-supernode.sh says.
    files = ("docker-compose.yml", "docker-compose.nodes.yml", "docker-compose.override.yml")
    there = ":".join(file for file in files if (built.docker / file).exists())
    monkeypatch.setitem(built.environment, "COMPOSE_FILE", there)
    before = [built.inspect(container)["State"]["StartedAt"] for container in CONTAINERS]
    built.shell("docker compose restart")
    assert not set(before) & {built.inspect(container)["State"]["StartedAt"] for container in CONTAINERS}
    built.wait_healthy(*CONTAINERS)
    built.shell("docker compose stop")
    assert states(built) == {"exited"}
    built.shell("docker compose up -d superlink")
    built.wait_healthy("flower-superlink")
    running = built.shell("docker ps --filter name=flower- --format '{{.Names}}'").split()
    assert running == ["flower-superlink"]
    built.shell("docker compose up -d")
    built.wait_healthy(*CONTAINERS)
    # In the foreground, until Ctrl-C.
    built.follow("docker compose up", "Attaching to", signal.SIGINT)
    wait_for(lambda: states(built) == {"exited"}, 30, "they are stopped")


@rows("S111")
def test_stop_with_images_keeps_the_data(built: Deployment) -> None:
    built.start()
    built.shell("./scripts/stop-secure.sh --images")
    assert not images(built)
    assert set(VOLUMES) <= set(built.shell("docker volume ls -q").split())


@rows("S103", "S110", "S112")
def test_nothing_but_docker_and_stop_with_all(built: Deployment) -> None:
    built.shell("./scripts/stop-secure.sh --images")
    # No flwr-quic on the machine, and no images: they come first. The program of the tests spares a compilation.
    nothing = {"FLWR_QUIC_BINARY": "", "PATH": "/usr/local/bin:/usr/bin:/bin"}
    refused = built.try_shell("./scripts/start-secure.sh --no-build", **nothing)
    assert refused.returncode == 1 and "there is no image flwr-quic/superlink:slim" in refused.stdout
    (built.docker / "build" / "prebuilt" / "flwr-quic").write_bytes(built.binary.read_bytes())
    (built.docker / "build" / "prebuilt" / "flwr-quic").chmod(0o755)
    built.shell("./scripts/start-secure.sh", seconds=900, **nothing)
    built.run().wait()
    built.shell("./scripts/stop-secure.sh --all")
    assert not images(built)
    assert not built.shell("docker volume ls -q --filter name=flower-")
    assert not built.shell("docker ps -aq --filter name=flower-")
    assert not built.shell("docker network ls -q --filter name=flower-")


def images(deployment: Deployment) -> list[str]:
    """The images of the deployment."""
    names = deployment.shell("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    return [name for name in names if name.startswith("flwr-quic/")]
