"""Much data and many objects, there and back with equal checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation import Federation
from harness import Certificates

GIGABYTE = 1_000_000_000


def _there_and_back(federation: Federation, timeout: float, **config: Any) -> None:
    run = federation.app("probe").start(timeout=timeout, **config).wait_completed(timeout)
    (sent,) = run.events("round")
    replies = run.events("reply")
    assert len(replies) == config.get("nodes", 1)
    for reply in replies:
        assert reply["code"] is None, reply
        assert reply["saw"]["bytes"] == sent["bytes"]
        assert reply["checksum"] == reply["saw"]["checksum"] == sent["checksum"]


@pytest.mark.slow
def test_a_gigabyte_of_arrays(tmp_path: Path, certificates: Certificates) -> None:
    with Federation(tmp_path, tls=certificates, nodes=1) as federation:
        _there_and_back(federation, 600, arrays=10, array_bytes=GIGABYTE // 10)


@pytest.mark.slow
def test_ten_thousand_small_arrays(tmp_path: Path, certificates: Certificates) -> None:
    with Federation(tmp_path, tls=certificates, nodes=1) as federation:
        _there_and_back(federation, 600, arrays=10_000, array_bytes=64)


def test_an_array_of_several_chunks_and_an_empty_one(shared: Federation) -> None:
    _there_and_back(shared, 120, nodes=2, arrays=1, array_bytes=2 * 20_971_520 + 1)
    _there_and_back(shared, 120, nodes=2, arrays=1, array_bytes=0)


def test_a_thousand_small_arrays(shared: Federation) -> None:
    _there_and_back(shared, 120, nodes=2, arrays=1_000, array_bytes=64)
