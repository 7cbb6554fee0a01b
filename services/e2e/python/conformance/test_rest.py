"""Protocol section 2.6: Fleet over plain HTTP, as ``flower-supernode --rest`` speaks it."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
from flwr.proto.node_pb2 import Node as NodeProto
from harness import Certificates, SuperLink, wait_for
from wire import AppIo, Control, arrays, instruction, make_fab, reply, sha256, tree_ids

PROTOBUF = "application/protobuf"
HEADERS = {"Content-Type": PROTOBUF, "Accept": PROTOBUF}


class RestNode:
    """One SuperNode's side of REST: a connection for each call, as stock SuperNodes do."""

    def __init__(self, base: str, verify: Any = True) -> None:
        self.base = base
        self.verify = verify
        self.id = 0

    @property
    def proto(self) -> NodeProto:
        """The `node` field of this node's requests."""
        return NodeProto(node_id=self.id)

    def post(self, name: str, request: Any, timeout: float = 40.0) -> requests.Response:
        """One call, whatever becomes of it."""
        url, data = f"{self.base}/api/v0/fleet/{name}", request.SerializeToString()
        return requests.post(url, data=data, headers=HEADERS, verify=self.verify, timeout=timeout)

    def call(self, name: str, request: Any, response_type: type, timeout: float = 40.0) -> Any:
        """One call that succeeds."""
        answer = self.post(name, request, timeout)
        assert (answer.status_code, answer.headers["content-type"]) == (200, PROTOBUF), answer.text
        return response_type.FromString(answer.content)

    def create(self) -> int:
        """CreateNode."""
        request = fleet_pb2.CreateNodeRequest(heartbeat_interval=30.0)
        self.id = self.call("create-node", request, fleet_pb2.CreateNodeResponse).node.node_id
        return self.id

    def pull(self) -> fleet_pb2.PullMessagesResponse:
        """PullMessages."""
        request = fleet_pb2.PullMessagesRequest(node=self.proto)
        return self.call("pull-messages", request, fleet_pb2.PullMessagesResponse)

    def pull_object(self, run_id: int, object_id: str) -> message_pb2.PullObjectResponse:
        """PullObject."""
        request = message_pb2.PullObjectRequest(
            node=self.proto, run_id=run_id, object_id=object_id
        )
        return self.call("pull-object", request, message_pb2.PullObjectResponse)


@pytest.fixture()
def rest_link(start_superlink: Callable[..., SuperLink]) -> Iterator[SuperLink]:
    yield start_superlink(args=["--fleet-api-type", "rest"])


@pytest.fixture()
def node(rest_link: SuperLink) -> RestNode:
    return RestNode(f"http://{rest_link.fleet}")


def _check_a_round(link: SuperLink, node: RestNode) -> None:
    node.create()
    with Control(link.control) as control, AppIo(link.serverappio) as app:
        run_id = control.start_run(make_fab())
        app.running(run_id)
        assert app.get_nodes(run_id) == [node.id]
        run_request = run_pb2.GetRunRequest(node=node.proto, run_id=run_id)
        run = node.call("get-run", run_request, run_pb2.GetRunResponse).run
        fab_request = fab_pb2.GetFabRequest(
            node=node.proto, run_id=run_id, hash_str=run.fab_hash
        )
        fab = node.call("get-fab", fab_request, fab_pb2.GetFabResponse).fab
        assert sha256(fab.content) == run.fab_hash

        sent = instruction(run_id, node.id, arrays(200_000))
        app.push(sent)
        pulled = node.pull()
        assert [message.metadata.message_id for message in pulled.messages_list] == [sent.id]
        for object_id in tree_ids(pulled.message_object_trees[0]):
            got = node.pull_object(run_id, object_id)
            assert got.object_available and sha256(got.object_content) == object_id
        confirm = message_pb2.ConfirmMessageReceivedRequest(
            node=node.proto, run_id=run_id, message_object_id=sent.id
        )
        answered = message_pb2.ConfirmMessageReceivedResponse
        node.call("confirm-message-received", confirm, answered)

        back = reply(sent, arrays(200_000))
        push = fleet_pb2.PushMessagesRequest(
            node=node.proto, messages_list=[back.proto], message_object_trees=[back.tree]
        )
        wanted = node.call("push-messages", push, fleet_pb2.PushMessagesResponse).objects_to_push
        assert set(wanted) == set(back.objects)
        for object_id, content in back.objects.items():
            request = message_pb2.PushObjectRequest(
                node=node.proto, run_id=run_id, object_id=object_id, object_content=content
            )
            assert node.call("push-object", request, message_pb2.PushObjectResponse).stored
        assert [got.id for got in app.pull_messages(run_id, [sent.id])] == [back.id]

    beat = heartbeat_pb2.SendNodeHeartbeatRequest(node=node.proto, heartbeat_interval=30.0)
    assert node.call("send-node-heartbeat", beat, heartbeat_pb2.SendNodeHeartbeatResponse).success
    gone = fleet_pb2.DeleteNodeRequest(node=node.proto)
    node.call("delete-node", gone, fleet_pb2.DeleteNodeResponse)
    beaten = node.call("send-node-heartbeat", beat, heartbeat_pb2.SendNodeHeartbeatResponse)
    assert not beaten.success


