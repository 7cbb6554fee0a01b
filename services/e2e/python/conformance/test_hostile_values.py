"""Bad values in well-formed calls: paths in ids, impossible numbers, malformed keys, bombs."""

from __future__ import annotations

import base64
import contextlib
import io
import math
import os
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from flwr.proto import appio_pb2, fleet_pb2
from grpc import StatusCode
from scenario import reference_differs
from victim import MIB, Victim
from wire import (
    PUBLIC_KEY,
    SIGNATURE,
    TIMESTAMP,
    Packed,
    arrays,
    channel,
    chunk,
    expect_error,
    instruction,
    make_fab,
    new_key,
    pem,
    reply,
    sha256,
    sign,
    signed,
    timestamp,
)
from world import World

import harness

UNAUTHENTICATED = StatusCode.UNAUTHENTICATED

REFUSALS = {
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.PERMISSION_DENIED,
}
"""Codes that blame the caller."""

TRAVERSALS = {
    "parents": "../../../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "proc": "/proc/self/environ",
    "dot": ".",
    "dots": "..",
    "empty": "",
    "nul": "a\0b",
    "sixty-four": "../../../../../../../../../../../../../../../../../../etc/hostname/",
    "backslashes": "..\\..\\windows\\win.ini",
    "meta": "0" * 64 + ".META",
    "signed hex": "+" + "0" * 63,
    "prefixed hex": "0x" + "0" * 62,
    "blanks": " " * 32 + "0" * 32,
    "fullwidth digits": "\uff10" * 64,
    "long": "a" * 100_000,
}


@pytest.fixture
def world(victim: Victim) -> Iterator[World]:
    """Fresh peers against the victim."""
    made = World(victim.link)
    yield made
    made.close()


# -- ids that are paths -------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAVERSALS.values(), ids=list(TRAVERSALS))
@pytest.mark.parametrize("side", ["Fleet", "ServerAppIo"])
def test_fab_hash_is_no_path(world: World, side: str, name: str) -> None:
    if harness.REFERENCE and name in ("/etc/passwd", "/proc/self/environ", TRAVERSALS["parents"]):
        pytest.skip("the reference differs: it joins the hash to its storage path")
    run_id = world.run()
    peer: Any = world.node() if side == "Fleet" else world.appio
    error = expect_error(None, None, peer.get_fab, name, run_id)
    assert error.code() not in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    assert "root:" not in (error.details() or "")


def files(directory: Path) -> set[Path]:
    """Every file below a directory."""
    return {path for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TRAVERSALS.values(), ids=list(TRAVERSALS))
def test_object_id_is_no_path(world: World, name: str) -> None:
    """As a tree node the id is refused; asked for, pushed or confirmed it is unknown or refused."""
    run_id, node = world.run(), world.node()
    before = files(world.link.directory)
    sent = instruction(run_id, node.id)
    sent.tree.children.add(object_id=name)
    if not (harness.REFERENCE and len(name) == 64):
        expect_error(None, None, world.appio.push_messages, sent)
    for peer in (node, world.appio):
        calls: list[Callable[[], Any]] = [
            lambda peer=peer: peer.pull_object(run_id, name).object_found,
            lambda peer=peer: peer.push_object(run_id, name, b"ConfigRecord  0\0").stored,
            lambda peer=peer: peer.confirm(run_id, name).ListFields(),
        ]
        for call in calls:
            try:
                assert not call()
            except grpc.RpcError as error:
                assert error.code() in REFUSALS, error
    assert files(world.link.directory) == before


def test_message_id_is_no_path(world: World) -> None:
    """A message id other than its tree's root is never delivered and touches no file."""
    run_id, node = world.run(), world.node()
    before = files(world.link.directory)
    sent = instruction(run_id, node.id)
    for name in TRAVERSALS.values():
        with contextlib.suppress(grpc.RpcError):
            world.appio.push_messages(sent.altered(message_id=name))
        assert node.pull() is None
    assert files(world.link.directory) == before


