"""The secure deployment with its nodes on QUIC; and what the network sees of it, over either transport."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from capture import segments
from deployment import VOLUMES, Deployment, wait_for

rows = pytest.mark.rows

# Of the app, of its configuration and of HTTP/2: what goes by unencrypted shows one of them.
TELLTALE = (b"PRI * HTTP/2.0", b"line.client_app", b"num-server-rounds", b"partition-id", b"def train")


class Bridge:
    """What goes over the bridge of the federation's network."""

    def __init__(self, deployment: Deployment, file: Path) -> None:
        network = deployment.inspect("flower-fl-network")["Id"][:12]
        self.file = file
        self._dump = subprocess.Popen(
            ["tcpdump", "-i", f"br-{network}", "-s", "0", "-U", "-B", "65536", "-Z", "root", "-w", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: file.exists() and file.stat().st_size >= 24, 20, "tcpdump listens")

    def stop(self) -> None:
        """Ends the capture, once all that went by is written."""
        self._dump.terminate()
        self._dump.wait(20)

    def datagrams(self, port: int) -> int:
        """UDP to and from a port."""
        shown = subprocess.run(
            ["tcpdump", "-r", str(self.file), "-n", f"udp port {port}"], capture_output=True, text=True, check=True
        )
        return len(shown.stdout.splitlines())


@pytest.fixture(scope="module", params=["grpc", "quic"])
def captured(request: pytest.FixtureRequest, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Bridge]]:
    """A run, from the start of the containers to its end, over one transport."""
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is missing: sudo apt-get install tcpdump")
    transport = request.param
    deployment.build()
    deployment.shell("docker compose up --no-start", TRANSPORT=transport)
    bridge = Bridge(deployment, tmp_path_factory.mktemp("capture") / f"{transport}.pcap")
    try:
        deployment.shell("./scripts/start-secure.sh --no-build", TRANSPORT=transport)
        deployment.run().wait()
        bridge.stop()
        yield transport, bridge
    finally:
        bridge.stop()
        deployment.shell("./scripts/stop-secure.sh --volumes")


@rows("S70")
def test_nothing_is_said_in_the_clear(captured: tuple[str, Bridge]) -> None:
    transport, bridge = captured
    content = bridge.file.read_bytes()
    assert len(content) > 100_000, "the run is in it"
    for telltale in TELLTALE:
        assert telltale not in content, telltale
    begun: dict[tuple[object, object], bytes] = {}
    for segment in segments(bridge.file):
        if segment.data:
            begun.setdefault((segment.source, segment.target), segment.data)
    ports = {target[1] for _, target in begun} & {9091, 9092, 9094, 9095}
    assert ports == ({9091, 9094, 9095} if transport == "quic" else {9091, 9092, 9094, 9095})
    for way, data in begun.items():
        assert data[:2] == b"\x16\x03", f"{way} begins with {data[:40]!r}, which is no TLS handshake"


@rows("S65")
def test_nodes_use_the_transport_that_was_asked_for(captured: tuple[str, Bridge]) -> None:
    transport, bridge = captured
    datagrams = bridge.datagrams(9092)
    assert datagrams > 20 if transport == "quic" else datagrams == 0


@rows("S110", "S144")
def test_stop_with_volumes_removes_them(captured: tuple[str, Bridge], deployment: Deployment) -> None:
    deployment.shell("./scripts/stop-secure.sh --volumes")
    left = set(deployment.shell("docker volume ls -q").split())
    assert not left & set(VOLUMES)
    assert "flwr-quic/superlink" in deployment.shell("docker images --format '{{.Repository}}'"), "images are kept"
