"""Flower 1.22 on the wire: what one stock peer sends, one call at a time.

Everything here speaks through the stock generated stubs over a real channel, so a test says
exactly which request goes out and sees exactly which response or status comes back. Nothing is
retried and every call has a deadline. The module knows addresses, not processes: starting the
server under test is `harness`'s business.

    fab = make_fab()
    control, appio = Control(link.control), AppIo(link.serverappio)
    run_id = control.start_run(fab)
    appio.running(run_id)                       # pending -> starting -> running
    node = Node(link.fleet); node.create()
    sent = instruction(run_id, node.id, arrays(1000))
    appio.push(sent)                            # message, tree and objects
    got = node.pull()                           # Pulled(message, tree) or None
    node.receive(got)                           # pulls the objects and confirms
    node.push(reply(sent, arrays(1000)))
    results = appio.pull_messages(run_id, [sent.id])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common import RecordDict
from flwr.common.serde import user_config_to_proto
from flwr.proto import (
    appio_pb2,
    control_pb2,
    control_pb2_grpc,
    fab_pb2,
    fleet_pb2,
    fleet_pb2_grpc,
    grpcadapter_pb2,
    grpcadapter_pb2_grpc,
    heartbeat_pb2,
    log_pb2,
    message_pb2,
    recorddict_pb2,
    run_pb2,
    serverappio_pb2,
    serverappio_pb2_grpc,
)
from flwr.proto.node_pb2 import Node as NodeProto
from nodekey import *  # noqa: F403 - one import serves every test
from nodekey import new_key, signed
from packing import *  # noqa: F403 - one import serves every test
from packing import SUPERLINK, Packed, Pulled, instruction, make_fab, sha256, tree_ids

CALL_TIMEOUT = 20.0
"""Deadline of every call in seconds unless the test gives another."""

MESSAGE_LIMIT = 2**31 - 1

PENDING, STARTING, RUNNING, FINISHED = "pending", "starting", "running", "finished"
COMPLETED, FAILED, STOPPED = "completed", "failed", "stopped"


def channel(
    address: str,
    *,
    root_certificates: bytes | None = None,
    options: Iterable[tuple[str, Any]] = (),
) -> grpc.Channel:
    """Open a channel of its own (no shared connection) with Flower's message limits."""
    settings: list[tuple[str, Any]] = [
        ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ("grpc.max_receive_message_length", MESSAGE_LIMIT),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        *options,
    ]
    if root_certificates is None:
        return grpc.insecure_channel(address, options=settings)
    credentials = grpc.ssl_channel_credentials(root_certificates)
    return grpc.secure_channel(address, credentials, options=settings)


def expect_error(
    code: grpc.StatusCode | Iterable[grpc.StatusCode] | None,
    details: str | re.Pattern[str] | None,
    fn: Callable[..., Any],
    *args: Any,
    **kwargs: Any,
) -> grpc.RpcError:
    """Run `fn`, require an RPC error of that code and details, and return the error.

    `code` may be one code, several, or None for any. `details` is compared exactly when it is a
    string, searched for when it is a compiled pattern, and ignored when it is None.
    """
    try:
        answer = fn(*args, **kwargs)
    except grpc.RpcError as error:
        seen = f"{error.code()} {error.details()!r}"
        if code is not None:
            wanted = {code} if isinstance(code, grpc.StatusCode) else set(code)
            assert error.code() in wanted, f"expected {wanted}, got {seen}"
        if isinstance(details, str):
            assert error.details() == details, f"expected details {details!r}, got {seen}"
        elif details is not None:
            assert details.search(error.details() or ""), (
                f"expected {details.pattern!r}, got {seen}"
            )
        return error
    raise AssertionError(f"expected {code} {details!r}, got the answer {answer!r}")


