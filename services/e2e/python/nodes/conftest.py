"""Fixtures of the tests that look at one SuperNode or SuperExec from all sides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import harness

# Peers that speak call by call are the conformance tests'.
sys.path.append(str(Path(__file__).resolve().parent.parent / "conformance"))

from scripted import ScriptedSuperLink  # noqa: E402
from site_under_test import Site  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on the reference: these are statements about our programs."""
    if harness.REFERENCE:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="stock Flower has no such program"))


@pytest.fixture()
def closing() -> Iterator[ExitStack]:
    """Ends everything that a test entered into it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture()
def superlink(closing: ExitStack) -> ScriptedSuperLink:
    """A SuperLink that does as the test says."""
    return closing.enter_context(ScriptedSuperLink())


@pytest.fixture()
def start_site(
    closing: ExitStack, superlink: ScriptedSuperLink, tmp_path: Path
) -> Callable[..., Site]:
    """A function that starts a SuperNode of the scripted SuperLink and waits for it to join."""

    def start(*flags: object, **fields: Any) -> Site:
        site = closing.enter_context(Site(superlink.fleet, tmp_path, *flags, **fields))
        return site.joined(superlink)

    return start


@pytest.fixture()
def site(start_site: Callable[..., Site]) -> Site:
    """A SuperNode of ours in process isolation."""
    return start_site()
