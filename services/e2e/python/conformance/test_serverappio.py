"""Protocol section 9.4: ServerAppIo, as ServerApps and SuperExecs see it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import grpc
import pytest
from flwr.common.serde import user_config_from_proto
from flwr.proto import appio_pb2, message_pb2, run_pb2
from scenario import ABSENT, STORED, UNSET_ID, Code, Scene, denied, sleep_until, together
from wire import (
    COMPLETED,
    FAILED,
    FINISHED,
    PENDING,
    RUNNING,
    STARTING,
    STOPPED,
    Packed,
    expect_error,
    instruction,
    make_fab,
    reply,
    sha256,
)

MESSAGE_UNAVAILABLE = 3

GATES = [
    (PENDING, "Run is pending."),
    (STARTING, "Run is starting."),
    (FINISHED, "Run is finished."),
    (STOPPED, "Run is finished. Stopped by user."),
]


# -- launching ----------------------------------------------------------------------------------


def test_070_list_apps_to_launch(scene: Scene) -> None:
    """ListAppsToLaunch lists pending runs and no others."""
    run_ids = {s: scene.run_in(s) for s in (PENDING, STARTING, RUNNING, FINISHED, STOPPED)}
    listed = scene.appio.list_apps()
    assert {status for status, run_id in run_ids.items() if run_id in listed} == {PENDING}
    assert len(set(listed)) == len(listed)
    scene.control.stop_run(run_ids[PENDING])
    assert run_ids[PENDING] not in scene.appio.list_apps()


@pytest.mark.hardening
def test_071_live_tokens_hide_runs(scene: Scene) -> None:
    """A run with a live token is not offered again; order is by creation."""
    made = [scene.pending() for _ in range(12)]
    assert [run_id for run_id in scene.appio.list_apps() if run_id in made] == made
    taken = [made[0], made[5]]
    assert all(scene.appio.request_token(run_id) for run_id in taken)
    rest = [run_id for run_id in made if run_id not in taken]
    assert [run_id for run_id in scene.appio.list_apps() if run_id in made] == rest


def test_072_request_token(scene: Scene) -> None:
    """RequestToken returns 256 lower-case hex characters once, then the empty string."""
    first, second = scene.pending(), scene.pending()
    token = scene.appio.request_token(first)
    assert re.fullmatch("[0-9a-f]{256}", token)
    assert scene.appio.request_token(first) == ""
    assert scene.appio.request_token(second) not in ("", token)


def test_072_request_token_race(scene: Scene) -> None:
    """Of several SuperExecs asking at once exactly one gets the token."""
    run_id = scene.pending()
    tokens = together(*[lambda: scene.appio.request_token(run_id)] * 8)
    assert sum(bool(token) for token in tokens) == 1


def test_073_bad_token(scene: Scene) -> None:
    """PullAppInputs with a bad or empty token: PERMISSION_DENIED `Invalid token.`."""
    run_id = scene.pending()
    token = scene.appio.request_token(run_id)
    for bad in ("", "ab" * 128, token[:-1], token.upper(), token + "0"):
        denied("Invalid token.", scene.appio.pull_inputs, bad)
    assert scene.appio.status(run_id) == (PENDING, "", "")
    scene.appio.pull_inputs(token)


def test_074_pull_app_inputs(scene: Scene) -> None:
    """PullAppInputs returns context, run and full FAB, and moves the run to starting."""
    fab = make_fab(files={"wire/data.py": bytes(300_000)})
    run_id = scene.control.start_run(fab, overrides={"fraction": 0.75})
    inputs = scene.appio.pull_inputs(scene.appio.request_token(run_id))
    assert inputs.context.run_id == run_id
    assert inputs.context.node_id == 0
    assert not inputs.context.node_config and not inputs.context.run_config
    assert not inputs.context.state.items
    assert inputs.run.run_id == run_id
    assert inputs.run.fab_id == "conformance/wire"
    assert inputs.run.fab_version == "1.0.0"
    assert inputs.run.fab_hash == inputs.fab.hash_str == sha256(fab)
    assert user_config_from_proto(inputs.run.override_config) == {"fraction": 0.75}
    assert inputs.fab.content == fab
    run = scene.appio.get_run(run_id).run
    assert run.status == run_pb2.RunStatus(status=STARTING)
    assert run.starting_at and not run.running_at and not run.finished_at


def test_075_pull_inputs_of_a_stopped_run(scene: Scene) -> None:
    """PullAppInputs for a run stopped while pending: error status, run stays finished."""
    run_id = scene.pending()
    token = scene.appio.request_token(run_id)
    scene.control.stop_run(run_id)
    error = expect_error(None, None, scene.appio.pull_inputs, token)
    assert error.code() != Code.UNAVAILABLE, "would be repeated for ever"
    assert scene.appio.status(run_id) == (FINISHED, STOPPED, "")


# -- run status ---------------------------------------------------------------------------------


def test_076_starting_to_running(scene: Scene) -> None:
    """UpdateRunStatus running from starting works; `running_at` is set."""
    run_id = scene.run_in(STARTING)
    before = scene.appio.get_run(run_id).run
    scene.appio.update_status(run_id, RUNNING)
    run = scene.appio.get_run(run_id).run
    assert run.status == run_pb2.RunStatus(status=RUNNING)
    assert run.running_at and not run.finished_at
    assert (run.pending_at, run.starting_at) == (before.pending_at, before.starting_at)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (PENDING, PENDING),
        (PENDING, RUNNING),
        (STARTING, PENDING),
        (STARTING, STARTING),
        (RUNNING, PENDING),
        (RUNNING, STARTING),
        (RUNNING, RUNNING),
        (RUNNING, "no such status"),
    ],
)
def test_077_invalid_transition(scene: Scene, status: str, wanted: str) -> None:
    """UpdateRunStatus with an invalid transition: OK, no change."""
    run_id = scene.run_in(status)
    before = scene.appio.get_run(run_id)
    scene.appio.update_status(run_id, wanted)
    assert scene.appio.get_run(run_id) == before


def test_078_update_of_a_finished_run(scene: Scene) -> None:
    """UpdateRunStatus on a finished run: PERMISSION_DENIED, no change."""
    for ended, details in GATES[2:]:
        run_id = scene.run_in(ended)
        before = scene.appio.get_run(run_id)
        for status in (PENDING, STARTING, RUNNING):
            denied(details, scene.appio.update_status, run_id, status)
        denied(details, scene.appio.finish, run_id, FAILED, "too late")
        assert scene.appio.get_run(run_id) == before


@pytest.mark.parametrize("sub_status", [COMPLETED, FAILED])
def test_079_finishing_deletes_objects(scene: Scene, sub_status: str) -> None:
    """Finishing deletes all objects of the run: instructions, replies, waiting or delivered."""
    run_id, running, node = scene.run(), scene.run(), scene.node()
    _, answer = scene.answered(run_id, node)
    waiting = scene.send(run_id, node)
    delivered = scene.send(run_id, node)
    half = instruction(run_id, node.id)
    scene.appio.push_messages(half)
    sent = [waiting, delivered, answer]
    assert all(scene.presences(running, packed.objects) == {STORED} for packed in sent)
    scene.appio.finish(run_id, sub_status, "because")
    assert scene.appio.status(run_id) == (FINISHED, sub_status, "because")
    assert scene.appio.get_run(run_id).run.finished_at
    for packed in (*sent, half):
        assert scene.presences(running, packed.objects) == {ABSENT}
    assert node.pull() is None


def test_080_finishing_from_starting(scene: Scene) -> None:
    """finished/completed from starting is refused; finished/failed from starting is accepted."""
    for status in (PENDING, STARTING):
        run_id = scene.run_in(status)
        scene.appio.finish(run_id, COMPLETED)
        assert scene.appio.status(run_id) == (status, "", "")
        scene.appio.finish(run_id, FAILED, "no module\nnamed 'x'")
        assert scene.appio.status(run_id) == (FINISHED, FAILED, "no module\nnamed 'x'")


@pytest.mark.parametrize(("status", "details"), GATES)
def test_081_gates(scene: Scene, status: str, details: str) -> None:
    """GetNodes, like every call of a ServerApp that needs it, gates on running."""
    run_id, appio = scene.run_in(status), scene.appio
    sent = instruction(run_id, 7)
    object_id, content = next(iter(sent.objects.items()))
    denied(details, appio.get_nodes, run_id)
    denied(details, appio.push_messages, sent)
    denied(details, appio.pull_messages, run_id, [sent.id])
    denied(details, appio.pull_messages, run_id, [])
    denied(details, appio.push_object, run_id, object_id, content)
    denied(details, appio.pull_object, run_id, object_id)
    denied(details, appio.confirm, run_id, sent.id)


def test_081_unknown_run(scene: Scene) -> None:
    """Gated calls for an unknown run are errors that no ServerApp repeats for ever."""
    appio, sent = scene.appio, instruction(UNSET_ID, scene.node().id)
    for call in (
        lambda: appio.get_nodes(UNSET_ID),
        lambda: appio.push_messages(sent),
        lambda: appio.pull_messages(UNSET_ID, [sent.id]),
        lambda: appio.push_object(UNSET_ID, *next(iter(sent.objects.items()))),
        lambda: appio.pull_object(UNSET_ID, sent.id),
        lambda: appio.confirm(UNSET_ID, sent.id),
        lambda: appio.update_status(UNSET_ID, RUNNING),
    ):
        assert expect_error(None, None, call).code() != Code.UNAVAILABLE


def test_081_get_nodes_lists_online_nodes(fresh_scene: Scene) -> None:
    """GetNodes lists exactly the online nodes."""
    scene, run_id = fresh_scene, fresh_scene.run()
    assert scene.appio.get_nodes(run_id) == []
    online = [scene.node(heartbeat=60.0) for _ in range(3)]
    offline, deleted, revived = scene.node(), scene.node(), scene.node()
    scene.go_offline(run_id, offline)
    scene.go_offline(run_id, revived)
    deleted.delete()
    assert revived.heartbeat(60.0)
    listed = scene.appio.get_nodes(run_id)
    assert sorted(listed) == sorted(node.id for node in (*online, revived))


# -- pushing instructions -----------------------------------------------------------------------


def test_082_push_messages_returns_ids_in_order(scene: Scene) -> None:
    """PushMessages stores valid messages and returns their ids in request order."""
    run_id, nodes = scene.run(), [scene.node() for _ in range(3)]
    sent = [instruction(run_id, nodes[i % 3].id) for i in range(9)]
    response = scene.appio.push_messages(*sent)
    assert list(response.message_ids) == [packed.id for packed in sent]
    wanted = {object_id for packed in sent for object_id in packed.objects}
    assert set(response.objects_to_push) == wanted
    assert len(response.objects_to_push) == len(wanted)
    for packed in sent:
        scene.appio.push_objects(packed)
    for node in nodes:
        got = set()
        while (pulled := node.pull()) is not None:
            got.add(pulled.id)
            node.receive(pulled)
        assert got == {packed.id for packed in sent if packed.proto.metadata.dst_node_id == node.id}


def test_083_push_to_an_unknown_node(scene: Scene) -> None:
    """PushMessages to an unknown node: OK, empty string at that index."""
    run_id, node, deleted = scene.run(), scene.node(), scene.node()
    deleted.delete()
    sent = [instruction(run_id, dst) for dst in (node.id, UNSET_ID, node.id, deleted.id, node.id)]
    response = scene.appio.push_messages(*sent)
    known = (0, 2, 4)
    assert list(response.message_ids) == [p.id if i in known else "" for i, p in enumerate(sent)]
    assert set(response.objects_to_push) >= {o for i in known for o in sent[i].objects}
    assert scene.error_code(run_id, sent[1]) == MESSAGE_UNAVAILABLE


def _with_both(sent: Packed) -> Packed:
    both = sent.altered()
    both.proto.error.CopyFrom(message_pb2.Message().error)
    both.proto.error.code = 1
    return both


def _without_content(sent: Packed) -> Packed:
    neither = sent.altered()
    neither.proto.ClearField("content")
    return neither


MALFORMED: dict[str, Callable[[Packed], Packed]] = {
    "src is a node": lambda sent: sent.altered(src_node_id=sent.proto.metadata.dst_node_id),
    "src 0": lambda sent: sent.altered(src_node_id=0),
    "dst 1": lambda sent: sent.altered(dst_node_id=1),
    "dst 0": lambda sent: sent.altered(dst_node_id=0),
    "ttl 0": lambda sent: sent.altered(ttl=0.0),
    "ttl negative": lambda sent: sent.altered(ttl=-1.0),
    "old created_at": lambda sent: sent.altered(created_at=1740700799.0, ttl=1e12),
    "expired": lambda sent: sent.altered(created_at=time.time() - 10, ttl=9.0),
    "reply_to set": lambda sent: sent.altered(reply_to_message_id="ab" * 32),
    "other run": lambda sent: sent.altered(run_id=UNSET_ID),
    "no id": lambda sent: sent.altered(message_id=""),
    "no type": lambda sent: sent.altered(message_type=""),
    "unknown type": lambda sent: sent.altered(message_type="learn"),
    "bad action": lambda sent: sent.altered(message_type="train.a.b"),
    "no content, no error": _without_content,
    "content and error": _with_both,
}


def assert_malformed(error: grpc.RpcError) -> None:
    """Require a status that no ServerApp repeats for ever or takes for "stopped by user"."""
    wrong = {Code.UNAVAILABLE, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED}
    assert error.code() not in wrong, error


@pytest.mark.parametrize("case", MALFORMED)
def test_084_malformed_instructions(scene: Scene, case: str) -> None:
    """PushMessages with a malformed message: error status, the message is not stored."""
    run_id, node = scene.run(), scene.node()
    bad = MALFORMED[case](instruction(run_id, node.id))
    push = scene.appio.push_messages
    assert_malformed(expect_error(None, None, push, bad, run_id=run_id))
    assert node.pull() is None
    after = scene.send(run_id, node)
    got = node.pull()
    assert got is not None and got.id == after.id


def test_084_empty_list(scene: Scene) -> None:
    """PushMessages with an empty list: error status."""
    request = appio_pb2.PushAppMessagesRequest(run_id=scene.run())
    assert_malformed(expect_error(None, None, scene.appio.call, "PushMessages", request))


@pytest.mark.parametrize(
    "message_type",
    ["train", "evaluate", "query", "system", "train.ä_1", "get_properties", "get_parameters"],
)
def test_084_valid_types(scene: Scene, message_type: str) -> None:
    """PushMessages accepts every type a stock peer can make."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node, message_type=message_type)
    got = node.pull()
    assert got is not None and got.message == sent.proto