class Client:
    """One stub over one connection. A context manager; `close()` drops the connection."""

    STUB: type

    def __init__(
        self,
        address: str,
        *,
        root_certificates: bytes | None = None,
        options: Iterable[tuple[str, Any]] = (),
    ) -> None:
        self.address = address
        self.channel = channel(address, root_certificates=root_certificates, options=options)
        self.stub = self.STUB(self.channel)

    def metadata(self) -> list[tuple[str, str | bytes]]:
        """Return the metadata this peer attaches to each of its calls."""
        return []

    def call(
        self,
        method: str,
        request: Any,
        *,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        timeout: float | None = CALL_TIMEOUT,
    ) -> Any:
        """Call `method` and wait for its response; raises grpc.RpcError."""
        return self.future(method, request, metadata=metadata, timeout=timeout).result()

    def future(
        self,
        method: str,
        request: Any,
        *,
        metadata: Iterable[tuple[str, str | bytes]] | None = None,
        timeout: float | None = CALL_TIMEOUT,
    ) -> grpc.Future:
        """Start `method` and return its future: result(), cancel(), done(), code(), details()."""
        sent = self.metadata() if metadata is None else list(metadata)
        return getattr(self.stub, method).future(request, timeout=timeout, metadata=sent)

    def close(self) -> None:
        """Drop the connection."""
        self.channel.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Node(Client):
    """One SuperNode's side of Fleet: own key, every call freshly signed."""

    STUB = fleet_pb2_grpc.FleetStub

    def __init__(
        self,
        address: str,
        key: ec.EllipticCurvePrivateKey | None = None,
        *,
        root_certificates: bytes | None = None,
        options: Iterable[tuple[str, Any]] = (),
    ) -> None:
        super().__init__(address, root_certificates=root_certificates, options=options)
        self.key = new_key() if key is None else key
        self.id = 0
        """Node id after create(); 0 before."""

    def metadata(self) -> list[tuple[str, str | bytes]]:
        """Return fresh authentication headers."""
        return signed(self.key)

    @property
    def proto(self) -> NodeProto:
        """Return the `node` field of this node's requests."""
        return NodeProto(node_id=self.id)

    def create(self, heartbeat: float = 30.0, **options: Any) -> int:
        """CreateNode; remembers and returns the id."""
        request = fleet_pb2.CreateNodeRequest(heartbeat_interval=heartbeat)
        self.id = self.call("CreateNode", request, **options).node.node_id
        return self.id

    def delete(self, **options: Any) -> fleet_pb2.DeleteNodeResponse:
        """DeleteNode."""
        return self.call("DeleteNode", fleet_pb2.DeleteNodeRequest(node=self.proto), **options)

    def heartbeat(self, interval: float = 30.0, **options: Any) -> bool:
        """SendNodeHeartbeat; returns `success`."""
        request = heartbeat_pb2.SendNodeHeartbeatRequest(
            node=self.proto, heartbeat_interval=interval
        )
        return self.call("SendNodeHeartbeat", request, **options).success

    def pull_request(self) -> fleet_pb2.PullMessagesRequest:
        """Return this node's PullMessages request."""
        return fleet_pb2.PullMessagesRequest(node=self.proto)

    def pull_response(self, **options: Any) -> fleet_pb2.PullMessagesResponse:
        """PullMessages, the whole response. May be held by the server for up to 25 s."""
        options.setdefault("timeout", 40.0)
        return self.call("PullMessages", self.pull_request(), **options)

    def pull_future(self, **options: Any) -> grpc.Future:
        """Start PullMessages and return its future."""
        options.setdefault("timeout", 40.0)
        return self.future("PullMessages", self.pull_request(), **options)

    def pull(self, **options: Any) -> Pulled | None:
        """PullMessages; None if there was nothing. Checks that messages and trees go together."""
        return pulled(self.pull_response(**options))

    def push_messages(self, *replies: Packed, **options: Any) -> fleet_pb2.PushMessagesResponse:
        """PushMessages alone: metadata and trees, no objects."""
        request = fleet_pb2.PushMessagesRequest(
            node=self.proto,
            messages_list=[r.proto for r in replies],
            message_object_trees=[r.tree for r in replies],
        )
        return self.call("PushMessages", request, **options)

    def push_reply(self, answer: Packed, **options: Any) -> fleet_pb2.PushMessagesResponse:
        """PushMessages and then every object the server asked for, as a stock SuperNode does."""
        response = self.push_messages(answer, **options)
        self.push_objects(answer, response.objects_to_push)
        return response

    push = push_reply

    def push_objects(self, packed: Packed, wanted: Iterable[str] | None = None) -> None:
        """PushObject for all (or the wanted) objects, children first; each must be stored."""
        chosen = None if wanted is None else set(wanted)
        for object_id, content in packed.objects.items():
            if chosen is None or object_id in chosen:
                assert self.push_object(packed.run_id, object_id, content).stored, object_id

    def push_object(
        self, run_id: int, object_id: str, content: bytes, **options: Any
    ) -> message_pb2.PushObjectResponse:
        """PushObject."""
        request = message_pb2.PushObjectRequest(
            node=self.proto, run_id=run_id, object_id=object_id, object_content=content
        )
        return self.call("PushObject", request, **options)

    def pull_object(
        self, run_id: int, object_id: str, **options: Any
    ) -> message_pb2.PullObjectResponse:
        """PullObject."""
        return self.call("PullObject", self.pull_object_request(run_id, object_id), **options)

    def pull_object_request(self, run_id: int, object_id: str) -> message_pb2.PullObjectRequest:
        """Return this node's PullObject request."""
        return message_pb2.PullObjectRequest(node=self.proto, run_id=run_id, object_id=object_id)

    def confirm(
        self, run_id: int, message_id: str, **options: Any
    ) -> message_pb2.ConfirmMessageReceivedResponse:
        """ConfirmMessageReceived."""
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self.proto, run_id=run_id, message_object_id=message_id
        )
        return self.call("ConfirmMessageReceived", request, **options)

    def receive(self, got: Pulled) -> dict[str, bytes]:
        """Pull every object of a message, check each hash, and confirm; returns the objects."""
        objects = fetch(self, got.run_id, got.tree)
        self.confirm(got.run_id, got.id)
        return objects

    def get_run(self, run_id: int, **options: Any) -> run_pb2.GetRunResponse:
        """GetRun."""
        return self.call("GetRun", run_pb2.GetRunRequest(node=self.proto, run_id=run_id), **options)

    def get_fab(self, fab_hash: str, run_id: int, **options: Any) -> fab_pb2.GetFabResponse:
        """GetFab."""
        request = fab_pb2.GetFabRequest(node=self.proto, hash_str=fab_hash, run_id=run_id)
        return self.call("GetFab", request, **options)


