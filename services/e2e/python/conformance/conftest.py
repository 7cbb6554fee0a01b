"""Fixtures shared by the conformance tests."""

from __future__ import annotations

import pytest
from links import link, link_now, tls_link, tls_world, world, world_now
from scenario import fresh_scene, held_scene, scene
from victim import closed_link, open_link, tls_victim, victim

__all__ = [
    "closed_link",
    "fresh_scene",
    "held_scene",
    "link",
    "link_now",
    "open_link",
    "scene",
    "tls_link",
    "tls_victim",
    "tls_world",
    "victim",
    "world",
    "world_now",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what waits for a minute to pass last: the minute passes beside all other tests."""
    patient = (
        "test_b05_unused_token_is_revoked",
        "test_009_idle_minute",
        "test_009_dead_peers_are_let_go",
    )
    items.sort(key=lambda item: patient.index(item.name) if item.name in patient else -1)