def test_085_offline_destination(scene: Scene) -> None:
    """PushMessages accepts an offline but known destination."""
    run_id, node = scene.run(), scene.node()
    scene.go_offline(run_id, node)
    scene.deliver(run_id, node)


@pytest.mark.hardening
def test_086_repushed_instruction(scene: Scene) -> None:
    """Re-pushing a delivered instruction succeeds and does not deliver it twice."""
    run_id, node = scene.run(), scene.node()
    sent = scene.deliver(run_id, node)
    assert scene.appio.push(sent) == [sent.id]
    assert node.pull() is None
    answer = reply(sent)
    assert answer.id in node.push(answer).results
    assert scene.appio.push(sent) == [sent.id]
    assert node.pull() is None
    got = scene.result(run_id, sent)
    assert got is not None and got.id == answer.id


@pytest.mark.hardening
def test_086_repushed_before_delivery(scene: Scene) -> None:
    """Pushing an instruction again before its delivery delivers it once."""
    run_id, node = scene.run(), scene.node()
    sent = instruction(run_id, node.id)
    assert list(scene.appio.push_messages(sent).message_ids) == [sent.id]
    again = scene.appio.push_messages(sent, sent)
    assert list(again.message_ids) == [sent.id, sent.id]
    assert set(again.objects_to_push) == set(sent.objects)
    scene.appio.push_objects(sent)
    got = node.pull()
    assert got is not None and got.id == sent.id
    node.receive(got)
    assert node.pull() is None
    assert scene.presences(run_id, sent.objects) == {ABSENT}


