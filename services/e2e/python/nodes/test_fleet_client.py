"""Protocol sections 2.9, 7.5 and 9.5: a SuperNode's calls, as a SuperLink sees them."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict
from harness import OURS, STOCK
from nodekey import PUBLIC_KEY, SIGNATURE, TIMESTAMP
from scripted import CUT, METHODS, NODE_ID, Call, ScriptedSuperLink
from site_under_test import Site
from wire import Packed, arrays, instruction, make_fab, reply

Code = grpc.StatusCode
Start = Callable[..., Site]


def serve(link: ScriptedSuperLink, site: Site, sent: Packed | None = None) -> Packed:
    """Let the node work off one message, of a fresh run unless it is given, to the stored reply."""
    if sent is None:
        sent = link.send(instruction(link.run(make_fab()), link.node_id))
    site.work(sent.run_id)
    link.wait_reply(sent)
    assert site.running
    return sent


# -- beside stock Flower ------------------------------------------------------------------------

SENT = instruction(2**63 + 100, NODE_ID, arrays(3000, count=3, seed=1))
REPLY = reply(SENT, arrays(3000, count=2, seed=2))
"""The same for every SuperNode, so that their requests must be the same to the last field."""


def recorded(kind: str, directory: Path) -> list[Call]:
    """The calls of one SuperNode from its start to its end, with one message in between."""
    flags = ("--node-config", "partition-id=1 num-partitions=2")
    with ExitStack() as stack:
        link = stack.enter_context(ScriptedSuperLink())
        site = stack.enter_context(Site(link.fleet, directory, *flags, kind=kind, name=kind))
        site.joined(link)
        link.wait_calls("SendNodeHeartbeat")
        assert link.run(make_fab(), {"fraction": 0.25}) == SENT.run_id
        link.wait_held()
        link.send(SENT)
        # A stock node offers the message to apps while its objects are still on their way.
        link.wait_calls("ConfirmMessageReceived")
        site.work(SENT.run_id, answer=REPLY)
        assert link.wait_reply(SENT).objects == REPLY.objects
        link.wait_calls("PullMessages", 2)
        link.wait_held()
        assert site.terminate() == 0
        link.wait_calls("DeleteNode")
        return list(link.calls)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Call]]:
    """The calls of stock flower-supernode and of ours, for the same script."""
    return {
        kind: recorded(kind, tmp_path_factory.mktemp("recorded")) for kind in (STOCK, OURS)
    }


def requests(calls: list[Call], name: str) -> list[dict[str, Any]]:
    """The requests of one method; those that go out in parallel in a fixed order."""
    seen = [MessageToDict(call.request) for call in calls if call.name == name]
    return sorted(seen, key=lambda one: one.get("objectId", "")) if "Object" in name else seen


@pytest.mark.parametrize("name", METHODS)
def test_117_requests_are_those_of_a_stock_node(
    recordings: dict[str, list[Call]], name: str
) -> None:
    """Every call that stock Flower makes, with the same fields, and no other."""
    stock, ours = (requests(recordings[kind], name) for kind in (STOCK, OURS))
    assert stock, "the script does not reach this call"
    if name == "SendNodeHeartbeat":
        # How many there are is a matter of time.
        stock, ours = stock[:1], ours[:1]
    assert ours == stock


@pytest.mark.parametrize("name", METHODS)
def test_117_unknown_fields_are_not_sent(recordings: dict[str, list[Call]], name: str) -> None:
    """The same bytes, too, once fields are in one order: nothing that the stubs do not know."""
    for call in recordings[OURS]:
        if call.name == name:
            again = type(call.request).FromString(call.request.SerializeToString())
            again.DiscardUnknownFields()
            assert again.ByteSize() == call.request.ByteSize()


def test_117_the_order_of_calls_is_that_of_a_stock_node(
    recordings: dict[str, list[Call]],
) -> None:
    """Up to where ours goes on with the next message while the reply is on its way."""
    orders = {}
    for kind, calls in recordings.items():
        names = [call.name for call in calls if call.name != "SendNodeHeartbeat"]
        # In the phases of 7.5: up to the confirmation, the reply, the end.
        confirmed = names.index("ConfirmMessageReceived") + 1
        orders[kind] = (names[:confirmed], sorted(names[confirmed:-1]), names[-1])
        pushes = [name for name in names if name.startswith("Push")]
        assert pushes[0] == "PushMessages", "announced before the objects"
    assert orders[OURS] == orders[STOCK]


def test_117_metadata_is_that_of_a_stock_node(recordings: dict[str, list[Call]]) -> None:
    """The same keys with every call."""
    for name in METHODS:
        stock, ours = (
            {tuple(call.keys) for call in recordings[kind] if call.name == name}
            for kind in (STOCK, OURS)
        )
        assert ours == stock, name


@pytest.mark.parametrize("kind", [STOCK, OURS])
def test_117_every_call_is_signed_afresh(recordings: dict[str, list[Call]], kind: str) -> None:
    """One P-384 key as canonical PEM, a fresh time in Flower's format, its signature."""
    calls = recordings[kind]
    headers = [dict(call.metadata) for call in calls]
    (text,) = {header[PUBLIC_KEY] for header in headers}
    key = serialization.load_pem_public_key(text)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1) and len(text) == 215
    canonical = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert text == canonical
    stamps = []
    for header in headers:
        stamp = header[TIMESTAMP]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", stamp), stamp
        key.verify(header[SIGNATURE], stamp.encode(), ec.ECDSA(hashes.SHA256()))
        stamps.append(datetime.fromisoformat(stamp))
    assert len(set(stamps)) == len(stamps)
    assert max(stamps) - min(stamps) < timedelta(minutes=2)


