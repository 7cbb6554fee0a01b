"""Protocol section 9.3: Fleet, as nodes see it. One test per statement, its id in the name."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest
from flwr.common import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import user_config_from_proto
from flwr.proto import appio_pb2, fleet_pb2, run_pb2
from flwr.proto.node_pb2 import Node as NodeProto
from scenario import (
    ABSENT,
    UNSET_ID,
    Code,
    Scene,
    denied,
    open_scene,
    sleep_until,
    watch_until_gone,
)
from wire import (
    FINISHED,
    PENDING,
    STARTING,
    STOPPED,
    Adapter,
    arrays,
    expect_error,
    instruction,
    make_fab,
    pack,
    reply,
    sha256,
)

NOT_RUNNING = [
    (PENDING, "Run is pending."),
    (STARTING, "Run is starting."),
    (FINISHED, "Run is finished."),
]


# -- nodes and heartbeats -----------------------------------------------------------------------


def test_034_create_node_ids(scene: Scene) -> None:
    """CreateNode returns an id other than 0 and 1; ids above 2^63 work end to end."""
    run_id = scene.run()
    nodes = [scene.node() for _ in range(8)]
    while nodes[-1].id < 2**63:
        assert len(nodes) < 64, "64 random ids and not one above 2^63"
        nodes.append(scene.node())
    ids = {node.id for node in nodes}
    assert len(ids) == len(nodes)
    assert not ids & {0, 1}
    high = nodes[-1]
    assert scene.listed(run_id, high)
    sent, answer = scene.answered(run_id, high)
    got = scene.result(run_id, sent)
    assert got is not None and got.id == answer.id
    assert got.message.metadata.src_node_id == high.id
    high.delete()
    assert not scene.listed(run_id, high)


def test_035_online_for_one_interval_after_creation(scene: Scene) -> None:
    """A node that never beats is listed for one heartbeat interval and not after."""
    run_id, interval = scene.run(), 1.0
    before = time.time()
    node = scene.node(heartbeat=interval)
    after = time.time()
    watch_until_gone(lambda: scene.listed(run_id, node), before + interval, after + interval)


def test_036_online_for_two_intervals_after_a_beat(scene: Scene) -> None:
    """One heartbeat extends the online time to twice its interval from the beat."""
    run_id, interval = scene.run(), 0.75
    node = scene.node(heartbeat=0.5)
    before = time.time()
    assert node.heartbeat(interval)
    after = time.time()
    watch_until_gone(
        lambda: scene.listed(run_id, node), before + 2 * interval, after + 2 * interval
    )


def test_037_heartbeat_beside_a_held_pull(held_scene: Scene) -> None:
    """SendNodeHeartbeat succeeds within 100 ms while the node's own PullMessages is held."""
    node = held_scene.node()
    waiting = node.pull_future()
    took = []
    for _ in range(9):
        started = time.monotonic()
        assert node.heartbeat(30.0)
        took.append(time.monotonic() - started)
    assert statistics.median(took) < 0.1, took
    waiting.cancel()


def test_038_delete_node(scene: Scene) -> None:
    """DeleteNode removes the node from GetNodes at once; behind authentication id 0 is refused."""
    run_id = scene.run()
    stays, goes = scene.node(), scene.node()
    zero = fleet_pb2.DeleteNodeRequest(node=NodeProto(node_id=0))
    expect_error(Code.UNAUTHENTICATED, "Invalid node ID", stays.call, "DeleteNode", zero)
    goes.delete()
    assert not scene.listed(run_id, goes)
    assert scene.listed(run_id, stays)
    expect_error(Code.UNAUTHENTICATED, "Invalid node ID", goes.delete)


