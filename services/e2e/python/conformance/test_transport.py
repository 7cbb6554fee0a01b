"""Protocol section 9.1: HTTP/2, TLS, message sizes, health, and the end of a server."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from flwr.common import Context
from flwr.common.grpc import create_channel
from flwr.common.serde import context_to_proto
from flwr.proto import (
    appio_pb2,
    control_pb2,
    control_pb2_grpc,
    fleet_pb2,
    fleet_pb2_grpc,
    run_pb2,
    serverappio_pb2_grpc,
)
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rawhttp2 import (
    ACK,
    PREFACE,
    SETTINGS,
    Closed,
    Http2,
    connect,
    frame,
    grpc_message,
    on_wire,
    tls,
)
from scenario import reference_differs
from wire import (
    RUNNING,
    AppIo,
    Control,
    Node,
    Packed,
    arrays,
    channel,
    chunk,
    expect_error,
    instruction,
    pulled,
    results,
    sha256,
)
from world import World

import harness
from harness import SuperLink, wait_for

MIB = 1024 * 1024
LARGEST_CHUNK = 20_971_520

METHODS = {
    "Fleet": (
        "CreateNode DeleteNode SendNodeHeartbeat PullMessages PushMessages GetRun GetFab "
        "PushObject PullObject ConfirmMessageReceived"
    ).split(),
    "ServerAppIo": (
        "ListAppsToLaunch RequestToken GetNodes PushMessages PullMessages GetRun GetFab "
        "PullAppInputs PushAppOutputs UpdateRunStatus GetRunStatus PushLogs SendAppHeartbeat "
        "PushObject PullObject ConfirmMessageReceived"
    ).split(),
    "Control": (
        "StartRun StopRun StreamLogs ListRuns GetLoginDetails GetAuthTokens PullArtifacts"
    ).split(),
}


def address_of(link: SuperLink, service: str) -> str:
    """Return the address that serves `service`."""
    return {"Fleet": link.fleet, "ServerAppIo": link.serverappio, "Control": link.control}[service]


def raw_call(
    link: SuperLink, service: str, method: str, body: bytes, timeout: float = 2.0
) -> bytes:
    """Make a call with bytes as they are, signed on Fleet by a key that has a node."""
    with Node(link.fleet) as node, channel(address_of(link, service)) as opened:
        if service == "Fleet":
            node.create()
        try:
            call = opened.unary_unary(f"/flwr.proto.{service}/{method}")
            return call(body, timeout=timeout, metadata=node.metadata())
        finally:
            if service == "Fleet":
                node.delete()


# -- methods ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "method"), [(service, method) for service in METHODS for method in METHODS[service]]
)
def test_001_method_paths(link_now: SuperLink, service: str, method: str) -> None:
    """The path is known: whatever a request without node or token gets, it is not `no method`."""
    try:
        raw_call(link_now, service, method, b"")
    except grpc.RpcError as error:
        if error.code() == StatusCode.UNIMPLEMENTED:
            assert error.details().startswith("ControlServicer initialized without")


@pytest.mark.parametrize("service", ["ServerAppIo", "Control"])
@pytest.mark.parametrize("method", ["NoSuchMethod", "pullmessages", "PullMessages/", ""])
def test_001_unknown_method(link_now: SuperLink, service: str, method: str) -> None:
    expect_error(StatusCode.UNIMPLEMENTED, None, raw_call, link_now, service, method, b"")


@reference_differs("the interceptor throws when the method has no handler: UNKNOWN")
@pytest.mark.parametrize("method", ["NoSuchMethod", "pullmessages", "PullMessages/", ""])
def test_001_unknown_method_of_fleet(link_now: SuperLink, method: str) -> None:
    expect_error(StatusCode.UNIMPLEMENTED, None, raw_call, link_now, "Fleet", method, b"")


@pytest.mark.parametrize("service", METHODS)
@pytest.mark.parametrize(
    "path", ["/flwr.proto.Nothing/CreateNode", "/Fleet/CreateNode", "/CreateNode", "/"]
)
def test_001_unknown_service(link_now: SuperLink, service: str, path: str) -> None:
    with channel(address_of(link_now, service)) as opened:
        expect_error(StatusCode.UNIMPLEMENTED, None, opened.unary_unary(path), b"", timeout=5.0)


@pytest.mark.parametrize("service", METHODS)
def test_001_services_keep_to_their_ports(link_now: SuperLink, service: str) -> None:
    for other in METHODS:
        if other != service:
            path = f"/flwr.proto.{other}/{METHODS[other][0]}"
            with channel(address_of(link_now, service)) as opened:
                expect_error(
                    StatusCode.UNIMPLEMENTED, None, opened.unary_unary(path), b"", timeout=5.0
                )


# -- sizes --------------------------------------------------------------------------------------


def with_object(sent: Packed, content: bytes) -> Packed:
    """Hang one more childless object under the message's tree."""
    sent.tree.children.add(object_id=sha256(content))
    return sent


