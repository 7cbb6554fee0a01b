"""Dockerfiles, shell scripts and Compose files, looked at without an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import engine as engines

DOCKER = engines.REPOSITORY / "docker"


def tool(name: str) -> str:
    """A program of this Python environment (requirements.txt), or of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing")
    return found


def test_shell_scripts() -> None:
    scripts = [
        *DOCKER.glob("scripts/*.sh"),
        *DOCKER.glob("build/*.sh"),
        *engines.REPOSITORY.glob("certificates/scripts/setup/*.sh"),
        *engines.REPOSITORY.glob("scripts/**/*.sh"),
        engines.REPOSITORY / ".ci" / "run",
        DOCKER / "bin" / "flwr",
        *Path(__file__).parent.glob("*.sh"),
    ]
    assert len(scripts) > 10
    command = [tool("shellcheck"), "-x", *scripts]
    done = subprocess.run(command, cwd=engines.REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_images_are_never_pulled() -> None:
    files = [*DOCKER.rglob("*.sh"), *engines.REPOSITORY.glob("certificates/scripts/setup/*.sh"), DOCKER / "README.md"]
    commands = [line for file in files for line in file.read_text().splitlines() if "docker run --rm" in line]
    assert len(commands) > 2
    assert not [command for command in commands if "--pull never" not in command]


def test_dockerfiles() -> None:
    files = sorted(DOCKER.glob("*.Dockerfile"))
    assert [file.stem for file in files] == ["superexec", "superlink", "supernode"]
    command = [tool("hadolint"), "--config", DOCKER / ".hadolint.yaml", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.rows("S117")
@pytest.mark.parametrize(
    "files",
    [
        ["docker-compose.yml"],
        ["docker-compose.yml", "docker-compose.internal.yml"],
        ["docker-compose.yml", "docker-compose.process.yml"],
        ["docker-compose.yml", "monitoring/docker-compose.monitoring.yml"],
        ["docker-compose.development.yml"],
    ],
    ids=lambda files: files[-1],
)
def test_compose_files(files: list[str]) -> None:
    composes = [
        command
        for command in (["docker", "compose"], ["docker-compose"])
        if shutil.which(command[0])
        and subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
    ]
    if not composes:
        pytest.skip("Compose is missing")
    for compose in composes:
        flags = [flag for file in files for flag in ("-f", file)]
        done = subprocess.run(
            [*compose, *flags, "config", "--quiet"],
            cwd=DOCKER,
            env={**os.environ, "SECRETS_DIR": "/run/flower", "GRAFANA_PASSWORD": "x"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{compose}: {done.stderr}"