def test_038_delete_node_zero(tmp_path: Path) -> None:
    """DeleteNode of node id 0, where no authentication stands before it, is a no-op."""
    with open_scene(tmp_path, args=("--fleet-api-type", "grpc-adapter")) as scene:
        run_id = scene.run()
        with Adapter(scene.link.fleet) as peer:
            create = fleet_pb2.CreateNodeRequest(heartbeat_interval=60)
            created = peer.send(create, fleet_pb2.CreateNodeResponse)
            zero = fleet_pb2.DeleteNodeRequest(node=NodeProto(node_id=0))
            peer.send(zero, fleet_pb2.DeleteNodeResponse)
            assert scene.appio.get_nodes(run_id) == [created.node.node_id]
            mine = fleet_pb2.DeleteNodeRequest(node=created.node)
            peer.send(mine, fleet_pb2.DeleteNodeResponse)
            assert scene.appio.get_nodes(run_id) == []


# -- pulling instructions -----------------------------------------------------------------------


def test_039_pull_with_nothing_pending(scene: Scene) -> None:
    """PullMessages with nothing pending returns OK with empty lists and no reconnect."""
    assert scene.node().pull_response() == fleet_pb2.PullMessagesResponse()


def test_040_one_message_and_its_tree(scene: Scene) -> None:
    """PullMessages returns at most one message and exactly one tree, index-aligned."""
    run_id, node = scene.run(), scene.node()
    sent = {packed.id: packed for packed in (scene.send(run_id, node) for _ in range(3))}
    for _ in range(3):
        response = node.pull_response()
        assert len(response.messages_list) == len(response.message_object_trees) == 1
        packed = sent.pop(response.messages_list[0].metadata.message_id)
        assert response.message_object_trees[0] == packed.tree
        node.confirm(run_id, packed.id)
    assert node.pull() is None


def test_041_not_again_after_confirm(scene: Scene) -> None:
    """The same instruction is not returned twice after it was confirmed."""
    run_id, node = scene.run(), scene.node()
    scene.deliver(run_id, node)
    for _ in range(3):
        assert node.pull() is None


def test_042_only_own_instructions(scene: Scene) -> None:
    """Instructions for other nodes are never returned."""
    run_id = scene.run()
    mine, other = scene.node(), scene.node()
    sent = scene.send(run_id, other)
    assert mine.pull() is None
    got = other.pull()
    assert got is not None and got.id == sent.id
    assert mine.pull() is None


def test_043_expired_instructions_are_withheld(scene: Scene) -> None:
    """Expired instructions are not returned; one behind them is."""
    run_id, node = scene.run(), scene.node()
    short = scene.send(run_id, node, ttl=10.5, created_at=time.time() - 10)
    alive = scene.send(run_id, node)
    metadata = short.proto.metadata
    sleep_until(metadata.created_at + metadata.ttl)
    got = node.pull()
    assert got is not None and got.id == alive.id
    node.receive(got)
    assert node.pull() is None


