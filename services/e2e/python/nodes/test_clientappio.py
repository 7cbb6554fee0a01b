"""Protocol section 9.5: ClientAppIo, as stock launchers and ClientApps see it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from flwr.common import Context, RecordDict
from flwr.common.serde import context_from_proto, context_to_proto
from flwr.proto import message_pb2
from harness import SuperLink, wait_for
from scripted import ScriptedSuperLink
from site_under_test import ClientAppIo, Site
from wire import (
    AppIo,
    Control,
    Packed,
    arrays,
    config,
    expect_error,
    instruction,
    make_fab,
    raw_object,
    reply,
    running_run,
    sha256,
    tree_ids,
)

Code = grpc.StatusCode
Start = Callable[..., Site]

NOT_LOADED, RAISED, REPLY_UNAVAILABLE = 1, 2, 4
"""Error codes of replies (Flower 1.22, `flwr/common/constant.py`)."""


def send(link: ScriptedSuperLink, run_id: int, **fields: object) -> Packed:
    """Offer an instruction to the node."""
    return link.send(instruction(run_id, link.node_id, **fields))


def error_code(link: ScriptedSuperLink, sent: Packed) -> int:
    """The error that an instruction is answered with."""
    answer = link.wait_reply(sent)
    assert answer.message.HasField("error"), "the reply is no error"
    return answer.message.error.code


# -- launching ----------------------------------------------------------------------------------


def test_108_listed_while_an_instruction_waits_without_token(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """A run is listed iff it has an unretrieved instruction and no token."""
    with site.peer() as launcher, site.peer() as app:
        assert launcher.launchable(0.3) == []
        run_id = superlink.run(make_fab())
        send(superlink, run_id)
        assert launcher.launchable(20) == [run_id]
        assert launcher.launchable() == [run_id], "asking changes nothing"
        token = launcher.request_token(run_id)
        assert launcher.launchable(0.3) == []
        app.begin(token)
        assert launcher.launchable(0.3) == [], "nothing waits any more"


def test_109_a_token_hides_the_run_until_the_outputs(
    superlink: ScriptedSuperLink, start_site: Start
) -> None:
    """RequestToken hides the run; PushClientAppOutputs shows it again if more waits."""
    site = start_site("--max-concurrent-apps", 2)
    run_id = superlink.run(make_fab())
    first, second = send(superlink, run_id), send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        token = launcher.launch(run_id)
        assert len(token) == 256 and int(token, 16) >= 0
        superlink.wait_calls("ConfirmMessageReceived", 2)
        assert launcher.request_token(run_id) == "", "one app at a time"
        assert launcher.launchable(0.3) == []
        app.answer(app.begin(token))
        again = launcher.launch(run_id)
        assert again != token
        app.answer(app.begin(again))
        assert launcher.launchable(0.3) == []
    superlink.wait_reply(first)
    superlink.wait_reply(second)


def test_109_no_token_for_runs_without_instruction(site: Site) -> None:
    """RequestToken of an unknown run is the empty string."""
    with site.peer() as launcher:
        assert launcher.request_token(12345) == ""
        assert launcher.request_token(0) == ""


@pytest.mark.parametrize("token", ["", "f" * 256, "kein Token", "0" * 100_000])
def test_110_bad_tokens(superlink: ScriptedSuperLink, site: Site, token: str) -> None:
    """Every call of an app with a bad token: PERMISSION_DENIED `Invalid token.`."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    context = message_pb2.Context(run_id=run_id)
    with site.peer() as launcher, site.peer() as app:
        claimed = launcher.launch(run_id)
        for call in (
            lambda: app.pull_inputs(token),
            lambda: app.pull_message(token),
            lambda: app.announce(token, reply(sent)),
            lambda: app.push_outputs(token, run_id, context),
        ):
            expect_error(Code.PERMISSION_DENIED, "Invalid token.", call)
        # The app with the good one is none the worse.
        app.answer(app.begin(claimed))
    superlink.wait_reply(sent)


