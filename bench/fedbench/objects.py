"""Flower's content-addressed objects, made without holding a model in memory.

An object is `<type> <child ids> <body length> NUL <body>` and its id is the SHA-256 of that.
Random data comes from a seed: one block of 20 MiB, and every chunk differs from it in its
first bytes, so that no two chunks of a round are the same object.
"""

import hashlib
import json
import random
import time
from dataclasses import dataclass, field

from flwr.proto import message_pb2

CHUNK_BYTES = 20 * 1024 * 1024
CHUNKS_PER_ARRAY = 5
TTL_S = 3600.0


class Payload:
    """The chunks of one owner: `size` random bytes each, distinct by owner and index."""

    def __init__(self, seed, owner, size=CHUNK_BYTES):
        self._tail = memoryview(random.Random(seed).randbytes(size))[24:]
        self._owner = owner.encode().ljust(16, b".")[:16]
        self._size = size

    def parts(self, index):
        """The object of chunk `index` as buffers to be joined."""
        return [b"ArrayChunk  %d\0" % self._size, self._owner, index.to_bytes(8, "big"), self._tail]


@dataclass
class Content:
    """A RecordDict of one ArrayRecord: every object, children first, and the tree."""

    parts: dict = field(default_factory=dict)  # object id -> buffers
    tree: message_pb2.ObjectTree = None

    @classmethod
    def build(cls, payload, chunks):
        """Cuts `chunks` chunks into arrays of at most five, as Flower cuts large arrays."""
        content, arrays = cls(), {}
        for first in range(0, chunks, CHUNKS_PER_ARRAY):
            leaves = [
                content._add(payload.parts(index), [])
                for index in range(first, min(first + CHUNKS_PER_ARRAY, chunks))
            ]
            size = sum(map(content.size, (leaf.object_id for leaf in leaves)))
            head = {"dtype": "uint8", "shape": [size], "stype": "numpy.ndarray"}
            body = json.dumps({**head, "arraychunk_ids": list(range(len(leaves)))})
            arrays[f"layer{first // CHUNKS_PER_ARRAY}"] = content._add_inner("Array", leaves, body)
        names = {name: array.object_id for name, array in arrays.items()}
        record = content._add_inner("ArrayRecord", list(arrays.values()), json.dumps(names))
        content.tree = content._add_inner("RecordDict", [record], json.dumps({"arrays": record.object_id}))
        return content

    def size(self, object_id):
        """Length of an object in bytes."""
        return sum(map(len, self.parts[object_id]))

    def message(self, run_id, source, destination, reply_to=None):
        """A train message that carries this content: (wire message, its tree); its object is added."""
        metadata = message_pb2.Metadata(
            run_id=run_id, src_node_id=source, dst_node_id=destination, group_id="1", message_type="train"
        )
        metadata.created_at, metadata.ttl = time.time(), TTL_S
        if reply_to is not None:
            metadata.reply_to_message_id = reply_to.message_id
            metadata.ttl = reply_to.created_at + reply_to.ttl - metadata.created_at
        body = message_pb2.Message(metadata=metadata).SerializeToString(deterministic=True)
        tree = self._add_inner("Message", [self.tree], body)
        message = message_pb2.Message(metadata=metadata)
        message.metadata.message_id = tree.object_id
        message.content.SetInParent()
        return message, tree

    def _add_inner(self, kind, children, body):
        ids = ",".join(child.object_id for child in children)
        body = body if isinstance(body, bytes) else body.encode()
        return self._add([f"{kind} {ids} {len(body)}\0".encode(), body], children)

    def _add(self, parts, children):
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        self.parts[digest.hexdigest()] = parts
        return message_pb2.ObjectTree(object_id=digest.hexdigest(), children=children)


def walk(tree):
    """Object ids of a tree, children before parents, each once."""
    seen = {}

    def visit(node):
        for child in node.children:
            visit(child)
        seen.setdefault(node.object_id)

    visit(tree)
    return list(seen)


def push_request(node, run_id, object_id, parts):
    """A serialized PushObjectRequest, with one copy of the content."""
    head = message_pb2.PushObjectRequest(node=node, run_id=run_id, object_id=object_id).SerializeToString()
    length = sum(map(len, parts))
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    varint.append(length)
    return b"".join([head, b"\x22", varint, *parts])