def pulled(response: fleet_pb2.PullMessagesResponse) -> Pulled | None:
    """Unpack a Fleet.PullMessages response: at most one message, and as many trees."""
    assert len(response.messages_list) == len(response.message_object_trees) <= 1
    if not response.messages_list:
        return None
    return Pulled(response.messages_list[0], response.message_object_trees[0])


def fetch(peer: Node | AppIo, run_id: int, tree: message_pb2.ObjectTree) -> dict[str, bytes]:
    """Pull every object of a tree; each must be there and hash to its id."""
    objects: dict[str, bytes] = {}
    for object_id in tree_ids(tree):
        got = peer.pull_object(run_id, object_id)
        assert got.object_found and got.object_available, object_id
        assert sha256(got.object_content) == object_id
        objects[object_id] = got.object_content
    return objects


class Adapter(Client):
    """Fleet calls tunnelled through GrpcAdapter.SendReceive, as `--grpc-adapter` peers do."""

    STUB = grpcadapter_pb2_grpc.GrpcAdapterStub

    def container(self, request: Any, **overrides: Any) -> grpcadapter_pb2.MessageContainer:
        """Wrap a Fleet request; `name`, `content` and `headers` replace what would be sent."""
        name = type(request).DESCRIPTOR.name
        headers = {
            "flower-package-name": "flwr",
            "flower-package-version": "1.22.0",
            "flower-version": "1.22.0",
            "grpc-message-module": type(request).__module__,
            "grpc-message-qualname": name,
        }
        return grpcadapter_pb2.MessageContainer(
            metadata=overrides.get("headers", headers),
            grpc_message_name=overrides.get("name", name),
            grpc_message_content=overrides.get("content", request.SerializeToString()),
        )

    def exchange(self, request: Any, **options: Any) -> grpcadapter_pb2.MessageContainer:
        """SendReceive, the response container as it came."""
        return self.call("SendReceive", self.container(request), **options)

    def send(self, request: Any, response_type: type, **options: Any) -> Any:
        """SendReceive and unwrap the response, which must be of `response_type`."""
        answer = self.exchange(request, **options)
        assert answer.grpc_message_name == response_type.DESCRIPTOR.name
        return response_type.FromString(answer.grpc_message_content)