def test_044_content_is_present_and_empty(scene: Scene) -> None:
    """The relayed message equals the pushed one; its content is present and empty."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node, message_type="query.some_action", group="ü-7", ttl=12.5)
    got = node.pull()
    assert got is not None
    assert got.message.HasField("content")
    assert got.message.content.ByteSize() == 0
    assert not got.message.HasField("error")
    assert got.message == sent.proto
    assert got.message.SerializeToString().endswith(b"\x12\x00")


def test_044_error_instead_of_content(scene: Scene) -> None:
    """An instruction may carry an error, even an all-default one; its content stays absent."""
    run_id, node = scene.run(), scene.node()
    for error in (Error(6, "reason"), Error(0, "")):
        metadata = instruction(run_id, node.id).message.metadata
        sent = pack(Message(metadata=metadata, error=error))
        assert scene.appio.push(sent) == [sent.id]
        got = node.pull()
        assert got is not None and got.message == sent.proto
        assert got.message.HasField("error") and not got.message.HasField("content")
        assert node.receive(got) == sent.objects


def test_045_tree_is_relayed_unchanged(scene: Scene) -> None:
    """The relayed tree equals the pushed tree, including child order and repeated children."""
    run_id, node = scene.run(), scene.node()
    same = arrays(32, count=3, seed=45)["arrays"]
    backwards = reversed(list(same.values()))
    content = RecordDict(
        {
            "z": same,
            "a": ConfigRecord({"k": 1}),
            "m": arrays(32, count=5)["arrays"],
            "b": ArrayRecord({f"x{i}": array for i, array in enumerate(backwards)}),
        }
    )
    sent = scene.send(run_id, node, content)
    assert len(sent.tree.children[0].children) == 4
    got = node.pull()
    assert got is not None
    assert got.tree == sent.tree
    node.receive(got)


def test_046_instruction_without_a_tree_is_discarded(scene: Scene) -> None:
    """An instruction whose tree was never registered is discarded and the response is empty."""
    run_id, node = scene.run(), scene.node()
    sent = instruction(run_id, node.id)
    request = appio_pb2.PushAppMessagesRequest(run_id=run_id, messages_list=[sent.proto])
    assert list(scene.appio.call("PushMessages", request).message_ids) == [sent.id]
    assert node.pull() is None
    assert node.pull() is None
    assert scene.error_code(run_id, sent) == 3


def test_047_offline_nodes_are_served(scene: Scene) -> None:
    """PullMessages works for a node that is offline by heartbeat, and does not revive it."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node)
    scene.go_offline(run_id, node)
    got = node.pull()
    assert got is not None and got.id == sent.id
    node.receive(got)
    assert not scene.listed(run_id, node)


@pytest.mark.parametrize("ended", [FINISHED, STOPPED])
def test_048_finished_runs_do_not_block_a_pull(scene: Scene, ended: str) -> None:
    """PullMessages is not rejected because some run is finished."""
    over, run_id, node = scene.run(), scene.run(), scene.node()
    scene.send(over, node)
    if ended == FINISHED:
        scene.appio.finish(over)
    else:
        scene.control.stop_run(over)
    sent = scene.send(run_id, node)
    pulled = [got for got in (node.pull(), node.pull()) if got is not None]
    assert {got.id for got in pulled} == {sent.id}
    node.receive(pulled[0])
    assert node.pull() is None


# -- pushing replies ----------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "details"), NOT_RUNNING)
def test_049_push_messages_is_gated(scene: Scene, status: str, details: str) -> None:
    """PushMessages for a pending, starting or finished run is refused with matching details."""
    node = scene.node()
    if status == FINISHED:
        run_id = scene.run()
        sent = scene.deliver(run_id, node)
        scene.appio.finish(run_id)
    else:
        run_id = scene.run_in(status)
        sent = instruction(run_id, node.id)
    answer = reply(sent)
    denied(details, node.push_messages, answer)
    running = scene.run()
    assert scene.presences(running, answer.objects) == {ABSENT}