def test_110_a_token_ends_with_the_outputs(superlink: ScriptedSuperLink, site: Site) -> None:
    """After PushClientAppOutputs the token is bad; only the repeated call itself is told yes."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        app.answer(work)
        for call in (
            lambda: app.pull_inputs(work.token),
            lambda: app.pull_message(work.token),
            lambda: app.announce(work.token, reply(sent)),
        ):
            expect_error(Code.PERMISSION_DENIED, "Invalid token.", call)
        app.push_outputs(work.token, run_id, work.inputs.context)
    superlink.wait_reply(sent)


# -- what apps get ------------------------------------------------------------------------------


def kept(run_id: int, node_id: int, **values: object) -> message_pb2.Context:
    """Make what an app leaves behind."""
    state: RecordDict = config(**values)
    return context_to_proto(Context(run_id, node_id, {"kept": 1}, state, {"own": True}))


def test_111_the_context_is_kept_for_the_run(superlink: ScriptedSuperLink, site: Site) -> None:
    """PullClientAppInputs returns the context of the previous app of the same run only."""
    run_id, other = superlink.run(make_fab()), superlink.run(make_fab())
    left = kept(run_id, superlink.node_id, calls=1)
    superlink.wait_reply(_worked(superlink, site, run_id, left))
    with site.peer() as launcher, site.peer() as app:
        for run in (other, run_id):
            sent = send(superlink, run)
            work = app.begin(launcher.launch(run))
            if run == run_id:
                assert work.inputs.context == left
            else:
                assert not context_from_proto(work.inputs.context).state
            app.answer(work)
            superlink.wait_reply(sent)


def _worked(
    link: ScriptedSuperLink, site: Site, run_id: int, left: message_pb2.Context | None = None
) -> Packed:
    sent = send(link, run_id)
    site.work(run_id, context=left)
    return sent


def test_111_a_repeated_call_keeps_the_later_context(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """A repeat of PushClientAppOutputs after the next app's does not bring the old one back."""
    run_id = superlink.run(make_fab())
    early, late = (kept(run_id, superlink.node_id, calls=calls) for calls in (1, 2))
    send(superlink, run_id)
    first = site.work(run_id, context=early)
    _worked(superlink, site, run_id, late)
    with site.peer() as app:
        app.push_outputs(first.token, run_id, early)
    send(superlink, run_id)
    assert site.work(run_id).inputs.context == late


PROJECT = """\
[project]
name = "wire"
version = "1.0.0"

[tool.flwr.app]
publisher = "conformance"

[tool.flwr.app.components]
serverapp = "wire.server:app"
clientapp = "wire.client:app"

[tool.flwr.app.config]
rounds = 3
rate = 0.5
whole = 1
large = 9007199254740993
name = "täst"
is-on = true
nest.a = 1
nest.deep = {b = "x", c = 2.0}
"""


def test_112_the_context_holds_fused_typed_values(
    superlink: ScriptedSuperLink, start_site: Start
) -> None:
    """`run_config` is fused and flattened with TOML types, `node_config` the parsed flag."""
    pairs = 'partition-id=1 rate=1.5 name="a b" flag=false nest.a=2'
    site = start_site("--node-config", pairs)
    overrides = {"rounds": 7, "nest.deep.b": "y", "is-on": False}
    fab = make_fab(pyproject=PROJECT)
    run_id = superlink.run(fab, overrides)
    sent = send(superlink, run_id)
    inputs = site.work(run_id).inputs
    context = context_from_proto(inputs.context)
    expected = {
        "rounds": 7,
        "rate": 0.5,
        "whole": 1,
        "large": 9007199254740993,
        "name": "täst",
        "is-on": False,
        "nest.a": 1,
        "nest.deep.b": "y",
        "nest.deep.c": 2.0,
    }
    typed = {key: (type(value), value) for key, value in context.run_config.items()}
    assert typed == {key: (type(value), value) for key, value in expected.items()}
    assert dict(context.node_config) == {
        "partition-id": 1,
        "rate": 1.5,
        "name": "a b",
        "flag": False,
        "nest.a": 2,
    }
    assert (context.node_id, context.run_id) == (superlink.node_id, run_id)
    assert (inputs.fab.hash_str, inputs.fab.content) == (sha256(fab), fab)
    told = superlink.runs[run_id]
    told.status.SetInParent()
    assert inputs.run == told, "what Fleet told, with an empty status"
    superlink.wait_reply(sent)


