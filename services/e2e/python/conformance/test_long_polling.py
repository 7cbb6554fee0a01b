"""Protocol section 9.9: calls the server holds until there is something to say.

Tests named `held` without an id are about section 6.4: what is held and what ends a hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from held import (
    PROMPT,
    SLOWEST,
    TRIES,
    Held,
    hold_apps,
    hold_pull,
    hold_replies,
    prompt,
    timed,
)
from scenario import reference_differs
from wire import (
    FINISHED,
    STOPPED,
    AppIo,
    Node,
    Packed,
    Pulled,
    expect_error,
    instruction,
    pulled,
    reply,
    results,
)
from world import World

from harness import VENV_BIN, Process, SuperLink, environment, free_port, wait_for

never_held = reference_differs("stock flower-superlink holds no call")


def registered(world: World, run_id: int, node: Node) -> Packed:
    """Push an instruction without any of its objects."""
    sent = instruction(run_id, node.id)
    world.appio.push_messages(sent)
    return sent


# -- Fleet.PullMessages -------------------------------------------------------------------------


@never_held
@pytest.mark.parametrize("last", ["message", "leaf"])
def test_150_pull_is_answered_after_the_last_object(world: World, last: str) -> None:
    run_id, node, times = world.run(), world.node(), []
    for _ in range(TRIES):
        held = hold_pull(node).stays()
        sent = registered(world, run_id, node)
        ids = list(sent.objects)
        final = ids[-1] if last == "message" else ids[0]
        world.appio.push_objects(sent, set(ids) - {final})
        held.stays(0.05)
        assert world.appio.push_object(run_id, final, sent.objects[final]).stored
        times.append(held.took(time.monotonic()))
        got = pulled(held.answer())
        assert got is not None and got.id == sent.id
        assert node.receive(got) == sent.objects
    prompt(times)


@never_held
def test_150_pull_is_answered_when_all_objects_are_there_already(world: World) -> None:
    """An instruction whose objects the server has from before is deliverable at once."""
    run_id, first, node = world.run(), world.node(), world.node()
    before = world.appio.push_message(first, run_id=run_id)
    held = hold_pull(node).stays()
    sent = instruction(run_id, node.id, before.message.content)
    missing = set(world.appio.push_messages(sent).objects_to_push)
    assert missing == {sent.id}
    world.appio.push_objects(sent, missing)
    assert held.took(time.monotonic()) < SLOWEST
    got = pulled(held.answer())
    assert got is not None and got.id == sent.id


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.005, 0.02, 0.1])
def test_151_cancelled_hold_consumes_nothing(world: World, delay: float) -> None:
    run_id, node = world.run(), world.node()
    for _ in range(4):
        held = node.pull_future()
        time.sleep(delay)
        held.cancel()
        sent = world.appio.push_message(node, run_id=run_id)
        got = node.pull(timeout=5.0)
        assert got is not None and got.id == sent.id
        node.receive(got)


@pytest.mark.hardening
def test_151_cancelled_while_being_answered(world: World) -> None:
    """A hold that is cancelled in the very moment of its release loses nothing (B-1)."""
    run_id, node = world.run(), world.node()
    for _ in range(20):
        held = node.pull_future()
        sent = world.appio.push_message(node, run_id=run_id)
        held.cancel()
        got = node.pull(timeout=5.0)
        assert got is not None and got.id == sent.id
        node.receive(got)


def test_151_vanished_peer_consumes_nothing(world: World) -> None:
    """Closing the connection under a held call is like cancelling it."""
    run_id, node = world.run(), world.node()
    for delay in (0.0, 0.05):
        gone = Node(world.link.fleet, node.key)
        gone.id = node.id
        held = Held(gone.pull_future())
        time.sleep(delay)
        gone.close()
        wait_for(held.future.done, 5.0, "the cancelled call")
        sent = world.appio.push_message(node, run_id=run_id)
        got = node.pull(timeout=5.0)
        assert got is not None and got.id == sent.id
        node.receive(got)


def test_151_cancelled_pull_of_replies_consumes_nothing(world: World) -> None:
    run_id, node = world.run(), world.node()
    sent = world.appio.push_message(node, run_id=run_id)
    assert (got := node.pull()) is not None
    node.receive(got)
    held = world.appio.pull_future(run_id, [sent.id])
    time.sleep(0.1)
    held.cancel()
    answer = reply(sent)
    node.push(answer)
    (found,) = world.appio.pull_messages(run_id, [sent.id])
    assert world.appio.receive(run_id, found) == answer.objects


@never_held
def test_152_second_pull_releases_the_first(world: World) -> None:
    node, times = world.node(), []
    held = hold_pull(node).stays()
    for _ in range(TRIES):
        second = hold_pull(node)
        times.append(held.took(time.monotonic()))
        assert pulled(held.answer()) is None
        held = second.stays()
    prompt(times)
    sent = world.appio.push_message(node, run_id=world.run())
    got = pulled(held.answer())
    assert got is not None and got.id == sent.id


@never_held
def test_152_other_nodes_stay_held(world: World) -> None:
    run_id, node, others = world.run(), world.node(), [world.node() for _ in range(3)]
    waiting, held = [hold_pull(other) for other in others], hold_pull(node).stays()
    sent = world.appio.push_message(node, run_id=run_id)
    got = pulled(held.answer())
    assert got is not None and got.id == sent.id
    for each in waiting:
        each.stays(0.05)


@never_held
def test_held_pull_ends_with_its_node(world: World) -> None:
    node = world.node()
    held = hold_pull(node).stays()
    node.delete()
    assert held.took(time.monotonic()) < SLOWEST
    assert pulled(held.answer()) is None
    node.id = 0


def test_held_pull_is_no_sign_of_life(world: World) -> None:
    run_id, node = world.run(), world.node(heartbeat=1.5)
    began = time.monotonic()
    held = hold_pull(node)
    wait_for(lambda: node.id not in world.appio.get_nodes(run_id), 10.0, "the node to go offline")
    assert time.monotonic() - began < 4.0
    # ... and an offline node that polls still gets what is meant for it.
    sent = world.appio.push_message(node, run_id=run_id)
    got = pulled(held.answer()) or node.pull()
    assert got is not None and got.id == sent.id


# -- ServerAppIo.PullMessages -------------------------------------------------------------------


def exchange(world: World, run_id: int, node: Node) -> Packed:
    """Push an instruction and let the node receive it; the reply is still to come."""
    sent = world.appio.push_message(node, run_id=run_id)
    got = node.pull()
    assert got is not None and got.id == sent.id
    node.receive(got)
    return sent


@never_held
@pytest.mark.parametrize("how", [STOPPED, FINISHED])
def test_153_end_of_the_run_releases_the_pull(world: World, how: str) -> None:
    node, times = world.node(), []
    for _ in range(TRIES):
        run_id = world.run()
        sent = world.appio.push_message(node, run_id=run_id)
        assert node.pull() is not None
        held = hold_replies(world.appio, run_id, sent).stays()
        if how == STOPPED:
            world.control.stop_run(run_id)
        else:
            world.appio.finish(run_id)
        times.append(held.took(time.monotonic()))
        details = "Run is finished." + (" Stopped by user." if how == STOPPED else "")
        expect_error(StatusCode.PERMISSION_DENIED, details, held.answer)
    prompt(times)


@never_held
def test_153_end_of_the_run_releases_object_pulls(world: World) -> None:
    run_id, node = world.run(), world.node()
    sent = registered(world, run_id, node)
    held = Held(node.future("PullObject", node.pull_object_request(run_id, sent.id))).stays()
    world.control.stop_run(run_id)
    assert held.took(time.monotonic()) < SLOWEST
    expect_error(StatusCode.PERMISSION_DENIED, "Run is finished. Stopped by user.", held.answer)


def error_of(found: list[Pulled], sent: Packed) -> int:
    """Return the error code of the single result, which must answer `sent`."""
    (only,) = found
    assert only.message.metadata.reply_to_message_id == sent.id
    assert only.message.HasField("error")
    return only.message.error.code


@never_held
def test_154_offline_node_ends_the_hold(world: World) -> None:
    run_id, node = world.run(), world.node(heartbeat=1.5)
    online_until = time.monotonic() + 1.5
    sent = world.appio.push_message(node, run_id=run_id)
    held = hold_replies(world.appio, run_id, sent).stays(0.3)
    late = held.took(online_until)
    assert -0.5 < late < SLOWEST, f"{late:.3f} s after the node went offline"
    assert error_of(results(held.answer()), sent) == 5


@never_held
def test_154_heartbeat_during_the_hold_extends_it(world: World) -> None:
    run_id, node = world.run(), world.node(heartbeat=1.0)
    sent = world.appio.push_message(node, run_id=run_id)
    held = hold_replies(world.appio, run_id, sent)
    assert node.heartbeat(1.2)
    online_until = time.monotonic() + 2.4
    late = held.took(online_until)
    assert -0.5 < late < SLOWEST, f"{late:.3f} s after the node went offline"
    assert error_of(results(held.answer()), sent) == 5


@never_held
def test_154_deleted_node_ends_the_hold(world: World) -> None:
    run_id, node = world.run(), world.node()
    sent = world.appio.push_message(node, run_id=run_id)
    held = hold_replies(world.appio, run_id, sent).stays()
    node.delete()
    node.id = 0
    assert held.took(time.monotonic()) < SLOWEST
    assert error_of(results(held.answer()), sent) == 5


@never_held
def test_154_expiry_ends_the_hold(world: World) -> None:
    run_id, node = world.run(), world.node()
    sent = world.appio.push_message(node, run_id=run_id, ttl=1.5)
    expires = time.monotonic() + sent.proto.metadata.created_at + 1.5 - time.time()
    held = hold_replies(world.appio, run_id, sent).stays(0.3)
    late = held.took(expires)
    assert -0.5 < late < SLOWEST, f"{late:.3f} s after the instruction expired"
    assert error_of(results(held.answer()), sent) == 3


@never_held
def test_155_partial_results_do_not_wait_long(world: World) -> None:
    run_id, nodes = world.run(), [world.node(), world.node()]
    first, second = (exchange(world, run_id, node) for node in nodes)
    held = hold_replies(world.appio, run_id, first, second).stays(0.3)
    answer = reply(first)
    nodes[0].push(answer)
    assert held.took(time.monotonic()) < 3.0 + PROMPT
    (found,) = results(held.answer())
    assert found.id == answer.id


@never_held
def test_155_stragglers_within_the_linger_come_along(world: World) -> None:
    run_id, nodes = world.run(), [world.node() for _ in range(3)]
    sent = [exchange(world, run_id, node) for node in nodes]
    held = hold_replies(world.appio, run_id, *sent).stays()
    began = time.monotonic()
    for node, packed in zip(nodes, sent):
        node.push(reply(packed))
    finished = time.monotonic()
    found = results(held.answer())
    if finished - began < 0.5:
        assert len(found) == 3, "the replies came within half a second of each other"
        assert held.took(finished) < SLOWEST


@never_held
def test_155_complete_results_are_answered_at_once(world: World) -> None:
    run_id, node, times = world.run(), world.node(), []
    for _ in range(TRIES):
        sent = exchange(world, run_id, node)
        held = hold_replies(world.appio, run_id, sent).stays()
        answer = reply(sent)
        wanted = node.push_messages(answer).objects_to_push
        held.stays(0.05)
        node.push_objects(answer, wanted)
        times.append(held.took(time.monotonic()))
        (found,) = results(held.answer())
        assert world.appio.receive(run_id, found) == answer.objects
    prompt(times)


# -- PullObject ---------------------------------------------------------------------------------


@never_held
@pytest.mark.parametrize("side", ["Fleet", "ServerAppIo"])
def test_held_object_pull_waits_for_the_object(world: World, side: str) -> None:
    run_id, node, times = world.run(), world.node(), []
    for _ in range(TRIES):
        sent = registered(world, run_id, node)
        object_id = list(sent.objects)[0]
        request = node.pull_object_request(run_id, object_id)
        if side == "ServerAppIo":
            request.node.node_id = 1
        peer: Any = node if side == "Fleet" else world.appio
        held = Held(peer.future("PullObject", request)).stays()
        assert world.appio.push_object(run_id, object_id, sent.objects[object_id]).stored
        times.append(held.took(time.monotonic()))
        assert held.answer().object_content == sent.objects[object_id]
    prompt(times)


def test_held_object_pull_needs_a_known_object(world: World) -> None:
    run_id, node = world.run(), world.node()
    prompt(timed(lambda: node.pull_object(run_id, "0" * 64)))
    assert not node.pull_object(run_id, "0" * 64).object_found


# -- hold times ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["pull", "replies", "apps", "object"])
def test_156_no_hold_answers_at_once(world_now: World, call: str) -> None:
    run_id, node, appio = world_now.run(), world_now.node(), world_now.appio
    sent = registered(world_now, run_id, node)
    calls: dict[str, Callable[[], Any]] = {
        "pull": world_now.node().pull,
        "replies": lambda: appio.pull_messages(run_id, [sent.id]),
        "apps": appio.list_apps,
        "object": lambda: node.pull_object(run_id, sent.id),
    }
    prompt(timed(calls[call]))


@never_held
def test_156_configured_hold(start_superlink: Any) -> None:
    """`--hold-seconds 1` ends every hold after one second."""
    world = World(start_superlink(args=["--hold-seconds", "1"]))
    try:
        run_id, node = world.run(), world.node()
        waiting = world.appio.push_message(node, run_id=run_id)
        assert node.pull() is not None
        missing = registered(world, run_id, world.node())
        began = time.monotonic()
        held = {
            "pull": hold_pull(world.node()),
            "replies": hold_replies(world.appio, run_id, waiting),
            "apps": hold_apps(world.appio),
            "object": Held(node.future("PullObject", node.pull_object_request(run_id, missing.id))),
        }
        for name, call in held.items():
            took = call.took(began)
            assert 0.9 < took < 1.0 + SLOWEST, f"{name}: {took:.3f} s"
            call.answer()
    finally:
        world.close()


@pytest.fixture(scope="module")
def long_holds(link: SuperLink) -> Iterator[Any]:
    """Calls with nothing to come, started before the other tests of this module."""
    world = World(link)
    run_id, node = world.run(), world.node(heartbeat=300.0)
    sent = world.appio.push_message(node, run_id=run_id)
    assert node.pull() is not None
    missing = registered(world, run_id, world.node(heartbeat=300.0))
    request = node.pull_object_request(run_id, missing.id)
    began = time.monotonic()
    yield {
        "pull": (hold_pull(world.node(heartbeat=300.0)), began, 25.0),
        "replies": (hold_replies(world.appio, run_id, sent), began, 10.0),
        "object": (Held(node.future("PullObject", request, timeout=40.0)), began, 10.0),
    }
    world.close()


@pytest.fixture(autouse=True)
def _begin_early(long_holds: Any) -> None:
    """Let the long holds run beside the other tests."""


@never_held
@pytest.mark.parametrize("call", ["replies", "object", "pull"])
def test_156_default_hold(long_holds: Any, call: str) -> None:
    """Held calls end by themselves after the time of section 6.4, empty and OK."""
    held, began, hold = long_holds[call]
    answer = held.answer(timeout=hold + 10.0)
    assert hold - 0.5 < held.took(began) < hold + 2.0
    if call == "object":
        assert answer.object_found and not answer.object_available
    else:
        assert not answer.messages_list


@pytest.mark.parametrize(
    "call", ["heartbeat", "app heartbeat", "nodes", "statuses", "no ids", "token", "run"]
)
def test_156_never_held(world: World, call: str) -> None:
    """What section 6.4 forbids to hold is answered at once, also with nothing to say."""
    run_id, node, appio = world.run(), world.node(), world.appio
    idle = hold_pull(world.node())
    calls: dict[str, Callable[[], Any]] = {
        "heartbeat": node.heartbeat,
        "app heartbeat": lambda: appio.heartbeat(run_id),
        "nodes": lambda: appio.get_nodes(run_id),
        "statuses": lambda: appio.get_run_status(run_id),
        "no ids": lambda: appio.pull_messages(run_id, []),
        "token": lambda: appio.request_token(run_id),
        "run": lambda: appio.get_run(run_id),
    }
    prompt(timed(calls[call]))
    idle.future.cancel()


# -- ListAppsToLaunch ---------------------------------------------------------------------------


@pytest.fixture
def quiet(start_superlink: Any) -> Iterator[World]:
    """A SuperLink of its own, without any run."""
    world = World(start_superlink())
    yield world
    world.close()


@never_held
def test_157_start_of_a_run_releases_the_list(quiet: World) -> None:
    times = []
    for _ in range(TRIES):
        held = hold_apps(quiet.appio).stays()
        run_id = quiet.control.start_run()
        times.append(held.took(time.monotonic()))
        assert list(held.answer().run_ids) == [run_id]
        assert quiet.appio.list_apps() == [run_id]
        assert quiet.appio.request_token(run_id)
    prompt(times)


@never_held
def test_157_two_executors_wait_at_once(quiet: World) -> None:
    with AppIo(quiet.link.serverappio) as second:
        waiting = [hold_apps(quiet.appio).stays(), hold_apps(second).stays()]
        run_id = quiet.control.start_run()
        first = wait_for(
            lambda: next((held for held in waiting if held.future.done()), None), 5.0, "an answer"
        )
        assert list(first.answer().run_ids) == [run_id]
        tokens = [quiet.appio.request_token(run_id), second.request_token(run_id)]
        assert len([token for token in tokens if token]) == 1


@never_held
def test_157_run_with_a_token_keeps_the_list_waiting(quiet: World) -> None:
    first = quiet.control.start_run()
    assert quiet.appio.request_token(first)
    held = hold_apps(quiet.appio).stays(0.5)
    second = quiet.control.start_run()
    assert list(held.answer().run_ids) == [second]


# -- stock processes ----------------------------------------------------------------------------


def ends_promptly(launch: Callable[[int], Process], blocked: Callable[[], Any], said: str) -> None:
    """SIGTERM ends a stock process within a second, whatever call it is blocked in.

    Best of three, because the machine may be busy with others.
    """
    times: list[float] = []
    while len(times) < 3 and min(times, default=9.0) > 1.0:
        with launch(len(times)) as process:
            wait_for(blocked, 30.0, f"the stock process to be at work\n{process.tail()}")
            time.sleep(1.0)
            assert process.running, process.tail()
            began = time.monotonic()
            assert process.terminate(10.0) == 0, process.tail()
            times.append(time.monotonic() - began)
            assert said in process.log
    assert min(times) < 1.0, times


def test_158_stock_supernode_ends_while_held(world: World, tmp_path: Path) -> None:
    run_id = world.run()
    before = set(world.appio.get_nodes(run_id))

    def launch(number: int) -> Process:
        argv = [
            VENV_BIN / "flower-supernode", "--insecure", "--superlink", world.link.fleet,
            "--isolation", "process", "--clientappio-api-address", f"127.0.0.1:{free_port()}",
        ]  # fmt: skip
        home = tmp_path / str(number)
        return Process("supernode", argv, home, environment(home))

    def joined() -> bool:
        return bool(set(world.appio.get_nodes(run_id)) - before)

    ends_promptly(launch, joined, "SuperNode terminated gracefully.")
    # DeleteNode got through beside the held call.
    assert not joined()


def test_158_stock_superexec_ends_while_held(world: World, tmp_path: Path) -> None:
    started: list[Process] = []

    def launch(number: int) -> Process:
        argv = [
            VENV_BIN / "flower-superexec", "--insecure", "--plugin-type", "serverapp",
            "--appio-api-address", world.link.serverappio,
        ]  # fmt: skip
        home = tmp_path / str(number)
        started.append(Process("superexec", argv, home, environment(home)))
        return started[-1]

    def at_work() -> bool:
        return "Starting Flower SuperExec" in started[-1].log

    ends_promptly(launch, at_work, "SuperExec terminated gracefully.")