def test_050_details_after_stop_run(scene: Scene) -> None:
    """After StopRun every gated call is refused with `Run is finished. Stopped by user.`."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    scene.control.stop_run(run_id)
    details = "Run is finished. Stopped by user."
    denied(details, node.push_messages, reply(sent))
    denied(details, node.get_run, run_id)
    denied(details, node.get_fab, sha256(make_fab()), run_id)
    denied(details, node.push_object, run_id, *next(iter(sent.objects.items())))
    denied(details, node.pull_object, run_id, sent.id)
    denied(details, node.confirm, run_id, sent.id)


def test_051_objects_to_push(scene: Scene) -> None:
    """PushMessages returns every unavailable object id of the tree and omits available ones."""
    run_id, node = scene.run(), scene.node()
    content = arrays(count=3)
    sent = scene.send(run_id, node, content)
    assert node.pull() is not None
    echo = RecordDict({"echo": content["arrays"], "more": ConfigRecord({"loss": time.time()})})
    answer = reply(sent, echo)
    known = set(answer.objects) & set(sent.objects)
    assert len(known) == 7
    response = node.push_messages(answer)
    assert len(response.objects_to_push) == len(set(response.objects_to_push))
    assert set(response.objects_to_push) == set(answer.objects) - known


INVALID_REPLIES = ["wrong src", "unknown instruction", "ttl too long", "expired", "other run"]


@pytest.mark.parametrize("fault", INVALID_REPLIES)
def test_052_invalid_reply(scene: Scene, fault: str) -> None:
    """PushMessages with an invalid reply succeeds, stores nothing, still returns ids."""
    run_id, node = scene.run(), scene.node()
    ttl = 1.0 if fault == "expired" else 100.0
    sent = scene.deliver(run_id, node, ttl=ttl)
    if fault == "wrong src":
        answer = reply(sent, src=scene.node().id)
    elif fault == "unknown instruction":
        answer = reply(sent, reply_to="ab" * 32)
    elif fault == "ttl too long":
        answer = reply(sent, ttl=200.0)
    elif fault == "other run":
        answer = reply(sent, run_id=scene.run())
    else:
        sleep_until(sent.proto.metadata.created_at + ttl)
        answer = reply(sent, ttl=50.0)
    response = node.push_reply(answer)
    assert set(response.objects_to_push) == set(answer.objects)
    assert answer.id not in response.results
    if fault == "expired":
        assert scene.error_code(run_id, sent) == 3
    else:
        assert scene.result(run_id, sent) is None
        good = reply(sent)
        assert good.id in node.push(good).results
        got = scene.result(run_id, sent)
        assert got is not None and got.id == good.id


def test_052_empty_list(scene: Scene) -> None:
    """PushMessages without a message is an error that no SuperNode repeats for ever."""
    error = expect_error(None, None, scene.node().push_messages)
    assert error.code() != Code.UNAVAILABLE


def test_053_results_name_the_reply(scene: Scene) -> None:
    """`results` holds the message id on success."""
    run_id, node = scene.run(), scene.node()
    answer = reply(scene.deliver(run_id, node))
    response = node.push_messages(answer)
    assert dict(response.results) == {answer.id: 0}
    assert response.reconnect.reconnect == 5


@pytest.mark.parametrize(("excess", "stored"), [(-5.0, True), (0.05, True), (0.2, False)])
def test_054_reply_ttl_tolerance(scene: Scene, excess: float, stored: bool) -> None:
    """A reply TTL exceeding the allowed maximum by 0.05 s is stored; by 0.2 s it is not."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node, ttl=60.0)
    asked, created_at = sent.proto.metadata, time.time()
    allowed = asked.created_at + asked.ttl - created_at
    answer = reply(sent, created_at=created_at, ttl=allowed + excess)
    response = node.push(answer)
    assert (answer.id in response.results) == stored
    got = scene.result(run_id, sent)
    assert (got is not None and got.id == answer.id) == stored


# -- runs and FABs ------------------------------------------------------------------------------


def test_055_get_run(scene: Scene) -> None:
    """GetRun of a running run fills exactly id, FAB id, version, hash and overrides."""
    fab = make_fab(name="some-app", version="2.3.4", publisher="somebody")
    overrides = {"num-server-rounds": 7, "fraction": 0.25, "deep.name": "x", "flag": True}
    overrides |= {"zero": 0, "nothing": 0.0, "empty": "", "off": False, "low": -(2**63)}
    run_id = scene.control.start_run(fab, overrides=overrides)
    scene.appio.running(run_id)
    run = scene.node().get_run(run_id).run
    assert {field.name for field, _ in run.ListFields()} == {
        "run_id", "fab_id", "fab_version", "override_config", "fab_hash",
    }  # fmt: skip
    assert run.run_id == run_id
    assert run.fab_id == "somebody/some-app"
    assert run.fab_version == "2.3.4"
    assert run.fab_hash == sha256(fab)
    assert user_config_from_proto(run.override_config) == overrides
    kinds = {int: "sint64", float: "double", str: "string", bool: "bool"}
    for key, value in overrides.items():
        assert run.override_config[key].WhichOneof("scalar") == kinds[type(value)]


