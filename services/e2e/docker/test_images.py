"""The images by themselves."""

from __future__ import annotations

import json
import re
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from deployment import Deployment, wait_for

rows = pytest.mark.rows
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def images(built: Deployment) -> None:
    """They are built."""


@rows("S140", "S160", "S118", "S119", "S120")
def test_builds_are_repeated_from_the_cache(deployment: Deployment) -> None:
    # As README.md has it, with a program that is there; and what this machine needs to reach its registries.
    shutil.copy(deployment.binary, deployment.docker / "build" / "prebuilt" / "flwr-quic")
    prepared = "source scripts/common.sh; source scripts/images.sh; build_arguments;"
    names = ["superlink:slim", "supernode:slim", "superexec:latest"]
    before = [deployment.inspect(f"flwr-quic/{name}")["Id"] for name in names]
    begun = time.monotonic()
    try:
        deployment.shell(f'{prepared} docker compose build "${{arguments[@]}}" superlink')
        assert time.monotonic() - begun < 60
        deployment.shell(f'{prepared} docker compose build "${{arguments[@]}}"')
    finally:
        (deployment.docker / "build" / "prebuilt" / "flwr-quic").unlink()
    assert [deployment.inspect(f"flwr-quic/{name}")["Id"] for name in names] == before


def test_a_program_that_was_named_is_for_one_build(deployment: Deployment) -> None:
    assert not list((deployment.docker / "build" / "prebuilt").iterdir())


def test_a_program_that_does_not_run_in_the_images(deployment: Deployment, tmp_path: Path) -> None:
    other = tmp_path / "flwr-quic"
    other.write_text("#!/bin/of/a/newer/system\n")
    other.chmod(0o755)
    steps = "source scripts/common.sh; source scripts/images.sh; require_engine; build_images superlink"
    before = set(deployment.shell("docker ps -aq").split())
    refused = deployment.try_shell(steps, FLWR_QUIC_BINARY=str(other))
    # Of the step that failed.
    for container in set(deployment.shell("docker ps -aq").split()) - before:
        deployment.shell(f"docker rm {container}")
    assert refused.returncode == 1 and "does not run on Debian bookworm" in refused.stdout


@rows("S91")
def test_images_without_python_are_small(deployment: Deployment, binary: Path) -> None:
    assert binary.stat().st_size < 30 * MIB
    base = deployment.inspect("debian:bookworm-slim")["Size"]
    for image in ("flwr-quic/superlink:slim", "flwr-quic/supernode:slim"):
        assert deployment.inspect(image)["Size"] - base <= 60 * MIB, image
        assert deployment.try_shell(f"docker run --rm --entrypoint python3 {image}").returncode != 0


@rows("S27", "S134", "S136", "S152")
@pytest.mark.parametrize("image", ["superlink:slim", "supernode:slim", "superexec:latest"])
def test_user_and_tools(deployment: Deployment, image: str) -> None:
    said = deployment.shell(
        f"docker run --rm --entrypoint sh flwr-quic/{image} -c"
        " 'id -u; id -un; pwd; echo $HOME; ls -la /app; netstat -an; ping -c 1 127.0.0.1; flower-superlink --version'"
    )
    assert said.splitlines()[:4] == ["49999", "app", "/app", "/app"]
    assert "1 received" in said and "flwr-quic" in said


@rows("S22", "S23")
@pytest.mark.parametrize("image", ["superlink:slim", "supernode:slim", "superexec:latest"])
def test_arguments_follow_the_name_of_the_image(deployment: Deployment, image: str) -> None:
    said = deployment.shell(f"docker run --rm flwr-quic/{image} --help")
    assert f"flwr-quic {image.split(':')[0]}" in said


@rows("S120")
def test_apps_find_flower(deployment: Deployment) -> None:
    said = deployment.shell(
        "docker run --rm --entrypoint sh flwr-quic/superexec:latest -c"
        " 'flwr --version; command -v flwr-serverapp flwr-clientapp flwr-simulation'"
    )
    assert "1.22.0" in said


@rows("S06")
def test_a_superlink_is_healthy_within_three_seconds(deployment: Deployment) -> None:
    name = "flower-test-superlink"
    deployment.shell(f"docker run -d --rm --name {name} flwr-quic/superlink:slim --insecure --isolation process")
    try:
        wait_for(lambda: deployment.health(name) == "healthy", 10, "it is healthy")
        state = json.loads(deployment.shell(f"docker inspect --format '{{{{json .State}}}}' {name}"))
        healthy = min(check["End"] for check in state["Health"]["Log"] if check["ExitCode"] == 0)
        took = instant(healthy) - instant(state["StartedAt"])
        assert took < timedelta(seconds=3), took
    finally:
        deployment.shell(f"docker stop {name}")


def instant(text: str) -> datetime:
    """A time as the engine writes it, which is in nanoseconds and in any time zone."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00"))
