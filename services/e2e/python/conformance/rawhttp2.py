"""HTTP/2 by hand: a gRPC client that can also send what no library would.

`Http2` owns one socket (plain or TLS) and speaks frames; `unary` makes a whole gRPC call over it.
Tests use it where grpcio hides what is asked (TLS versions, prior knowledge) or refuses to
misbehave (false lengths, torn streams, slow senders).
"""

from __future__ import annotations

import base64
import socket
import ssl
import struct
import time
import urllib.parse
from collections.abc import Iterable
from dataclasses import dataclass, field

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE = range(9)
CONTINUATION = 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8

CANCEL = 0x8

SETTINGS_INITIAL_WINDOW_SIZE = 0x4

INITIAL_WINDOW = 65535
LARGE_WINDOW = 2**30


@dataclass(frozen=True)
class Frame:
    """One HTTP/2 frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


@dataclass
class Answer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    """Response headers and trailers together."""
    body: bytes = b""
    reset: int | None = None
    """Error code of RST_STREAM, if the server reset the stream."""
    ended: bool = False
    """Whether END_STREAM was seen."""

    @property
    def grpc_status(self) -> int | None:
        """Value of `grpc-status`, if the server sent one."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def grpc_message(self) -> str:
        """Value of `grpc-message`, decoded; empty if the server sent none."""
        return urllib.parse.unquote(self.headers.get("grpc-message", ""))

    @property
    def messages(self) -> list[bytes]:
        """The length-prefixed messages of the body."""
        rest, found = self.body, []
        while len(rest) >= 5:
            (size,) = struct.unpack(">I", rest[1:5])
            found.append(rest[5 : 5 + size])
            rest = rest[5 + size :]
        return found


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encode a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def grpc_message(body: bytes, *, compressed: int = 0, length: int | None = None) -> bytes:
    """Prefix a message with its flag and length; `length` may lie."""
    return struct.pack(">BI", compressed, len(body) if length is None else length) + body


def on_wire(metadata: Iterable[tuple[str, str | bytes]]) -> list[tuple[str, str | bytes]]:
    """Encode metadata as gRPC carries it: binary values in base64."""
    return [
        (name, base64.b64encode(value) if isinstance(value, bytes) else value)
        for name, value in metadata
    ]


def tls(address: str, context: ssl.SSLContext, timeout: float = 10.0) -> ssl.SSLSocket:
    """Connect and complete a TLS handshake for the host part of `address`."""
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


