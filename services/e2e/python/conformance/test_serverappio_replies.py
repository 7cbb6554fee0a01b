"""Protocol section 9.4, statements 87 to 98: pulling replies, real and synthetic."""

from __future__ import annotations

import time

import pytest
from flwr.common import Error, Message
from flwr.proto import appio_pb2, message_pb2
from scenario import ABSENT, Scene, sleep_until
from wire import Packed, Pulled, reply, tree_ids

MESSAGE_UNAVAILABLE, REPLY_UNAVAILABLE, NODE_UNAVAILABLE = 3, 4, 5


def test_087_pull_no_ids(held_scene: Scene) -> None:
    """PullMessages with no ids returns empty at once, holding or not."""
    run_id = held_scene.run()
    started = time.monotonic()
    response = held_scene.appio.call("PullMessages", held_scene.appio.pull_request(run_id, []))
    assert response == appio_pb2.PullAppMessagesResponse()
    assert time.monotonic() - started < 1.0


def test_088_pull_while_waiting(scene: Scene) -> None:
    """PullMessages for a waiting instruction returns nothing for it, delivered or not."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node)
    assert scene.result(run_id, sent) is None
    got = node.pull()
    assert got is not None
    assert scene.result(run_id, sent) is None
    node.receive(got)
    assert scene.result(run_id, sent) is None


def test_089_pull_a_reply(scene: Scene) -> None:
    """PullMessages returns a stored reply with its tree; afterwards the id yields code 3."""
    run_id, node = scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    got = scene.result(run_id, sent)
    assert got is not None
    assert got.message == answer.proto
    assert got.message.HasField("content") and got.message.content.ByteSize() == 0
    assert got.tree == answer.tree
    assert scene.appio.receive(run_id, got) == answer.objects
    assert scene.presences(run_id, answer.objects) == {ABSENT}
    assert scene.error_code(run_id, sent) == MESSAGE_UNAVAILABLE


@pytest.mark.parametrize(
    ("code", "reason"), [(2, "<class 'ValueError'>:<'boom'>"), (0, ""), (-(2**63), "ü" * 100_000)]
)
def test_089_pull_an_error_reply(scene: Scene, code: int, reason: str) -> None:
    """A node's error reply travels like any other, even an all-default one."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    answer = reply(sent, error=Error(code, reason))
    assert answer.id in node.push(answer).results
    got = scene.result(run_id, sent)
    assert got is not None and got.message == answer.proto
    assert got.message.HasField("error") and not got.message.HasField("content")
    assert scene.appio.receive(run_id, got) == answer.objects


@pytest.mark.parametrize("asked", ["ab" * 32, "", "not a hash", "x" * 300])
def test_090_unknown_id(scene: Scene, asked: str) -> None:
    """Unknown id, and the empty string: code 3 reply of a fixed shape."""
    run_id, before = scene.run(), time.time()
    got = scene.result(run_id, asked)
    assert got is not None
    metadata, error = got.message.metadata, got.message.error
    assert error.code == MESSAGE_UNAVAILABLE
    assert error.reason.startswith("Error: Message Unavailable")
    assert not got.message.HasField("content")
    assert metadata.reply_to_message_id == asked
    assert (metadata.run_id, metadata.src_node_id, metadata.dst_node_id) == (0, 1, 1)
    assert (metadata.message_type, metadata.group_id, metadata.ttl) == ("system", "", 0.0)
    assert before <= metadata.created_at <= time.time()
    assert not got.tree.children


def test_091_expired_instruction(scene: Scene) -> None:
    """Expired instruction: code 3, delivered or not, even with its reply stored."""
    run_id, node = scene.run(), scene.node()
    started = time.time()
    short = {"ttl": 101.5, "created_at": started - 100}
    queued = scene.send(run_id, scene.node(), **short)
    delivered = scene.deliver(run_id, node, **short)
    assert scene.results(run_id, queued.id, delivered.id) == {}
    sleep_until(started + 1.5)
    found = scene.results(run_id, queued.id, delivered.id)
    assert {got.message.error.code for got in found.values()} == {MESSAGE_UNAVAILABLE}
    assert set(found) == {queued.id, delivered.id}


def assert_synthetic(got: Pulled | None, sent: Packed, code: int, reason: str) -> None:
    """Require the SuperLink's own error reply to an instruction it knows."""
    assert got is not None
    metadata, asked, now = got.message.metadata, sent.proto.metadata, time.time()
    assert got.message.error.code == code
    assert got.message.error.reason.startswith(reason)
    assert not got.message.HasField("content")
    assert metadata.reply_to_message_id == asked.message_id
    assert (metadata.src_node_id, metadata.dst_node_id) == (1, 1)
    assert metadata.run_id == asked.run_id
    assert metadata.group_id == asked.group_id
    assert metadata.message_type == asked.message_type
    assert now - 10 <= metadata.created_at <= now
    left = asked.ttl - (metadata.created_at - asked.created_at)
    assert metadata.ttl == pytest.approx(left, abs=0.01)
    assert tree_ids(got.tree) == [metadata.message_id]


