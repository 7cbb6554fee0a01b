"""Federations over QUIC: our SuperLink and our SuperNodes, stock apps and the stock command line."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from flwr.common.constant import FAB_MAX_SIZE

from federation import Cast, Federation, SuperNode, superexec
from harness import OURS, STOCK, AppIoTls, Certificates, binary, make_appio_tls, make_certificates
from wires import UdpWire

pytestmark = pytest.mark.hardening

QUIC = ["--transport", "quic"]
GIGABYTE = 1_000_000_000


def federation(directory: Path, tls: Certificates, **options: object) -> Federation:
    """Ours throughout, over QUIC unless told otherwise."""
    defaults = {"cast": Cast(OURS, OURS), "transport": "quic", "node_args": QUIC, "nodes": 1}
    return Federation(directory, tls=tls, **{**defaults, **options})  # type: ignore[arg-type]


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


def test_the_largest_app_bundle(tmp_path: Path, certificates: Certificates) -> None:
    with federation(tmp_path, certificates) as site:
        app = site.app("probe")
        # Noise, which stays as long as it is when it is packed; there are a few kilobytes of other files.
        (app.directory / "noise.md").write_bytes(os.urandom(FAB_MAX_SIZE - 32_000))
        app.start().check_round()
        (app.directory / "noise.md").write_bytes(os.urandom(FAB_MAX_SIZE))
        assert "FAB size exceeds" in app.flwr("run", ".").text


def test_nodes_of_both_transports_in_one_federation(
    tmp_path: Path, certificates: Certificates
) -> None:
    with federation(tmp_path, certificates, transport="grpc,quic") as site:
        site.node_args = []
        site.add_node("stock", kind=STOCK)
        site.app("probe").start(nodes=2, arrays=3).check_round(replies=2)


def test_a_superexec_comes_by_quic(tmp_path: Path, certificates: Certificates) -> None:
    appio = make_appio_tls(tmp_path, certificates)
    cast = Cast(OURS, OURS, server_launcher=OURS)
    with federation(tmp_path, certificates, cast=cast, appio=appio, isolation="process") as site:
        site.superexec.close()
        by_quic = ["--appio-transport", "quic"]
        with superexec(
            "serverapp", site.link.serverappio, tmp_path, site.link.home, "by-quic", OURS, appio, by_quic
        ):
            site.app("probe").start(arrays=3).check_round()


def test_a_wrong_join_secret_is_explained(tmp_path: Path, certificates: Certificates) -> None:
    appio = make_appio_tls(tmp_path, certificates)
    cast = Cast(OURS, OURS, server_launcher=OURS)
    other = tmp_path / "other-secret"
    with federation(tmp_path, certificates, cast=cast, appio=appio, isolation="process") as site:
        subprocess.run([binary(), "keys", "join-secret", "--out", other], check=True)
        stranger = AppIoTls(certificates, other)
        by_quic = ["--appio-transport", "quic"]
        with superexec(
            "serverapp", site.link.serverappio, tmp_path, site.link.home, "stranger", OURS, stranger, by_quic
        ) as process:
            process.wait_log("the join secret is not this daemon's")


def test_only_keys_of_the_list_get_in(tmp_path: Path, certificates: Certificates) -> None:
    keys = {}
    for name in ("known", "unknown"):
        key = tmp_path / name
        subprocess.run([binary(), "keys", "node", "--out", key], check=True, capture_output=True)
        keys[name] = ["--auth-supernode-private-key", key, "--auth-supernode-public-key", f"{key}.pub"]
    allowed = tmp_path / "keys.csv"
    allowed.write_text((tmp_path / "known.pub").read_text())
    listed = ["--auth-list-public-keys", allowed]
    with federation(tmp_path, certificates, nodes=0, superlink_args=listed) as site:
        stranger = site.add_node("unknown", args=keys["unknown"])
        stranger.wait_log("Public key not recognized")
        assert stranger.wait(20) == 1
        site.link.process.wait_log(
            r"WARN.*call refused.*peer=127\.0\.0\.1:\d+.*Public key not recognized"
        )
        site.nodes.remove(stranger)
        site.add_node("known", args=keys["known"])
        site.app("probe").start().check_round()


def test_a_wrong_ca_is_explained(tmp_path: Path, certificates: Certificates) -> None:
    stranger = make_certificates(tmp_path / "other-ca")
    with federation(tmp_path, certificates, nodes=0) as site:
        link = copy.copy(site.link)
        link.tls = stranger
        with SuperNode(link, tmp_path, "distrustful", args=QUIC, kind=OURS) as node:
            node.wait_log("is not signed by the CA in .*: give its CA's certificate with --root-certificates")


def test_a_restarted_superlink_is_noticed_without_a_timeout(
    tmp_path: Path, certificates: Certificates
) -> None:
    with federation(tmp_path, certificates) as site:
        (node,) = site.nodes
        node.wait_log("joined the SuperLink")
        site.link.process.kill()
        site.link.restart()
        # At its next sign of life, which is due within 15 s; it would time out after 60 s.
        node.wait_log("joining again", timeout=25)
        site.app("probe").start().check_round()


def test_a_middle_box_that_forgets_is_not_noticed(
    tmp_path: Path, certificates: Certificates
) -> None:
    with federation(tmp_path, certificates, nodes=0) as site, UdpWire(site.link.fleet) as wire:
        link = copy.copy(site.link)
        link.fleet = wire.address
        with SuperNode(link, tmp_path, "far", args=QUIC, kind=OURS) as node:
            site.nodes.append(node)
            node.wait_log("joined the SuperLink")
            run = site.app("probe").start(rounds=3, array_bytes=30_000_000)
            for _ in range(5):
                time.sleep(0.5)
                wire.rebind()
            run.wait_completed()
            assert [reply["code"] for reply in run.events("reply")] == [None] * 3
            assert "connection lost" not in node.log


def test_connections_are_traced_on_request(tmp_path: Path, certificates: Certificates) -> None:
    folders = {side: tmp_path / side for side in ("link", "node")}
    with federation(
        tmp_path,
        certificates,
        superlink_args=["--qlog-dir", folders["link"]],
        node_args=[*QUIC, "--qlog-dir", folders["node"]],
    ) as site:
        site.app("probe").start(arrays=3).check_round()
    for folder in folders.values():
        (trace,) = folder.iterdir()
        # JSON-SEQ: a record separator before each record (RFC 7464).
        records = [json.loads(part) for part in trace.read_text().split("\x1e") if part.strip()]
        assert "qlog_version" in records[0] and len(records) > 10, records[0]


def test_auto_takes_quic_where_it_gets_through(
    tmp_path: Path, certificates: Certificates
) -> None:
    auto = ["--transport", "auto"]
    with federation(tmp_path, certificates, node_args=auto) as site:
        site.app("probe").start().check_round()


def test_auto_does_without_quic(tmp_path: Path, certificates: Certificates) -> None:
    auto = ["--transport", "auto"]
    with federation(tmp_path, certificates, transport="grpc", node_args=auto) as site:
        site.app("probe").start().check_round()
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
        site.app("probe").start(**config).check_round(timeout=600)
