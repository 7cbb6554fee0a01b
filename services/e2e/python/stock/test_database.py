"""Databases of ours and of stock SuperLinks: neither takes the other's for its own."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import grpc
import pytest
from flwr.proto.control_pb2 import ListRunsRequest

from federation import control
from harness import OURS, STOCK, SuperLink, binary

pytestmark = pytest.mark.hardening


def made_by(kind: str, directory: Path) -> tuple[Path, list[object]]:
    """A database that a SuperLink has made and left, and the flags that name it."""
    database = directory / f"{kind}.db"
    flags: list[object] = ["--database", database, "--storage-dir", directory / f"{kind}-storage"]
    with SuperLink(directory / kind, kind=kind, args=flags) as link:
        # Stock ones make theirs when they are first asked for something.
        with control(link) as stub:
            stub.ListRuns(ListRunsRequest(), timeout=30)
        link.process.terminate()
    return database, flags


def digest(path: Path) -> str:
    """What a file is."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_stock_fails_before_it_touches_ours(tmp_path: Path) -> None:
    """An error instead of its tables among ours."""
    database, flags = made_by(OURS, tmp_path)
    before = digest(database)
    with SuperLink(tmp_path / "other", kind=STOCK, args=flags) as stock:
        said = "there is already an index named run"
        with control(stock) as stub, pytest.raises(grpc.RpcError, match=said):
            stub.ListRuns(ListRunsRequest(), timeout=30)
    assert digest(database) == before
    check = [str(binary()), "state", "check", *(str(flag) for flag in flags)]
    assert subprocess.run(check, check=False).returncode == 0


def test_ours_refuses_one_of_stock(tmp_path: Path) -> None:
    """With a sentence that says whose it is, and without a change."""
    database, flags = made_by(STOCK, tmp_path)
    before = digest(database)
    ours = SuperLink(tmp_path / "other", kind=OURS, args=flags)
    process = ours.launch()
    try:
        assert process.wait(60) == 1
        assert "`--database`" in process.log and "Flower's own SuperLink" in process.log
    finally:
        ours.close()
    assert digest(database) == before
