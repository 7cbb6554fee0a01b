"""Protocol appendix B, B-8 and B-20, and odd object trees: what is exposed, kept and counted."""

from __future__ import annotations

import time

import pytest
from flwr.common import ConfigRecord, RecordDict
from flwr.proto import appio_pb2, message_pb2
from scenario import ABSENT, REGISTERED, Code, Scene, fraction_of_cpu, tree, with_tree
from wire import arrays, expect_error, instruction, raw_object, reply, sha256

# -- B-8: only complete messages are exposed ----------------------------------------------------


@pytest.mark.hardening
def test_b08_incomplete_instruction_is_withheld(scene: Scene) -> None:
    """An instruction is offered once its last object has arrived, and not before."""
    run_id, node = scene.run(), scene.node()
    sent = instruction(run_id, node.id, arrays(count=2))
    scene.appio.push_messages(sent)
    for object_id, content in sent.objects.items():
        assert node.pull() is None
        assert scene.appio.push_object(run_id, object_id, content).stored
    got = node.pull()
    assert got is not None and got.id == sent.id
    assert node.receive(got) == sent.objects


@pytest.mark.hardening
def test_b08_incomplete_instruction_blocks_nobody(scene: Scene) -> None:
    """A complete instruction is offered although an older one is still incomplete."""
    run_id, node = scene.run(), scene.node()
    older = instruction(run_id, node.id)
    scene.appio.push_messages(older)
    newer = scene.deliver(run_id, node)
    assert newer.id != older.id
    assert node.pull() is None
    scene.appio.push_objects(older)
    got = node.pull()
    assert got is not None and got.id == older.id


@pytest.mark.hardening
def test_b08_incomplete_reply_is_withheld(scene: Scene) -> None:
    """A reply is handed out once its last object has arrived, and not before."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    answer = reply(sent, arrays(count=2))
    node.push_messages(answer)
    for object_id, content in answer.objects.items():
        assert scene.result(run_id, sent) is None
        assert node.push_object(run_id, object_id, content).stored
    got = scene.result(run_id, sent)
    assert got is not None and got.id == answer.id
    assert scene.appio.receive(run_id, got) == answer.objects


@pytest.mark.hardening
def test_b08_dead_pusher_does_not_hang_the_app(scene: Scene) -> None:
    """A reply that stays incomplete because its node went away ends as node unavailable."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    node.push_messages(reply(sent))
    assert scene.result(run_id, sent) is None
    node.delete()
    assert scene.error_code(run_id, sent) == 5


@pytest.mark.hardening
def test_b08_shared_objects_complete_a_message(scene: Scene) -> None:
    """An object that arrives for one message completes every message that contains it."""
    run_id, content = scene.run(), arrays()
    nodes = [scene.node() for _ in range(3)]
    sent = [instruction(run_id, node.id, content) for node in nodes]
    scene.appio.push_messages(*sent)
    for packed in sent:
        scene.appio.push_objects(packed, [packed.id])
    assert [node.pull() for node in nodes] == [None] * 3
    scene.appio.push_objects(sent[0])
    for node, packed in zip(nodes, sent, strict=True):
        got = node.pull()
        assert got is not None and got.id == packed.id
        assert node.receive(got) == packed.objects


# -- B-20: replies ------------------------------------------------------------------------------


@pytest.mark.hardening
def test_b20_first_reply_wins(scene: Scene) -> None:
    """A second, different reply to one instruction is answered normally and changes nothing."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    first, second = reply(sent), reply(sent, RecordDict({"c": ConfigRecord({"second": True})}))
    assert first.id in node.push(first).results
    response = node.push_messages(second)
    assert set(response.objects_to_push) <= set(second.objects)
    node.push_objects(second, response.objects_to_push)
    got = scene.result(run_id, sent)
    assert got is not None and got.message == first.proto
    assert scene.appio.receive(run_id, got) == first.objects
    assert scene.error_code(run_id, sent) == 3


def test_b20_reply_after_the_result_was_taken(scene: Scene) -> None:
    """A reply repeated after the ServerApp took it does not appear a second time."""
    run_id, node = scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    got = scene.result(run_id, sent)
    assert got is not None
    scene.appio.receive(run_id, got)
    node.push(answer)
    assert scene.error_code(run_id, sent) == 3


def test_b20_objects_of_refused_replies_go_with_the_run(scene: Scene) -> None:
    """What was registered for replies that were not stored does not outlive the run."""
    run_id, watcher, node = scene.run(), scene.run(), scene.node()
    sent, _ = scene.answered(run_id, node)
    late, wrong = reply(sent), reply(sent, src=scene.node().id)
    for refused in (late, wrong):
        node.push(refused)
    scene.appio.finish(run_id)
    for refused in (late, wrong):
        assert scene.presences(watcher, refused.objects) == {ABSENT}


# -- hostile but well-formed --------------------------------------------------------------------


@pytest.mark.hardening
def test_object_ids_are_plain_hex(scene: Scene) -> None:
    """Only 64 hex characters are object ids; what Python's int() also accepts is refused."""
    run_id = scene.run()
    good = sha256(b"x")
    odd = ["0x" + good[2:], "+" + good[1:], " " + good[1:], good[:31] + "_" + good[32:], "é" * 32]
    for bad in odd:
        sent = with_tree(instruction(run_id, scene.node().id), tree(bad))
        error = expect_error(None, None, scene.appio.push_messages, sent)
        assert error.code() in (Code.INVALID_ARGUMENT, Code.UNKNOWN), bad
    scene.deliver(run_id, scene.node())


