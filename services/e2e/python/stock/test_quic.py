"""Federations over QUIC: our SuperLink and our SuperNodes, stock apps and the stock command line."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from federation import Cast, Federation, Run
from harness import OURS, STOCK, Certificates

pytestmark = pytest.mark.hardening

QUIC = ["--transport", "quic"]
GIGABYTE = 1_000_000_000


def federation(directory: Path, tls: Certificates, **options: object) -> Federation:
    """Ours throughout, over QUIC unless told otherwise."""
    defaults = {"cast": Cast(OURS, OURS), "transport": "quic", "node_args": QUIC, "nodes": 1}
    return Federation(directory, tls=tls, **{**defaults, **options})  # type: ignore[arg-type]


def check(run: Run, replies: int = 1, timeout: float = 120) -> None:
    """Waits for a run of one round and compares what was sent, seen, returned and received."""
    run.wait_completed(timeout)
    (sent,) = run.events("round")
    received = run.events("reply")
    assert len(received) == replies
    for reply in received:
        assert reply["code"] is None, reply
        assert reply["saw"]["checksum"] == sent["checksum"]
        assert reply["saw"]["returned"] == reply["checksum"]


@pytest.mark.parametrize("isolation", ["subprocess", "process"])
def test_rounds_over_quic_alone(
    tmp_path: Path, certificates: Certificates, isolation: str
) -> None:
    with federation(tmp_path, certificates, isolation=isolation, nodes=2) as site:
        host, port = site.link.fleet.split(":")
        with socket.socket() as tcp:
            assert tcp.connect_ex((host, int(port))) != 0, "Fleet is served over TCP as well"
        run = site.app("probe").start(rounds=3, nodes=2, arrays=3).wait_completed()
        replies = run.events("reply")
        assert [reply["code"] for reply in replies] == [None] * 6
        assert [reply["saw"]["calls"] for reply in replies] == [1, 1, 2, 2, 3, 3]


def test_nodes_of_both_transports_in_one_federation(
    tmp_path: Path, certificates: Certificates
) -> None:
    with federation(tmp_path, certificates, transport="grpc,quic") as site:
        site.node_args = []
        site.add_node("stock", kind=STOCK)
        check(site.app("probe").start(nodes=2, arrays=3), replies=2)


def test_auto_takes_quic_where_it_gets_through(
    tmp_path: Path, certificates: Certificates
) -> None:
    auto = ["--transport", "auto"]
    with federation(tmp_path, certificates, node_args=auto) as site:
        check(site.app("probe").start())


def test_auto_does_without_quic(tmp_path: Path, certificates: Certificates) -> None:
    auto = ["--transport", "auto"]
    with federation(tmp_path, certificates, transport="grpc", node_args=auto) as site:
        check(site.app("probe").start())
        site.nodes[0].wait_log("does not get through: going on over grpc")


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        {"arrays": 10, "array_bytes": GIGABYTE // 10},
        {"arrays": 10_000, "array_bytes": 64},
    ],
    ids=["a gigabyte", "ten thousand arrays"],
)
def test_volume(tmp_path: Path, certificates: Certificates, config: dict[str, int]) -> None:
    with federation(tmp_path, certificates) as site:
        check(site.app("probe").start(**config), timeout=600)