# -- a SuperLink that refuses -------------------------------------------------------------------

IN_WORK = ("PullMessages", "GetRun", "GetFab", "PullObject", "ConfirmMessageReceived")
IN_REPLY = ("PushMessages", "PushObject")
DENIED = "Run is not running."


@pytest.mark.parametrize("name", ["SendNodeHeartbeat", *IN_WORK])
def test_117_permission_denied_drops_the_message(
    superlink: ScriptedSuperLink, start_site: Start, name: str
) -> None:
    """PERMISSION_DENIED before the confirmation: no app is launched, the next message is served."""
    superlink.fault(name, Code.PERMISSION_DENIED, DENIED)
    site = start_site()
    lost = superlink.send(instruction(superlink.run(make_fab()), superlink.node_id))
    superlink.wait_faults()
    if name == "SendNodeHeartbeat":
        serve(superlink, site, lost)
    else:
        superlink.withdraw(lost)
        with site.peer() as launcher:
            assert launcher.launchable(0.2) == []
    serve(superlink, site)
    assert len(superlink.named("CreateNode")) == 1


@pytest.mark.parametrize("name", IN_REPLY)
def test_117_permission_denied_drops_the_reply(
    superlink: ScriptedSuperLink, site: Site, name: str
) -> None:
    """PERMISSION_DENIED for the reply: it is dropped, the next message is served."""
    sent = superlink.send(instruction(superlink.run(make_fab()), superlink.node_id))
    superlink.fault(name, Code.PERMISSION_DENIED, DENIED)
    site.work(sent.run_id)
    superlink.wait_faults()
    tried = len(superlink.named("PushMessages"))
    serve(superlink, site)
    assert not any(reply.is_whole for reply in superlink.replies.get(sent.id, []))
    assert len(superlink.named("PushMessages")) == tried + 1, "the dropped one is not repeated"


DEADLY = {
    "UNKNOWN": Code.UNKNOWN,
    "INTERNAL": Code.INTERNAL,
    "CANCELLED": Code.CANCELLED,
    "RESOURCE_EXHAUSTED": Code.RESOURCE_EXHAUSTED,
    "cut": CUT,
}
"""What a stock SuperNode dies of."""