# -- objects, logs, heartbeats, outputs ---------------------------------------------------------


def test_099_unexpected_node_id(scene: Scene) -> None:
    """PushObject/PullObject with node id other than 1: FAILED_PRECONDITION."""
    run_id, node, appio = scene.run(), scene.node(), scene.appio
    sent = scene.send(run_id, node)
    leaf, content = next(iter(sent.objects.items()))
    for wrong in (0, 2, node.id):
        for call, args in (
            (appio.push_object, (run_id, leaf, content)),
            (appio.pull_object, (run_id, leaf)),
        ):
            expect_error(
                Code.FAILED_PRECONDITION, "Unexpected node ID.", call, *args, node_id=wrong
            )
    pending = scene.pending()
    denied("Run is pending.", appio.pull_object, pending, leaf, node_id=2)


def test_100_push_logs(scene: Scene) -> None:
    """PushLogs works in every run status; unknown run is an error status."""
    run_id, appio = scene.pending(), scene.appio
    appio.push_logs(run_id, "pen", "ding\n")
    appio.starting(run_id)
    appio.push_logs(run_id, "starting\n")
    appio.update_status(run_id, RUNNING)
    appio.push_logs(run_id, "\x1b[92mrunning\x1b[0m\n", "", "ünïcödé\n")
    appio.finish(run_id)
    appio.push_logs(run_id, "finished\n")
    stream = scene.control.stream_logs(run_id)
    text = "".join(part.log_output for part in stream)
    assert text == "pending\nstarting\n\x1b[92mrunning\x1b[0m\nünïcödé\nfinished\n"
    error = expect_error(None, None, appio.push_logs, UNSET_ID, "lost")
    assert error.code() != Code.UNAVAILABLE, "would be repeated for ever"