@pytest.mark.parametrize("path", ["../../evil.py", "/tmp/evil.py", "a/../../b.py", "\\..\\c.py"])
def test_fab_members_are_not_unpacked(world: World, path: str) -> None:
    before = {found.name for found in files(world.link.directory.parent)}
    world.control.start_run_response(make_fab(files={path: b"evil"}))
    after = {found.name for found in files(world.link.directory.parent)}
    assert not {name for name in after - before if name.endswith(".py")}


# -- objects whose bytes are not what they claim ------------------------------------------------


def with_object(sent: Packed, object_id: str) -> Packed:
    """Hang one more childless object under the message's tree."""
    sent.tree.children.add(object_id=object_id)
    return sent


@pytest.mark.parametrize("side", ["Fleet", "ServerAppIo"])
def test_wrong_hash(world: World, side: str) -> None:
    run_id, node = world.run(), world.node()
    right, wrong = chunk(1000), chunk(1000)
    world.appio.push_messages(with_object(instruction(run_id, node.id), sha256(right)))
    peer: Any = node if side == "Fleet" else world.appio
    for content in (wrong, b"", right[:-1], right + b"x", b"\0" * MIB):
        assert not peer.push_object(run_id, sha256(right), content).stored
    assert not peer.pull_object(run_id, sha256(right)).object_available
    assert peer.push_object(run_id, sha256(right), right).stored
    assert peer.pull_object(run_id, sha256(right)).object_content == right


MALFORMED = {
    "no nul": b"ArrayChunk  4",
    "huge length": b"ArrayChunk  99999999999999999999999999\0abcd",
    "negative length": b"ArrayChunk  -4\0abcd",
    "many children": b"Array " + b",".join([b"0" * 64] * 2000) + b" x\0abcd",
    "only blanks": b" " * 1000 + b"\0",
    "not utf-8": b"\xff\xfe  4\0abcd",
    "empty": b"",
    "only nul": b"\0",
}


@pytest.mark.parametrize("content", MALFORMED.values(), ids=list(MALFORMED))
def test_malformed_object(world: World, content: bytes) -> None:
    run_id, node = world.run(), world.node()
    world.appio.push_messages(with_object(instruction(run_id, node.id), sha256(content)))
    error = expect_error(
        StatusCode.FAILED_PRECONDITION, None, node.push_object, run_id, sha256(content), content
    )
    assert error.details().startswith(f"Object with ID '{sha256(content)}' has an unexpected")


# -- trees no stock class would make ------------------------------------------------------------


def nested(depth: int) -> bytes:
    """Encode an ObjectTree of one chain, `depth` levels deep, without recursion."""
    encoded = b""
    for level in range(depth):
        node = b"\x0a\x40" + sha256(level.to_bytes(4, "big")).encode()
        encoded = node + (b"\x12" + varint(len(encoded)) + encoded if encoded else b"")
    return encoded


def varint(value: int) -> bytes:
    """Encode a protobuf varint."""
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


@pytest.mark.parametrize("depth", [200, 5000, 20_000])
def test_bottomless_tree(world: World, depth: int) -> None:
    """A tree deeper than any decoder follows is refused, on either side."""
    run_id, node = world.run(), world.node()
    tree = nested(depth)
    for service, tag, peer, metadata in (
        ("ServerAppIo", b"\x22", world.appio, []),
        ("Fleet", b"\x1a", node, node.metadata()),
    ):
        head = (
            appio_pb2.PushAppMessagesRequest(
                run_id=run_id, messages_list=[instruction(run_id, node.id).proto]
            )
            if service == "ServerAppIo"
            else fleet_pb2.PushMessagesRequest(
                node=node.proto, messages_list=[reply(instruction(run_id, node.id)).proto]
            )
        )
        body = head.SerializeToString() + tag + varint(len(tree)) + tree
        with channel(peer.address) as opened:
            call = opened.unary_unary(f"/flwr.proto.{service}/PushMessages")
            expect_error(None, None, call, body, timeout=20.0, metadata=metadata)


def test_tree_that_contains_itself(world: World) -> None:
    """An id that is its own child neither hangs the server nor stays for ever."""
    run_id, node = world.run(), world.node()
    sent = instruction(run_id, node.id)
    loop = sent.tree.children[0]
    loop.children.add(object_id=loop.object_id)
    sent.tree.children.add(object_id=sent.id)
    with contextlib.suppress(grpc.RpcError):
        world.appio.push_messages(sent, timeout=10.0)
        for object_id, content in sent.objects.items():
            node.push_object(run_id, object_id, content, timeout=10.0)
    node.pull(timeout=10.0)
    node.confirm(run_id, sent.id, timeout=10.0)
    world.control.stop_run(run_id)


