"""Compose by hand, and how all of it is taken away again. After every other test: the images go last."""

from __future__ import annotations

import re

import pytest

from deployment import SERVICES, VOLUMES, Deployment

rows = pytest.mark.rows


@rows("S140", "S141", "S144")
def test_compose_by_hand(deployment: Deployment) -> None:
    # Certificates are permitted, and images built, by the script.
    deployment.shell("./scripts/start-secure.sh", seconds=900)
    deployment.shell("docker compose down -v")
    deployment.shell("docker compose up -d superlink")
    deployment.wait_healthy("flower-superlink")
    assert deployment.shell("docker ps --filter name=flower- --format '{{.Names}}'").split() == ["flower-superlink"]
    deployment.shell("docker compose up -d")
    deployment.wait_healthy(*(f"flower-{service}" for service in SERVICES))
    deployment.shell("docker compose down -v")
    assert not set(deployment.shell("docker volume ls -q").split()) & set(VOLUMES)


@rows("S14", "S15")
def test_the_development_deployment(deployment: Deployment) -> None:
    files = {"COMPOSE_FILE": "docker-compose.development.yml"}
    deployment.build(compose_file=files["COMPOSE_FILE"])
    deployment.shell("docker compose up -d", **files)
    try:
        said = deployment.shell("flwr run . local-development --stream")
        assert re.search(r"saved as line-\d+\.npy", said)
    finally:
        deployment.shell("docker compose down -v --rmi all", **files)


@rows("S88")
def test_the_internal_overlay(deployment: Deployment) -> None:
    files = {"COMPOSE_FILE": "docker-compose.yml:docker-compose.internal.yml"}
    deployment.shell("./scripts/start-secure.sh --no-build", **files)
    try:
        deployment.run().wait()
        assert deployment.inspect("flower-fl-network")["Internal"]
        published = deployment.shell("docker port flower-superlink")
        assert "9093/tcp -> 127.0.0.1:9093" in published
    finally:
        deployment.shell("./scripts/stop-secure.sh --volumes", **files)


@rows("S85")
def test_the_secrets_overlay_takes_keys_from_elsewhere(deployment: Deployment) -> None:
    secrets = deployment.root / "secrets"
    files = {
        "COMPOSE_FILE": "docker-compose.yml:docker-compose.secrets.yml",
        "SECRETS_DIR": str(secrets),
    }
    deployment.shell(f"mkdir -p {secrets}/clients {secrets}/server")
    for key in ("server/server.key", "clients/client1.key", "clients/client2.key"):
        deployment.shell(f"mv ../certificates/{key} {secrets}/{key}")
    try:
        deployment.shell("./scripts/start-secure.sh --no-build", **files)
        deployment.run().wait()
    finally:
        deployment.shell("./scripts/stop-secure.sh --volumes", **files)
        for key in ("server/server.key", "clients/client1.key", "clients/client2.key"):
            deployment.shell(f"rm -rf ../certificates/{key}; mv {secrets}/{key} ../certificates/{key}")


@rows("S19", "S20", "S16", "S17")
def test_the_overlay_with_insecure_apps(deployment: Deployment) -> None:
    files = {"COMPOSE_FILE": "docker-compose.yml:docker-compose.process.yml"}
    deployment.shell("./scripts/start-secure.sh --no-build", **files)
    try:
        deployment.run().wait()
    finally:
        deployment.shell("./scripts/stop-secure.sh --volumes", **files)


@rows("S111")
def test_stop_with_images_keeps_the_data(deployment: Deployment) -> None:
    deployment.shell("./scripts/start-secure.sh --no-build")
    deployment.shell("./scripts/stop-secure.sh --images")
    assert not images(deployment)
    assert set(VOLUMES) <= set(deployment.shell("docker volume ls -q").split())


@rows("S112", "S110")
def test_stop_with_all_leaves_nothing(deployment: Deployment) -> None:
    deployment.shell("./scripts/start-secure.sh", seconds=900)
    deployment.shell("./scripts/stop-secure.sh --all")
    assert not images(deployment)
    assert not set(deployment.shell("docker volume ls -q").split()) & set(VOLUMES)
    assert not deployment.shell("docker ps -aq --filter name=flower-")
    assert not deployment.shell("docker network ls -q --filter name=flower-")


def images(deployment: Deployment) -> list[str]:
    """The images of the deployment."""
    names = deployment.shell("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    return [name for name in names if name.startswith("flwr-quic/")]