class AppIo(Client):
    """The ServerApp's and SuperExec's side of ServerAppIo."""

    STUB = serverappio_pb2_grpc.ServerAppIoStub

    NODE = NodeProto(node_id=SUPERLINK)

    def list_apps(self, **options: Any) -> list[int]:
        """ListAppsToLaunch. May be held by the server for up to 25 s."""
        options.setdefault("timeout", 40.0)
        return list(
            self.call("ListAppsToLaunch", appio_pb2.ListAppsToLaunchRequest(), **options).run_ids
        )

    def request_token(self, run_id: int, **options: Any) -> str:
        """RequestToken; the empty string means no."""
        return self.call(
            "RequestToken", appio_pb2.RequestTokenRequest(run_id=run_id), **options
        ).token

    def pull_inputs(self, token: str, **options: Any) -> appio_pb2.PullAppInputsResponse:
        """PullAppInputs."""
        return self.call("PullAppInputs", appio_pb2.PullAppInputsRequest(token=token), **options)

    def push_outputs(
        self, token: str, run_id: int, context: Any, **options: Any
    ) -> appio_pb2.PushAppOutputsResponse:
        """PushAppOutputs."""
        request = appio_pb2.PushAppOutputsRequest(token=token, run_id=run_id, context=context)
        return self.call("PushAppOutputs", request, **options)

    def update_status(
        self, run_id: int, status: str, sub_status: str = "", details: str = "", **options: Any
    ) -> run_pb2.UpdateRunStatusResponse:
        """UpdateRunStatus."""
        request = run_pb2.UpdateRunStatusRequest(
            run_id=run_id,
            run_status=run_pb2.RunStatus(status=status, sub_status=sub_status, details=details),
        )
        return self.call("UpdateRunStatus", request, **options)

    def starting(self, run_id: int) -> str:
        """Take a pending run to starting, as `flwr-serverapp` does first; returns its token."""
        token = self.request_token(run_id)
        assert token, f"run {run_id} already has a token"
        self.pull_inputs(token)
        return token

    def running(self, run_id: int) -> str:
        """Take a pending run to running; returns its token."""
        token = self.starting(run_id)
        self.update_status(run_id, RUNNING)
        return token

    def finish(self, run_id: int, sub_status: str = COMPLETED, details: str = "") -> None:
        """Take a running run to finished."""
        self.update_status(run_id, FINISHED, sub_status, details)

    def status(self, run_id: int) -> tuple[str, str, str]:
        """Return (status, sub_status, details) through GetRun."""
        status = self.get_run(run_id).run.status
        return status.status, status.sub_status, status.details

    def get_nodes(self, run_id: int, **options: Any) -> list[int]:
        """GetNodes."""
        request = serverappio_pb2.GetNodesRequest(run_id=run_id)
        return [node.node_id for node in self.call("GetNodes", request, **options).nodes]

    def get_run(self, run_id: int, **options: Any) -> run_pb2.GetRunResponse:
        """GetRun."""
        return self.call("GetRun", run_pb2.GetRunRequest(run_id=run_id), **options)

    def get_run_status(self, *run_ids: int, **options: Any) -> dict[int, run_pb2.RunStatus]:
        """GetRunStatus."""
        request = run_pb2.GetRunStatusRequest(run_ids=run_ids)
        return dict(self.call("GetRunStatus", request, **options).run_status_dict)

    def get_fab(self, fab_hash: str, run_id: int = 0, **options: Any) -> fab_pb2.GetFabResponse:
        """GetFab."""
        request = fab_pb2.GetFabRequest(hash_str=fab_hash, run_id=run_id)
        return self.call("GetFab", request, **options)

    def push_messages(
        self, *sent: Packed, run_id: int | None = None, **options: Any
    ) -> appio_pb2.PushAppMessagesResponse:
        """PushMessages alone: metadata and trees, no objects. The run is the first message's."""
        request = appio_pb2.PushAppMessagesRequest(
            messages_list=[s.proto for s in sent],
            run_id=sent[0].run_id if run_id is None else run_id,
            message_object_trees=[s.tree for s in sent],
        )
        return self.call("PushMessages", request, **options)

    def push(self, *sent: Packed, **options: Any) -> list[str]:
        """PushMessages and then every object the server asked for; returns the message ids."""
        response = self.push_messages(*sent, **options)
        wanted = set(response.objects_to_push)
        for packed in sent:
            self.push_objects(packed, wanted)
            wanted.difference_update(packed.objects)
        return list(response.message_ids)

    def push_message(self, node: Node, content: RecordDict | None = None, **fields: Any) -> Packed:
        """Build and push one complete instruction for `node`; `fields` must hold run_id."""
        packed = instruction(fields.pop("run_id"), node.id, content, **fields)
        assert self.push(packed) == [packed.id]
        return packed

    def push_objects(self, packed: Packed, wanted: Iterable[str] | None = None) -> None:
        """PushObject for all (or the wanted) objects, children first; each must be stored."""
        chosen = None if wanted is None else set(wanted)
        for object_id, content in packed.objects.items():
            if chosen is None or object_id in chosen:
                assert self.push_object(packed.run_id, object_id, content).stored, object_id

    def push_object(
        self,
        run_id: int,
        object_id: str,
        content: bytes,
        *,
        node_id: int = SUPERLINK,
        **options: Any,
    ) -> message_pb2.PushObjectResponse:
        """PushObject."""
        request = message_pb2.PushObjectRequest(
            node=NodeProto(node_id=node_id),
            run_id=run_id,
            object_id=object_id,
            object_content=content,
        )
        return self.call("PushObject", request, **options)

    def pull_object(
        self, run_id: int, object_id: str, *, node_id: int = SUPERLINK, **options: Any
    ) -> message_pb2.PullObjectResponse:
        """PullObject."""
        request = message_pb2.PullObjectRequest(
            node=NodeProto(node_id=node_id), run_id=run_id, object_id=object_id
        )
        return self.call("PullObject", request, **options)

    def pull_request(self, run_id: int, ids: Iterable[str]) -> appio_pb2.PullAppMessagesRequest:
        """Return the PullMessages request for some instruction ids."""
        return appio_pb2.PullAppMessagesRequest(message_ids=ids, run_id=run_id)

    def pull_messages(self, run_id: int, ids: Iterable[str], **options: Any) -> list[Pulled]:
        """PullMessages. May be held by the server for up to 10 s."""
        options.setdefault("timeout", 30.0)
        response = self.call("PullMessages", self.pull_request(run_id, ids), **options)
        return results(response)

    def pull_future(self, run_id: int, ids: Iterable[str], **options: Any) -> grpc.Future:
        """Start PullMessages and return its future; unpack the response with `results`."""
        options.setdefault("timeout", 30.0)
        return self.future("PullMessages", self.pull_request(run_id, ids), **options)

    def confirm(
        self, run_id: int, message_id: str, **options: Any
    ) -> message_pb2.ConfirmMessageReceivedResponse:
        """ConfirmMessageReceived."""
        request = message_pb2.ConfirmMessageReceivedRequest(
            node=self.NODE, run_id=run_id, message_object_id=message_id
        )
        return self.call("ConfirmMessageReceived", request, **options)

    def receive(self, run_id: int, got: Pulled) -> dict[str, bytes]:
        """Pull every object of a result, check each hash, and confirm; returns the objects."""
        objects = fetch(self, run_id, got.tree)
        self.confirm(run_id, got.id)
        return objects

    def push_logs(self, run_id: int, *logs: str, **options: Any) -> log_pb2.PushLogsResponse:
        """PushLogs."""
        request = log_pb2.PushLogsRequest(node=NodeProto(node_id=0), run_id=run_id, logs=logs)
        return self.call("PushLogs", request, **options)

    def heartbeat(self, run_id: int, interval: float = 30.0, **options: Any) -> bool:
        """SendAppHeartbeat; returns `success`."""
        request = heartbeat_pb2.SendAppHeartbeatRequest(run_id=run_id, heartbeat_interval=interval)
        return self.call("SendAppHeartbeat", request, **options).success


