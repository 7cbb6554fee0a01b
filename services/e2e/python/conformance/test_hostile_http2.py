"""Abuse of HTTP/2 itself: floods, torn rules, enormous and odd headers."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from rawhttp2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    Answer,
    Closed,
    Http2,
    connect,
    frame,
    grpc_message,
)
from scenario import reference_differs
from victim import LIST_RUNS, MIB, PATHS, START_RUN, Victim, refused

# -- abuse of HTTP/2 ----------------------------------------------------------------------------


def rapid_reset(http: Http2) -> None:
    """Thousands of streams, each reset at once."""
    for _ in range(3000):
        http.reset(http.open(LIST_RUNS))


def ping_flood(http: Http2) -> None:
    """Ping without reading the answers."""
    for _ in range(20_000):
        http.sock.sendall(frame(PING, 0, 0, bytes(8)))


def settings_flood(http: Http2) -> None:
    """Change the settings again and again."""
    for _ in range(20_000):
        http.sock.sendall(frame(SETTINGS, 0, 0, struct.pack(">HI", 0x4, 65535)))


def empty_data_flood(http: Http2) -> None:
    """Send empty DATA frames on one stream."""
    stream = http.open(START_RUN)
    for _ in range(20_000):
        http.sock.sendall(frame(DATA, 0, stream))


def continuation_flood(http: Http2) -> None:
    """Never end the headers."""
    http.sock.sendall(frame(HEADERS, 0, 1, http.encoder.encode([(":method", "POST")])))
    for index in range(4000):
        block = http.encoder.encode([(f"x-{index}", "y" * 4000)], huffman=False)
        http.sock.sendall(frame(CONTINUATION, 0, 1, block))


def window_overflow(http: Http2) -> None:
    """Raise a window beyond its limit."""
    for _ in range(10):
        http.sock.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 2**31 - 1)))


def data_beyond_window(http: Http2) -> None:
    """Send more than the server ever allowed."""
    stream = http.open(START_RUN)
    http.data(stream, grpc_message(bytes(128 * MIB)), rude=True)


def oversized_frame(http: Http2) -> None:
    """Exceed the largest frame."""
    stream = http.open(START_RUN)
    http.sock.sendall(frame(DATA, 0, stream, bytes(16 * MIB - 1)))


def even_stream(http: Http2) -> None:
    """Use a stream number of the server's."""
    http.next_stream = 2
    http.open(LIST_RUNS)


def stream_reuse(http: Http2) -> None:
    """Open a stream number again."""
    http.open(LIST_RUNS, end=True)
    http.next_stream = 1
    http.open(LIST_RUNS, end=True)


def data_before_headers(http: Http2) -> None:
    """Send data on a stream that does not exist."""
    http.sock.sendall(frame(DATA, END_STREAM, 99, b"x"))


def too_many_streams(http: Http2) -> None:
    """Open more streams than allowed and leave them open."""
    for _ in range(5000):
        http.open(START_RUN)


def garbage_hpack(http: Http2) -> None:
    """Send headers that do not decompress."""
    http.sock.sendall(frame(HEADERS, END_HEADERS, 1, b"\xff" * 100))


def hpack_bomb(http: Http2) -> None:
    """Reference one large table entry thousands of times."""
    entry = http.encoder.encode([("x-bomb", "y" * 3000)])
    http.sock.sendall(frame(HEADERS, 0, 1, entry))
    for _ in range(200):
        http.sock.sendall(frame(CONTINUATION, 0, 1, b"\xbe" * 16000))


def unknown_frames(http: Http2) -> None:
    """Send frames of kinds that do not exist; they must be ignored."""
    for kind in range(20, 250):
        http.sock.sendall(frame(kind, 0xFF, 0, b"?" * 100))
    assert http.unary(LIST_RUNS, b"").grpc_status == 0


def bad_preface_settings(http: Http2) -> None:
    """Send settings with impossible values."""
    http.sock.sendall(frame(SETTINGS, 0, 0, struct.pack(">HI", 0x5, 1)))
    http.sock.sendall(frame(SETTINGS, 0, 0, b"odd"))


