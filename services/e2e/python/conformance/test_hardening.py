"""Protocol appendix B and table 2.9: what a robust SuperLink does where upstream loses or repeats.

Only what no numbered statement of section 9 covers already; those are B-1: 067, B-2: 097,
B-4: 102, B-5: 071, B-6: 096, B-10: 069, B-12: 086, B-13: 098, B-19: 148. Tests without the
hardening mark hold upstream too and guard against hardening that goes too far.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from flwr.proto import control_pb2, run_pb2
from scenario import ABSENT, Code, Scene, denied, sleep_until, together
from wire import (
    COMPLETED,
    FAILED,
    FINISHED,
    PENDING,
    RUNNING,
    STARTING,
    STOPPED,
    AppIo,
    Control,
    Node,
    expect_error,
    instruction,
    make_fab,
    new_key,
    reply,
    sha256,
)

# -- B-1, B-2: nothing is lost with a response --------------------------------------------------


def test_b01_reoffer_ends_with_the_ttl(scene: Scene) -> None:
    """An instruction that was handed out and never confirmed is not offered after its TTL."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node, ttl=1.0)
    assert node.pull() is not None
    sleep_until(sent.proto.metadata.created_at + 1.0)
    assert node.pull() is None


@pytest.mark.parametrize("ended", [COMPLETED, FAILED, STOPPED])
def test_b01_reoffer_ends_with_the_run(scene: Scene, ended: str) -> None:
    """An unconfirmed instruction of a run that is over is not offered again."""
    run_id, node = scene.run(), scene.node()
    scene.send(run_id, node)
    assert node.pull() is not None
    if ended == STOPPED:
        scene.control.stop_run(run_id)
    else:
        scene.appio.finish(run_id, ended)
    assert node.pull() is None


