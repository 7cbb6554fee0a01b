"""The Compose files besides docker-compose.yml that have less of it; test_transports.py has one that has more."""

from __future__ import annotations

import re

import pytest

from deployment import Deployment

rows = pytest.mark.rows


@rows("S14", "S15", "S141", "S144")
def test_the_development_deployment(built: Deployment) -> None:
    # By itself: Compose v2 counts all images of a project among those that `--rmi all` is about.
    files = {"COMPOSE_FILE": "docker-compose.development.yml", "COMPOSE_PROJECT_NAME": "flower-development"}
    built.shell("docker compose up -d", **files)
    try:
        said = built.shell("flwr run . local-development --stream")
        assert re.search(r"saved as line-\d+\.npy", said)
    finally:
        built.shell("docker compose down -v --rmi all", **files)
    assert "flwr-quic/supernode:latest" not in built.shell("docker images --format '{{.Repository}}:{{.Tag}}'")


@rows("S16", "S17", "S19", "S20", "S144")
def test_the_overlay_with_insecure_apps(built: Deployment) -> None:
    built.start(COMPOSE_FILE="docker-compose.yml:docker-compose.process.yml:docker-compose.override.yml")
    built.run().wait()
    built.stop("docker compose down -v")
    assert "flower-superlink-data" not in built.shell("docker volume ls -q").split()
