"""Protocol section 9.2: node authentication on Fleet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.node_pb2 import Node as NodeProto
from grpc import StatusCode
from wire import (
    PUBLIC_KEY,
    SIGNATURE,
    TIMESTAMP,
    Adapter,
    Node,
    expect_error,
    new_key,
    openssh,
    pem,
    sign,
    signed,
    timestamp,
)
from world import HOLD_OFF, World

import harness
from harness import SuperLink

UNAUTHENTICATED = StatusCode.UNAUTHENTICATED

AUTHENTICATED_CALLS: dict[str, Callable[[NodeProto | None], Any]] = {
    "DeleteNode": lambda node: fleet_pb2.DeleteNodeRequest(node=node),
    "SendNodeHeartbeat": lambda node: heartbeat_pb2.SendNodeHeartbeatRequest(
        node=node, heartbeat_interval=30.0
    ),
    "PullMessages": lambda node: fleet_pb2.PullMessagesRequest(node=node),
    "PushMessages": lambda node: fleet_pb2.PushMessagesRequest(node=node),
    "GetRun": lambda node: run_pb2.GetRunRequest(node=node, run_id=1),
    "GetFab": lambda node: fab_pb2.GetFabRequest(node=node, hash_str="0" * 64, run_id=1),
    "PushObject": lambda node: message_pb2.PushObjectRequest(
        node=node, run_id=1, object_id="0" * 64, object_content=b"x"
    ),
    "PullObject": lambda node: message_pb2.PullObjectRequest(
        node=node, run_id=1, object_id="0" * 64
    ),
    "ConfirmMessageReceived": lambda node: message_pb2.ConfirmMessageReceivedRequest(
        node=node, run_id=1, message_object_id="0" * 64
    ),
}
"""Every Fleet method but CreateNode, with a request that would be refused later anyway."""


def heartbeat(node: Node, metadata: list[tuple[str, str | bytes]]) -> bool:
    """Send a heartbeat with other authentication headers than the node's own."""
    return node.heartbeat(metadata=metadata)


# -- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [PUBLIC_KEY, TIMESTAMP, SIGNATURE, "all"])
@pytest.mark.parametrize("method", ["CreateNode", "SendNodeHeartbeat"])
def test_013_missing_header(world_now: World, missing: str, method: str) -> None:
    node = world_now.node()
    headers = [pair for pair in signed(node.key) if missing not in (pair[0], "all")]
    request = (
        fleet_pb2.CreateNodeRequest(heartbeat_interval=30.0)
        if method == "CreateNode"
        else AUTHENTICATED_CALLS[method](node.proto)
    )
    expect_error(
        UNAUTHENTICATED,
        "Missing authentication metadata",
        node.call,
        method,
        request,
        metadata=headers,
    )
    assert node.heartbeat()


@pytest.mark.parametrize(
    "signature",
    [b"", b"\0", os.urandom(104), b"\x30\x06\x02\x01\x01\x02\x01\x01", b"\x30\x84\xff\xff\xff\xff"],
    ids=["empty", "one-byte", "random", "der-of-ones", "der-huge-length"],
)
def test_014_garbage_signature(world_now: World, signature: bytes) -> None:
    node = world_now.node()
    headers = [(PUBLIC_KEY, pem(node.key)), (TIMESTAMP, timestamp()), (SIGNATURE, signature)]
    expect_error(UNAUTHENTICATED, "Invalid signature", heartbeat, node, headers)
    assert node.heartbeat()


def test_014_truncated_signature(world_now: World) -> None:
    node = world_now.node()
    text = timestamp()
    headers = [
        (PUBLIC_KEY, pem(node.key)),
        (TIMESTAMP, text),
        (SIGNATURE, sign(node.key, text)[:-1]),
    ]
    expect_error(UNAUTHENTICATED, "Invalid signature", heartbeat, node, headers)