def test_endless_tree(scene: Scene) -> None:
    """A tree nested thousands of levels deep is refused and harms nobody."""
    run_id, node = scene.run(), scene.node()
    sent = instruction(run_id, node.id)
    nested = b""
    for _ in range(5000):
        nested = _field(2, nested)
    body = _field(2, sent.proto.SerializeToString()) + b"\x18" + _varint(run_id) + _field(4, nested)
    raw = scene.appio.channel.unary_unary("/flwr.proto.ServerAppIo/PushMessages")
    error = expect_error(None, None, raw, body, timeout=20.0)
    assert error.code() not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    scene.deliver(run_id, node)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def test_wide_sharing(scene: Scene) -> None:
    """A small tree of objects that all share their children is not walked exponentially."""
    run_id, node = scene.run(), scene.node()
    below: list[message_pb2.ObjectTree] = []
    objects: dict[str, bytes] = {}
    for level in range(9):
        made = []
        for n in range(3):
            children = [child.object_id for child in below]
            content = raw_object("RecordDict", f"{run_id} {level} {n}".encode(), children)
            objects[sha256(content)] = content
            made.append(tree(sha256(content), *below))
        below = made
    sent = with_tree(instruction(run_id, node.id), *below, objects=objects)
    assert len(sent.objects) == 28
    started = time.monotonic()
    assert scene.appio.push(sent) == [sent.id]
    got = node.pull()
    assert got is not None and got.tree == sent.tree
    node.confirm(run_id, sent.id)
    assert time.monotonic() - started < 10.0 * fraction_of_cpu()
    assert scene.presences(run_id, sent.objects) == {ABSENT}


def test_tree_of_another_shape(scene: Scene) -> None:
    """Registering a known object with other children leaves the counts as they were."""
    run_id = scene.run()
    a, b, c = (sha256(f"{run_id} {name}".encode()) for name in "abc")
    first = with_tree(instruction(run_id, scene.node().id), tree(a, tree(b)))
    second = with_tree(instruction(run_id, scene.node().id), tree(a, tree(c)), tree(b))
    scene.appio.push_messages(first)
    scene.appio.push_messages(second)
    scene.appio.confirm(run_id, first.id)
    assert scene.presences(run_id, [a, b]) == {REGISTERED}
    scene.appio.confirm(run_id, second.id)
    assert scene.presences(run_id, [a, b]) == {ABSENT}
    scene.appio.finish(run_id)
    watcher = scene.run()
    assert scene.presences(watcher, [a, b, c, first.id, second.id]) == {ABSENT}


@pytest.mark.hardening
def test_cyclic_tree(scene: Scene) -> None:
    """An object below itself does not send the server round in circles."""
    run_id, node = scene.run(), scene.node()
    sent = instruction(run_id, node.id)
    loop = with_tree(sent, tree(sha256(b"middle"), tree(sent.id)))
    request = appio_pb2.PushAppMessagesRequest(
        run_id=run_id, messages_list=[loop.proto], message_object_trees=[loop.tree]
    )
    pushed = scene.appio.future("PushMessages", request)
    assert pushed.code() not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    assert node.pull(timeout=5.0) is None
    scene.appio.confirm(run_id, sent.id, timeout=5.0)
    scene.appio.finish(run_id)
    scene.deliver(scene.run(), node)