def results(response: appio_pb2.PullAppMessagesResponse) -> list[Pulled]:
    """Unpack a ServerAppIo.PullMessages response; messages and trees must go together."""
    assert len(response.messages_list) == len(response.message_object_trees)
    pairs = [
        Pulled(message, tree)
        for message, tree in zip(response.messages_list, response.message_object_trees)
    ]
    for pair in pairs:
        assert pair.id == pair.tree.object_id
    return pairs


class Control(Client):
    """The `flwr` CLI's side of Control."""

    STUB = control_pb2_grpc.ControlStub

    def start_run_response(
        self,
        fab: bytes | None = None,
        *,
        fab_hash: str | None = None,
        overrides: dict[str, Any] | None = None,
        options: recorddict_pb2.ConfigRecord | None = None,
        **call: Any,
    ) -> control_pb2.StartRunResponse:
        """StartRun, the whole response; `run_id` is absent when the FAB was refused."""
        content = make_fab() if fab is None else fab
        request = control_pb2.StartRunRequest(
            fab=fab_pb2.Fab(
                hash_str=sha256(content) if fab_hash is None else fab_hash, content=content
            ),
            override_config=user_config_to_proto(overrides or {}),
            federation_options=options or recorddict_pb2.ConfigRecord(),
        )
        return self.call("StartRun", request, **call)

    def start_run(self, fab: bytes | None = None, **fields: Any) -> int:
        """StartRun of a FAB that must be accepted; returns the run id of the pending run."""
        response = self.start_run_response(fab, **fields)
        assert response.HasField("run_id"), "the run was refused"
        return response.run_id

    def stop_run(self, run_id: int, **options: Any) -> bool:
        """StopRun; returns `success`."""
        return self.call("StopRun", control_pb2.StopRunRequest(run_id=run_id), **options).success

    def list_runs(self, run_id: int | None = None, **options: Any) -> control_pb2.ListRunsResponse:
        """ListRuns, of one run or of all."""
        request = control_pb2.ListRunsRequest()
        if run_id is not None:
            request.run_id = run_id
        return self.call("ListRuns", request, **options)

    def stream_logs(
        self, run_id: int, after: float = 0.0, *, timeout: float | None = CALL_TIMEOUT
    ) -> Any:
        """StreamLogs: iterate for StreamLogsResponse; the result also has cancel() and code()."""
        request = control_pb2.StreamLogsRequest(run_id=run_id, after_timestamp=after)
        return self.stub.StreamLogs(request, timeout=timeout, metadata=self.metadata())


def running_run(control: Control, appio: AppIo, fab: bytes | None = None) -> int:
    """Start a run and take it to running; returns its id."""
    run_id = control.start_run(fab)
    appio.running(run_id)
    return run_id