def test_101_app_heartbeat(scene: Scene) -> None:
    """SendAppHeartbeat: true in starting and running; false in pending and for unknown runs."""
    assert scene.appio.heartbeat(scene.run_in(STARTING))
    assert scene.appio.heartbeat(scene.run_in(RUNNING))
    assert not scene.appio.heartbeat(scene.run_in(PENDING))
    assert not scene.appio.heartbeat(UNSET_ID)


@pytest.mark.hardening
@pytest.mark.parametrize("ended", [FINISHED, STOPPED])
def test_102_app_heartbeat_of_a_finished_run(scene: Scene, ended: str) -> None:
    """SendAppHeartbeat after the run finished does not tell the app's heartbeat thread to die."""
    run_id = scene.run_in(ended)
    before = scene.appio.get_run(run_id)
    try:
        assert scene.appio.heartbeat(run_id)
    except grpc.RpcError as error:
        assert error.code() == Code.DEADLINE_EXCEEDED
    assert scene.appio.get_run(run_id) == before


@pytest.mark.parametrize("status", [STARTING, RUNNING])
def test_103_lease_expires(scene: Scene, status: str) -> None:
    """Two intervals without heartbeat after a first one: the run is finished/failed."""
    run_id, interval = scene.run_in(status), 0.75
    before = time.time()
    assert scene.appio.heartbeat(run_id, interval)
    after = time.time()
    expired = (FINISHED, FAILED, "No heartbeat received from the run.")
    while True:
        asked, seen = time.time(), scene.appio.status(run_id)
        if seen == expired:
            assert time.time() > before + 2 * interval
            break
        assert seen == (status, "", "")
        assert asked < after + 2 * interval, "not expired"
        time.sleep(0.02)
    denied("Run is finished.", scene.appio.get_nodes, run_id)
    run = scene.control.list_runs(run_id).run_dict[run_id]
    assert run.status.details == expired[2] and run.finished_at


