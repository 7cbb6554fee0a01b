"""The images by themselves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from deployment import Deployment, wait_for

rows = pytest.mark.rows
MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def built(deployment: Deployment) -> None:
    """The images of the deployment, built as the document says."""
    deployment.build()


@rows("S140", "S160", "S118", "S119", "S120")
def test_builds_are_repeated_from_the_cache(deployment: Deployment) -> None:
    begun = time.monotonic()
    deployment.build("superlink")
    assert time.monotonic() - begun < 60
    names = deployment.shell("docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert {"flwr-quic/superlink:slim", "flwr-quic/supernode:slim", "flwr-quic/superexec:latest"} <= set(names)


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
    begun = time.monotonic()
    deployment.shell(f"docker run -d --rm --name {name} flwr-quic/superlink:slim --insecure --isolation process")
    try:
        wait_for(lambda: deployment.health(name) == "healthy", 10, "it is healthy")
        took = time.monotonic() - begun
        # Of which Docker needs up to a second to start a container.
        assert took < 4, f"{took:.1f} s"
    finally:
        deployment.shell(f"docker stop {name}")
