"""Protocol section 9.3, statements 59 to 66: objects on Fleet, as nodes push and pull them."""

from __future__ import annotations

import grpc
import pytest
from flwr.common import ConfigRecord, RecordDict
from flwr.proto import message_pb2
from scenario import ABSENT, REGISTERED, STORED, Code, Scene, tree, with_tree
from wire import Node, arrays, expect_error, raw_object, reply, sha256

NO_IDS = ["", "x", "../" * 10, "g" * 64, "a" * 63, "a" * 65]
"""What no stock peer takes for an object id: unknown ids upstream, refused by a stricter server."""


def test_059_push_object_hash_mismatch(scene: Scene) -> None:
    """PushObject: hash mismatch -> `stored=false`, and the object stays unavailable."""
    run_id, node = scene.run(), scene.node()
    answer = reply(scene.deliver(run_id, node))
    node.push_messages(answer)
    leaf, content = next(iter(answer.objects.items()))
    assert not node.push_object(run_id, leaf, content[:-1] + b"?").stored
    assert not node.push_object(run_id, leaf, b"").stored
    assert scene.presence(run_id, leaf) == REGISTERED
    assert node.push_object(run_id, leaf, content).stored


def test_060_push_object_unregistered(scene: Scene) -> None:
    """PushObject: unregistered id -> `stored=false`."""
    run_id, node = scene.run(), scene.node()
    # Objects are known whichever run announced them, so it has to be one that no other test has.
    unique = raw_object("ArrayChunk", f"unregistered {run_id}".encode())
    assert not node.push_object(run_id, sha256(unique), unique).stored
    assert scene.presence(run_id, sha256(unique)) == ABSENT


def refused_as_malformed(node: Node, run_id: int, content: bytes) -> None:
    """Require that an object of the right hash is refused for its structure."""
    object_id = sha256(content)
    error = expect_error(
        Code.FAILED_PRECONDITION, None, node.push_object, run_id, object_id, content
    )
    start = f"Object with ID '{object_id}' has an unexpected structure."
    assert error.details().startswith(start), error.details()


def test_061_push_object_malformed(scene: Scene) -> None:
    """PushObject: malformed content with matching hash, even if registered, is refused."""
    run_id, node = scene.run(), scene.node()
    content = b"no object at all"
    answer = with_tree(reply(scene.deliver(run_id, node)), tree(sha256(content)))
    assert sha256(content) in node.push_messages(answer).objects_to_push
    refused_as_malformed(node, run_id, content)
    assert scene.presence(run_id, sha256(content)) == REGISTERED


def test_062_push_object_twice(scene: Scene) -> None:
    """PushObject twice -> `stored=true` both times."""
    run_id, node = scene.run(), scene.node()
    answer = reply(scene.deliver(run_id, node))
    node.push_messages(answer)
    for object_id, content in answer.objects.items():
        assert node.push_object(run_id, object_id, content).stored
        assert node.push_object(run_id, object_id, content).stored
        assert node.pull_object(run_id, object_id).object_content == content


MALFORMED = {
    "no NUL": b"ArrayChunk  4",
    "empty head": b"\0abcd",
    "one head part": b"ArrayChunk\0abcd",
    "two head parts": b"ArrayChunk 4\0abcd",
    "four head parts": b"ArrayChunk   4\0abcd",
    "unknown type": b"Tensor  4\0abcd",
    "type in lower case": b"arraychunk  4\0abcd",
    "legacy type": b"ParametersRecord  4\0abcd",
    "length too short": b"ArrayChunk  3\0abcd",
    "length too long": b"ArrayChunk  5\0abcd",
    "length not a number": b"ArrayChunk  four\0abcd",
    "length missing": b"ArrayChunk  \0abcd",
    "length negative": b"ArrayChunk  -4\0abcd",
    "huge length": b"ArrayChunk  99999999999999999999999999\0abcd",
    "child id too short": b"Array ab 4\0abcd",
    "child id not hex": b"Array " + b"g" * 64 + b" 4\0abcd",
    "second child id bad": b"Array " + b"a" * 64 + b"," + b"b" * 63 + b" 4\0abcd",
    "non-UTF-8 head": b"ArrayChunk\xff  4\0abcd",
}


@pytest.mark.parametrize("case", MALFORMED)
def test_063_structural_cases(scene: Scene, case: str) -> None:
    """PushObject refuses what is no object."""
    refused_as_malformed(scene.node(), scene.run(), MALFORMED[case])


def test_064_pull_object(scene: Scene) -> None:
    """PullObject: unknown, registered, stored."""
    run_id, node = scene.run(), scene.node()
    answer = reply(scene.deliver(run_id, node))
    leaf, content = next(iter(answer.objects.items()))
    assert node.pull_object(run_id, leaf) == message_pb2.PullObjectResponse()
    node.push_messages(answer)
    assert node.pull_object(run_id, leaf) == message_pb2.PullObjectResponse(object_found=True)
    assert node.push_object(run_id, leaf, content).stored
    assert node.pull_object(run_id, leaf) == message_pb2.PullObjectResponse(
        object_found=True, object_available=True, object_content=content
    )
    for odd in NO_IDS:
        try:
            assert node.pull_object(run_id, odd) == message_pb2.PullObjectResponse()
        except grpc.RpcError as error:
            assert error.code() == Code.INVALID_ARGUMENT


def test_065_confirm(scene: Scene) -> None:
    """ConfirmMessageReceived deletes root and unreferenced descendants, keeps shared ones."""
    run_id, first, second = scene.run(), scene.node(), scene.node()
    shared = arrays()["arrays"]
    one = scene.send(run_id, first, RecordDict({"s": shared, "own": arrays(count=2)["arrays"]}))
    two = scene.send(run_id, second, RecordDict({"s": shared, "own": ConfigRecord({"n": run_id})}))
    common = set(one.objects) & set(two.objects)
    assert len(common) == 3
    assert first.pull() is not None
    for _ in range(2):
        first.confirm(run_id, one.id)
        assert scene.presences(run_id, set(one.objects) - common) == {ABSENT}
        assert scene.presences(run_id, two.objects) == {STORED}
    assert second.pull() is not None
    second.confirm(run_id, two.id)
    assert scene.presences(run_id, two.objects) == {ABSENT}
    second.confirm(run_id, two.id)
    second.confirm(run_id, "ab" * 32)
    for odd in NO_IDS:
        try:
            second.confirm(run_id, odd)
        except grpc.RpcError as error:
            assert error.code() == Code.INVALID_ARGUMENT


def test_065_confirm_of_a_child(scene: Scene) -> None:
    """ConfirmMessageReceived of something that is still referenced deletes nothing."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node)
    for object_id in sent.objects:
        if object_id != sent.id:
            node.confirm(run_id, object_id)
    assert scene.presences(run_id, sent.objects) == {STORED}


def test_066_reply_after_confirm(scene: Scene) -> None:
    """ConfirmMessageReceived does not prevent the reply from being stored."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    assert scene.presence(run_id, sent.id) == ABSENT
    answer = reply(sent)
    assert answer.id in node.push(answer).results
    got = scene.result(run_id, sent)
    assert got is not None and got.id == answer.id
    assert scene.appio.receive(run_id, got) == answer.objects