def test_wide_tree(world: World) -> None:
    """Twenty thousand children under one message are registered and forgotten again."""
    run_id, node = world.run(), world.node()
    sent = instruction(run_id, node.id)
    for index in range(20_000):
        sent.tree.children.add(object_id=sha256(struct.pack(">I", index) + os.urandom(8)))
    wanted = world.appio.push_messages(sent, timeout=30.0).objects_to_push
    assert len(wanted) == len(set(wanted)) == 20_000 + len(sent.objects)


def test_many_unknown_ids(world: World) -> None:
    """Asking for a thousand unknown replies yields a thousand answers, and they can be confirmed."""
    run_id = world.run()
    ids = [sha256(os.urandom(8)) for _ in range(1000)]
    got = world.appio.pull_messages(run_id, ids, timeout=60.0)
    assert {each.message.metadata.reply_to_message_id for each in got} == set(ids)
    assert {each.message.error.code for each in got} == {3}
    world.appio.confirm(run_id, got[0].id)
    world.appio.finish(run_id)


def test_same_id_many_times(world: World) -> None:
    """Asking a thousand times for one reply in a single call does not multiply it."""
    run_id, node = world.run(), world.node()
    sent = world.appio.push_message(node, run_id=run_id)
    node.push(reply(sent))
    assert len(world.appio.pull_messages(run_id, [sent.id] * 1000)) in (0, 1)


# -- impossible numbers -------------------------------------------------------------------------

NUMBERS = [math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 5e-324]


def tolerated(call: Callable[[], Any]) -> None:
    """Make a call that may be refused, but neither by a crash nor by silence."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() not in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED), error
        assert error.code() != StatusCode.DEADLINE_EXCEEDED, error


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_odd_heartbeat_interval(world: World, number: float) -> None:
    run_id, node, other = world.run(), world.node(), world.stranger()
    tolerated(lambda: other.create(number, timeout=5.0))
    tolerated(lambda: node.heartbeat(number, timeout=5.0))
    tolerated(lambda: world.appio.heartbeat(run_id, number, timeout=5.0))
    tolerated(lambda: world.appio.get_nodes(run_id, timeout=5.0))
    tolerated(lambda: world.control.list_runs(timeout=5.0))
    tolerated(lambda: node.pull(timeout=5.0))


@pytest.mark.parametrize("number", NUMBERS, ids=str)
@pytest.mark.parametrize("name", ["ttl", "created_at"])
def test_odd_message_times(world: World, name: str, number: float) -> None:
    run_id, node = world.run(), world.node()
    sent = instruction(run_id, node.id).altered(**{name: number})
    tolerated(lambda: world.appio.push_messages(sent, timeout=5.0))
    tolerated(lambda: world.appio.pull_messages(run_id, [sent.id], timeout=5.0))
    tolerated(lambda: node.pull(timeout=5.0))
    good = world.appio.push_message(world.node(), run_id=run_id)
    answer = reply(good).altered(**{name: number})
    tolerated(lambda: node.push_messages(answer, timeout=5.0))
    tolerated(lambda: world.appio.pull_messages(run_id, [good.id], timeout=5.0))


@pytest.mark.parametrize("number", NUMBERS, ids=str)
def test_odd_log_position(world: World, number: float) -> None:
    run_id = world.run()
    world.appio.push_logs(run_id, "a line\n")
    world.appio.finish(run_id)
    tolerated(lambda: list(world.control.stream_logs(run_id, number, timeout=5.0)))


@pytest.mark.parametrize("run_id", [0, 1, 2**63, 2**64 - 1])
def test_unknown_run(world: World, run_id: int) -> None:
    node = world.node()
    for call in (
        lambda: node.get_run(run_id),
        lambda: node.pull_object(run_id, "0" * 64),
        lambda: node.confirm(run_id, "0" * 64),
        lambda: world.appio.get_nodes(run_id),
        lambda: world.appio.push_logs(run_id, "x"),
        lambda: world.appio.heartbeat(run_id),
        lambda: world.appio.update_status(run_id, "running"),
        lambda: world.control.stop_run(run_id),
        lambda: list(world.control.stream_logs(run_id)),
    ):
        tolerated(call)
    assert node.heartbeat()


@pytest.mark.parametrize("status", ["", "no such status", "PENDING", "x" * MIB, "\0"], ids=len)
def test_odd_run_status(world: World, status: str) -> None:
    run_id = world.run()
    tolerated(lambda: world.appio.update_status(run_id, status, status, status))
    assert world.appio.status(run_id)[0] in ("running", "finished")


def test_large_texts(world: World) -> None:
    """A few MiB where a word was expected is carried or refused, and gone with the run."""
    run_id, node = world.run(), world.node()
    text = "\u00fc" * (2 * MIB)
    tolerated(lambda: world.appio.push_messages(instruction(run_id, node.id, group=text)))
    tolerated(lambda: world.appio.push_logs(run_id, text))
    tolerated(lambda: world.appio.request_token(run_id))
    tolerated(lambda: world.appio.pull_inputs(text))
    tolerated(lambda: world.appio.pull_messages(run_id, [text]))


# -- FABs ---------------------------------------------------------------------------------------


def zipped(**members: bytes) -> bytes:
    """Deflate members into a ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", ".", 1), content)
    return out.getvalue()