def test_015_signature_of_another_key(world_now: World) -> None:
    node = world_now.node()
    text = timestamp()
    headers = [(PUBLIC_KEY, pem(node.key)), (TIMESTAMP, text), (SIGNATURE, sign(new_key(), text))]
    expect_error(UNAUTHENTICATED, "Invalid signature", heartbeat, node, headers)


def test_015_signature_of_another_timestamp(world_now: World) -> None:
    node = world_now.node()
    headers = [
        (PUBLIC_KEY, pem(node.key)),
        (TIMESTAMP, timestamp()),
        (SIGNATURE, sign(node.key, timestamp(1.0))),
    ]
    expect_error(UNAUTHENTICATED, "Invalid signature", heartbeat, node, headers)


# -- timestamps ---------------------------------------------------------------------------------


def prompt(call: Callable[[], Any], slack: float) -> Any:
    """Repeat `call` until one took less than `slack` seconds, so that the clock cannot decide."""
    for _ in range(20):
        before = time.monotonic()
        try:
            answer: Any = call()
        except Exception as error:  # noqa: BLE001 - judged only if it came in time
            answer = error
        if time.monotonic() - before < slack:
            if isinstance(answer, Exception):
                raise answer
            return answer
    raise AssertionError(f"no call of twenty was answered within {slack} s")


@pytest.mark.parametrize("age", [0.0, 60.0, 299.0, 304.5, -4.5])
def test_016_017_timestamp_inside_the_window(world_now: World, age: float) -> None:
    node = world_now.node()
    assert prompt(lambda: heartbeat(node, signed(node.key, timestamp(age))), 0.4)


@pytest.mark.parametrize("age", [305.5, 3600.0])
def test_016_timestamp_too_old(world_now: World, age: float) -> None:
    node = world_now.node()
    expect_error(
        UNAUTHENTICATED, "Invalid timestamp", heartbeat, node, signed(node.key, timestamp(age))
    )


@pytest.mark.parametrize("age", [-5.5, -3600.0])
def test_017_timestamp_too_far_ahead(world_now: World, age: float) -> None:
    node = world_now.node()
    expect_error(
        UNAUTHENTICATED,
        "Invalid timestamp",
        lambda: prompt(lambda: heartbeat(node, signed(node.key, timestamp(age))), 0.4),
    )


def test_018_timestamp_without_fraction(world_now: World) -> None:
    node = world_now.node()
    text = datetime.now(timezone.utc).replace(microsecond=0).isoformat()
    assert text.endswith("+00:00") and "." not in text
    assert heartbeat(node, signed(node.key, text))


@pytest.mark.parametrize("hours", [2, -7, 5.5])
def test_019_timestamp_with_another_offset(world_now: World, hours: float) -> None:
    node = world_now.node()
    text = datetime.now(timezone(timedelta(hours=hours))).isoformat()
    assert heartbeat(node, signed(node.key, text))


# -- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name
)
def test_020_curves(world_now: World, curve: ec.EllipticCurve) -> None:
    node = world_now.node(new_key(curve))
    assert node.heartbeat()
    text = timestamp()
    forged = [
        (PUBLIC_KEY, pem(node.key)),
        (TIMESTAMP, text),
        (SIGNATURE, sign(new_key(curve), text)),
    ]
    expect_error(UNAUTHENTICATED, "Invalid signature", heartbeat, node, forged)


