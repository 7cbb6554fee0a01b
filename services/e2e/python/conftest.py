"""Fixtures shared by every Python test of the SuperLink."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

import harness
from harness import Certificates, Process, SuperLink, make_certificates


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to start without a SuperLink to test; end what was started on SIGTERM, too."""
    if config.option.collectonly or config.option.help:
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
    try:
        harness.superlink_command()
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


def _terminated(*_: object) -> None:
    pytest.exit("terminated", returncode=128 + signal.SIGTERM)


def pytest_report_header() -> str:
    """Name the SuperLink under test."""
    return f"superlink under test: {' '.join(harness.superlink_command())}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip on the reference what the reference is known not to do."""
    if not harness.REFERENCE:
        return
    for item in items:
        if item.get_closest_marker("hardening"):
            item.add_marker(pytest.mark.skip(reason="hardening: stock flower-superlink lacks it"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Iterator[None]:
    """Attach the log tails of the processes that took part to a failed test."""
    if call.when == "setup":
        Process.closed.clear()
    outcome = yield
    report = outcome.get_result()
    if report.when != "teardown" and report.failed:
        for process in [*Process.closed, *Process.started]:
            report.sections.append((f"log of {process.name}", process.tail(60)))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One CA and server certificate for the whole session."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture()
def start_superlink(tmp_path: Path) -> Iterator[Callable[..., SuperLink]]:
    """A function that starts a SuperLink (arguments of ``SuperLink``) for one test."""
    links: list[SuperLink] = []

    def start(**kwargs: Any) -> SuperLink:
        directory = kwargs.pop("directory", tmp_path / f"superlink-{len(links)}")
        links.append(SuperLink(directory, **kwargs))
        return links[-1].start()

    yield start
    for link in reversed(links):
        link.close()


@pytest.fixture(scope="session")
def shared_superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """One insecure SuperLink in process isolation for every test that leaves it healthy."""
    with SuperLink(tmp_path_factory.mktemp("shared-superlink")) as link:
        yield link
