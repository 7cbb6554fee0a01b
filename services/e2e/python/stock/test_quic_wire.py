"""Our QUIC port and an implementation of QUIC that is not ours: aioquic speaks the frames by hand."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import struct
import subprocess
from pathlib import Path
from typing import Any, Optional

import pytest
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from harness import OURS, Certificates, SuperLink, binary

pytestmark = pytest.mark.hardening

NOTHING, REPLY, FAILED = 0, 0, 1
CREATE_NODE, HEARTBEAT = 0, 2
UNAUTHENTICATED = 11
SECONDS = 20.0


def varint(number: int) -> bytes:
    """An unsigned number as postcard writes it."""
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def read_varint(data: bytes) -> tuple[int, bytes]:
    """A number, and what follows it."""
    number = 0
    for index, byte in enumerate(data):
        number |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return number, data[index + 1 :]
    raise AssertionError(f"half a number: {data!r}")


def frame(value: bytes) -> bytes:
    """A value behind its length."""
    return struct.pack("<I", len(value)) + value


def unframe(data: bytes) -> bytes:
    """The only value of a stream."""
    (length,) = struct.unpack_from("<I", data)
    assert len(data) == 4 + length, data
    return data[4:]


def hello(protocol: bytes = b"flwr.fleet") -> bytes:
    """Protocol, first and last version, longest head, no credential."""
    value = varint(len(protocol)) + protocol + varint(1) + varint(1) + varint(1 << 20)
    return frame(value + bytes([0]))


def call(request: int, fields: bytes) -> bytes:
    """Ten seconds of patience, no bearer, no body, and the request."""
    return frame(varint(10_000) + bytes([0, NOTHING]) + varint(request) + fields)


class Peer(QuicConnectionProtocol):
    """Collects what comes on each stream and how the connection ends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.alpn: Optional[str] = None
        self.ended: asyncio.Future[ConnectionTerminated] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self.alpn = event.alpn_protocol
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event)
        super().quic_event_received(event)

    async def greet(self, first: bytes) -> None:
        """The first stream, which stays open."""
        _reader, writer = await self.create_stream()
        writer.write(first)

    async def ask(self, asked: bytes) -> bytes:
        """One call; its answer."""
        reader, writer = await self.create_stream()
        writer.write(asked)
        writer.write_eof()
        return await asyncio.wait_for(reader.read(), SECONDS)


def node_certificate(key_file: Path) -> tuple[x509.Certificate, Any]:
    """A certificate that a node key has signed for itself."""
    key = serialization.load_ssh_private_key(key_file.read_bytes(), None)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())  # type: ignore[arg-type]
    )
    return certificate, key


def configuration(certificates: Certificates, alpn: str = "flwr-quic") -> QuicConfiguration:
    """A client that trusts the CA."""
    config = QuicConfiguration(is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_REQUIRED)
    config.load_verify_locations(cafile=str(certificates.ca))
    config.server_name = "localhost"
    return config


def talk(link: SuperLink, config: QuicConfiguration, script: Any) -> Any:
    """Runs a script over one connection."""
    host, port = link.fleet.split(":")

    async def run() -> Any:
        async with connect(host, int(port), configuration=config, create_protocol=Peer) as peer:
            return await asyncio.wait_for(script(peer), SECONDS)

    return asyncio.run(run())


@pytest.fixture(name="link")
def quic_link(tmp_path: Path, certificates: Certificates) -> Any:
    """A SuperLink that serves Fleet over QUIC."""
    with SuperLink(tmp_path, tls=certificates, kind=OURS, transport="quic") as link:
        yield link


def test_a_node_joins_and_sends_a_heartbeat(
    link: SuperLink, certificates: Certificates, tmp_path: Path
) -> None:
    key = tmp_path / "site"
    subprocess.run([binary(), "keys", "node", "--out", key], check=True, capture_output=True)
    config = configuration(certificates)
    config.certificate, config.private_key = node_certificate(key)

    async def script(peer: Peer) -> tuple[bytes, bytes, bytes]:
        await peer.greet(hello())
        joined = await peer.ask(call(CREATE_NODE, struct.pack("<d", 30.0)))
        kind, rest = read_varint(unframe(joined))
        assert kind == REPLY, joined
        response, rest = read_varint(rest)
        assert response == CREATE_NODE
        node, tail = read_varint(rest)
        assert node > 1 and tail == bytes([NOTHING]), joined
        beat = await peer.ask(call(HEARTBEAT, varint(node) + struct.pack("<d", 30.0)))
        stranger = await peer.ask(call(HEARTBEAT, varint(node + 1) + struct.pack("<d", 30.0)))
        return peer.alpn.encode() if peer.alpn else b"", beat, stranger

    alpn, beat, stranger = talk(link, config, script)
    assert alpn == b"flwr-quic"
    assert unframe(beat) == bytes([REPLY, HEARTBEAT, 1, NOTHING])
    assert unframe(stranger)[0] == FAILED


def test_a_node_without_a_key_is_told_so(link: SuperLink, certificates: Certificates) -> None:
    async def script(peer: Peer) -> bytes:
        await peer.greet(hello())
        return await peer.ask(call(CREATE_NODE, struct.pack("<d", 30.0)))

    refused = unframe(talk(link, configuration(certificates), script))
    assert refused[0] == FAILED and refused[1] == UNAUTHENTICATED, refused
    assert b"Missing authentication metadata" in refused


def test_another_protocol_is_told_what_is_served(link: SuperLink, certificates: Certificates) -> None:
    async def script(peer: Peer) -> ConnectionTerminated:
        await peer.greet(hello(b"flwr.other"))
        return await peer.ended

    ended = talk(link, configuration(certificates), script)
    assert "flwr.fleet is served here, not flwr.other" in ended.reason_phrase


def test_another_alpn_is_refused(link: SuperLink, certificates: Certificates) -> None:
    async def script(peer: Peer) -> None:
        raise AssertionError("the handshake went through")

    with pytest.raises(ConnectionError):
        talk(link, configuration(certificates, "h3"), script)