def test_056_get_run_of_an_unknown_run(scene: Scene) -> None:
    """GetRun of an unknown run: OK with `run` unset."""
    assert scene.node().get_run(UNSET_ID) == run_pb2.GetRunResponse()


@pytest.mark.parametrize(("status", "details"), NOT_RUNNING)
def test_057_get_run_is_gated(scene: Scene, status: str, details: str) -> None:
    """GetRun of a run that is not running is refused, `Run is pending.` among the details."""
    denied(details, scene.node().get_run, scene.run_in(status))


def test_058_get_fab(scene: Scene) -> None:
    """GetFab returns the stored bytes and echoes the hash; other hashes are errors."""
    fab = make_fab(files={"wire/data.py": bytes(200_000)})
    run_id, node = scene.run(fab), scene.node()
    got = node.get_fab(sha256(fab), run_id).fab
    assert got.content == fab
    assert got.hash_str == sha256(fab)
    unknown = sha256(b"unknown")
    paths = ["", ".", "..", "/", "/etc/passwd", "../" * 20 + "etc/passwd", "a" * 5000, "é" * 32]
    for wrong in [unknown, *paths]:
        error = expect_error(None, None, node.get_fab, wrong, run_id)
        assert error.code() != Code.UNAVAILABLE, "would be repeated for ever"
    assert node.get_fab(sha256(fab), run_id).fab.content == fab


# -- hardening ----------------------------------------------------------------------------------


@pytest.mark.hardening
def test_067_retried_pull_yields_the_same_instruction(scene: Scene) -> None:
    """A retry of PullMessages after a lost response yields the same instruction."""
    run_id, node = scene.run(), scene.node()
    first, second = scene.send(run_id, node), scene.send(run_id, node)
    lost = node.pull()
    assert lost is not None
    for _ in range(3):
        again = node.pull()
        assert again == lost
    assert lost.id == first.id, "oldest first"
    node.receive(lost)
    got = node.pull()
    assert got is not None and got.id == second.id


@pytest.mark.hardening
def test_068_retried_reply_is_not_duplicated(scene: Scene) -> None:
    """A retried PushMessages with the same reply does not duplicate it."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    answer = reply(sent)
    first = node.push_messages(answer)
    again = node.push(answer)
    assert set(again.objects_to_push) == set(first.objects_to_push) == set(answer.objects)
    assert again.results == first.results
    assert set(node.push_messages(answer).objects_to_push) == set()
    got = scene.result(run_id, sent)
    assert got is not None and got.id == answer.id
    scene.appio.receive(run_id, got)
    assert scene.error_code(run_id, sent) == 3
    running = scene.run()
    assert scene.presences(running, answer.objects) == {ABSENT}


@pytest.mark.hardening
def test_069_unknown_runs_do_not_kill_a_supernode(scene: Scene) -> None:
    """Fleet calls for an unknown run are PERMISSION_DENIED, which a SuperNode survives."""
    node = scene.node()
    answer = reply(instruction(UNSET_ID, node.id))
    calls = {
        "PushMessages": lambda: node.push_messages(answer),
        "GetFab": lambda: node.get_fab(sha256(make_fab()), UNSET_ID),
        "PushObject": lambda: node.push_object(UNSET_ID, answer.id, answer.objects[answer.id]),
        "PullObject": lambda: node.pull_object(UNSET_ID, answer.id),
        "ConfirmMessageReceived": lambda: node.confirm(UNSET_ID, answer.id),
    }
    for call in calls.values():
        expect_error(Code.PERMISSION_DENIED, None, call)
    assert node.heartbeat()