def test_021_vector(world_now: World) -> None:
    scalar = int(
        "b143e3f5a8e2d5f2fd066daa1efc7eb955efd4f2db39d20c"
        "62fc3d7f00adf3fc6041521534c5ae428b2bc404c72a9834",
        16,
    )
    header = pem(ec.derive_private_key(scalar, ec.SECP384R1()))
    text = "2025-09-15T08:30:00.123456+00:00"
    signature = bytes.fromhex(
        "306602310086cbbaaf5eaf5fbf929e51c68bfc41bd5aac74a8a7b8de608abe10771e7143d84a4f34efbd31348e"
        "6acf7b31efd06b4a023100d88922d3d1911471e17bf695707bd521d4b1a75de9604c56684f35a62f3c2483e10a"
        "c9581593c0077b0a68784681c179"
    )
    stranger = world_now.stranger()
    # The signature is checked before the timestamp, which is long past.
    headers = [(PUBLIC_KEY, header), (TIMESTAMP, text), (SIGNATURE, signature)]
    expect_error(UNAUTHENTICATED, "Invalid timestamp", stranger.create, metadata=headers)
    broken = signature[:-1] + bytes([signature[-1] ^ 1])
    headers = [(PUBLIC_KEY, header), (TIMESTAMP, text), (SIGNATURE, broken)]
    expect_error(UNAUTHENTICATED, "Invalid signature", stranger.create, metadata=headers)


# -- binding of keys to nodes -------------------------------------------------------------------


@pytest.mark.parametrize("method", AUTHENTICATED_CALLS)
def test_022_unbound_key(world_now: World, method: str) -> None:
    known, stranger = world_now.node(), world_now.stranger()
    request = AUTHENTICATED_CALLS[method](known.proto)
    expect_error(UNAUTHENTICATED, "Invalid node ID", stranger.call, method, request)
    assert known.heartbeat()


@pytest.mark.parametrize("whose", ["another", "unknown", "zero", "absent"])
@pytest.mark.parametrize("method", AUTHENTICATED_CALLS)
def test_023_wrong_node_id(world_now: World, method: str, whose: str) -> None:
    node, other = world_now.node(), world_now.node()
    named = {
        "another": other.proto,
        "unknown": NodeProto(node_id=node.id ^ 1),
        "zero": NodeProto(node_id=0),
        "absent": None,
    }[whose]
    expect_error(
        UNAUTHENTICATED, "Invalid node ID", node.call, method, AUTHENTICATED_CALLS[method](named)
    )
    assert node.heartbeat() and other.heartbeat()


def test_024_key_in_use(world_now: World) -> None:
    node = world_now.node()
    # A node that works is in use, whatever a server makes of a replayed CreateNode.
    assert node.heartbeat() and node.pull() is None
    twin = world_now.stranger(node.key)
    expect_error(UNAUTHENTICATED, "Public key already in use", twin.create)
    assert node.heartbeat() and node.pull() is None


def test_025_failed_creation_leaves_no_node(world_now: World) -> None:
    run_id = world_now.run()
    node = world_now.node()
    assert node.heartbeat() and node.pull() is None
    before = sorted(world_now.appio.get_nodes(run_id))
    assert node.id in before
    twin = world_now.stranger(node.key)
    expect_error(UNAUTHENTICATED, "Public key already in use", twin.create)
    assert sorted(world_now.appio.get_nodes(run_id)) == before


def test_026_deletion_frees_the_key(world_now: World) -> None:
    node = world_now.node()
    first = node.id
    node.delete()
    expect_error(UNAUTHENTICATED, "Invalid node ID", node.heartbeat)
    assert node.create() != first
    assert node.heartbeat()


@pytest.mark.hardening
def test_024_lost_answer_of_creation(world_now: World) -> None:
    """B-3: the replay of a CreateNode whose node was never used yields the same node."""
    node = world_now.node()
    first = node.id
    assert node.create() == first
    assert node.heartbeat()


@pytest.mark.hardening
def test_024_restart_after_crash(world_now: World) -> None:
    """B-3: a node that went offline is replaced when its key comes back."""
    run_id = world_now.run()
    node = world_now.node(heartbeat=0.2)
    first = node.id
    assert node.heartbeat(0.2) and node.pull() is None
    deadline = time.monotonic() + 10.0
    while first in world_now.appio.get_nodes(run_id):
        assert time.monotonic() < deadline, "the node never went offline"
        time.sleep(0.05)
    assert node.create()
    assert node.heartbeat()
    listed = world_now.appio.get_nodes(run_id)
    assert listed.count(node.id) == 1 and (node.id == first or first not in listed)


