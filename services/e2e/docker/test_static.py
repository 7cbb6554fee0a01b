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
        *Path(__file__).parent.glob("*.sh"),
    ]
    assert len(scripts) > 10
    done = subprocess.run([tool("shellcheck"), "-x", *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dockerfiles() -> None:
    files = sorted(DOCKER.glob("*.Dockerfile"))
    assert [file.stem for file in files] == ["superexec", "superlink", "supernode"]
    command = [tool("hadolint"), "--config", DOCKER / ".hadolint.yaml", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("overlay", ["", "secrets", "internal", "process", "development"])
def test_compose_files(overlay: str) -> None:
    files = [f"docker-compose.{overlay}.yml"] if overlay else []
    if overlay != "development":
        files.insert(0, "docker-compose.yml")
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
            env={**os.environ, "SECRETS_DIR": "/run/flower"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{compose}: {done.stderr}"
