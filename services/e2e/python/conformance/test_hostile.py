"""Bad bytes on the wire: the sender gets a clear answer or a closed door, everyone else is served.

After every test the server must answer on all ports, must not have panicked, and must not have
kept the memory that was claimed from it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import statistics
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.proto import message_pb2
from rawhttp2 import (
    DATA,
    GOAWAY,
    HEADERS,
    PREFACE,
    SETTINGS,
    Http2,
    connect,
    frame,
    grpc_message,
    on_wire,
    tls,
)
from scenario import reference_differs
from victim import LIST_RUNS, MIB, PATHS, PORTS, START_RUN, Victim, refused
from wire import arrays, chunk, instruction, sha256
from world import World

import harness
from harness import SuperLink


def shout(address: str, content: bytes, *, linger: float = 2.0) -> bytes:
    """Send bytes, stop sending, and return what came back until the end or `linger` seconds."""
    heard = b""
    with connect(address) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)
        sock.settimeout(linger)
        with contextlib.suppress(OSError):
            while got := sock.recv(65536):
                heard += got
    return heard


# -- not HTTP/2 ---------------------------------------------------------------------------------

NOISE: dict[str, bytes] = {
    "nothing": b"",
    "a byte": b"\0",
    "random": os.urandom(4096),
    "a MiB of random": os.urandom(MIB),
    "zeros": bytes(65536),
    "half a preface": PREFACE[:10],
    "preface and noise": PREFACE + os.urandom(4096),
    "client hello": bytes.fromhex("1603010200010001fc0303") + os.urandom(500),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("noise", NOISE.values(), ids=list(NOISE))
@pytest.mark.parametrize("port", PORTS)
def test_noise(victim: Victim, port: str, noise: bytes) -> None:
    shout(victim.ports[port], noise)


@pytest.mark.parametrize("noise", NOISE.values(), ids=list(NOISE))
@pytest.mark.parametrize("port", ["Fleet", "Control"])
def test_noise_on_tls(tls_victim: Victim, port: str, noise: bytes) -> None:
    shout(tls_victim.ports[port], noise)


@pytest.mark.parametrize("port", ["Fleet", "Control"])
def test_noise_inside_tls(tls_victim: Victim, port: str) -> None:
    context = ssl.create_default_context(cafile=str(tls_victim.link.tls.ca))  # type: ignore[union-attr]
    context.set_alpn_protocols(["h2"])
    for noise in (os.urandom(4096), b"GET / HTTP/1.1\r\n\r\n", PREFACE + os.urandom(100)):
        with tls(tls_victim.ports[port], context) as sock:
            sock.settimeout(2.0)
            with contextlib.suppress(OSError):
                sock.sendall(noise)
                while sock.recv(65536):
                    pass


@pytest.mark.parametrize("alpn", [[], ["http/1.1"]], ids=["none", "http/1.1"])
@pytest.mark.parametrize("port", ["Fleet", "Control"])
def test_tls_without_h2(tls_victim: Victim, port: str, alpn: list[str]) -> None:
    """A TLS client that does not offer h2 is turned away or gets no HTTP/1.1 answer."""
    context = ssl.create_default_context(cafile=str(tls_victim.link.tls.ca))  # type: ignore[union-attr]
    if alpn:
        context.set_alpn_protocols(alpn)
    with contextlib.suppress(OSError):
        with tls(tls_victim.ports[port], context) as sock:
            sock.settimeout(2.0)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert not sock.recv(65536).startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize(
    "request_line",
    ["GET / HTTP/1.1", "POST /flwr.proto.Control/ListRuns HTTP/1.1", "GET / HTTP/1.0"],
)
@pytest.mark.parametrize("port", PORTS)
def test_http_1(victim: Victim, port: str, request_line: str) -> None:
    heard = shout(
        victim.ports[port],
        f"{request_line}\r\nHost: 127.0.0.1\r\nContent-Type: application/grpc\r\n"
        f"Content-Length: 5\r\n\r\n".encode()
        + bytes(5),
    )
    assert not heard.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2")), heard[:200]


# -- not gRPC -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "odd",
    [
        {"method": "GET"},
        {"content_type": "text/html"},
        {"content_type": "application/json"},
        {"method": "DELETE", "content_type": ""},
    ],
    ids=["GET", "text", "json", "DELETE"],
)
@pytest.mark.parametrize("port", PORTS)
def test_http_2_but_not_grpc(victim: Victim, port: str, odd: dict[str, str]) -> None:
    with Http2(connect(victim.ports[port])) as http:
        stream = http.open(PATHS[port], **odd)
        http.data(stream, b"hello", end=True)
        answer = http.finish(stream)
        # The reference answers any content type and takes the torn message for an empty one.
        if not harness.REFERENCE:
            refused(answer)


LENGTHS = {
    "4 GiB - 1": 2**32 - 1,
    "2 GiB": 2**31,
    "2 GiB - 1": 2**31 - 1,
    "1 GiB": 2**30,
}


@pytest.mark.parametrize("length", LENGTHS.values(), ids=list(LENGTHS))
@pytest.mark.parametrize("port", PORTS)
def test_false_length(victim: Victim, port: str, length: int) -> None:
    """A message that claims to be huge and ends at once."""
    with Http2(connect(victim.ports[port])) as http:
        stream = http.open(PATHS[port])
        http.data(stream, grpc_message(b"x" * 100, length=length), end=True)
        refused(http.finish(stream))
        assert victim.resident() - victim.before < 256 * MIB or harness.REFERENCE


def test_false_lengths_that_stay(victim: Victim) -> None:
    """Hundred messages at once that claim the most that is allowed, and never end."""
    with Http2(connect(victim.ports["Control"])) as http:
        streams = [http.open(START_RUN) for _ in range(100)]
        for stream in streams:
            http.data(stream, grpc_message(b"x" * 64, length=2**31 - 1))
        http.ping()
        victim.unharmed()
        for stream in streams:
            http.reset(stream)
        http.ping()


@pytest.mark.parametrize("encoding", [None, "gzip", "identity", "nonsense"])
def test_compressed_flag(victim: Victim, encoding: str | None) -> None:
    extra = [("grpc-encoding", encoding)] if encoding else []
    with Http2(connect(victim.ports["Control"])) as http:
        stream = http.open(LIST_RUNS, extra)
        http.data(stream, grpc_message(b"\x08\x01", compressed=1), end=True)
        refused(http.finish(stream))
        assert http.unary(LIST_RUNS, b"").grpc_status == 0


@reference_differs("takes a message of any flag for an empty one")
@pytest.mark.parametrize("flag", [2, 127, 255])
def test_unknown_flag(victim: Victim, flag: int) -> None:
    with Http2(connect(victim.ports["Control"])) as http:
        stream = http.open(LIST_RUNS)
        http.data(stream, grpc_message(b"", compressed=flag), end=True)
        refused(http.finish(stream))


def test_two_messages_in_a_unary_call(victim: Victim) -> None:
    with Http2(connect(victim.ports["Control"])) as http:
        stream = http.open(LIST_RUNS)
        http.data(stream, grpc_message(b"") * 3, end=True)
        assert http.finish(stream).ended


# -- torn streams -------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 3, 5, 100, 70_000])
@pytest.mark.parametrize("how", ["end", "reset", "goaway", "close", "abort"])
def test_truncated_stream(victim: Victim, how: str, cut: int) -> None:
    """A request that breaks off in the middle, in every way a stream can."""
    body = grpc_message(b"\x0a\xa0\x8d\x06" + bytes(100_000))[:cut]
    http = Http2(connect(victim.ports["Control"]))
    stream = http.open(START_RUN)
    if how != "end":
        http.data(stream, body)
    if how == "end":
        http.data(stream, body, end=True)
        refused(http.finish(stream))
    elif how == "reset":
        http.reset(stream)
        assert http.unary(LIST_RUNS, b"").grpc_status == 0
    elif how == "goaway":
        http.sock.sendall(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0)))
    elif how == "abort":
        # Linger 0 turns the close into a TCP reset.
        http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    http.close()


@pytest.mark.parametrize("cut", [1, 8, 9, 12])
def test_half_a_frame(victim: Victim, cut: int) -> None:
    with connect(victim.ports["Fleet"]) as sock:
        sock.sendall(PREFACE + frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"hello")[:cut])


def test_torn_object_is_not_stored(victim: Victim) -> None:
    """An object push that breaks off leaves the object missing, and a later push succeeds."""
    world = World(victim.link)
    try:
        run_id, node = world.run(), world.node()
        content = chunk(MIB)
        sent = instruction(run_id, node.id)
        sent.tree.children.add(object_id=sha256(content))
        world.appio.push_messages(sent)
        request = message_pb2.PushObjectRequest(
            node=node.proto, run_id=run_id, object_id=sha256(content), object_content=content
        )
        body = request.SerializeToString()
        for cut in (1000, MIB // 2):
            with Http2(connect(victim.link.fleet)) as http:
                stream = http.open("/flwr.proto.Fleet/PushObject", on_wire(node.metadata()))
                http.data(stream, grpc_message(body)[:cut])
                http.ping()
        found = node.pull_object(run_id, sha256(content))
        assert found.object_found and not found.object_available
        with Http2(connect(victim.link.fleet)) as http:
            path = "/flwr.proto.Fleet/PushObject"
            assert http.unary(path, body, on_wire(node.metadata())).grpc_status == 0
        assert node.pull_object(run_id, sha256(content)).object_content == content
    finally:
        world.close()


# -- slow and many ------------------------------------------------------------------------------


def others_are_served(link: SuperLink, seconds: float = 3.0) -> None:
    """Require prompt answers on a new connection for a while."""
    times = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(times) < 5:
        world = World(link)
        began = time.monotonic()
        world.control.list_runs(timeout=5.0)
        node = world.node()
        assert node.heartbeat(timeout=5.0)
        times.append(time.monotonic() - began)
        world.close()
        time.sleep(0.05)
    assert statistics.median(times) < 0.5, times


class Drip(threading.Thread):
    """Sends one byte a second on each of its sockets until told to stop."""

    def __init__(self, sockets: list[Any], content: bytes) -> None:
        super().__init__(daemon=True)
        self.sockets, self.content = sockets, content
        self.over = threading.Event()

    def run(self) -> None:
        """Send until stopped or until the bytes are gone."""
        for index in range(len(self.content)):
            for sock in self.sockets:
                with contextlib.suppress(OSError):
                    sock.send(self.content[index : index + 1])
            if self.over.wait(1.0):
                return


@contextlib.contextmanager
def dripping(sockets: list[Any], content: bytes) -> Iterator[None]:
    """Drip while the body runs, then close the sockets."""
    drip = Drip(sockets, content)
    drip.start()
    try:
        yield
    finally:
        drip.over.set()
        drip.join()
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize("stage", ["preface", "headers", "body"])
def test_slow_senders(victim: Victim, stage: str) -> None:
    """A hundred connections that send a byte a second."""
    sockets: list[socket.socket] = []
    content = PREFACE
    for _ in range(100):
        sock = connect(victim.ports["Control"])
        if stage != "preface":
            http = Http2(sock)
            if stage == "body":
                http.data(http.open(START_RUN), grpc_message(b"", length=1000))
            content = frame(HEADERS, 0, 3, bytes(1000)) if stage == "headers" else bytes(1000)
            if stage == "body":
                sock.sendall(frame(DATA, 0, 1, bytes(1000))[:9])
        sockets.append(sock)
    with dripping(sockets, content):
        others_are_served(victim.link)


@pytest.mark.parametrize("port", ["Fleet", "Control"])
def test_half_open_handshakes(tls_victim: Victim, port: str) -> None:
    """Two hundred TLS handshakes that are never finished, half of them not even begun."""
    hello = client_hello()
    sockets = [connect(tls_victim.ports[port]) for _ in range(200)]
    for sock in sockets[::2]:
        sock.sendall(hello[: len(hello) // 2])
    with dripping(sockets[::2], hello[len(hello) // 2 :]):
        others_are_served(tls_victim.link)
    for sock in sockets:
        sock.close()


def client_hello() -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = context.wrap_bio(incoming, outgoing)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_many_connections(victim: Victim) -> None:
    """Eight hundred idle connections beside the working ones."""
    with contextlib.ExitStack() as stack:
        for index in range(800):
            sock = stack.enter_context(connect(victim.ports[PORTS[index % 3]]))
            if index % 2:
                sock.sendall(PREFACE + frame(SETTINGS, 0, 0))
        others_are_served(victim.link, 2.0)


def test_connections_come_and_go(victim: Victim) -> None:
    """Thousands of connections that are closed at once leave no file descriptors behind."""
    descriptors = Path(f"/proc/{victim.link.process.pid}/fd")

    def count() -> int:
        return len(list(descriptors.iterdir()))

    before = count()
    for index in range(2000):
        connect(victim.ports[PORTS[index % 4]]).close()
    harness.wait_for(lambda: count() < before + 50, 15.0, "closed connections to be let go")


def test_readers_that_do_not_read(victim: Victim) -> None:
    """Peers that ask for large objects and never take them do not stop the others."""
    world = World(victim.link)
    try:
        run_id, node = world.run(), world.node(heartbeat=300.0)
        sent = world.appio.push_message(node, arrays(8 * MIB), run_id=run_id)
        object_id = max(sent.objects, key=lambda oid: len(sent.objects[oid]))
        request = node.pull_object_request(run_id, object_id).SerializeToString()
        with contextlib.ExitStack() as stack:
            for _ in range(16):
                http = stack.enter_context(Http2(connect(victim.link.fleet), preface=False))
                http.sock.sendall(PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 0x4, 0)))
                stream = http.open("/flwr.proto.Fleet/PullObject", on_wire(node.metadata()))
                http.data(stream, grpc_message(request), end=True)
                while not http.answers[stream].headers:
                    http.step()
                assert http.answers[stream].headers[":status"] == "200"
            others_are_served(victim.link, 2.0)
            got = node.pull_object(run_id, object_id)
            assert got.object_content == sent.objects[object_id]
    finally:
        world.close()


@reference_differs("prints a traceback or nothing")
@pytest.mark.parametrize("incident", ["body", "hash", "signature", "method"])
def test_logged_once(victim: Victim, incident: str) -> None:
    """What was refused is in the log, in a line or two, not in a flood."""
    world = World(victim.link)
    try:
        run_id, node = world.run(), world.node()
        before = len(victim.link.log)

        def refused_call() -> None:
            with contextlib.suppress(Exception), Http2(connect(victim.link.fleet)) as http:
                if incident == "body":
                    http.unary(
                        "/flwr.proto.Fleet/PullMessages", b"\xff\xff", on_wire(node.metadata())
                    )
                elif incident == "method":
                    http.unary("/flwr.proto.Fleet/NoSuchMethod", b"", on_wire(node.metadata()))
            with contextlib.suppress(Exception):
                if incident == "hash":
                    node.get_fab("../../etc/passwd", run_id)
                elif incident == "signature":
                    headers = node.metadata()
                    node.heartbeat(metadata=[*headers[:2], (headers[2][0], b"no")])

        refused_call()
        harness.wait_for(lambda: len(victim.link.log) > before, 5.0, "a word in the log")
        time.sleep(0.3)
        lines = victim.link.log[before:].strip().splitlines()
        assert 1 <= len(lines) <= 2, lines
        for _ in range(200):
            refused_call()
        time.sleep(0.3)
        assert len(victim.link.log[before:].splitlines()) <= 2 * 201
    finally:
        world.close()


def test_whole_exchange_after_all_of_it(victim: Victim) -> None:
    world = World(victim.link)
    try:
        run_id, node = world.run(), world.node()
        sent = world.appio.push_message(node, arrays(MIB), run_id=run_id)
        got = node.pull()
        assert got is not None and node.receive(got) == sent.objects
    finally:
        world.close()
