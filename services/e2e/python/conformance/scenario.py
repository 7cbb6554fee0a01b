"""The situations that tests put a SuperLink into.

`Scene` is a `World` with whole exchanges. Tests of one session share a scene and stay independent
of each other by making their own nodes and runs. The shared scene never holds a call, so "nothing
there" is answered at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from flwr.common import RecordDict
from flwr.proto import message_pb2
from harness import REFERENCE, SuperLink
from wire import (
    FINISHED,
    PENDING,
    STARTING,
    STOPPED,
    Node,
    Packed,
    Pulled,
    expect_error,
    instruction,
    reply,
)
from world import HOLD_OFF, World

Code = grpc.StatusCode
TreeProto = message_pb2.ObjectTree

ABSENT, REGISTERED, STORED = "absent", "registered", "stored"

UNSET_ID = 0xFEDC_BA98_7654_3210
"""A run or node id that no test ever gets: random ids hit it with probability 2^-64."""


def reference_differs(why: str) -> pytest.MarkDecorator:
    """Skip on stock flower-superlink, which is documented to behave otherwise."""
    return pytest.mark.skipif(REFERENCE, reason=f"the reference differs: {why}")


class Scene(World):
    """One SuperLink and clients on it; nodes stay online for an hour unless told otherwise."""

    def __init__(self, link: SuperLink) -> None:
        super().__init__(link)
        self._early: Early | None = None

    def node(self, key: Any = None, heartbeat: float = 3600.0) -> Node:
        """Make a node with a connection of its own, online for `heartbeat` seconds."""
        return super().node(key, heartbeat)

    def run_in(self, status: str, fab: bytes | None = None) -> int:
        """Make a run in that status; `STOPPED` is one that was stopped while running."""
        if status in (PENDING, STARTING):
            run_id = self.pending(fab)
            if status == STARTING:
                self.appio.starting(run_id)
            return run_id
        run_id = self.run(fab)
        if status == FINISHED:
            self.appio.finish(run_id)
        elif status == STOPPED:
            assert self.control.stop_run(run_id)
        return run_id

    def send(
        self, run_id: int, node: Node, content: RecordDict | None = None, **fields: Any
    ) -> Packed:
        """Push one complete instruction."""
        sent = instruction(run_id, node.id, content, **fields)
        assert self.appio.push(sent) == [sent.id]
        return sent

    def deliver(
        self, run_id: int, node: Node, content: RecordDict | None = None, **fields: Any
    ) -> Packed:
        """Push one complete instruction and let the node receive and confirm it."""
        sent = self.send(run_id, node, content, **fields)
        got = node.pull()
        assert got is not None and got.id == sent.id
        node.receive(got)
        return sent

    def answered(self, run_id: int, node: Node, **fields: Any) -> tuple[Packed, Packed]:
        """Do one exchange up to the stored reply, which nobody has pulled yet."""
        sent = self.deliver(run_id, node, **fields)
        answer = reply(sent)
        assert answer.id in node.push(answer).results
        return sent, answer

    def results(self, run_id: int, *ids: str) -> dict[str, Pulled]:
        """Pull replies; returns them by the instruction they answer."""
        pulled = self.appio.pull_messages(run_id, ids)
        by_instruction = {p.message.metadata.reply_to_message_id: p for p in pulled}
        assert len(by_instruction) == len(pulled), "two results for one instruction"
        return by_instruction

    def result(self, run_id: int, sent: Packed | str) -> Pulled | None:
        """Pull the reply to one instruction, None while it is waiting."""
        message_id = sent if isinstance(sent, str) else sent.id
        found = self.results(run_id, message_id)
        assert set(found) <= {message_id}
        return found.get(message_id)

    def error_code(self, run_id: int, sent: Packed | str) -> int | None:
        """Pull the result of one instruction and return its error code, None for anything else."""
        got = self.result(run_id, sent)
        if got is None or not got.message.HasField("error"):
            return None
        return got.message.error.code

    def presence(self, run_id: int, object_id: str) -> str:
        """What PullObject says of an object: absent, registered or stored."""
        got = self.appio.pull_object(run_id, object_id)
        if not got.object_found:
            assert not got.object_available and not got.object_content
            return ABSENT
        if not got.object_available:
            assert not got.object_content
            return REGISTERED
        assert got.object_content
        return STORED

    def presences(self, run_id: int, object_ids: Iterable[str]) -> set[str]:
        """What PullObject says of several objects, as a set."""
        return {self.presence(run_id, object_id) for object_id in object_ids}

    def listed(self, run_id: int, node: Node) -> bool:
        """Whether GetNodes of a running run lists the node."""
        return node.id in self.appio.get_nodes(run_id)

    def go_offline(self, run_id: int, node: Node) -> None:
        """Let a node's online time run out at once."""
        assert node.heartbeat(0.01)
        deadline = time.monotonic() + 5
        while self.listed(run_id, node):
            assert time.monotonic() < deadline, "the node stays online"

    @property
    def early(self) -> Early:
        """Things made when the scene was, for statements about what must age."""
        if self._early is None:
            pending, born = self.pending(), time.monotonic()
            token = self.appio.request_token(pending)
            assert token
            self._early = Early(born, pending, token, self.run())
        return self._early

    def close(self) -> None:
        """Drop all connections; the server ends with the scene, so nothing is cleared away."""
        for client in (self.control, self.appio, *self.nodes):
            client.close()