def test_b01_reply_ends_the_reoffer(scene: Scene) -> None:
    """A node that answered an instruction is not offered it again, confirmed or not."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node)
    got = node.pull()
    assert got is not None
    answer = reply(sent)
    assert answer.id in node.push(answer).results
    assert node.pull() is None


@pytest.mark.hardening
def test_b01_objects_stay_until_confirmed(scene: Scene) -> None:
    """Pulling objects consumes nothing: a node may pull them all again after a lost response."""
    run_id, node = scene.run(), scene.node()
    sent = scene.send(run_id, node)
    for _ in range(2):
        got = node.pull()
        assert got is not None and got.id == sent.id
        for object_id, content in sent.objects.items():
            assert node.pull_object(run_id, object_id).object_content == content
    node.receive(got)
    assert node.pull() is None


@pytest.mark.hardening
def test_b01_confirm_of_another_message(scene: Scene) -> None:
    """Confirming one instruction leaves the others of the node as they were."""
    run_id, node, other = scene.run(), scene.node(), scene.node()
    mine, theirs = scene.send(run_id, node), scene.send(run_id, other)
    assert node.pull() is not None
    got = other.pull()
    assert got is not None
    other.receive(got)
    again = node.pull()
    assert again is not None and again.id == mine.id
    assert scene.presences(run_id, theirs.objects) == {ABSENT}


def test_b02_unconfirmed_reply_ends_with_the_run(scene: Scene) -> None:
    """A reply that was pulled and never confirmed goes away with its run."""
    run_id, watcher, node = scene.run(), scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    assert scene.result(run_id, sent) is not None
    scene.appio.finish(run_id)
    assert scene.presences(watcher, answer.objects) == {ABSENT}
    assert scene.error_code(watcher, sent) == 3


@pytest.mark.hardening
def test_b02_unconfirmed_reply_outlives_its_node(scene: Scene) -> None:
    """A reply that was pulled once is still the answer when its node has gone meanwhile."""
    run_id, node = scene.run(), scene.node()
    sent, answer = scene.answered(run_id, node)
    assert scene.result(run_id, sent) is not None
    node.delete()
    got = scene.result(run_id, sent)
    assert got is not None and got.message == answer.proto
    assert scene.appio.receive(run_id, got) == answer.objects


# -- B-3: CreateNode ----------------------------------------------------------------------------


@pytest.mark.hardening
def test_b03_create_node_replay(scene: Scene) -> None:
    """CreateNode again with the key of a node that was never used since: the same node."""
    run_id, key = scene.run(), new_key()
    first = scene.node(key)
    again = scene.node(key)
    assert again.id == first.id
    assert scene.appio.get_nodes(run_id).count(first.id) == 1
    assert again.heartbeat()


@pytest.mark.hardening
def test_b03_offline_node_is_replaced(scene: Scene) -> None:
    """CreateNode with the key of a node that is offline replaces the old node."""
    run_id, key = scene.run(), new_key()
    old = scene.node(key)
    sent = scene.deliver(run_id, old)
    scene.go_offline(run_id, old)
    new = scene.node(key)
    assert new.heartbeat()
    expect_error(Code.UNAUTHENTICATED, "Invalid node ID", _other(new, old.id).heartbeat)
    assert scene.listed(run_id, new)
    if new.id != old.id:
        assert scene.error_code(run_id, sent) == 5
    scene.deliver(run_id, new)


def _other(node: Node, node_id: int) -> Node:
    """The same key claiming another node id."""
    claimant = Node(node.address, node.key)
    claimant.id = node_id if node_id != node.id else node_id ^ 1
    return claimant


def test_b03_online_node_is_kept(scene: Scene) -> None:
    """CreateNode with the key of a node that is online and in use fails as upstream."""
    run_id, key = scene.run(), new_key()
    node = scene.node(key)
    assert node.heartbeat()
    assert node.pull() is None
    rival = scene.stranger(key)
    expect_error(Code.UNAUTHENTICATED, "Public key already in use", rival.create)
    assert node.heartbeat()
    assert scene.listed(run_id, node)


# -- B-5 and table 2.9: launching ---------------------------------------------------------------


@pytest.mark.hardening
def test_b05_pull_inputs_may_be_repeated(scene: Scene) -> None:
    """PullAppInputs with the same token while STARTING answers the same again."""
    run_id = scene.pending()
    token = scene.appio.request_token(run_id)
    first = scene.appio.pull_inputs(token)
    started = scene.appio.get_run(run_id)
    again = scene.appio.pull_inputs(token)
    assert (again.context, again.fab) == (first.context, first.fab)
    assert again.run.run_id == run_id
    assert scene.appio.get_run(run_id) == started
    scene.appio.update_status(run_id, RUNNING)
    error = expect_error(None, None, scene.appio.pull_inputs, token)
    assert error.code() != Code.UNAVAILABLE


@pytest.mark.hardening
def test_b05_push_outputs_may_be_repeated(scene: Scene) -> None:
    """PushAppOutputs with a token that was deleted just now succeeds again."""
    run_id = scene.pending()
    token = scene.appio.request_token(run_id)
    context = scene.appio.pull_inputs(token).context
    scene.appio.update_status(run_id, RUNNING)
    for _ in range(3):
        scene.appio.push_outputs(token, run_id, context)
    assert scene.appio.status(run_id) == (RUNNING, "", "")
    denied("Invalid token.", scene.appio.push_outputs, "ab" * 128, run_id, context)


@pytest.mark.hardening
def test_b05_token_of_another_run(scene: Scene) -> None:
    """A token does not push the outputs of another run, nor is it spent by trying."""
    mine, other = scene.pending(), scene.run()
    token = scene.appio.request_token(mine)
    context = scene.appio.pull_inputs(token).context
    scene.appio.update_status(mine, RUNNING)
    error = expect_error(None, None, scene.appio.push_outputs, token, other, context)
    assert error.code() != Code.UNAVAILABLE
    scene.appio.push_outputs(token, mine, context)


def test_b05_repeated_finish(scene: Scene) -> None:
    """An identical repeat of the final status update changes nothing, whatever it answers."""
    run_id = scene.run()
    scene.appio.finish(run_id, FAILED, "why")
    before = scene.appio.get_run(run_id)
    request = run_pb2.UpdateRunStatusRequest(
        run_id=run_id,
        run_status=run_pb2.RunStatus(status=FINISHED, sub_status=FAILED, details="why"),
    )
    future = scene.appio.future("UpdateRunStatus", request)
    assert future.code() in (Code.OK, Code.PERMISSION_DENIED)
    assert scene.appio.get_run(run_id) == before


@pytest.mark.hardening
@pytest.mark.slow
def test_b05_unused_token_is_revoked(scene: Scene) -> None:
    """A token whose run is still PENDING after a minute is revoked; the run is offered again."""
    early = scene.early
    time.sleep(max(0.0, 50.0 - (time.monotonic() - early.born)))
    if time.monotonic() - early.born < 55.0:
        assert early.pending not in scene.appio.list_apps()
    deadline = early.born + 75.0
    while early.pending not in scene.appio.list_apps():
        assert time.monotonic() < deadline, "the run is stuck"
        time.sleep(0.25)
    denied("Invalid token.", scene.appio.pull_inputs, early.token)
    token = scene.appio.request_token(early.pending)
    assert token not in ("", early.token)
    scene.appio.pull_inputs(token)
    assert scene.appio.status(early.pending)[0] == STARTING


# -- B-9: logs ----------------------------------------------------------------------------------


@pytest.mark.hardening
def test_b09_last_entry_under_load(scene: Scene) -> None:
    """Many readers of a run that logs and finishes at full speed all see the last entry."""
    run_id, readers = scene.run(), 8
    expected = "".join(f"{number}\n" for number in range(60))

    def read() -> str:
        with Control(scene.link.control) as control:
            return "".join(part.log_output for part in control.stream_logs(run_id))

    def write() -> str:
        for number in range(60):
            scene.appio.push_logs(run_id, f"{number}\n")
        scene.appio.finish(run_id)
        return expected

    assert together(write, *[read] * readers) == [expected] * (readers + 1)


def test_b09_entries_at_the_same_instant(scene: Scene) -> None:
    """Entries pushed at once get cursors of their own: reading one by one loses none."""
    run_id = scene.run()
    together(*[lambda n=n: scene.appio.push_logs(run_id, f"<{n}>") for n in range(32)])
    scene.appio.finish(run_id)
    whole = "".join(part.log_output for part in scene.control.stream_logs(run_id))
    assert sorted(whole.strip("<>").split("><")) == sorted(str(n) for n in range(32))
    last = list(scene.control.stream_logs(run_id))[-1].latest_timestamp
    assert list(scene.control.stream_logs(run_id, last)) == []
    tail = "".join(p.log_output for p in scene.control.stream_logs(run_id, last - 3e-6))
    assert tail and whole.endswith(tail)


# -- B-11: sub-status ---------------------------------------------------------------------------


@pytest.mark.hardening
def test_b11_sub_status_of_a_running_run(scene: Scene) -> None:
    """A run put into RUNNING with a sub-status can still finish."""
    run_id = scene.run_in(STARTING)
    scene.appio.update_status(run_id, RUNNING, COMPLETED, "odd")
    if scene.appio.status(run_id)[0] == STARTING:
        scene.appio.update_status(run_id, RUNNING)
    scene.appio.finish(run_id)
    assert scene.appio.status(run_id) == (FINISHED, COMPLETED, "")


def test_b11_empty_sub_status(scene: Scene) -> None:
    """An empty sub-status on finish is accepted, as upstream accepts it."""
    run_id = scene.run()
    scene.appio.finish(run_id, "")
    assert scene.appio.status(run_id)[0] == FINISHED


# -- B-14, B-15: FABs ---------------------------------------------------------------------------


@pytest.mark.hardening
def test_b14_path_hashes(scene: Scene) -> None:
    """GetFab never reads a file that is not a FAB named by its hash."""
    fab = make_fab()
    run_id, node = scene.run(fab), scene.node()
    hash_ = sha256(fab)
    home = Path(scene.link.directory, "superlink-home")
    outside = home / "secret"
    outside.write_bytes(b"secret")
    Path(f"{outside}.META").write_text("{}")
    storage = home / "superlink" / "ffs"
    odd = [
        f"{hash_}.META",
        f"./{hash_}",
        f"../ffs/{hash_}",
        f"{storage}/{hash_}",
        "../../secret",
        str(outside),
        hash_ + "\0",
        hash_ + "/",
        f" {hash_[1:]}",
        "../" + "a" * 61,
        hash_[:63],
    ]
    for wrong in odd:
        for call in (lambda: node.get_fab(wrong, run_id), lambda: scene.appio.get_fab(wrong)):
            error = expect_error(None, None, call)
            assert error.code() != Code.UNAVAILABLE, wrong
    assert node.get_fab(hash_, run_id).fab.content == fab


@pytest.mark.hardening
def test_b15_rejected_fabs_are_not_kept(scene: Scene) -> None:
    """A FAB that StartRun refused is not stored."""
    bad = make_fab(serverapp="no reference", files={"wire/x.py": bytes(1000)})
    assert not scene.control.start_run_response(bad).HasField("run_id")
    expect_error(None, None, scene.appio.get_fab, sha256(bad))


@pytest.mark.hardening
def test_b15_equal_fabs_at_once(scene: Scene) -> None:
    """Runs of one FAB started at once never see each other's half-written file."""
    fab = make_fab(files={"wire/big.py": b"#" * 3_000_000})
    deadline = time.monotonic() + 1.5

    def start() -> None:
        with Control(scene.link.control) as control, AppIo(scene.link.serverappio) as appio:
            while time.monotonic() < deadline:
                run_id = control.start_run(fab)
                inputs = appio.pull_inputs(appio.request_token(run_id))
                assert inputs.fab.content == fab
                control.stop_run(run_id)

    together(*[start] * 4)