@pytest.mark.parametrize("departure", ["offline", "deleted"])
@pytest.mark.parametrize("delivered", [False, True])
def test_092_node_gone(scene: Scene, departure: str, delivered: bool) -> None:
    """Node offline or deleted, no reply: code 5 with the instruction's metadata."""
    run_id, node = scene.run(), scene.node()
    push = scene.deliver if delivered else scene.send
    sent = push(run_id, node, group="g-92", message_type="evaluate.fast", ttl=500.0)
    assert scene.result(run_id, sent) is None
    if departure == "offline":
        scene.go_offline(run_id, node)
    else:
        node.delete()
    got = scene.result(run_id, sent)
    assert_synthetic(got, sent, NODE_UNAVAILABLE, "Error: Node Unavailable")


def test_093_expired_reply(scene: Scene) -> None:
    """Expired reply: code 4."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node, group="g-93")
    answer = reply(sent, ttl=0.75)
    assert answer.id in node.push(answer).results
    sleep_until(answer.proto.metadata.created_at + 0.75)
    got = scene.result(run_id, sent)
    assert_synthetic(got, sent, REPLY_UNAVAILABLE, "Error: Reply Message Unavailable")


@pytest.mark.parametrize("kind", [MESSAGE_UNAVAILABLE, REPLY_UNAVAILABLE, NODE_UNAVAILABLE])
def test_094_synthetic_replies_are_objects(scene: Scene, kind: int) -> None:
    """Synthetic replies can be pulled as objects by their message id and confirmed."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node, group="grüße")
    asked = sent.id if kind != MESSAGE_UNAVAILABLE else "cd" * 32
    if kind == NODE_UNAVAILABLE:
        node.delete()
    elif kind == REPLY_UNAVAILABLE:
        answer = reply(sent, ttl=0.5)
        node.push(answer)
        sleep_until(answer.proto.metadata.created_at + 0.5)
    got = scene.result(run_id, asked)
    assert got is not None and got.message.error.code == kind
    assert got.tree == message_pb2.ObjectTree(object_id=got.id)
    content = scene.appio.receive(run_id, got)[got.id]
    message = Message.inflate(content)
    assert message.error.code == kind
    assert message.error.reason == got.message.error.reason
    assert message.metadata.message_id == ""
    assert message.metadata.reply_to_message_id == asked
    metadata = got.message.metadata
    assert message.metadata.created_at == metadata.created_at
    assert message.metadata.ttl == metadata.ttl
    assert message.metadata.group_id == metadata.group_id
    message.metadata.__dict__["_message_id"] = ""
    assert message.object_id == got.id
    assert scene.presence(run_id, got.id) == ABSENT


def test_095_several_ids(scene: Scene) -> None:
    """Several ids in one call: each yields at most one result."""
    run_id, nodes = scene.run(), [scene.node() for _ in range(3)]
    replied = [scene.answered(run_id, node) for node in nodes[:2]]
    waiting = scene.send(run_id, nodes[0])
    gone = scene.send(run_id, nodes[2])
    nodes[2].delete()
    asked = [waiting.id, "ef" * 32, gone.id, *(sent.id for sent, _ in replied)]
    found = scene.results(run_id, *asked, *asked)
    assert set(found) == set(asked) - {waiting.id}
    assert found["ef" * 32].message.error.code == MESSAGE_UNAVAILABLE
    assert found[gone.id].message.error.code == NODE_UNAVAILABLE
    for sent, answer in replied:
        assert found[sent.id].message == answer.proto
    for got in found.values():
        scene.appio.receive(run_id, got)
    assert scene.result(run_id, waiting) is None


@pytest.mark.hardening
@pytest.mark.parametrize("departure", ["offline", "deleted"])
def test_096_reply_of_a_departed_node(scene: Scene, departure: str) -> None:
    """A complete reply is delivered even if its node has gone offline since."""
    run_id, node = scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    if departure == "offline":
        scene.go_offline(run_id, node)
    else:
        node.delete()
    got = scene.result(run_id, sent)
    assert got is not None and got.message == answer.proto
    assert scene.appio.receive(run_id, got) == answer.objects


@pytest.mark.hardening
def test_097_repeated_pull(scene: Scene) -> None:
    """A repeated PullMessages before ConfirmMessageReceived returns the same reply."""
    run_id, node = scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    other = scene.send(run_id, node)
    for asked in ([sent.id], [sent.id, other.id], [sent.id]):
        found = scene.results(run_id, *asked)
        assert set(found) == {sent.id}
        assert found[sent.id].message == answer.proto
    got = scene.result(run_id, sent)
    assert got is not None
    assert scene.appio.receive(run_id, got) == answer.objects
    assert scene.error_code(run_id, sent) == MESSAGE_UNAVAILABLE


@pytest.mark.hardening
def test_098_replies_of_other_runs(scene: Scene) -> None:
    """Replies of another run are never returned, nor destroyed by asking for them."""
    run_id, stranger, node = scene.run(), scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    waiting = scene.send(run_id, node)
    found = scene.results(stranger, sent.id, waiting.id)
    assert all(got.message.error.code == MESSAGE_UNAVAILABLE for got in found.values())
    assert scene.result(run_id, waiting) is None
    got = scene.result(run_id, sent)
    assert got is not None and got.message == answer.proto
    assert scene.appio.receive(run_id, got) == answer.objects
