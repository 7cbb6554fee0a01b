"""Protocol section 9.8: objects and the ObjectStore, watched through PushObject and PullObject."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable

import grpc
import pytest
from flwr.common import ConfigRecord, RecordDict
from flwr.proto import message_pb2
from harness import wait_for
from scenario import (
    ABSENT,
    REGISTERED,
    STORED,
    Code,
    Scene,
    fraction_of_cpu,
    reference_differs,
    together,
    tree,
    with_tree,
)
from vectors import CONFIG_ID, VECTORS
from wire import (
    SUPERLINK,
    AppIo,
    Node,
    NodeProto,
    Packed,
    Pulled,
    arrays,
    instruction,
    raw_object,
    reply,
    sha256,
    tree_ids,
)

TYPES = set("ArrayChunk Array ArrayRecord MetricRecord ConfigRecord RecordDict Message".split())


def push_all(
    peer: AppIo, run_id: int, objects: Iterable[tuple[str, bytes]], window: int = 64
) -> list[grpc.Future]:
    """PushObject for many objects, `window` at a time; returns the ended calls in order."""
    ended, waiting = [], []
    for object_id, content in objects:
        request = message_pb2.PushObjectRequest(
            node=NodeProto(node_id=SUPERLINK),
            run_id=run_id,
            object_id=object_id,
            object_content=content,
        )
        waiting.append(peer.future("PushObject", request, timeout=60.0))
        if len(waiting) == window:
            ended.append(waiting.pop(0))
            ended[-1].exception()
    for call in waiting:
        call.exception()
    return ended + waiting


def register(scene: Scene, run_id: int, *trees: message_pb2.ObjectTree) -> Packed:
    """Register object trees below the root of an instruction for a fresh node."""
    sent = with_tree(instruction(run_id, scene.node().id), *trees)
    assert list(scene.appio.push_messages(sent).message_ids) == [sent.id]
    return sent


# -- vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VECTORS)
def test_143_vectors(scene: Scene, name: str) -> None:
    """Vectors V1..V9 hash to the stated ids: accepted under them, handed back unchanged."""
    content, object_id, length = VECTORS[name]
    assert len(content) == length
    run_id = scene.run()
    sent = register(scene, run_id, tree(object_id))
    wrong = object_id[:-1] + ("0" if object_id[-1] != "0" else "1")
    assert not scene.appio.push_object(run_id, wrong, content).stored
    assert scene.appio.push_object(run_id, object_id, content).stored
    assert scene.appio.pull_object(run_id, object_id).object_content == content
    scene.appio.confirm(run_id, sent.id)


def is_valid(content: bytes) -> bool:
    """Judge an object's structure by the rules of protocol section 4.2.2."""
    head, nul, body = content.partition(b"\0")
    try:
        parts = head.decode("utf-8").split(" ")
    except UnicodeDecodeError:
        return False
    if not nul or len(parts) != 3 or parts[0] not in TYPES:
        return False
    digits = set("0123456789abcdef")
    children = [child for child in parts[1].split(",") if child]
    if not all(len(child) == 64 and set(child) <= digits for child in children):
        return False
    return parts[2].isascii() and parts[2].isdigit() and int(parts[2]) == len(body)


@pytest.mark.parametrize("name", VECTORS)
def test_144_corrupted_heads(scene: Scene, name: str) -> None:
    """The validator accepts V1..V9 and refuses every single-byte corruption of the head."""
    content, _, _ = VECTORS[name]
    assert is_valid(content)
    end = content.index(b"\0") + 1
    corrupted = {content[:-1], content + b"x", b"", content[:end - 1]}
    for at in range(end):
        old = content[at]
        for new in {old ^ 0x80, old ^ 0x04, 0x7E, 0x20, 0x00, 0x2C} - {old}:
            corrupted.add(content[:at] + bytes([new]) + content[at + 1 :])
        corrupted.add(content[:at] + content[at + 1 :])
        corrupted.add(content[:at] + b"~" + content[at:])
    corrupted = [broken for broken in corrupted if not is_valid(broken)]
    assert len(corrupted) > 5 * end
    run_id = scene.run()
    ended = push_all(scene.appio, run_id, [(sha256(broken), broken) for broken in corrupted])
    for broken, call in zip(corrupted, ended, strict=True):
        assert call.code() == Code.FAILED_PRECONDITION, (broken[: end + 1], call)
        assert call.details().startswith(f"Object with ID '{sha256(broken)}'")


# -- registration and deletion ------------------------------------------------------------------