@pytest.mark.parametrize("side", ["Fleet", "ServerAppIo"])
def test_002_largest_chunk(world_now: World, side: str) -> None:
    run_id, node = world_now.run(), world_now.node()
    content = chunk(LARGEST_CHUNK)
    sent = with_object(instruction(run_id, node.id), content)
    assert sha256(content) in world_now.appio.push_messages(sent).objects_to_push
    peer: Any = node if side == "Fleet" else world_now.appio
    assert peer.push_object(run_id, sha256(content), content).stored
    got = peer.pull_object(run_id, sha256(content))
    assert got.object_found and got.object_available and got.object_content == content


def test_003_large_context(world_now: World) -> None:
    run_id = world_now.pending()
    token = world_now.appio.running(run_id)
    context = Context(run_id, 0, {}, arrays(64 * MIB), {})
    world_now.appio.push_outputs(token, run_id, context_to_proto(context), timeout=60.0)
    assert world_now.appio.status(run_id)[0] == RUNNING


# -- TLS ----------------------------------------------------------------------------------------

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}

TLS_HANDSHAKE = 22
TLS_SERVER_HELLO, TLS_CERTIFICATE, TLS_CERTIFICATE_REQUEST = 2, 11, 13

LIST_RUNS = "/flwr.proto.Control/ListRuns"
PULL = "/flwr.proto.Fleet/PullMessages"


def tls_context(link: SuperLink, version: str, alpn: list[str] | None = None) -> ssl.SSLContext:
    """A client context that speaks one TLS version and trusts the server's CA."""
    assert link.tls is not None
    context = ssl.create_default_context(cafile=str(link.tls.ca))
    context.minimum_version = context.maximum_version = VERSIONS[version]
    if alpn is None or alpn:
        context.set_alpn_protocols(["h2"] if alpn is None else alpn)
    return context


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("alpn", [["h2"], ["grpc-exp", "h2"], ["h2", "http/1.1"]], ids="-".join)
@pytest.mark.parametrize("service", ["Fleet", "Control"])
def test_004_handshake(tls_link: SuperLink, service: str, version: str, alpn: list[str]) -> None:
    """ALPN selects h2 in both versions, and a call over that very connection is answered."""
    with tls(address_of(tls_link, service), tls_context(tls_link, version, alpn)) as sock:
        assert sock.version() == version
        assert sock.selected_alpn_protocol() == "h2"
        http = Http2(sock)
        if service == "Control":
            answer = http.unary(LIST_RUNS, control_pb2.ListRunsRequest().SerializeToString())
            assert answer.grpc_status == StatusCode.OK.value[0], answer
            assert control_pb2.ListRunsResponse.FromString(answer.messages[0]).now
        else:
            answer = http.unary(PULL, b"")
            assert answer.grpc_status == StatusCode.UNAUTHENTICATED.value[0], answer
            assert answer.grpc_message == "Missing authentication metadata"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_004_stock_channel(tls_link: SuperLink, host: str) -> None:
    """A channel as stock processes open it, by each name of the certificate."""
    assert tls_link.tls is not None
    roots, port = tls_link.tls.ca.read_bytes(), tls_link.control.rpartition(":")[2]
    with create_channel(f"{host}:{port}", insecure=False, root_certificates=roots) as opened:
        stub = control_pb2_grpc.ControlStub(opened)
        assert stub.ListRuns(control_pb2.ListRunsRequest(), timeout=10.0).now


def test_004_whole_round_over_tls(tls_world: World) -> None:
    run_id, node = tls_world.run(), tls_world.node()
    sent = tls_world.appio.push_message(node, arrays(3 * MIB), run_id=run_id)
    got = node.pull()
    assert got is not None and node.receive(got) == sent.objects


@pytest.mark.parametrize("service", ["Fleet", "Control"])
def test_005_tls_ports_refuse_plaintext(tls_link: SuperLink, service: str) -> None:
    peer: Any = Node(tls_link.fleet) if service == "Fleet" else Control(tls_link.control)
    with peer:
        call = peer.create if service == "Fleet" else peer.list_runs
        expect_error(StatusCode.UNAVAILABLE, None, call, timeout=5.0)