@dataclass(frozen=True)
class Early:
    """Old things of a scene."""

    born: float
    """Monotonic instant in seconds at which the token was asked for."""
    pending: int
    """A pending run whose token was taken and never used."""
    token: str
    """The token of that run."""
    silent: int
    """A running run that never sent a heartbeat."""


@contextmanager
def open_scene(directory: Path, args: Iterable[str] = HOLD_OFF, **fields: Any) -> Iterator[Scene]:
    """Start a SuperLink of its own, without holds unless other flags are given."""
    with SuperLink(directory, args=list(args), **fields) as link:
        scene = Scene(link)
        try:
            yield scene
        finally:
            scene.close()


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One scene for every test that leaves the server healthy; it never holds a call."""
    with open_scene(tmp_path_factory.mktemp("scene")) as shared:
        assert shared.early
        yield shared


@pytest.fixture()
def held_scene(link: SuperLink) -> Iterator[Scene]:
    """A scene on the server that holds calls as long as it does by default."""
    scene = Scene(link)
    yield scene
    scene.close()


@pytest.fixture()
def fresh_scene(tmp_path: Path) -> Iterator[Scene]:
    """A scene of one's own, for statements about everything a server knows."""
    with open_scene(tmp_path / "fresh-scene") as alone:
        yield alone


def denied(details: str, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Require PERMISSION_DENIED with exactly these details."""
    expect_error(Code.PERMISSION_DENIED, details, fn, *args, **kwargs)


def sleep_until(instant: float) -> None:
    """Wait until the wall clock has passed `instant`."""
    while (left := instant - time.time()) > 0:
        time.sleep(left)
    time.sleep(0.01)


def watch_until_gone(listed: Callable[[], bool], earliest: float, latest: float) -> None:
    """Require that something is listed until an instant between the two, and not after.

    The bounds are wall clock. Every answer is judged with the doubt of its own round trip only:
    an answer asked for after `latest` must not list it, one received before `earliest` must.
    """
    while True:
        asked = time.time()
        if not listed():
            assert time.time() > earliest, f"gone {earliest - time.time():.3f} s too early"
            return
        assert asked < latest, f"still listed {asked - latest:.3f} s too late"
        time.sleep(0.02)


def tree(object_id: str, *children: TreeProto) -> TreeProto:
    """Build an object tree by hand."""
    return TreeProto(object_id=object_id, children=children)


def with_tree(
    packed: Packed, *children: TreeProto, objects: dict[str, bytes] | None = None
) -> Packed:
    """Replace what hangs below a message's root, and the objects below it.

    The server compares neither the registered tree nor the message id with the message object's
    own head, so any shape can be registered under a real message.
    """
    below = {} if objects is None else objects
    root = {packed.id: packed.objects[packed.id]}
    return Packed(packed.proto, tree(packed.id, *children), {**below, **root}, packed.message)


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Run actions in parallel threads; returns their results, raises their first error."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


def fraction_of_cpu() -> float:
    """How many tests share a core, a factor for deadlines of bulk work."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