def test_145_only_unavailable_ids(scene: Scene) -> None:
    """Registering returns only unavailable ids, however often an object occurs."""
    run_id, content = scene.run(), arrays(count=2)
    one, two = (instruction(run_id, scene.node().id, content) for _ in range(2))
    common = set(one.objects) & set(two.objects)
    assert len(common) == 6
    assert set(scene.appio.push_messages(one).objects_to_push) == set(one.objects)
    again = scene.appio.push_messages(one, two).objects_to_push
    assert sorted(again) == sorted(set(one.objects) | set(two.objects))
    for object_id in sorted(common)[:3]:
        assert scene.appio.push_object(run_id, object_id, one.objects[object_id]).stored
    rest = (set(one.objects) | set(two.objects)) - set(sorted(common)[:3])
    assert set(scene.appio.push_messages(one, two).objects_to_push) == rest
    scene.appio.push_objects(one)
    assert set(scene.appio.push_messages(two).objects_to_push) == {two.id}
    scene.appio.push_objects(two, {two.id})
    assert list(scene.appio.push_messages(one, two).objects_to_push) == []


def test_145_shared_children_are_counted_per_parent(scene: Scene) -> None:
    """A child below several parents lives until the last of them is deleted."""
    run_id = scene.run()
    chunk = raw_object("ArrayChunk", f"shared in {run_id}".encode())
    shared = sha256(chunk)
    middle = [raw_object("Array", f"{run_id} {n}".encode(), [shared]) for n in range(3)]
    nodes = [tree(sha256(content), tree(shared)) for content in middle]
    first = register(scene, run_id, nodes[0], nodes[1], nodes[0])
    second = register(scene, run_id, nodes[1], tree(shared), nodes[2])
    assert scene.presence(run_id, shared) == REGISTERED
    assert scene.appio.push_object(run_id, shared, chunk).stored
    scene.appio.confirm(run_id, first.id)
    assert scene.presences(run_id, [first.id, nodes[0].object_id]) == {ABSENT}
    assert scene.presences(run_id, [nodes[1].object_id, nodes[2].object_id]) == {REGISTERED}
    assert scene.presence(run_id, shared) == STORED
    scene.appio.confirm(run_id, second.id)
    below = [node.object_id for node in nodes]
    assert scene.presences(run_id, [second.id, shared, *below]) == {ABSENT}


def test_145_children_shared_within_a_message(scene: Scene) -> None:
    """Two arrays of one message with the same chunk go away with the message."""
    run_id, node = scene.run(), scene.node()
    record = arrays(count=3, seed=145)["arrays"]
    sent = scene.send(run_id, node, RecordDict({"a": record, "b": record, "c": ConfigRecord()}))
    assert scene.presences(run_id, sent.objects) == {STORED}
    scene.appio.confirm(run_id, sent.id)
    assert scene.presences(run_id, sent.objects) == {ABSENT}


def test_146_deleting_parents(scene: Scene) -> None:
    """Deleting one of two parents keeps the shared child; deleting both removes it."""
    run_id, content = scene.run(), arrays()
    one, two = (scene.send(run_id, scene.node(), content) for _ in range(2))
    common = set(one.objects) & set(two.objects)
    scene.appio.confirm(run_id, one.id)
    assert scene.presence(run_id, one.id) == ABSENT
    assert scene.presences(run_id, common | {two.id}) == {STORED}
    scene.appio.confirm(run_id, two.id)
    assert scene.presences(run_id, [one.id, two.id, *common]) == {ABSENT}


def test_146_a_shared_child_can_come_back(scene: Scene) -> None:
    """What was deleted with its last parent is asked for anew."""
    run_id, content = scene.run(), arrays()
    one = scene.send(run_id, scene.node(), content)
    scene.appio.confirm(run_id, one.id)
    two = instruction(run_id, scene.node().id, content)
    assert set(scene.appio.push_messages(two).objects_to_push) == set(two.objects)
    scene.appio.push_objects(two)
    assert scene.presences(run_id, two.objects) == {STORED}


@pytest.mark.parametrize("end", ["finish", "stop"])
def test_147_deleting_a_run(scene: Scene, end: str) -> None:
    """Deleting a run removes its roots and orphans, not what other runs' messages refer to."""
    ends, stays, content = scene.run(), scene.run(), arrays(count=2)
    own = RecordDict({"shared": content["arrays"], "own": arrays()["arrays"]})
    gone = scene.send(ends, scene.node(), own)
    kept = scene.send(stays, scene.node(), content)
    alone = scene.send(ends, scene.node())
    common = set(gone.objects) & set(kept.objects)
    assert len(common) == 5
    if end == "finish":
        scene.appio.finish(ends)
    else:
        scene.control.stop_run(ends)
    assert scene.presences(stays, kept.objects) == {STORED}
    assert scene.presences(stays, set(gone.objects) - common) == {ABSENT}
    assert scene.presences(stays, alone.objects) == {ABSENT}
    watcher = scene.run()
    scene.appio.finish(stays)
    assert scene.presences(watcher, kept.objects) == {ABSENT}