def bomb() -> bytes:
    """A small FAB whose project file is 400 MiB long."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("pyproject.toml", "w", force_zip64=True) as member:
            for _ in range(400):
                member.write(b"#" * MIB)
    return out.getvalue()


def lying_zip() -> bytes:
    """A FAB whose directory claims another size for its project file."""
    fab = bytearray(make_fab())
    directory = fab.rindex(b"PK\x01\x02", 0, fab.index(b"PK\x05\x06"))
    struct.pack_into("<II", fab, directory + 20, 2**32 - 2, 2**32 - 2)
    return bytes(fab)


BAD_FABS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "noise": lambda: os.urandom(100_000),
    "end record only": lambda: b"PK\x05\x06" + bytes(18),
    "cut": lambda: make_fab()[:-30],
    "no project": lambda: zipped(readme_md=b"x"),
    "not utf-8": lambda: zipped(pyproject_toml=b"\xff\xfe\x00"),
    "not toml": lambda: zipped(pyproject_toml=b"]]]]"),
    "deep toml": lambda: zipped(pyproject_toml=b"a = " + b"[" * 200_000),
    "deep tables": lambda: zipped(pyproject_toml=b"a = " + b"{b=" * 200_000),
    "long key": lambda: zipped(pyproject_toml=b".".join([b"a"] * 200_000) + b" = 1"),
    "bomb": bomb,
    "too large": lambda: make_fab(files={"a/b.py": os.urandom(11 * MIB)}),
}


@pytest.mark.parametrize("fab", BAD_FABS.values(), ids=list(BAD_FABS))
def test_bad_fab(world: World, victim: Victim, fab: Callable[[], bytes]) -> None:
    """Refused as the CLI expects it: OK without a run id."""
    content = fab()
    if harness.REFERENCE and fab is bomb:
        pytest.skip("the reference differs: it inflates all of it")
    response = world.control.start_run_response(content, timeout=30.0)
    assert not response.HasField("run_id")
    if not harness.REFERENCE:
        assert victim.resident() - victim.before < 128 * MIB


def test_lying_directory(world: World) -> None:
    tolerated(lambda: world.control.start_run_response(lying_zip()))


# -- keys and timestamps ------------------------------------------------------------------------


def public_pem(key: Any) -> bytes:
    """Encode any public key as PEM."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


BAD_KEYS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "noise": lambda: os.urandom(215),
    "text": lambda: b"no key at all",
    "rsa": lambda: public_pem(rsa.generate_private_key(65537, 2048)),
    "ed25519": lambda: public_pem(ed25519.Ed25519PrivateKey.generate()),
    "private": lambda: new_key().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ),
    "broken base64": lambda: pem(new_key()).replace(b"M", b"!", 1),
    "cut": lambda: pem(new_key())[:100],
    "point off the curve": lambda: off_curve(),
    "large": lambda: b"-----BEGIN PUBLIC KEY-----\n" + b"A" * 6000,
}