ABUSES: list[Callable[[Http2], None]] = [
    rapid_reset,
    ping_flood,
    settings_flood,
    empty_data_flood,
    continuation_flood,
    window_overflow,
    data_beyond_window,
    oversized_frame,
    even_stream,
    stream_reuse,
    data_before_headers,
    too_many_streams,
    garbage_hpack,
    hpack_bomb,
    unknown_frames,
    bad_preface_settings,
]


@pytest.mark.parametrize(
    "abuse",
    [
        *(abuse for abuse in ABUSES if abuse is not too_many_streams),
        pytest.param(too_many_streams, marks=reference_differs("a thousand calls exhaust it")),
    ],
    ids=lambda abuse: abuse.__name__,
)
def test_abuse_of_http_2(victim: Victim, abuse: Callable[[Http2], None]) -> None:
    with Http2(connect(victim.ports["Control"])) as http:
        http.sock.settimeout(3.0)
        # A server that hangs up on such a client does right.
        with contextlib.suppress(Closed, OSError):
            abuse(http)
        victim.unharmed()


# -- headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        [("x-odd", b"\xff\xfe\x80")],
        [("x-odd", "\u00fcber".encode())],
        [("flwr-timestamp", "\u00fcber".encode())],
        [("flwr-signature-bin", b"!!! not base64 !!!")],
        [("flwr-public-key-bin", b"\xff" * 50)],
        [("flwr-timestamp", "")],
        [("x-large", "y" * 7000)],
        [(f"x-{index}", "y") for index in range(200)],
        [("grpc-timeout", "99999999999999H")],
        [("grpc-timeout", "soon")],
        [("grpc-timeout", "-1S")],
        [("te", "gzip"), ("connection", "close")],
    ],
    ids=[
        "bytes",
        "utf-8",
        "utf-8 timestamp",
        "bad base64",
        "bytes as key",
        "empty timestamp",
        "large",
        "many",
        "huge timeout",
        "odd timeout",
        "negative timeout",
        "hop by hop",
    ],  # fmt: skip
)
@pytest.mark.parametrize("port", ["Fleet", "Control"])
def test_odd_headers(victim: Victim, port: str, extra: list[tuple[str, str | bytes]]) -> None:
    """Odd headers are refused or ignored; the answer comes, and the connection survives or ends."""
    with Http2(connect(victim.ports[port])) as http:
        answer = http.unary(PATHS[port], b"", extra)
        assert answer.ended or answer.reset is not None or http.went_away is not None, answer
        if port == "Fleet":
            refused(answer)


@pytest.mark.parametrize("size", [64 * 1024, MIB, 8 * MIB])
def test_enormous_header(victim: Victim, size: int) -> None:
    with Http2(connect(victim.ports["Fleet"])) as http:
        block = http.encoder.encode(
            [(":method", "POST"), (":scheme", "http"), (":path", PATHS["Fleet"]),
             (":authority", "x"), ("content-type", "application/grpc"), ("x-large", "y" * size)],
            huffman=False,
        )  # fmt: skip
        http.answers[1], http.windows[1] = Answer(), http.initial_window
        with contextlib.suppress(Closed, OSError):
            http.sock.sendall(frame(HEADERS, 0, 1, block[:16384]))
            rest = [block[i : i + 16384] for i in range(16384, len(block), 16384)] or [b""]
            for index, part in enumerate(rest):
                flags = END_HEADERS if index == len(rest) - 1 else 0
                http.sock.sendall(frame(CONTINUATION, flags, 1, part))
            http.data(1, grpc_message(b""), end=True, rude=True)
            refused(http.finish(1))


@pytest.mark.parametrize(
    "path", ["*", "//", "/" + "a" * 5000, "/../../etc/passwd", "/%2e%2e/x", "?"]
)
def test_odd_path(victim: Victim, path: str) -> None:
    with Http2(connect(victim.ports["ServerAppIo"])) as http:
        refused(http.unary(path, b""))