def connect(address: str, timeout: float = 10.0) -> socket.socket:
    """Connect without TLS."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout)


class Closed(Exception):
    """The server closed the connection."""


class Http2:
    """A client connection. Reads with the socket's timeout; a context manager."""

    def __init__(self, sock: socket.socket, *, preface: bool = True) -> None:
        self.sock = sock
        self.encoder, self.decoder = Encoder(), Decoder()
        self.buffer = b""
        self.next_stream = 1
        self.answers: dict[int, Answer] = {}
        self.pings = 0
        self.went_away: int | None = None
        """Error code of GOAWAY, if the server sent one."""
        self.initial_window = INITIAL_WINDOW
        self.windows: dict[int, int] = {0: INITIAL_WINDOW}
        """Bytes the server still accepts, by stream; 0 is the whole connection."""
        if preface:
            window = struct.pack(">HI", 0x4, 2**31 - 1)
            self.sock.sendall(PREFACE + frame(SETTINGS, 0, 0, window))
            self.sock.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", LARGE_WINDOW)))

    def read_frame(self) -> Frame:
        """Read one frame; raises Closed at the end of the connection, TimeoutError when idle."""
        while len(self.buffer) < 9 or len(self.buffer) < 9 + self._length():
            try:
                got = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError) as error:
                raise Closed(str(error)) from error
            if not got:
                raise Closed("end of connection")
            self.buffer += got
        size = self._length()
        kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
        payload, self.buffer = self.buffer[9 : 9 + size], self.buffer[9 + size :]
        return Frame(kind, flags, stream & 0x7FFFFFFF, payload)

    def _length(self) -> int:
        return int.from_bytes(self.buffer[:3], "big")

    def step(self) -> Frame:
        """Read one frame and react to it as a well-behaved client does."""
        got = self.read_frame()
        if got.kind == SETTINGS and not got.flags & ACK:
            self._settings(got.payload)
            self.sock.sendall(frame(SETTINGS, ACK, 0))
        elif got.kind == WINDOW_UPDATE and got.stream in self.windows:
            self.windows[got.stream] += int.from_bytes(got.payload, "big")
        elif got.kind == PING and not got.flags & ACK:
            self.pings += 1
            self.sock.sendall(frame(PING, ACK, 0, got.payload))
        elif got.kind == GOAWAY:
            self.went_away = int.from_bytes(got.payload[4:8], "big")
        elif got.stream in self.answers:
            self._answer(self.answers[got.stream], got)
        return got

    def _settings(self, payload: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", payload):
            if name == SETTINGS_INITIAL_WINDOW_SIZE:
                for stream in self.windows.keys() - {0}:
                    self.windows[stream] += value - self.initial_window
                self.initial_window = value

    def _answer(self, answer: Answer, got: Frame) -> None:
        if got.kind == HEADERS:
            assert got.flags & END_HEADERS, "headers in several frames are not expected"
            assert not got.flags & PADDED
            answer.headers.update(self.decoder.decode(got.payload))
        elif got.kind == DATA:
            answer.body += got.payload
        elif got.kind == RST_STREAM:
            answer.reset = int.from_bytes(got.payload, "big")
        if got.kind in (HEADERS, DATA) and got.flags & END_STREAM:
            answer.ended = True

    def open(
        self,
        path: str,
        extra: Iterable[tuple[str, str | bytes]] = (),
        *,
        end: bool = False,
        method: str = "POST",
        content_type: str = "application/grpc",
    ) -> int:
        """Send request headers and return the stream id."""
        stream, self.next_stream = self.next_stream, self.next_stream + 2
        block = self.encoder.encode(
            [
                (":method", method),
                (":scheme", "http"),
                (":path", path),
                (":authority", "127.0.0.1"),
                ("content-type", content_type),
                ("te", "trailers"),
                *extra,
            ]
        )
        self.answers[stream] = Answer()
        self.windows[stream] = self.initial_window
        self.sock.sendall(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block))
        return stream

    def data(self, stream: int, payload: bytes, *, end: bool = False, rude: bool = False) -> None:
        """Send DATA frames of at most 16 KiB as the windows allow; `rude` ignores the windows."""
        chunks = [payload[i : i + 16384] for i in range(0, len(payload), 16384)] or [b""]
        for index, part in enumerate(chunks):
            while not rude and min(self.windows[stream], self.windows[0]) < len(part):
                self.step()
            last = end and index == len(chunks) - 1
            self.sock.sendall(frame(DATA, END_STREAM if last else 0, stream, part))
            self.windows[stream] -= len(part)
            self.windows[0] -= len(part)

    def reset(self, stream: int, code: int = CANCEL) -> None:
        """Send RST_STREAM."""
        self.sock.sendall(frame(RST_STREAM, 0, stream, struct.pack(">I", code)))

    def finish(self, stream: int, timeout: float = 10.0) -> Answer:
        """Read until the stream ended, was reset, or the connection closed."""
        answer, deadline = self.answers[stream], time.monotonic() + timeout
        while not answer.ended and answer.reset is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"stream {stream} did not end within {timeout} s: {answer}")
            try:
                self.step()
            except Closed:
                break
        return answer

    def unary(
        self, path: str, request: bytes, extra: Iterable[tuple[str, str | bytes]] = ()
    ) -> Answer:
        """Make one gRPC call."""
        stream = self.open(path, extra)
        self.data(stream, grpc_message(request), end=True)
        return self.finish(stream)

    def ping(self, timeout: float = 10.0) -> None:
        """Send PING and require its acknowledgement."""
        self.sock.sendall(frame(PING, 0, 0, b"12345678"))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            got = self.step()
            if got.kind == PING and got.flags & ACK and got.payload == b"12345678":
                return
        raise TimeoutError("no acknowledgement of PING")

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def __enter__(self) -> Http2:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