# -- allow list ---------------------------------------------------------------------------------


def allow_list(path: Path, text: str | bytes) -> list[str]:
    """Write the allow-list file and return the flags that name it."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ["--auth-list-public-keys", str(path), *HOLD_OFF]


def allowed(link: SuperLink, key: Any) -> bool:
    """Tell whether the server lets this key create a node (and delete it again)."""
    with Node(link.fleet, key) as node:
        try:
            node.create()
        except Exception as error:
            assert error.code() == UNAUTHENTICATED, error  # type: ignore[attr-defined]
            assert error.details() == "Public key not recognized", error  # type: ignore[attr-defined]
            return False
        assert node.heartbeat()
        node.delete()
        return True


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A SuperLink in allow-list mode and the one key it knows."""
    directory, key = tmp_path_factory.mktemp("listed"), new_key()
    args = allow_list(directory / "keys.csv", openssh(key) + "\n")
    with SuperLink(directory, args=args) as link:
        yield link, key


def test_027_unknown_key(listed: tuple[SuperLink, Any]) -> None:
    link, key = listed
    with Node(link.fleet) as stranger:
        expect_error(UNAUTHENTICATED, "Public key not recognized", stranger.create)
        expect_error(UNAUTHENTICATED, "Public key not recognized", stranger.heartbeat)
    assert allowed(link, key)


def test_028_list_before_signature(listed: tuple[SuperLink, Any]) -> None:
    link, key = listed
    with Node(link.fleet) as stranger:
        headers = [(PUBLIC_KEY, pem(stranger.key)), (TIMESTAMP, timestamp()), (SIGNATURE, b"no")]
        expect_error(
            UNAUTHENTICATED, "Public key not recognized", stranger.create, metadata=headers
        )
        headers[0] = (PUBLIC_KEY, pem(key))
        expect_error(UNAUTHENTICATED, "Invalid signature", stranger.create, metadata=headers)


def test_029_list_formats(tmp_path: Path, start_superlink: Any) -> None:
    curves = [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()] * 3
    keys = [new_key(curve) for curve in curves]
    lines = [openssh(key) for key in keys]
    text = (
        f"{lines[0]}\n"
        f"{lines[1]},{lines[2]}\n"
        "\n"
        f"{lines[3]}\r\n"
        "\r\n"
        f"{lines[4]} node-four@example.org\n"
        f"{lines[5]} with several words \n"
        f'"{lines[6]} quoted"\n'
        f'"{lines[7]}",{lines[8]}'
    )
    link = start_superlink(args=allow_list(tmp_path / "keys.csv", text))
    link.process.wait_log("Node authentication enabled with 9 known public keys", 10.0)
    assert [allowed(link, key) for key in keys] == [True] * 9
    assert not allowed(link, new_key())


def refused(directory: Path, flags: list[str]) -> str:
    """Start a SuperLink that must end with status 1 and return what it said."""
    link = SuperLink(directory, args=flags)
    try:
        process = link.launch()
        assert process.wait(30.0) == 1, process.tail()
        return process.log
    finally:
        link.close()


def test_030_list_with_ed25519(tmp_path: Path) -> None:
    text = openssh(new_key()) + "\n" + openssh(ed25519.Ed25519PrivateKey.generate()) + "\n"
    flags = allow_list(tmp_path / "keys.csv", text)
    if harness.REFERENCE:
        assert "public keys in the CSV" in refused(tmp_path, flags)
        return
    with SuperLink(tmp_path, args=flags) as link:
        assert "2 known public keys" in link.log


def test_030_list_with_rsa(tmp_path: Path) -> None:
    text = openssh(new_key()) + "\n" + openssh(rsa.generate_private_key(65537, 2048)) + "\n"
    said = refused(tmp_path, allow_list(tmp_path / "keys.csv", text))
    assert "--auth-list-public-keys" in said or "public keys in the CSV" in said