def test_147_content_of_another_run_is_not_asked_for(scene: Scene) -> None:
    """What any run delivered is available to all."""
    first, second, content = scene.run(), scene.run(), arrays()
    one = scene.send(first, scene.node(), content)
    two = instruction(second, scene.node().id, content)
    assert set(scene.appio.push_messages(two).objects_to_push) == {two.id}
    assert set(one.objects) & set(two.objects) <= set(two.objects)


def test_148_concurrent_registration_and_deletion(scene: Scene) -> None:
    """Concurrent preregister and delete never lose a registered child."""
    run_id, content = scene.run(), arrays(count=4, seed=148)
    ends = time.monotonic() + 3.0
    exchanges = []

    def work() -> None:
        node = scene.node()
        with AppIo(scene.link.serverappio) as appio, Node(scene.link.fleet) as other:
            assert other.create(3600.0)
            while time.monotonic() < ends:
                sent = instruction(run_id, node.id, content)
                response = appio.push_messages(sent)
                assert list(response.message_ids) == [sent.id]
                # Another message may have brought an object meanwhile; pushing again is harmless.
                appio.push_objects(sent, response.objects_to_push)
                for object_id in sent.objects:
                    got = appio.pull_object(run_id, object_id)
                    assert got.object_found, f"lost {object_id}"
                    assert got.object_available and got.object_content == sent.objects[object_id]
                appio.confirm(run_id, sent.id)
                assert not appio.pull_object(run_id, sent.id).object_found
                exchanges.append(sent)

    together(*[work] * 6)
    assert len(exchanges) > 60
    for packed in exchanges[:3]:
        assert scene.presences(run_id, packed.objects) == {ABSENT}


@reference_differs("it locks per object, so deleting a shared child races with registering it")
def test_148_confirm_against_registration(scene: Scene) -> None:
    """The last confirm of one parent never takes the child that another is registering."""
    run_id, node = scene.run(), scene.node()
    leaf = sha256(raw_object("ArrayChunk", f"leaf of {run_id}".encode()))
    with AppIo(scene.link.serverappio) as other:
        previous = register(scene, run_id, tree(leaf))
        for number in range(25):
            # Many siblings make the time long in which the leaf is known and its parent is not.
            siblings = [sha256(f"{run_id} {number} {n}".encode()) for n in range(4000)]
            following = with_tree(
                instruction(run_id, node.id), tree(leaf), *(tree(each) for each in siblings)
            )
            barrier, last = threading.Barrier(2), previous.id

            def confirm() -> None:
                barrier.wait()
                time.sleep(random.random() * 0.04)
                other.confirm(run_id, last)

            def push() -> None:
                barrier.wait()
                scene.appio.push_messages(following)

            together(confirm, push)
            assert scene.presences(run_id, [following.id, leaf, siblings[0]]) == {REGISTERED}
            previous = following
        scene.appio.confirm(run_id, previous.id)
        assert scene.presence(run_id, leaf) == ABSENT


def test_149_empty_after_a_completed_run(fresh_scene: Scene) -> None:
    """The store is empty after a completed run."""
    scene = fresh_scene
    run_id, watcher = scene.run(), scene.run()
    nodes, seen = [scene.node() for _ in range(3)], set()
    model = arrays(count=3)["arrays"]
    for round_number in range(3):
        content = RecordDict({"m": model, "c": ConfigRecord({"round": round_number})})
        pairs = []
        for node in nodes:
            sent = scene.deliver(run_id, node, content)
            answer = reply(sent, RecordDict({"m": model, "l": ConfigRecord({"n": node.id % 99})}))
            node.push(answer)
            pairs.append((sent, answer))
        found = scene.results(run_id, *(sent.id for sent, _ in pairs))
        for sent, answer in pairs:
            assert scene.appio.receive(run_id, found[sent.id]) == answer.objects
            seen |= set(sent.objects) | set(answer.objects)
        gone = scene.presences(run_id, seen)
        assert gone == {ABSENT}, f"left behind in round {round_number}"
    left = scene.send(run_id, nodes[0])
    synthetic = scene.result(run_id, "ab" * 32)
    assert synthetic is not None
    assert scene.presences(watcher, left.objects) == {STORED}
    scene.appio.finish(run_id)
    assert scene.presences(watcher, seen | set(left.objects) | {synthetic.id}) == {ABSENT}


def receive_patiently(peer: Node | AppIo, run_id: int, got: Pulled) -> None:
    """Pull every object as stock peers do, who wait for late ones, and confirm."""
    for object_id in tree_ids(got.tree):
        wait_for(lambda: peer.pull_object(run_id, object_id).object_available, 20.0, object_id)
    peer.confirm(run_id, got.id)