@pytest.mark.parametrize(
    ("how", "late"), [*((how, False) for how in DEADLY), ("UNKNOWN", True), ("cut", True)]
)
def test_118_no_status_ends_a_node(
    superlink: ScriptedSuperLink, start_site: Start, how: str, late: bool
) -> None:
    """Each call fails once, before or after it took effect: every message is answered once."""
    for name in ("CreateNode", "SendNodeHeartbeat"):
        superlink.fault(name, DEADLY[how], late=late)
    site = start_site()
    for name in (*IN_WORK, *IN_REPLY):
        superlink.fault(name, DEADLY[how], late=late)
        sent = superlink.send(instruction(superlink.run(make_fab()), superlink.node_id))
        serve(superlink, site, sent)
        superlink.wait_faults()
        assert len(superlink.replies[sent.id]) == 1, name
        assert not superlink.replies[sent.id][0].message.HasField("error"), name
    assert len(superlink.named("CreateNode")) == 2
    assert site.terminate() == 0


@pytest.mark.parametrize("how", ["UNKNOWN", "cut"])
def test_118_a_stock_node_dies_of_these(closing: ExitStack, tmp_path: Path, how: str) -> None:
    """What the test above guards against: the reference, to see that the faults are real."""
    link = closing.enter_context(ScriptedSuperLink())
    link.fault("PullMessages", DEADLY[how])
    site = closing.enter_context(Site(link.fleet, tmp_path, kind=STOCK))
    assert site.wait(60) == 0
    assert link.named("DeleteNode")


@pytest.mark.parametrize("name", [*IN_WORK, *IN_REPLY])
def test_118_lost_answers_do_no_harm(
    superlink: ScriptedSuperLink, site: Site, name: str
) -> None:
    """A call takes effect and its answer is lost with UNAVAILABLE: one reply, one app."""
    superlink.fault(name, Code.UNAVAILABLE, late=True, times=2)
    sent = serve(superlink, site)
    superlink.wait_faults()
    assert len(superlink.replies[sent.id]) == 1
    with site.peer() as launcher:
        assert launcher.launchable(0.2) == []
    serve(superlink, site)


def test_118_unavailable_for_a_while(superlink: ScriptedSuperLink, site: Site) -> None:
    """While every call fails nothing ends; afterwards the node goes on with the same id."""
    serve(superlink, site)
    superlink.outage(Code.UNAVAILABLE)
    superlink.wait_calls("PullMessages", len(superlink.named("PullMessages")) + 3)
    superlink.outage(None)
    serve(superlink, site)
    assert len(superlink.named("CreateNode")) == 1


def test_118_connection_gone_for_a_while(superlink: ScriptedSuperLink, site: Site) -> None:
    """The SuperLink's port is closed while a reply is due: it arrives later, from the same node."""
    run_id = superlink.run(make_fab())
    sent = superlink.send(instruction(run_id, superlink.node_id))
    with site.peer() as launcher, site.peer() as app:
        work = app.begin(launcher.launch(run_id))
        superlink.stop()
        app.answer(work)
        before = len(superlink.calls)
        site.wait_log("(?i)connect", 10)
        superlink.start()
    superlink.wait_reply(sent)
    assert len(superlink.calls) > before
    serve(superlink, site)
    assert len(superlink.named("CreateNode")) == 1
    nodes = {call.request.node.node_id for call in superlink.calls if call.name != "CreateNode"}
    assert nodes == {superlink.node_id}


def test_118_a_forgotten_node_joins_again(superlink: ScriptedSuperLink, site: Site) -> None:
    """A SuperLink that was restarted says `Invalid node ID`: the node registers anew."""
    serve(superlink, site)
    superlink.fault("PullMessages", Code.UNAUTHENTICATED, "Invalid node ID")
    serve(superlink, site)
    superlink.wait_calls("CreateNode", 2)
    serve(superlink, site)


@pytest.mark.parametrize("retries", [0, 1])
def test_118_max_retries_gives_up(
    superlink: ScriptedSuperLink, closing: ExitStack, tmp_path: Path, retries: int
) -> None:
    """With `--max-retries N` an unreachable SuperLink is tried N+1 times, and the log says so."""
    superlink.fault("CreateNode", Code.UNAVAILABLE, times=5)
    flags = ("--max-retries", retries)
    site = closing.enter_context(Site(superlink.fleet, tmp_path, *flags))
    assert site.wait(30) == 1
    assert len(superlink.named("CreateNode")) == retries + 1
    assert "cannot be reached" in site.log


