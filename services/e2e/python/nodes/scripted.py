"""A SuperLink that does as a test says, and remembers every call.

It serves Fleet as Flower 1.22 does, with two liberties that a SuperLink may take: a pull is held
until there is something, and an instruction is offered again until it is confirmed.

    with ScriptedSuperLink() as link:
        run = link.run(make_fab())
        ...                                     # a SuperNode joins link.fleet
        link.fault("GetRun", grpc.StatusCode.INTERNAL)
        sent = link.send(instruction(run, link.node_id))
        answer = link.wait_reply(sent)          # once all its objects are here
        assert [call.name for call in link.calls] == [...]
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from flwr.common.serde import user_config_to_proto
from flwr.proto import fab_pb2, fleet_pb2, fleet_pb2_grpc, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.node_pb2 import Node as NodeProto
from harness import free_port
from wire import MESSAGE_LIMIT, Packed, sha256, tree_ids

METHODS = (
    "CreateNode",
    "DeleteNode",
    "SendNodeHeartbeat",
    "PullMessages",
    "PushMessages",
    "GetRun",
    "GetFab",
    "PushObject",
    "PullObject",
    "ConfirmMessageReceived",
)

NODE_ID = 2**63 + 4711
"""What a node becomes here; such ids do not fit a signed number."""

HOLD_SECONDS = 25.0
WAIT_SECONDS = 30.0

CUT = "cut"
"""The stream is reset instead of answered."""


@dataclass(frozen=True)
class Call:
    """One call as it came."""

    name: str
    request: Any
    metadata: tuple[tuple[str, str | bytes], ...]
    at: float
    """Monotonic instant in seconds."""

    @property
    def keys(self) -> list[str]:
        """The names of its metadata, sorted."""
        return sorted(key for key, _ in self.metadata)


@dataclass(frozen=True)
class Fault:
    """What happens to one call."""

    how: grpc.StatusCode | str
    details: str
    is_late: bool
    """Whether the call takes effect before its answer is lost."""


@dataclass
class Reply:
    """A reply as it came, with the objects that have come."""

    message: message_pb2.Message
    tree: message_pb2.ObjectTree
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every announced object is here."""
        return set(tree_ids(self.tree)) <= set(self.objects)