# -- extreme numbers ----------------------------------------------------------------------------

EXTREME = [float("inf"), float("-inf"), float("nan"), 1e300, -1e300, 5e-324, -0.0]


@pytest.mark.parametrize("number", EXTREME)
def test_extreme_intervals(scene: Scene, number: float) -> None:
    """A heartbeat interval of any value harms neither the server nor other nodes and runs."""
    run_id, node, other = scene.run(), scene.node(), scene.node()
    odd = scene.stranger()
    for call in (
        lambda: odd.create(number),
        lambda: node.heartbeat(number),
        lambda: scene.appio.heartbeat(run_id, number),
    ):
        answered_or_refused(call)
    assert scene.appio.get_run(run_id).run.run_id == run_id
    fine = scene.run()
    assert scene.listed(fine, other)
    assert node.heartbeat(3600.0)
    scene.deliver(fine, node)


@pytest.mark.parametrize("number", EXTREME)
def test_extreme_times(scene: Scene, number: float) -> None:
    """A TTL or creation time of any value harms nobody, stored or not."""
    run_id, node = scene.run(), scene.node()
    for odd in (
        instruction(run_id, node.id).altered(ttl=number),
        instruction(run_id, node.id).altered(created_at=number),
    ):
        answered_or_refused(lambda odd=odd: scene.appio.push(odd))
        got = node.pull()
        if got is not None:
            node.receive(got)
        answered_or_refused(lambda odd=odd: node.push_messages(reply(odd, ttl=50.0)))
        answered_or_refused(lambda odd=odd: scene.appio.pull_messages(run_id, [odd.id]))
    sent = scene.deliver(run_id, node)
    answered_or_refused(lambda: node.push_messages(reply(sent).altered(ttl=number)))
    answered_or_refused(lambda: node.push_messages(reply(sent).altered(created_at=number)))
    answered_or_refused(lambda: scene.appio.pull_messages(run_id, [sent.id]))
    after, answer = scene.answered(run_id, node)
    got = scene.result(run_id, after)
    assert got is not None and got.message == answer.proto