def test_030_list_missing(tmp_path: Path) -> None:
    missing = tmp_path / "no-such-file.csv"
    said = refused(tmp_path, ["--auth-list-public-keys", str(missing)])
    assert str(missing) in said and "--auth-list-public-keys" in said


@pytest.mark.parametrize(
    "line",
    ["junk", "ecdsa-sha2-nistp384 AAAA", "ssh-rsa AAAAB3NzaC1yc2E="],
    ids=lambda line: line[:8],
)
def test_030_list_with_junk(tmp_path: Path, line: str) -> None:
    refused(tmp_path, allow_list(tmp_path / "keys.csv", openssh(new_key()) + f"\n{line}\n"))


def test_031_empty_list(tmp_path: Path, start_superlink: Any) -> None:
    link = start_superlink(args=allow_list(tmp_path / "keys.csv", ""))
    link.process.wait_log("Node authentication enabled with 0 known public keys", 10.0)
    assert not allowed(link, new_key())


def test_032_automatic_mode(world_now: World) -> None:
    nodes = [world_now.node() for _ in range(3)]
    assert len({node.id for node in nodes}) == 3
    assert all(node.heartbeat() for node in nodes)


# -- GrpcAdapter --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A SuperLink whose Fleet is served through GrpcAdapter."""
    args = ["--fleet-api-type", "grpc-adapter", *HOLD_OFF]
    with SuperLink(tmp_path_factory.mktemp("adapted"), args=args) as link:
        yield link


@pytest.mark.parametrize("headers", ["none", "signed", "garbage"])
def test_033_grpc_adapter(adapted: SuperLink, headers: str) -> None:
    sent = {
        "none": [],
        "signed": signed(new_key()),
        "garbage": [(PUBLIC_KEY, b"x"), (TIMESTAMP, "y"), (SIGNATURE, b"z")],
    }[headers]
    with Adapter(adapted.fleet) as peer:
        created = peer.send(
            fleet_pb2.CreateNodeRequest(heartbeat_interval=30.0),
            fleet_pb2.CreateNodeResponse,
            metadata=sent,
        )
        node = created.node
        assert node.node_id not in (0, 1)
        beat = peer.send(
            heartbeat_pb2.SendNodeHeartbeatRequest(node=node, heartbeat_interval=30.0),
            heartbeat_pb2.SendNodeHeartbeatResponse,
            metadata=sent,
        )
        assert beat.success
        pulled = peer.send(
            fleet_pb2.PullMessagesRequest(node=node), fleet_pb2.PullMessagesResponse, metadata=sent
        )
        assert not pulled.messages_list
        peer.send(
            fleet_pb2.DeleteNodeRequest(node=node), fleet_pb2.DeleteNodeResponse, metadata=sent
        )


def test_033_grpc_adapter_container(adapted: SuperLink) -> None:
    """The response names its class and module as section 2.5 lists them."""
    with Adapter(adapted.fleet) as peer:
        answer = peer.exchange(fleet_pb2.CreateNodeRequest(heartbeat_interval=30.0))
        assert answer.grpc_message_name == "CreateNodeResponse"
        assert dict(answer.metadata) | {"should-exit": ""} == {
            "flower-package-name": "flwr",
            "flower-package-version": "1.22.0",
            "flower-version": "1.22.0",
            "grpc-message-module": "flwr.proto.fleet_pb2",
            "grpc-message-qualname": "CreateNodeResponse",
            "should-exit": "",
        }
        assert answer.metadata.get("should-exit", "false") != "true"
        unknown = peer.container(fleet_pb2.CreateNodeRequest(), name="NoSuchRequest")
        expect_error(None, None, peer.call, "SendReceive", unknown)
        garbled = peer.container(fleet_pb2.CreateNodeRequest(), content=b"\xff\xff\xff")
        expect_error(None, None, peer.call, "SendReceive", garbled)
        assert peer.exchange(fleet_pb2.CreateNodeRequest(heartbeat_interval=30.0))