def test_005_plaintext_ports_beside_tls(tls_link: SuperLink) -> None:
    with AppIo(tls_link.serverappio) as appio:
        assert not appio.get_run(1).HasField("run")
    with health(tls_link) as stub:
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0).status == SERVING


@pytest.mark.parametrize("service", METHODS)
def test_005_no_tls_when_insecure(link_now: SuperLink, service: str, certificates: Any) -> None:
    context = ssl.create_default_context(cafile=str(certificates.ca))
    with pytest.raises((ssl.SSLError, ConnectionError, TimeoutError)):
        tls(address_of(link_now, service), context, timeout=3.0).close()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("service", ["Fleet", "Control"])
def test_006_no_client_certificate_asked(tls_link: SuperLink, service: str, version: str) -> None:
    context, read = tls_context(tls_link, version), []

    def note(
        _sock: Any, direction: str, _version: int, content: int, kind: int, _data: bytes
    ) -> None:
        if direction == "read" and int(content) == TLS_HANDSHAKE:
            read.append(int(kind))

    # Private in the standard library but there since 3.8: reports decrypted handshake messages.
    context._msg_callback = note  # type: ignore[attr-defined]
    with tls(address_of(tls_link, service), context) as sock:
        Http2(sock).ping()
    assert TLS_SERVER_HELLO in read and TLS_CERTIFICATE in read
    assert TLS_CERTIFICATE_REQUEST not in read


# -- HTTP/2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("port", ["Fleet", "ServerAppIo", "Control", "Health"])
def test_007_prior_knowledge(link_now: SuperLink, port: str) -> None:
    address = link_now.health if port == "Health" else address_of(link_now, port)
    assert address is not None
    with Http2(connect(address)) as http:
        first = http.step()
        assert first.kind == SETTINGS and not first.flags & ACK
        settings = dict(struct.iter_unpack(">HI", first.payload))
        # 2.0.1: main thread, object pool, heartbeat and logs share one connection.
        assert settings.get(0x3, 2**31) >= 100, settings
        http.ping()


def test_007_preface_in_pieces(link_now: SuperLink) -> None:
    with connect(link_now.control) as sock:
        for byte in PREFACE:
            sock.sendall(bytes([byte]))
        sock.sendall(frame(SETTINGS, 0, 0))
        http = Http2(sock, preface=False)
        answer = http.unary(LIST_RUNS, b"")
        assert answer.grpc_status == 0, answer


def test_008_one_fleet_channel_carries_everything(world: World) -> None:
    run_id, node = world.run(), world.node()
    missing = chunk(100)
    sent = with_object(instruction(run_id, node.id, arrays(count=8)), missing)
    world.appio.push_messages(sent)
    world.appio.push_objects(sent)
    # The tree lacks an object, so this pull is held (or empty); the object calls go beside it.
    held = node.pull_future()
    waiting = node.future("PullObject", node.pull_object_request(run_id, sha256(missing)))
    ids = list(sent.objects)[:8]
    calls = [node.future("PullObject", node.pull_object_request(run_id, oid)) for oid in ids]
    assert node.heartbeat(timeout=5.0)
    for object_id, call in zip(ids, calls):
        assert call.result(timeout=5.0).object_content == sent.objects[object_id]
    assert node.push_object(run_id, sha256(missing), missing).stored
    got = waiting.result(timeout=5.0)
    assert got.object_found
    answer = pulled(held.result(timeout=5.0)) or node.pull()
    assert answer is not None and answer.id == sent.id


def test_008_one_appio_channel_carries_everything(world: World) -> None:
    run_id, node, appio = world.run(), world.node(), world.appio
    sent = appio.push_message(node, arrays(count=8), run_id=run_id)
    held = appio.pull_future(run_id, [sent.id])
    calls = []
    for object_id in list(sent.objects)[:8]:
        request = node.pull_object_request(run_id, object_id)
        request.node.node_id = 1
        calls.append((object_id, appio.future("PullObject", request)))
    assert appio.heartbeat(run_id, timeout=5.0)
    appio.push_logs(run_id, "a line\n", timeout=5.0)
    for object_id, call in calls:
        assert call.result(timeout=5.0).object_content == sent.objects[object_id]
    world.control.stop_run(run_id)
    try:
        assert results(held.result(timeout=5.0)) == []
    except grpc.RpcError as error:
        assert error.code() == StatusCode.PERMISSION_DENIED


# -- idle connections ---------------------------------------------------------------------------

IDLE_SECONDS = 60.0


