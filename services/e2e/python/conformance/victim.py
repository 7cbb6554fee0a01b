"""A SuperLink that hostile tests abuse, and the proof that it minds nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rawhttp2 import Answer
from world import HOLD_OFF, World, resident_bytes

import harness
from harness import Certificates, SuperLink, wait_for

MIB = 1024 * 1024

LIST_RUNS = "/flwr.proto.Control/ListRuns"
START_RUN = "/flwr.proto.Control/StartRun"

PORTS = ["Fleet", "ServerAppIo", "Control", "Health"]

PATHS = {
    "Fleet": "/flwr.proto.Fleet/PullMessages",
    "ServerAppIo": "/flwr.proto.ServerAppIo/GetRun",
    "Control": LIST_RUNS,
    "Health": "/grpc.health.v1.Health/Check",
}

GROWTH = 96 * MIB
"""Resident memory that may remain after any single abuse, in bytes."""


class Victim:
    """A SuperLink under attack."""

    def __init__(self, link: SuperLink) -> None:
        self.link = link
        self.before = 0
        self.peak = 0

    @property
    def ports(self) -> dict[str, str]:
        """Every address by the name of its service."""
        assert self.link.health is not None
        return {
            "Fleet": self.link.fleet,
            "ServerAppIo": self.link.serverappio,
            "Control": self.link.control,
            "Health": self.link.health,
        }

    def resident(self) -> int:
        """Resident memory in bytes; remembers the highest value seen."""
        seen = resident_bytes(self.link.process.pid)
        self.peak = max(self.peak, seen)
        return seen

    def unharmed(self) -> None:
        """Require that the server runs, answers on every port, and has not grown."""
        assert self.link.process.running, self.link.process.tail()
        world = World(self.link)
        try:
            world.serves()
        finally:
            world.close()
        assert "panicked" not in self.link.log, self.link.process.tail()
        if not harness.REFERENCE:
            grown = lambda: self.resident() - self.before  # noqa: E731
            wait_for(lambda: grown() < GROWTH, 10.0, f"memory back below {GROWTH >> 20} MiB more")


def attacked(link: SuperLink) -> Iterator[Victim]:
    """Note the memory, let the test do its worst, then require an unharmed server."""
    victim = Victim(link)
    victim.before = victim.peak = victim.resident()
    yield victim
    victim.unharmed()


def refused(answer: Answer) -> None:
    """Require anything but success: a status, an HTTP error, a reset or a closed connection."""
    assert answer.grpc_status != 0, answer
    assert not (answer.headers.get(":status") == "200" and answer.messages), answer


@pytest.fixture(scope="session")
def open_link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """An insecure SuperLink to attack."""
    with SuperLink(tmp_path_factory.mktemp("victim"), health=True, args=HOLD_OFF) as link:
        yield link


@pytest.fixture(scope="session")
def closed_link(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[SuperLink]:
    """A SuperLink with TLS to attack."""
    directory = tmp_path_factory.mktemp("tls-victim")
    with SuperLink(directory, tls=certificates, health=True, args=HOLD_OFF) as link:
        yield link


@pytest.fixture
def victim(open_link: SuperLink) -> Iterator[Victim]:
    """The insecure server, looked at before and after the test."""
    yield from attacked(open_link)


@pytest.fixture
def tls_victim(closed_link: SuperLink) -> Iterator[Victim]:
    """The server with TLS, looked at before and after the test."""
    yield from attacked(closed_link)