def test_149_empty_after_rounds_in_parallel(scene: Scene) -> None:
    """Nodes and ServerApp at full speed: every reply arrives once, and nothing is left behind."""
    run_id, count, rounds, model = scene.run(), 5, 6, arrays(count=2, seed=149)["arrays"]
    nodes, seen = [scene.node() for _ in range(count)], set()
    deadline = time.monotonic() + 60

    def serve(node: Node) -> int:
        served = 0
        while served < rounds:
            assert time.monotonic() < deadline
            got = node.pull()
            if got is not None:
                receive_patiently(node, run_id, got)
                metrics = ConfigRecord({"node": node.id % 2**63, "round": served})
                node.push(reply(got, RecordDict({"m": model, "c": metrics})))
                served += 1
        return served

    def lead() -> int:
        arrived = 0
        with AppIo(scene.link.serverappio) as appio:
            for _ in range(rounds):
                content = RecordDict({"m": model})
                sent = [instruction(run_id, node.id, content) for node in nodes]
                assert appio.push(*sent) == [packed.id for packed in sent]
                waiting = {packed.id for packed in sent}
                while waiting:
                    assert time.monotonic() < deadline
                    for got in appio.pull_messages(run_id, waiting):
                        assert got.message.HasField("content")
                        waiting.remove(got.message.metadata.reply_to_message_id)
                        receive_patiently(appio, run_id, got)
                        seen.update(tree_ids(got.tree))
                        arrived += 1
                seen.update(object_id for packed in sent for object_id in packed.objects)
        return arrived

    assert together(lead, *[lambda node=node: serve(node) for node in nodes]) == [
        count * rounds,
        *[rounds] * count,
    ]
    assert scene.presences(run_id, seen) == {ABSENT}
    assert all(node.pull() is None for node in nodes)


# -- large --------------------------------------------------------------------------------------


def test_large_chunk(scene: Scene) -> None:
    """The largest stock chunk, 20 971 520 bytes, goes to a node and back again."""
    run_id, node = scene.run(), scene.node()
    chunk = raw_object("ArrayChunk", random.Random(2).randbytes(20_971_520))
    chunk_id = sha256(chunk)
    out = with_tree(instruction(run_id, node.id), tree(chunk_id), objects={chunk_id: chunk})
    assert scene.appio.push(out) == [out.id]
    got = node.pull()
    assert got is not None
    back_chunk = raw_object("ArrayChunk", chunk[-20_971_520:][::-1])
    assert node.receive(got) == out.objects
    answer = with_tree(
        reply(got), tree(sha256(back_chunk)), objects={sha256(back_chunk): back_chunk}
    )
    node.push(answer)
    result = scene.result(run_id, out)
    assert result is not None
    assert scene.appio.receive(run_id, result) == answer.objects


def test_ten_thousand_objects(scene: Scene) -> None:
    """A tree of 10 000 objects is registered, filled and handed out in reasonable time."""
    run_id, node, count = scene.run(), scene.node(), 10_000
    leaves = [raw_object("ArrayChunk", f"{run_id} {n}".encode()) for n in range(count)]
    objects = {sha256(leaf): leaf for leaf in leaves}
    sent = with_tree(
        instruction(run_id, node.id), *(tree(object_id) for object_id in objects), objects=objects
    )
    started = time.monotonic()
    response = scene.appio.push_messages(sent)
    assert time.monotonic() - started < 2.0 * fraction_of_cpu()
    assert set(response.objects_to_push) == set(sent.objects)
    ended = push_all(scene.appio, run_id, sent.objects.items(), window=200)
    assert all(call.result().stored for call in ended)
    started = time.monotonic()
    assert list(scene.appio.push_messages(sent).objects_to_push) == []
    got = node.pull()
    assert got is not None and got.tree == sent.tree
    node.confirm(run_id, sent.id)
    assert time.monotonic() - started < 4.0 * fraction_of_cpu()
    some = random.Random(3).sample(sorted(objects), 20)
    assert scene.presences(run_id, [sent.id, *some]) == {ABSENT}


def test_deep_tree(scene: Scene) -> None:
    """A chain of 30 objects below a message, deeper than any stock message, is kept in order."""
    run_id, node = scene.run(), scene.node()
    chain = [raw_object("ConfigRecord", f"bottom of {run_id}".encode())]
    below = tree(sha256(chain[0]))
    for level in range(29):
        chain.append(raw_object("RecordDict", str(level).encode(), [below.object_id]))
        below = tree(sha256(chain[-1]), below)
    objects = {sha256(content): content for content in chain}
    sent = with_tree(instruction(run_id, node.id), below, objects=objects)
    assert scene.appio.push(sent) == [sent.id]
    got = node.pull()
    assert got is not None and got.tree == sent.tree
    assert node.receive(got) == sent.objects
    assert scene.presences(run_id, sent.objects) == {ABSENT}
    assert CONFIG_ID not in sent.objects