@dataclass
class Idle:
    """Peers that fell silent at the start of the session."""

    since: float
    stock: list[grpc.Channel]
    """Channels to Control, ServerAppIo and Fleet as stock processes open them."""
    states: list[grpc.ChannelConnectivity]
    """State changes of all of them since they were connected."""
    lively: Http2
    """A connection that answers pings and nothing else."""
    ended: threading.Event
    """Set when the lively connection ends."""
    deaf: Http2
    """A connection with a held call that never reads."""
    mute: socket.socket
    """A connection that never sends a byte."""


IDLE_TESTS = ("test_009_idle_minute", "test_009_dead_peers_are_let_go")


@pytest.fixture(scope="session", autouse=True)
def idle_peers(request: pytest.FixtureRequest) -> Iterator[Idle | None]:
    """Peers that idle beside all other tests, for the tests at the end of the session."""
    if not any(item.name in IDLE_TESTS for item in request.session.items):
        yield None
        return
    link: SuperLink = request.getfixturevalue("link")
    world = World(link)
    opened = [create_channel(address, insecure=True) for address in link.addresses[:3]]
    for each in opened:
        grpc.channel_ready_future(each).result(timeout=10.0)
    states: list[grpc.ChannelConnectivity] = []
    for each in opened:
        each.subscribe(states.append)
    lively, ended = Http2(connect(link.fleet)), threading.Event()
    threading.Thread(target=_answer_pings, args=(lively, ended), daemon=True).start()
    node, deaf = world.node(heartbeat=300.0), Http2(connect(link.fleet))
    stream = deaf.open(PULL, on_wire(node.metadata()))
    deaf.data(stream, grpc_message(node.pull_request().SerializeToString()), end=True)
    deaf.ping()
    assert harness.REFERENCE or not deaf.answers[stream].ended, "the call is not held"
    mute = connect(link.fleet)
    yield Idle(time.monotonic(), opened, states, lively, ended, deaf, mute)
    for closing in (lively, deaf, mute, *opened, world):
        closing.close()


def _answer_pings(http: Http2, ended: threading.Event) -> None:
    http.sock.settimeout(None)
    try:
        while True:
            http.step()
    except (Closed, OSError):
        ended.set()


def idled(peers: Idle) -> None:
    """Wait until the peers have been silent for a minute."""
    wait_for(lambda: time.monotonic() - peers.since > IDLE_SECONDS, IDLE_SECONDS + 5.0, "a minute")


@pytest.mark.slow
def test_009_idle_minute(link: SuperLink, idle_peers: Idle) -> None:
    idled(idle_peers)
    connected = {grpc.ChannelConnectivity.READY}
    assert set(idle_peers.states) <= connected, idle_peers.states
    assert not idle_peers.ended.is_set() and idle_peers.lively.went_away is None
    control, serverappio, fleet = idle_peers.stock
    stub = control_pb2_grpc.ControlStub(control)
    assert stub.ListRuns(control_pb2.ListRunsRequest(), timeout=5.0).now
    stub = serverappio_pb2_grpc.ServerAppIoStub(serverappio)
    assert not stub.GetRun(run_pb2.GetRunRequest(run_id=1), timeout=5.0).HasField("run")
    stub = fleet_pb2_grpc.FleetStub(fleet)
    request = fleet_pb2.CreateNodeRequest(heartbeat_interval=1.0)
    with Node(link.fleet) as node:
        node.id = stub.CreateNode(request, timeout=5.0, metadata=node.metadata()).node.node_id
        node.delete()


@pytest.mark.slow
@reference_differs("pings every 210 s only")
def test_009_dead_peers_are_let_go(idle_peers: Idle) -> None:
    """A peer that answers no ping, or never begins to speak, does not keep its connection."""
    idled(idle_peers)
    for sock in (idle_peers.deaf.sock, idle_peers.mute):
        sock.settimeout(0.5)
        with contextlib.suppress(ConnectionError):
            while sock.recv(65536):
                pass


# -- shutdown -----------------------------------------------------------------------------------