@pytest.mark.parametrize("number", EXTREME)
def test_extreme_log_cursor(scene: Scene, number: float) -> None:
    """StreamLogs after any instant ends when the run does and never repeats or invents text."""
    run_id = scene.run()
    scene.appio.push_logs(run_id, "text")
    scene.appio.finish(run_id)
    text = "".join(part.log_output for part in scene.control.stream_logs(run_id, number))
    assert text in ("", "text")
    if number < 1.0:
        assert text == "text"


def answered_or_refused(call: Callable[[], object]) -> None:
    """Require an answer, or a status that a stock peer does not repeat for ever."""
    try:
        call()
    except grpc.RpcError as error:
        wrong = (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED)
        assert error.code() not in wrong, error


# -- races ---------------------------------------------------------------------------------------


@pytest.mark.hardening
@pytest.mark.parametrize("status", [PENDING, RUNNING])
def test_stop_run_race(scene: Scene, status: str) -> None:
    """Of several StopRun at once exactly one succeeds, and none breaks the run."""
    run_id = scene.run_in(status)

    def stop() -> bool:
        with Control(scene.link.control) as control:
            future = control.future("StopRun", control_pb2.StopRunRequest(run_id=run_id))
            assert future.code() in (Code.OK, Code.FAILED_PRECONDITION)
            return future.code() == Code.OK and future.result().success

    assert sum(together(*[stop] * 6)) == 1
    assert scene.appio.status(run_id) == (FINISHED, STOPPED, "")