def test_112_inputs_can_be_pulled_again(superlink: ScriptedSuperLink, site: Site) -> None:
    """PullClientAppInputs and PullMessage consume nothing; GetRun tells the same run."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        token = launcher.launch(run_id)
        first, second = app.pull_inputs(token), app.pull_inputs(token)
        assert first == second
        assert app.pull_message(token) == app.pull_message(token)
        assert app.get_run(run_id).run == first.run
        assert not app.get_run(run_id + 1).HasField("run")
        app.answer(app.begin(token))
    superlink.wait_reply(sent)


@pytest.mark.parametrize("apps", [1, 3])
def test_113_one_instruction_at_a_time(
    superlink: ScriptedSuperLink, start_site: Start, apps: int
) -> None:
    """PullMessage returns one instruction and keeps further ones pending, in their order."""
    site = start_site("--max-concurrent-apps", apps)
    run_id = superlink.run(make_fab())
    sent = [send(superlink, run_id) for _ in range(3)]
    worked = [site.work(run_id) for _ in sent]
    assert [work.got.id for work in worked] == [each.id for each in sent]
    for each, work in zip(sent, worked):
        assert work.got.message == each.proto
        assert work.objects == each.objects
        assert superlink.wait_reply(each).message.metadata.reply_to_message_id == each.id
    assert len(superlink.named("PushMessages")) == len(sent)


def test_114_every_announced_object_arrives(superlink: ScriptedSuperLink, site: Site) -> None:
    """PushMessage returns the ids to push; what is pushed then is all forwarded."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got, arrays(20_000, count=5))
        response = app.announce(work.token, answer)
        assert set(response.objects_to_push) == set(answer.objects)
        assert len(response.objects_to_push) == len(answer.objects)
        app.push_objects(answer)
        assert not app.announce(work.token, answer).objects_to_push, "a repeat has nothing left"
        app.push_outputs(work.token, run_id, work.inputs.context)
    got = superlink.wait_reply(sent)
    assert got.objects == answer.objects
    assert (got.message, got.tree) == (answer.proto, answer.tree)


def test_114_what_is_here_already_is_not_asked_for(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """An app that sends back what it got pushes the new objects only; all of them arrive."""
    run_id = superlink.run(make_fab())
    content = arrays(5000, count=3)
    sent = send(superlink, run_id, content=content)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got, content)
        wanted = app.announce(work.token, answer).objects_to_push
        assert set(wanted) == set(answer.objects) - set(sent.objects)
        app.push_objects(answer, wanted)
        app.push_outputs(work.token, run_id, work.inputs.context)
    assert superlink.wait_reply(sent).objects == answer.objects


