"""The federation that most tests share, and the apps in it."""

from __future__ import annotations

from typing import Iterator

import pytest

from federation import App, Federation
from harness import Certificates


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[Federation]:
    """TLS, subprocess isolation, two SuperNodes; every test leaves it usable."""
    with Federation(tmp_path_factory.mktemp("shared"), tls=certificates) as federation:
        yield federation


@pytest.fixture(scope="session")
def probe(shared: Federation) -> App:
    """The probe app in the shared federation."""
    return shared.app("probe")