class ScriptedSuperLink:
    """A Fleet service on a loopback port, without TLS."""

    def __init__(self) -> None:
        self.fleet = f"127.0.0.1:{free_port()}"
        self.node_id = NODE_ID
        self.calls: list[Call] = []
        self.replies: dict[str, list[Reply]] = {}
        """By the instruction that they answer, every one that was announced with its first try."""
        self.runs: dict[int, run_pb2.Run] = {}
        self.held = 0
        """Pulls that are held now."""
        self._changed = threading.Condition()
        self._faults: dict[str, deque[Fault]] = {}
        self._outage: Fault | None = None
        self._instructions: list[Packed] = []
        self._confirmed: set[str] = set()
        self._fabs: dict[str, bytes] = {}
        self._server: grpc.Server | None = None

    # -- what a test says --

    def run(self, fab: bytes, overrides: dict[str, Any] | None = None) -> int:
        """Make a running run; returns its id."""
        run_id = 2**63 + 100 + len(self.runs)
        self._fabs[sha256(fab)] = fab
        self.runs[run_id] = run_pb2.Run(
            run_id=run_id,
            fab_id="conformance/wire",
            fab_version="1.0.0",
            fab_hash=sha256(fab),
            override_config=user_config_to_proto(overrides or {}),
        )
        return run_id

    def send(self, sent: Packed) -> Packed:
        """Offer an instruction."""
        with self._changed:
            self._instructions.append(sent)
            self._changed.notify_all()
        return sent

    def withdraw(self, sent: Packed) -> None:
        """Offer it no more, as if it were confirmed."""
        with self._changed:
            self._confirmed.add(sent.id)

    def fault(
        self,
        method: str,
        how: grpc.StatusCode | str,
        details: str = "as the test says",
        *,
        late: bool = False,
        times: int = 1,
    ) -> None:
        """Let the next calls of a method fail; `late`, after they took effect.

        A pull is late once it hands something out.
        """
        with self._changed:
            waiting = self._faults.setdefault(method, deque())
            waiting.extend([Fault(how, details, late)] * times)

    def outage(self, code: grpc.StatusCode | None) -> None:
        """Let every call fail, held ones too, until told `None`."""
        with self._changed:
            self._outage = None if code is None else Fault(code, "as the test says", False)
            self._changed.notify_all()

    # -- what a test sees --

    def named(self, name: str) -> list[Call]:
        """The calls of one method so far."""
        return [call for call in list(self.calls) if call.name == name]

    def wait_calls(self, name: str, count: int = 1, timeout: float = WAIT_SECONDS) -> list[Call]:
        """The calls of one method, once there are so many."""
        self._wait(lambda: len(self.named(name)) >= count, timeout, f"{count} calls of {name}")
        return self.named(name)

    def wait_held(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until a pull is held."""
        self._wait(lambda: self.held > 0, timeout, "a held pull")

    def wait_faults(self, timeout: float = WAIT_SECONDS) -> None:
        """Wait until every fault has happened."""
        self._wait(lambda: not any(self._faults.values()), timeout, f"faults {self._faults}")

    def wait_reply(self, sent: Packed, timeout: float = WAIT_SECONDS) -> Reply:
        """The reply to an instruction, once all of it is here."""

        def whole() -> bool:
            return any(reply.is_whole for reply in self.replies.get(sent.id, []))

        self._wait(whole, timeout, f"the reply to {sent.id}")
        return next(reply for reply in self.replies[sent.id] if reply.is_whole)

    def _wait(self, condition: Any, timeout: float, what: str) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                names = [call.name for call in self.calls][-20:]
                raise AssertionError(f"timed out waiting for {what}; the last calls: {names}")

    # -- the service --

    def start(self) -> ScriptedSuperLink:
        """Listen, again after `stop`."""
        options = [
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.so_reuseport", 1),
        ]
        self._server = grpc.server(ThreadPoolExecutor(16), options=options)
        servicer = fleet_pb2_grpc.FleetServicer()
        for name in METHODS:
            setattr(servicer, name, partial(self._serve, name))
        fleet_pb2_grpc.add_FleetServicer_to_server(servicer, self._server)
        self._server.add_insecure_port(self.fleet)
        self._server.start()
        return self

    def stop(self) -> None:
        """Drop every connection and listen no more."""
        if self._server is not None:
            stopped = self._server.stop(0)
            with self._changed:
                self._changed.notify_all()
            stopped.wait()

    def __enter__(self) -> ScriptedSuperLink:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, name: str, request: Any, context: grpc.ServicerContext) -> Any:
        metadata = tuple((key, value) for key, value in context.invocation_metadata())
        with self._changed:
            self.calls.append(Call(name, request, metadata, time.monotonic()))
            self._changed.notify_all()
        self._fail_if(name, context, False)
        response = getattr(self, f"_{name}")(request, context)
        if name != "PullMessages" or response.messages_list:
            self._fail_if(name, context, True)
        return response

    def _fail_if(self, name: str, context: grpc.ServicerContext, is_late: bool) -> None:
        with self._changed:
            waiting = self._faults.get(name)
            fault = self._outage
            if fault is None and waiting and waiting[0].is_late == is_late:
                fault = waiting.popleft()
                self._changed.notify_all()
        if fault is not None:
            _fail(context, fault)

    def _CreateNode(self, *_: Any) -> fleet_pb2.CreateNodeResponse:
        return fleet_pb2.CreateNodeResponse(node=NodeProto(node_id=self.node_id))

    def _DeleteNode(self, *_: Any) -> fleet_pb2.DeleteNodeResponse:
        return fleet_pb2.DeleteNodeResponse()

    def _SendNodeHeartbeat(self, *_: Any) -> heartbeat_pb2.SendNodeHeartbeatResponse:
        return heartbeat_pb2.SendNodeHeartbeatResponse(success=True)

    def _PullMessages(
        self, _request: Any, context: grpc.ServicerContext
    ) -> fleet_pb2.PullMessagesResponse:
        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        context.add_callback(wake)
        with self._changed:
            self.held += 1
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self._offered() or self._outage or not context.is_active(), HOLD_SECONDS
            )
            self.held -= 1
            outage, offered = self._outage, self._offered()
        if outage is not None:
            _fail(context, outage)
        response = fleet_pb2.PullMessagesResponse()
        if offered:
            response.messages_list.append(offered[0].proto)
            response.message_object_trees.append(offered[0].tree)
        return response

    def _offered(self) -> list[Packed]:
        return [sent for sent in self._instructions if sent.id not in self._confirmed]

    def _GetRun(self, request: Any, _context: Any) -> run_pb2.GetRunResponse:
        return run_pb2.GetRunResponse(run=self.runs.get(request.run_id))

    def _GetFab(self, request: Any, _context: Any) -> fab_pb2.GetFabResponse:
        content = self._fabs[request.hash_str]
        return fab_pb2.GetFabResponse(fab=fab_pb2.Fab(hash_str=request.hash_str, content=content))

    def _PullObject(self, request: Any, _context: Any) -> message_pb2.PullObjectResponse:
        for sent in self._instructions:
            if request.object_id in sent.objects:
                return message_pb2.PullObjectResponse(
                    object_found=True,
                    object_available=True,
                    object_content=sent.objects[request.object_id],
                )
        return message_pb2.PullObjectResponse()

    def _ConfirmMessageReceived(
        self, request: Any, _context: Any
    ) -> message_pb2.ConfirmMessageReceivedResponse:
        with self._changed:
            self._confirmed.add(request.message_object_id)
        return message_pb2.ConfirmMessageReceivedResponse()

    def _PushMessages(self, request: Any, _context: Any) -> fleet_pb2.PushMessagesResponse:
        message, tree = request.messages_list[0], request.message_object_trees[0]
        with self._changed:
            replies = self.replies.setdefault(message.metadata.reply_to_message_id, [])
            known = [reply for reply in replies if reply.message == message]
            if not known:
                known = [Reply(message, tree)]
                replies += known
            missing = [oid for oid in tree_ids(tree) if oid not in known[0].objects]
            self._changed.notify_all()
        return fleet_pb2.PushMessagesResponse(
            reconnect=fleet_pb2.Reconnect(reconnect=5),
            results={message.metadata.message_id: 0},
            objects_to_push=list(dict.fromkeys(missing)),
        )

    def _PushObject(self, request: Any, _context: Any) -> message_pb2.PushObjectResponse:
        stored = False
        with self._changed:
            for reply in [reply for replies in self.replies.values() for reply in replies]:
                if request.object_id in tree_ids(reply.tree):
                    assert sha256(request.object_content) == request.object_id
                    reply.objects[request.object_id] = request.object_content
                    stored = True
            self._changed.notify_all()
        return message_pb2.PushObjectResponse(stored=stored)


def _fail(context: grpc.ServicerContext, fault: Fault) -> None:
    if isinstance(fault.how, grpc.StatusCode):
        context.abort(fault.how, fault.details)
    context.cancel()
