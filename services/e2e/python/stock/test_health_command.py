"""`flwr-quic health`, which asks a daemon how it is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from harness import Certificates, SuperLink, binary, free_port, wait_for

pytestmark = pytest.mark.hardening
VARIABLE = "FLWR_QUIC_HEALTH_SERVER_ADDRESS"


def ask(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command says."""
    command = [str(part) for part in (binary(), "health", *arguments)]
    known = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=known, timeout=30, check=False)


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[SuperLink]:
    """A SuperLink with TLS that answers health checks."""
    folder = tmp_path_factory.mktemp("health-command")
    with SuperLink(folder, tls=certificates, health=True) as started:
        yield started


def test_a_daemon_that_serves(link: SuperLink) -> None:
    said = ask(link.health)
    assert (said.returncode, said.stdout) == (0, f"{link.health} is serving\n")
    # As in the images.
    assert ask(**{VARIABLE: str(link.health)}).returncode == 0


def test_calls_that_are_answered_over_tls(link: SuperLink, certificates: Certificates) -> None:
    said = ask("--root-certificates", certificates.ca, link.control)
    assert said.returncode == 0 and said.stdout == f"{link.control} serves the Control API\n", said
    plain = ask(link.control)
    assert plain.returncode == 1 and "TLS" in plain.stderr, plain
    assert plain.stderr.endswith("give --root-certificates\n"), plain


def test_an_authority_that_did_not_sign(link: SuperLink, tmp_path: Path) -> None:
    subprocess.run([binary(), "certs", "ca", "--dir", tmp_path], check=True, capture_output=True)
    said = ask("--root-certificates", tmp_path / "ca.crt", link.control)
    assert said.returncode == 1 and "certificate" in said.stderr, said


def test_nobody_is_there() -> None:
    address = f"127.0.0.1:{free_port()}"
    said = ask(address)
    assert said.returncode == 1
    assert said.stderr.startswith(f"error: no connection to {address}: Connection refused"), said
    assert "--root-certificates" not in said.stderr, said


def test_a_daemon_that_hangs(link: SuperLink) -> None:
    link.process.signal(signal.SIGSTOP)
    try:
        said = ask("--timeout", 1, link.health)
    finally:
        link.process.signal(signal.SIGCONT)
    assert said.returncode == 1
    assert said.stderr == f"error: {link.health} does not answer within 1 s\n"
    wait_for(lambda: ask(link.health).returncode == 0, 10, "it serves again")


def test_what_makes_no_sense() -> None:
    environment = {VARIABLE: ""}
    assert "cannot be parsed" in ask("nowhere").stderr
    assert ask("--timeout", 0, "127.0.0.1:1").returncode == 2
    assert ask(**environment).returncode != 0
