"""Who a SuperNode of ours is to a SuperLink of ours, whatever carries its calls."""

from __future__ import annotations

import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from federation import Cast, Federation, SuperNode
from harness import OURS, STOCK, Certificates, binary


def node_key(directory: Path, name: str, *, listed: bool = True) -> list[object]:
    """The flags of a new Ed25519 key, which is on the list ``keys.csv`` unless that is not wanted."""
    place = ["--list", "keys.csv"] if listed else []
    command = [binary(), "keys", "node", "--out", name, "--type", "ed25519", *place]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    private = directory / name
    return [
        "--auth-supernode-private-key", private,
        "--auth-supernode-public-key", f"{private}.pub",
    ]  # fmt: skip


def federation_with_list(tmp_path: Path, certificates: Certificates, transport: str) -> Federation:
    """Without nodes; those on the list ``keys.csv`` may join."""
    return Federation(
        tmp_path,
        tls=certificates,
        nodes=0,
        superlink_args=["--auth-list-public-keys", tmp_path / "keys.csv"],
        cast=Cast(OURS, OURS),
        transport=transport,
    )


@pytest.mark.parametrize("transport", ["quic", "auto", "grpc"])
def test_a_node_with_an_ed25519_key_works(
    tmp_path: Path, certificates: Certificates, transport: str
) -> None:
    """The same key, on the same list, whether TLS or a signed timestamp proves it; with `auto` the SuperLink
    serves gRPC only."""
    key = node_key(tmp_path, "edwards")
    served = {"quic": "quic", "auto": "grpc", "grpc": "grpc,quic"}[transport]
    with federation_with_list(tmp_path, certificates, served) as federation:
        node = federation.add_node("edwards", args=["--transport", transport, *key])
        node.wait_log("joined the SuperLink")
        federation.app("probe").start(arrays=1).check_round()
        assert ("stock SuperLinks" in node.log) == (transport != "quic")


@pytest.mark.parametrize("transport", ["quic", "grpc"])
def test_an_ed25519_key_that_is_not_listed_is_refused(
    tmp_path: Path, certificates: Certificates, transport: str
) -> None:
    node_key(tmp_path, "listed")
    key = node_key(tmp_path, "other", listed=False)
    with federation_with_list(tmp_path, certificates, "grpc,quic") as federation:
        node = federation.add_node("other", args=["--transport", transport, *key])
        node.wait_log("Public key not recognized")


def test_a_stock_superlink_refuses_an_ed25519_key(tmp_path: Path, certificates: Certificates) -> None:
    """It fails on it, without saying why; the warning at the start has said what to do."""
    key = node_key(tmp_path, "edwards")
    with ExitStack() as stack:
        federation = stack.enter_context(
            Federation(tmp_path, tls=certificates, nodes=0, cast=Cast(STOCK, OURS))
        )
        node = SuperNode(federation.link, tmp_path, "edwards", args=key, kind=OURS)
        stack.callback(node.close)
        node.wait_log("make a P-384 key with")
        node.wait_log("the SuperLink did not let this node join")
        assert "joined the SuperLink" not in node.log