@pytest.mark.hardening
def test_010_shutdown_releases_held_calls(start_superlink: Any) -> None:
    link = start_superlink()
    world = World(link)
    run_id, nodes = world.run(), [world.node() for _ in range(3)]
    lonely = world.node()
    sent = world.appio.push_message(lonely, run_id=run_id)
    missing = with_object(instruction(run_id, lonely.id), chunk(10))
    world.appio.push_messages(missing)
    held = {f"node {index}": node.pull_future() for index, node in enumerate(nodes)}
    held["replies"] = world.appio.pull_future(run_id, [sent.id])
    held["apps"] = world.appio.future("ListAppsToLaunch", appio_pb2.ListAppsToLaunchRequest())
    request = lonely.pull_object_request(run_id, missing.tree.children[-1].object_id)
    held["object"] = lonely.future("PullObject", request)
    time.sleep(0.5)
    assert not any(call.done() for call in held.values()), "a call was not held"
    began = time.monotonic()
    link.process.signal(15)
    answers = {name: call.result(timeout=5.0) for name, call in held.items()}
    assert time.monotonic() - began < 2.0
    assert link.process.wait(5.0) == 0
    for name in ("node 0", "node 1", "node 2"):
        assert pulled(answers[name]) is None
    assert results(answers["replies"]) == [] and not answers["apps"].run_ids
    assert answers["object"].object_found and not answers["object"].object_available
    for call in (nodes[0].heartbeat, world.control.list_runs, world.appio.list_apps):
        expect_error(StatusCode.UNAVAILABLE, None, call, timeout=3.0)
    world.runs.clear()
    for node in world.nodes:
        node.id = 0
    world.close()


@pytest.mark.hardening
def test_010_calls_after_shutdown_are_unavailable(start_superlink: Any) -> None:
    """Calls that race with the end of the server are answered or UNAVAILABLE, nothing else."""
    link = start_superlink()
    with Node(link.fleet) as node:
        node.create()
        codes: list[StatusCode] = []
        link.process.signal(15)
        deadline = time.monotonic() + 15.0
        while link.process.running or not codes:
            assert time.monotonic() < deadline, "the server did not end"
            try:
                node.heartbeat(timeout=5.0)
            except grpc.RpcError as error:
                codes.append(error.code())
        assert set(codes) == {StatusCode.UNAVAILABLE}
        expect_error(StatusCode.UNAVAILABLE, None, node.heartbeat, timeout=3.0)


# -- health and broken bodies -------------------------------------------------------------------

SERVING = health_pb2.HealthCheckResponse.SERVING


class health:  # noqa: N801 - reads as a function
    """A health stub in a with statement."""

    def __init__(self, link: SuperLink) -> None:
        assert link.health is not None
        self.channel = channel(link.health)

    def __enter__(self) -> health_pb2_grpc.HealthStub:
        return health_pb2_grpc.HealthStub(self.channel)

    def __exit__(self, *_: object) -> None:
        self.channel.close()


@pytest.mark.parametrize("service", ["", "flwr.proto.Fleet", "no.such.Service", "\u00fcber" * 100])
def test_011_health_check(link_now: SuperLink, service: str) -> None:
    with health(link_now) as stub:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5.0)
    assert answer.status == SERVING


def test_011_health_watch(link_now: SuperLink) -> None:
    with health(link_now) as stub:
        stream = stub.Watch(health_pb2.HealthCheckRequest(), timeout=5.0)
        expect_error(StatusCode.UNIMPLEMENTED, "Watch is not implemented", next, stream)


BROKEN = {
    "truncated varint": b"\xff\xff\xff",
    "length beyond the end": b"\x0a\xff\xff\xff\xff\x07abc",
    "wire type 7": b"\x0f\x00",
    "field number 0": b"\x00\x00",
    "unclosed group": b"\x0b",
    "text": b"GET / HTTP/1.1\r\n",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=list(BROKEN))
@pytest.mark.parametrize(
    ("service", "method"),
    [("Fleet", "PullMessages"), ("ServerAppIo", "PushMessages"), ("Control", "StartRun")],
)
def test_012_undecodable_body(world_now: World, service: str, method: str, body: bytes) -> None:
    error = expect_error(None, None, raw_call, world_now.link, service, method, body)
    assert error.code() not in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    world_now.serves()


def test_012_undecodable_object_is_refused(world_now: World) -> None:
    """Bytes that are valid protobuf but no object: refused with a reason, nothing is stored."""
    run_id, node = world_now.run(), world_now.node()
    content = os.urandom(64).replace(b"\0", b"\1")
    sent = with_object(instruction(run_id, node.id), content)
    world_now.appio.push_messages(sent)
    error = expect_error(
        StatusCode.FAILED_PRECONDITION, None, node.push_object, run_id, sha256(content), content
    )
    assert error.details().startswith(f"Object with ID '{sha256(content)}'")


def test_012_message_without_body(link_now: SuperLink) -> None:
    """A stream that ends before its message is refused; the connection goes on."""
    with Http2(connect(link_now.control)) as http:
        answer = http.finish(http.open(LIST_RUNS, end=True))
        assert answer.grpc_status not in (None, 0) or answer.reset is not None, answer
        assert http.unary(LIST_RUNS, b"").grpc_status == 0
