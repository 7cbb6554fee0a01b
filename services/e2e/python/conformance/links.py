"""SuperLinks that serve a whole session, and the peers of one test against each.

`link` has the server's own hold times, `link_now` never holds a call, `tls_link` has TLS on Control
and Fleet and never holds. All run in process isolation and have a health service. `world`,
`world_now` and `tls_world` are fresh peers of one test against them. A test that needs another
server, or harms it, starts its own with `start_superlink`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from world import HOLD_OFF, World

import harness
from harness import Certificates, SuperLink


@pytest.fixture(scope="session")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """A SuperLink with the server's own hold times."""
    with SuperLink(tmp_path_factory.mktemp("link"), health=True) as started:
        yield started


@pytest.fixture(scope="session")
def link_now(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SuperLink]:
    """A SuperLink that never holds a call."""
    if harness.REFERENCE:
        yield request.getfixturevalue("link")
        return
    with SuperLink(tmp_path_factory.mktemp("link-now"), health=True, args=HOLD_OFF) as started:
        yield started


@pytest.fixture(scope="session")
def tls_link(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[SuperLink]:
    """A SuperLink with TLS on Control and Fleet that never holds a call."""
    directory = tmp_path_factory.mktemp("tls-link")
    with SuperLink(directory, tls=certificates, health=True, args=HOLD_OFF) as started:
        yield started


@pytest.fixture
def world(link: SuperLink) -> Iterator[World]:
    """Fresh peers against `link`."""
    yield from peers(link)


@pytest.fixture
def world_now(link_now: SuperLink) -> Iterator[World]:
    """Fresh peers against `link_now`."""
    yield from peers(link_now)


@pytest.fixture
def tls_world(tls_link: SuperLink) -> Iterator[World]:
    """Fresh peers against `tls_link`."""
    yield from peers(tls_link)


def peers(started: SuperLink) -> Iterator[World]:
    """Make a world and clear it away."""
    made = World(started)
    yield made
    made.close()