def test_115_nothing_is_forwarded_before_it_is_whole(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """A reply is announced to the SuperLink when its objects are complete, and is then whole."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got, arrays(1000, count=3))
        app.announce(work.token, answer)
        *early, last = answer.objects
        app.push_objects(answer, early)
        request = message_pb2.PullObjectRequest(node=app.NODE, run_id=run_id, object_id=last)
        held = app.future("PullObject", request)
        assert launcher.launchable(0.3) == []
        assert not held.done() and not superlink.named("PushMessages")
        app.push_objects(answer, [last])
        assert held.result().object_content == answer.objects[last]
        # Not even the outputs are waited for.
        assert superlink.wait_reply(sent).objects == answer.objects
        app.push_outputs(work.token, run_id, work.inputs.context)


def test_116_run_and_bundle_are_asked_for_once(superlink: ScriptedSuperLink, site: Site) -> None:
    """GetRun and GetFab are called once per run, however many messages it has."""
    runs = [superlink.run(make_fab()), superlink.run(make_fab(name="other"))]
    for run_id in [*runs, *runs]:
        superlink.wait_reply(_worked(superlink, site, run_id))
    assert sorted(call.request.run_id for call in superlink.named("GetRun")) == runs
    assert sorted(call.request.run_id for call in superlink.named("GetFab")) == runs


def test_116_objects_cross_the_network_once(superlink: ScriptedSuperLink, site: Site) -> None:
    """An object that two messages share, such as a frozen layer, is pulled with the first."""
    run_id = superlink.run(make_fab())
    content = arrays(3000, count=2)
    first = send(superlink, run_id, content=content)
    superlink.wait_reply(_done(site, run_id, first))
    second = send(superlink, run_id, content=content)
    superlink.wait_reply(_done(site, run_id, second))
    pulled = [call.request.object_id for call in superlink.named("PullObject")]
    assert sorted(pulled) == sorted({*first.objects, *second.objects})


def _done(site: Site, run_id: int, sent: Packed) -> Packed:
    assert site.work(run_id).objects == sent.objects
    return sent


# -- objects ------------------------------------------------------------------------------------


def test_114_objects_are_checked(superlink: ScriptedSuperLink, site: Site) -> None:
    """Wrong hash or unannounced: `stored=false`; malformed: FAILED_PRECONDITION."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got)
        stray = raw_object("ArrayChunk", b"nobody announced this")
        assert not app.push_object(run_id, sha256(stray), stray).stored
        first, *_ = answer.objects
        assert not app.push_object(run_id, first, answer.objects[first]).stored, "too early"
        app.announce(work.token, answer)
        assert not app.push_object(run_id, first, stray).stored, "wrong hash"
        assert not app.push_object(run_id, first, b"").stored, "empty"
        assert not app.push_object(run_id, sha256(stray), stray).stored
        # Those that are judged while they arrive.
        large = raw_object("ArrayChunk", bytes(20 << 20))
        assert not app.push_object(run_id, sha256(large), large).stored
        assert not app.push_object(run_id, first, large).stored, "wrong hash"
        assert not app.push_object(run_id + 1, first, answer.objects[first]).stored, "other run"
        app.push_objects(answer)
        assert app.push_object(run_id, first, answer.objects[first]).stored, "a repeat"
        app.push_outputs(work.token, run_id, work.inputs.context)
    assert superlink.wait_reply(sent).objects == answer.objects


def test_114_a_malformed_object_is_named(superlink: ScriptedSuperLink, site: Site) -> None:
    """FAILED_PRECONDITION starting `Object with ID '`, as on Fleet."""
    run_id = superlink.run(make_fab())
    send(superlink, run_id)
    bad = b"no object at all"
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got)
        answer.tree.children.append(message_pb2.ObjectTree(object_id=sha256(bad)))
        app.announce(work.token, answer)
        error = expect_error(
            Code.FAILED_PRECONDITION, None, app.push_object, run_id, sha256(bad), bad
        )
        assert (error.details() or "").startswith(f"Object with ID '{sha256(bad)}'")


def test_110_objects_of_other_runs_are_not_found(
    superlink: ScriptedSuperLink, start_site: Start
) -> None:
    """PullObject under the wrong run or of an unknown id finds nothing."""
    site = start_site()
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        for run, object_id in ((run_id + 1, sent.id), (run_id, "0" * 64), (0, sent.id)):
            got = app.pull_object(run, object_id)
            assert not (got.object_found or got.object_available or got.object_content)
        app.answer(work)