@pytest.mark.parametrize("witness", ["ListRuns", "ListRuns of all", "StreamLogs"])
def test_103_objects_of_an_expired_run(scene: Scene, witness: str) -> None:
    """The objects of an expired run are gone once Control has shown the run as finished."""
    run_id, watcher = scene.run(), scene.run()
    sent = scene.send(run_id, scene.node())
    assert scene.appio.heartbeat(run_id, 0.05)
    sleep_until(time.time() + 0.15)
    if witness == "ListRuns":
        run = scene.control.list_runs(run_id).run_dict[run_id]
        assert (run.status.status, run.status.sub_status) == (FINISHED, FAILED)
    elif witness == "StreamLogs":
        assert list(scene.control.stream_logs(run_id)) == []
    else:
        assert scene.control.list_runs().run_dict[run_id].status.status == FINISHED
    assert scene.presences(watcher, sent.objects) == {ABSENT}


def test_103_lease_is_renewed(scene: Scene) -> None:
    """Every heartbeat starts the two intervals anew."""
    run_id, interval = scene.run(), 0.4
    deadline = time.time() + 1.5
    while time.time() < deadline:
        assert scene.appio.heartbeat(run_id, interval)
        time.sleep(interval)
    assert scene.appio.status(run_id) == (RUNNING, "", "")