def test_rest_all_calls_of_a_round(rest_link: SuperLink, node: RestNode) -> None:
    _check_a_round(rest_link, node)


def test_rest_over_tls(
    start_superlink: Callable[..., SuperLink], certificates: Certificates
) -> None:
    link = start_superlink(tls=certificates, args=["--fleet-api-type", "rest"])
    node = RestNode(f"https://{link.fleet}", verify=str(certificates.ca))
    assert node.create() > 1
    with pytest.raises(requests.exceptions.SSLError):
        RestNode(f"https://{link.fleet}").create()


@pytest.mark.parametrize(
    ("method", "path", "headers", "code", "text"),
    [
        ("GET", "create-node", HEADERS, 405, "Method Not Allowed"),
        ("POST", "no-such-call", HEADERS, 404, "Not Found"),
        ("POST", "create-node", {"Accept": PROTOBUF}, 400, "Missing header `Content-Type`"),
        (
            "POST",
            "create-node",
            {"Content-Type": f"{PROTOBUF}; charset=utf-8", "Accept": PROTOBUF},
            400,
            "Unsupported `Content-Type`",
        ),
        (
            "POST",
            "create-node",
            {"Content-Type": PROTOBUF, "Accept": None},
            400,
            "Missing header `Accept`",
        ),
        ("POST", "create-node", {"Content-Type": PROTOBUF}, 400, "Unsupported `Accept`"),
    ],
)
def test_rest_headers_are_checked(
    rest_link: SuperLink, method: str, path: str, headers: dict[str, Any], code: int, text: str
) -> None:
    url = f"http://{rest_link.fleet}/api/v0/fleet/{path}"
    answer = requests.request(method, url, headers=headers, timeout=10)
    assert (answer.status_code, answer.text) == (code, text)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("create-node", b"\xff\xff\xff"),
        ("get-fab", b"\x12\x03abc\x18\x05"),
        ("push-object", b"\x10\x05"),
        ("push-messages", b""),
    ],
)
def test_rest_failures_are_no_success(rest_link: SuperLink, name: str, body: bytes) -> None:
    url = f"http://{rest_link.fleet}/api/v0/fleet/{name}"
    answer = requests.post(url, data=body, headers=HEADERS, timeout=10)
    assert answer.status_code >= 400
    assert answer.headers["content-type"].startswith("text/plain")
    RestNode(f"http://{rest_link.fleet}").create()


def test_rest_the_run_gate_is_a_refusal(rest_link: SuperLink, node: RestNode) -> None:
    node.create()
    with Control(rest_link.control) as control:
        run_id = control.start_run(make_fab())
    request = message_pb2.PullObjectRequest(node=node.proto, run_id=run_id, object_id="0" * 64)
    assert node.post("pull-object", request).status_code >= 400


@pytest.mark.hardening
def test_rest_a_poll_is_held_until_there_is_something(
    rest_link: SuperLink, node: RestNode
) -> None:
    node.create()
    with Control(rest_link.control) as control, AppIo(rest_link.serverappio) as app:
        run_id = control.start_run(make_fab())
        app.running(run_id)
        held: list[Any] = []
        poll = threading.Thread(target=lambda: held.append(node.pull()))
        poll.start()
        sent = instruction(run_id, node.id, arrays(10))
        app.push(sent)
        poll.join(5.0)
        assert held[0].messages_list[0].metadata.message_id == sent.id


@pytest.mark.hardening
def test_rest_a_shutdown_ends_held_polls(rest_link: SuperLink, node: RestNode) -> None:
    node.create()
    request = fleet_pb2.PullMessagesRequest(node=node.proto).SerializeToString()
    connection = http.client.HTTPConnection(rest_link.fleet, timeout=10)
    connection.request("POST", "/api/v0/fleet/pull-messages", request, HEADERS)
    wait_for(lambda: not _unread(connection.sock), 10.0, "the poll to be read")
    rest_link.process.terminate()
    answer = connection.getresponse()
    polled = fleet_pb2.PullMessagesResponse.FromString(answer.read())
    assert answer.status == 200 and not polled.messages_list


@pytest.mark.hardening
def test_rest_peers_that_say_nothing_do_not_matter(
    rest_link: SuperLink, node: RestNode
) -> None:
    host, _, port = rest_link.fleet.rpartition(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(50)]
    assert node.create() > 1
    for peer in silent:
        peer.close()


def _unread(client: socket.socket) -> int:
    """How many bytes from this connection the server has not read."""
    port = f"{client.getsockname()[1]:04X}"
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    (row,) = [row for row in rows if row[2].endswith(f":{port}")]
    return int(row[4].partition(":")[2], 16)