@pytest.mark.parametrize("field", ["run_id", "src_node_id", "dst_node_id", "reply_to_message_id"])
def test_114_a_reply_to_something_else_is_refused(
    superlink: ScriptedSuperLink, site: Site, field: str
) -> None:
    """A token answers its own instruction only; the right reply can still follow."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        answer = reply(work.got)
        wrong = answer.altered(**{field: "f" * 64 if field.startswith("reply") else 77})
        expect_error(None, None, app.announce, work.token, wrong)
        app.answer(work, answer)
    assert superlink.wait_reply(sent).message == answer.proto


# -- apps that go wrong -------------------------------------------------------------------------


def test_121_an_app_that_dies_is_answered_for(superlink: ScriptedSuperLink, site: Site) -> None:
    """Killed before, while and after it had its message: an error of the right code, and on."""
    run_id = superlink.run(make_fab())

    def before(app: ClientAppIo, token: str) -> None:
        app.pull_inputs(token)

    def working(app: ClientAppIo, token: str) -> None:
        app.begin(token)

    def answering(app: ClientAppIo, token: str) -> None:
        work = app.begin(token)
        app.announce(work.token, reply(work.got))

    for dies, code in ((before, NOT_LOADED), (working, RAISED), (answering, REPLY_UNAVAILABLE)):
        sent = send(superlink, run_id)
        with site.peer() as launcher:
            with site.peer() as app:
                dies(app, launcher.launch(run_id))
            assert error_code(superlink, sent) == code, dies.__name__
    sent = send(superlink, run_id)
    site.work(run_id)
    assert not superlink.wait_reply(sent).message.HasField("error")


def test_121_an_app_without_a_reply_is_answered_for(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """Outputs without a reply, or with half of one: an error reply, and the next message."""
    run_id = superlink.run(make_fab())
    for announces, code in ((False, RAISED), (True, REPLY_UNAVAILABLE)):
        sent = send(superlink, run_id)
        with site.peer() as launcher, site.peer() as app:
            work = app.begin(launcher.launch(run_id))
            if announces:
                app.announce(work.token, reply(work.got))
            app.push_outputs(work.token, run_id, work.inputs.context)
            assert error_code(superlink, sent) == code
    superlink.wait_reply(_worked(superlink, site, run_id))


def test_121_an_error_reply_is_a_stock_one(superlink: ScriptedSuperLink, site: Site) -> None:
    """What answers for a dead app has the metadata of a stock reply and one object."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id, group="7", message_type="query", ttl=1234.0)
    with site.peer() as launcher, site.peer() as app:
        app.begin(launcher.launch(run_id))
    answer = superlink.wait_reply(sent)
    metadata, asked = answer.message.metadata, sent.proto.metadata
    assert (metadata.run_id, metadata.src_node_id, metadata.dst_node_id) == (
        run_id,
        asked.dst_node_id,
        asked.src_node_id,
    )
    assert (metadata.group_id, metadata.message_type) == ("7", "query")
    assert metadata.reply_to_message_id == sent.id
    ends = metadata.created_at + metadata.ttl
    assert abs(ends - (asked.created_at + asked.ttl)) < 0.01
    assert tree_ids(answer.tree) == [metadata.message_id] == list(answer.objects)
    assert answer.message.error.reason


def test_121_a_run_that_is_over_frees_its_app(
    superlink: ScriptedSuperLink, site: Site
) -> None:
    """While an app works the SuperLink is asked for its run; a refusal ends its token."""
    run_id = superlink.run(make_fab())
    sent = send(superlink, run_id)
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        superlink.fault("GetRun", Code.PERMISSION_DENIED, "Run is not running.")
        superlink.wait_faults()

        def refused() -> bool:
            try:
                app.pull_message(work.token)
            except grpc.RpcError as error:
                return error.details() == "Invalid token."
            return False

        wait_for(refused, 10, "the token to end")
    assert sent.id not in superlink.replies
    superlink.wait_reply(_worked(superlink, site, superlink.run(make_fab())))


# -- with a real SuperLink ----------------------------------------------------------------------


def test_114_a_reply_reaches_a_real_superlink(
    start_superlink: Callable[..., SuperLink], tmp_path: Path
) -> None:
    """One message through both daemons: what the app pushed is what the ServerApp pulls."""
    link = start_superlink()
    with (
        Site(link.fleet, tmp_path, "--node-config", "partition-id=3") as site,
        Control(link.control) as control,
        AppIo(link.serverappio) as server,
    ):
        run_id = running_run(control, server)
        (node_id,) = wait_for(lambda: server.get_nodes(run_id), 30, "the node to be online")
        sent = instruction(run_id, node_id, arrays(50_000, count=3))
        assert server.push(sent) == [sent.id]
        with site.peer() as launcher, site.peer() as app:
            work = app.begin(launcher.launch(run_id))
            assert work.objects == sent.objects
            assert work.inputs.context.node_id == node_id
            answer = app.answer(work, reply(work.got, arrays(50_000, count=4)))
        (got,) = wait_for(lambda: server.pull_messages(run_id, [sent.id]), 30, "the reply")
        assert server.receive(run_id, got) == answer.objects
        assert site.terminate() == 0
        wait_for(lambda: server.get_nodes(run_id) == [], 5, "the node to be gone")
