"""Bytes that stock peers produce: FABs, messages, object trees and deflated objects.

Messages are made with the stock classes, so ids, trees and contents are the real ones.
"""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.common import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, RecordDict
from flwr.common.inflatable import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.common.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto import message_pb2

SUPERLINK = 1
"""Node id of the SuperLink: source of instructions, destination of replies."""


@dataclass(frozen=True)
class Packed:
    """A message as it goes out: stripped proto, object tree, and the deflated objects."""

    proto: message_pb2.Message
    tree: message_pb2.ObjectTree
    objects: dict[str, bytes] = field(repr=False)
    """Object id to bytes, children before parents; the last one is the message itself."""
    message: Message = field(repr=False)

    @property
    def id(self) -> str:
        """Message id, which is also the root of the tree."""
        return self.proto.metadata.message_id

    @property
    def run_id(self) -> int:
        """Run the message belongs to."""
        return self.proto.metadata.run_id

    def altered(self, **metadata: Any) -> Packed:
        """Return a copy with other metadata fields on the wire; id, tree and objects stay."""
        proto = message_pb2.Message()
        proto.CopyFrom(self.proto)
        for name, value in metadata.items():
            setattr(proto.metadata, name, value)
        return Packed(proto, self.tree, self.objects, self.message)


@dataclass(frozen=True)
class Pulled:
    """What PullMessages handed out: one message and its tree."""

    message: message_pb2.Message
    tree: message_pb2.ObjectTree

    @property
    def id(self) -> str:
        """Message id."""
        return self.message.metadata.message_id

    @property
    def run_id(self) -> int:
        """Run the message belongs to."""
        return self.message.metadata.run_id


def arrays(size: int = 64, *, count: int = 1, seed: int | None = None) -> RecordDict:
    """Make a RecordDict of `count` byte arrays of `size` bytes; fresh content unless seeded."""
    generator = np.random.default_rng(seed)
    record = ArrayRecord(
        {f"w{i}": Array(generator.integers(0, 256, size, dtype=np.uint8)) for i in range(count)}
    )
    return RecordDict({"arrays": record})


def config(**values: Any) -> RecordDict:
    """Make a RecordDict with a single ConfigRecord."""
    return RecordDict({"config": ConfigRecord(values)})


def pack(message: Message) -> Packed:
    """Give a stock message its id and take it apart for the wire."""
    message.metadata.__dict__["_message_id"] = ""
    message.metadata.__dict__["_message_id"] = message.object_id
    objects = {oid: obj.deflate() for oid, obj in get_all_nested_objects(message).items()}
    return Packed(
        message_to_proto(remove_content_from_message(message)),
        get_object_tree(message),
        objects,
        message,
    )


def instruction(
    run_id: int,
    dst: int,
    content: RecordDict | None = None,
    *,
    message_type: str = "train",
    group: str = "1",
    ttl: float = 3600.0,
    created_at: float | None = None,
    src: int = SUPERLINK,
    reply_to: str = "",
) -> Packed:
    """Build a message from the ServerApp to node `dst`. Default content is 64 fresh bytes."""
    made = time.time() if created_at is None else created_at
    metadata = Metadata(run_id, "", src, dst, reply_to, group, made, ttl, message_type)
    return pack(Message(metadata=metadata, content=arrays() if content is None else content))


def reply(
    to: Packed | Pulled | message_pb2.Message,
    content: RecordDict | None = None,
    *,
    error: Error | None = None,
    src: int | None = None,
    dst: int = SUPERLINK,
    reply_to: str | None = None,
    run_id: int | None = None,
    ttl: float | None = None,
    created_at: float | None = None,
) -> Packed:
    """Build the answer to an instruction: content (64 fresh bytes by default) or an error.

    Unless given, the time to live is exactly what remains of the instruction's, as stock peers
    compute it.
    """
    asked = (to.proto if isinstance(to, Packed) else getattr(to, "message", to)).metadata
    made = time.time() if created_at is None else created_at
    left = asked.created_at + asked.ttl - made if ttl is None else ttl
    metadata = Metadata(
        asked.run_id if run_id is None else run_id,
        "",
        asked.dst_node_id if src is None else src,
        dst,
        asked.message_id if reply_to is None else reply_to,
        asked.group_id,
        made,
        left,
        asked.message_type,
    )
    if error is not None:
        return pack(Message(metadata=metadata, error=error))
    return pack(Message(metadata=metadata, content=arrays() if content is None else content))


def tree_ids(tree: message_pb2.ObjectTree) -> list[str]:
    """Return the object ids of a tree in post-order, shared children repeated."""
    return [node.object_id for node in iterate_object_tree(tree)]


def sha256(content: bytes) -> str:
    """Return the object id of some bytes."""
    return hashlib.sha256(content).hexdigest()


def raw_object(kind: str, body: bytes, children: Iterable[str] = ()) -> bytes:
    """Deflate by hand: the head, a NUL and the body. For objects no stock class would make."""
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\0" + body


def chunk(size: int, *, seed: int | None = None) -> bytes:
    """Deflated ArrayChunk with `size` fresh body bytes."""
    return raw_object("ArrayChunk", np.random.default_rng(seed).bytes(size))


PYPROJECT = """\
[project]
name = "{name}"
version = "{version}"

[tool.flwr.app]
publisher = "{publisher}"

[tool.flwr.app.components]
serverapp = "{serverapp}"
clientapp = "{clientapp}"

[tool.flwr.app.config]
num-server-rounds = 3
fraction = 0.5
"""


def make_fab(
    *,
    name: str = "wire",
    version: str = "1.0.0",
    publisher: str = "conformance",
    serverapp: str = "wire.server:app",
    clientapp: str = "wire.client:app",
    pyproject: str | bytes | None = None,
    files: dict[str, bytes] | None = None,
    info: bool = True,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    """Build a FAB the way `flwr build` does; `pyproject` replaces the whole project file."""
    if pyproject is None:
        pyproject = PYPROJECT.format(
            name=name,
            version=version,
            publisher=publisher,
            serverapp=serverapp,
            clientapp=clientapp,
        )
    project = pyproject.encode() if isinstance(pyproject, str) else pyproject
    members = {"wire/__init__.py": b""} if files is None else files
    listing = "".join(
        f"{path},{sha256(content)},{len(content) * 8}\n"
        for path, content in sorted(members.items())
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:

        def add(path: str, content: bytes) -> None:
            member = zipfile.ZipInfo(path, (2024, 10, 1, 0, 0, 0))
            member.compress_type = compression
            archive.writestr(member, content)

        add("pyproject.toml", project)
        for path, content in sorted(members.items()):
            add(path, content)
        if info:
            add(".info/CONTENT", listing.encode())
    return out.getvalue()