def test_104_no_expiry_before_the_first_heartbeat(scene: Scene) -> None:
    """No expiry before the first heartbeat (or a generous finite lease)."""
    age = time.monotonic() - scene.early.born
    time.sleep(max(0.0, 3.0 - age))
    assert scene.appio.status(scene.early.silent) == (RUNNING, "", "")
    assert scene.appio.heartbeat(scene.early.silent, 3600.0)


def test_105_push_app_outputs(scene: Scene) -> None:
    """PushAppOutputs needs running and a valid token; the token is then gone."""
    run_id, appio = scene.pending(), scene.appio
    token = appio.request_token(run_id)
    context = appio.pull_inputs(token).context
    context.state.items.add(key="c").config_record.items.add(key="k").value.string = "v"
    denied("Run is starting.", appio.push_outputs, token, run_id, context)
    appio.update_status(run_id, RUNNING)
    for bad in ("", "ab" * 128):
        denied("Invalid token.", appio.push_outputs, bad, run_id, context)
    assert appio.request_token(run_id) == ""
    appio.push_outputs(token, run_id, context)
    assert appio.status(run_id) == (RUNNING, "", "")
    denied("Invalid token.", appio.pull_inputs, token)
    assert appio.request_token(run_id) != token


def test_105_push_app_outputs_of_a_stopped_run(scene: Scene) -> None:
    """PushAppOutputs after StopRun is refused by the gate."""
    run_id, appio = scene.pending(), scene.appio
    token = appio.request_token(run_id)
    context = appio.pull_inputs(token).context
    appio.update_status(run_id, RUNNING)
    scene.control.stop_run(run_id)
    details = "Run is finished. Stopped by user."
    denied(details, appio.push_outputs, token, run_id, context)


def test_106_get_run(scene: Scene) -> None:
    """GetRun of an unknown run leaves `run` unset; of a known run fills all fields."""
    assert scene.appio.get_run(UNSET_ID) == run_pb2.GetRunResponse()
    fab = make_fab(name="n", version="9.9.9", publisher="p")
    run_id = scene.control.start_run(fab, overrides={"num-server-rounds": 2})
    run = scene.appio.get_run(run_id).run
    assert (run.run_id, run.fab_id, run.fab_version) == (run_id, "p/n", "9.9.9")
    assert run.fab_hash == sha256(fab)
    assert user_config_from_proto(run.override_config) == {"num-server-rounds": 2}
    assert run.status == run_pb2.RunStatus(status=PENDING)
    assert run.pending_at and not (run.starting_at or run.running_at or run.finished_at)
    assert run.flwr_aid == ""
    scene.appio.running(run_id)
    scene.appio.finish(run_id, FAILED, "details\nof two lines")
    run = scene.appio.get_run(run_id).run
    assert run.status == run_pb2.RunStatus(
        status=FINISHED, sub_status=FAILED, details="details\nof two lines"
    )
    instants = [run.pending_at, run.starting_at, run.running_at, run.finished_at]
    assert all(instants) and instants == sorted(instants)


def test_107_get_run_status(scene: Scene) -> None:
    """GetRunStatus omits unknown ids."""
    pending, stopped = scene.run_in(PENDING), scene.run_in(STOPPED)
    assert scene.appio.get_run_status(pending, UNSET_ID, stopped) == {
        pending: run_pb2.RunStatus(status=PENDING),
        stopped: run_pb2.RunStatus(status=FINISHED, sub_status=STOPPED),
    }
    assert scene.appio.get_run_status() == {}
