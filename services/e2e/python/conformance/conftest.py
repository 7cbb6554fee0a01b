"""Fixtures shared by the conformance tests."""

from __future__ import annotations

import pytest
from links import link, link_now, tls_link, tls_world, world, world_now
from scenario import fresh_scene, held_scene, scene

__all__ = [
    "fresh_scene",
    "held_scene",
    "link",
    "link_now",
    "scene",
    "tls_link",
    "tls_world",
    "world",
    "world_now",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the idle minute last: it passes beside all other tests."""
    items.sort(key=lambda item: item.name == "test_009_idle_minute")