def off_curve() -> bytes:
    """A P-384 key whose point is not on the curve."""
    der = bytearray(
        new_key()
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    der[-48:] = bytes(47) + b"\x05"
    body = base64.encodebytes(bytes(der)).replace(b"\n", b"")
    lines = b"\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return b"-----BEGIN PUBLIC KEY-----\n" + lines + b"\n-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=list(BAD_KEYS))
def test_malformed_key(world: World, key: Callable[[], bytes]) -> None:
    text, signer = timestamp(), new_key()
    headers = [(PUBLIC_KEY, key()), (TIMESTAMP, text), (SIGNATURE, sign(signer, text))]
    error = expect_error(None, None, world.stranger().create, metadata=headers)
    if not harness.REFERENCE:  # an exception in the interceptor there
        assert error.code() == UNAUTHENTICATED, error


BAD_TIMESTAMPS = {
    "empty": "",
    "word": "now",
    "no zone": datetime.now(timezone.utc).replace(tzinfo=None).isoformat(),
    "unix time": str(time.time()),
    "date": "2025-09-15",
    "year 0": "0000-01-01T00:00:00+00:00",
    "year 9999": "9999-12-31T23:59:59.999999+00:00",
    "year 10000": "10000-01-01T00:00:00+00:00",
    "month 13": "2025-13-01T00:00:00+00:00",
    "second 61": "2025-09-15T08:30:61+00:00",
    "huge offset": "2025-09-15T08:30:00+99:99",
    "epoch": "1970-01-01T00:00:00+00:00",
    "before time": "0001-01-01T00:00:00+14:00",
    "long": "2" * 5000,
}


@pytest.mark.parametrize("text", BAD_TIMESTAMPS.values(), ids=list(BAD_TIMESTAMPS))
def test_malformed_timestamp(world: World, text: str) -> None:
    node = world.node()
    error = expect_error(None, None, node.heartbeat, metadata=signed(node.key, text))
    if not harness.REFERENCE:  # an exception in the interceptor there, for most of them
        assert (error.code(), error.details()) == (UNAUTHENTICATED, "Invalid timestamp"), error
    assert node.heartbeat()


@reference_differs("takes the last of several headers")
def test_repeated_headers(world: World) -> None:
    """Headers sent twice do not let one key speak for another."""
    node, other = world.node(), world.node()
    mixed = [*signed(node.key), *signed(other.key)]
    for headers in (mixed, mixed[::-1]):
        try:
            node.heartbeat(metadata=headers)
        except grpc.RpcError as error:
            assert error.code() == UNAUTHENTICATED, error
        else:
            # Whichever of the two was taken, it must be the one whose node is named.
            expect_error(UNAUTHENTICATED, None, other.heartbeat, metadata=headers)


def test_replayed_headers_name_another_node(world: World) -> None:
    """Captured headers are good for their own node only."""
    node, other = world.node(), world.node()
    captured = node.metadata()
    assert node.heartbeat(metadata=captured)
    expect_error(UNAUTHENTICATED, "Invalid node ID", other.heartbeat, metadata=captured)


def test_foreign_reply(world: World) -> None:
    """A node cannot answer in its own name what another was asked."""
    run_id, node, other = world.run(), world.node(), world.node()
    sent = world.appio.push_message(node, run_id=run_id)
    other.push(reply(sent, src=other.id))
    assert world.appio.pull_messages(run_id, [sent.id]) == []


def test_objects_beside_messages(world: World) -> None:
    """Content without registration is not kept, however much of it is sent."""
    run_id, node = world.run(), world.node()
    content = chunk(8 * MIB)
    for _ in range(32):
        assert not node.push_object(run_id, sha256(content), content).stored


def test_large_messages_are_gone_with_their_run(world: World, victim: Victim) -> None:
    """Objects of a stopped run are freed; the fixture looks at the memory afterwards."""
    for _ in range(5):
        run_id, node = world.run(), world.node()
        world.appio.push_message(node, arrays(32 * MIB), run_id=run_id)
        world.control.stop_run(run_id)
        world.control.list_runs()