@pytest.mark.parametrize(
    "details", ["Public key not recognized", "Invalid signature", "Invalid timestamp"]
)
def test_117_a_node_that_may_not_join_says_why(
    superlink: ScriptedSuperLink, closing: ExitStack, tmp_path: Path, details: str
) -> None:
    """A SuperLink that does not want the node is not asked again."""
    superlink.fault("CreateNode", Code.UNAUTHENTICATED, details, times=5)
    site = closing.enter_context(Site(superlink.fleet, tmp_path))
    assert site.wait(30) == 1
    assert "refuses this SuperNode" in site.log
    assert len(superlink.named("CreateNode")) == 1


# -- staying and leaving ------------------------------------------------------------------------


def test_119_heartbeats(superlink: ScriptedSuperLink, site: Site) -> None:
    """The first within 1 s of CreateNode, the next 17.5 to 22.5 s later; interval field 30."""
    (created,) = superlink.wait_calls("CreateNode")
    assert created.request.heartbeat_interval == 30.0
    first, second = superlink.wait_calls("SendNodeHeartbeat", 2, timeout=30)
    assert first.at - created.at < 1.0
    # As long as the machine is not busy; a late one is no fault of the pacing.
    assert 17.4 < second.at - first.at < 23.5
    for beat in (first, second):
        assert beat.request.heartbeat_interval == 30.0
        assert beat.request.node.node_id == superlink.node_id
    assert site.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_120_signals_take_the_node_off_the_list(
    superlink: ScriptedSuperLink, site: Site, number: int
) -> None:
    """With a held PullMessages: DeleteNode is sent, status 0 within 2 s, and the farewell."""
    superlink.wait_held()
    asked = time.monotonic()
    site.signal(number)
    assert site.wait(10) == 0
    assert time.monotonic() - asked < 2.0
    (left,) = superlink.named("DeleteNode")
    assert left.request.node.node_id == superlink.node_id
    assert "SuperNode terminated gracefully." in site.log


def test_120_leaving_waits_for_nobody(superlink: ScriptedSuperLink, site: Site) -> None:
    """SIGTERM ends a node in 2 s though an app works and the SuperLink answers nothing."""
    run_id = superlink.run(make_fab())
    superlink.send(instruction(run_id, superlink.node_id))
    with site.peer() as launcher, site.peer() as app:
        app.begin(launcher.launch(run_id))
        superlink.outage(Code.UNAVAILABLE)
        asked = time.monotonic()
        assert site.terminate() == 0
        # Both bounds of 1.8: the time to leave and the grace of the server.
        assert time.monotonic() - asked < 3.5
    assert superlink.named("DeleteNode")


def test_120_a_reply_on_its_way_still_arrives(superlink: ScriptedSuperLink, site: Site) -> None:
    """A reply that is whole when SIGTERM comes reaches the SuperLink before DeleteNode."""
    run_id = superlink.run(make_fab())
    sent = superlink.send(instruction(run_id, superlink.node_id))
    superlink.fault("PushObject", Code.UNAVAILABLE)
    site.work(run_id)
    superlink.wait_faults()
    assert site.terminate() == 0
    assert superlink.wait_reply(sent, 0.1).is_whole
    assert superlink.calls[-1].name == "DeleteNode"


def test_120_a_node_that_never_joined_leaves_at_once(closing: ExitStack, tmp_path: Path) -> None:
    """SIGTERM while the SuperLink cannot be reached: status 0 at once, whatever the back-off."""
    link = ScriptedSuperLink()  # never started
    site = closing.enter_context(Site(link.fleet, tmp_path))
    site.wait_log("Starting ClientAppIo API")
    asked = time.monotonic()
    assert site.terminate() == 0
    assert time.monotonic() - asked < 2.0
