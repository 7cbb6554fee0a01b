"""What the network sees of the deployment, over either transport; with QUIC, where it has overlays and secrets from elsewhere."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Iterator

import pytest

from capture import segments, unavailable
from deployment import VOLUMES, Deployment, wait_for

rows = pytest.mark.rows

# Of the app, of its configuration and of HTTP/2: what goes by unencrypted shows one of them.
TELLTALE = (b"PRI * HTTP/2.0", b"line.client_app", b"num-server-rounds", b"partition-id", b"def train")


class Bridge:
    """What goes over the bridge of the federation's network, and what happens to containers."""

    def __init__(self, deployment: Deployment, file: Path) -> None:
        network = deployment.inspect("flower-fl-network")["Id"][:12]
        self.file = file
        self._dump = subprocess.Popen(
            ["tcpdump", "-i", f"br-{network}", "-s", "0", "-U", "-B", "65536", "-Z", "root", "-w", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.events = file.with_suffix(".events")
        # Such as start/flower-superlink and healthy/flower-superlink.
        told = "docker events --filter type=container --filter event=start --filter event=health_status" + (
            " --format '{{.Action}}/{{.Actor.Attributes.name}}'"
        )
        with self.events.open("wb") as out:
            self._events = subprocess.Popen(["bash", "-c", f"exec {told}"], stdout=out)
        wait_for(lambda: file.exists() and file.stat().st_size >= 24, 20, "tcpdump listens")

    def stop(self) -> None:
        """Ends the capture, once all that went by is written."""
        for process in (self._dump, self._events):
            process.terminate()
            process.wait(20)

    def datagrams(self, port: int) -> int:
        """UDP to and from a port."""
        shown = subprocess.run(
            ["tcpdump", "-r", str(self.file), "-n", f"udp port {port}"], capture_output=True, text=True, check=True
        )
        return len(shown.stdout.splitlines())


@pytest.fixture(scope="module", params=["quic", "grpc"])
def captured(
    request: pytest.FixtureRequest, built: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Bridge]]:
    """A run, from the start of the containers to its end, over one transport. The deployment of the second is the one of
    the document, and goes on."""
    why = unavailable()
    if why is not None:
        pytest.skip(why)
    transport = request.param
    environment = overlaid(built) if transport == "quic" else {}
    built.stop()
    built.shell("./scripts/start-secure.sh --check --no-build && docker compose up --no-start", **environment)
    bridge = Bridge(built, tmp_path_factory.mktemp("capture") / f"{transport}.pcap")
    try:
        assert "All containers are healthy and ready." in built.start(**environment)
        built.run().wait()
        bridge.stop()
        yield transport, bridge
    finally:
        bridge.stop()
        if transport == "quic":
            built.stop()
            shutil.copytree(built.root / "secrets", built.certificates, dirs_exist_ok=True)


def overlaid(deployment: Deployment) -> dict[str, str]:
    """With the overlay of an internal network, and private keys that are in a directory of secrets, which is made."""
    secrets = deployment.root / "secrets"
    for folder in ("server", "clients"):
        (secrets / folder).mkdir(parents=True)
        for key in (deployment.certificates / folder).glob("*.key"):
            key.rename(secrets / folder / key.name)
    return {
        "TRANSPORT": "quic",
        "COMPOSE_FILE": "docker-compose.yml:docker-compose.internal.yml:docker-compose.override.yml",
        "SECRETS_DIR": str(secrets),
    }


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


@rows("S85")
def test_keys_come_from_elsewhere(captured: tuple[str, Bridge], deployment: Deployment) -> None:
    transport, _ = captured
    folder = deployment.root / "secrets" if transport == "quic" else deployment.certificates
    sources = {
        mount["Destination"]: mount["Source"]
        for container in ("flower-superlink", "flower-supernode-1", "flower-superexec-clientapp-2")
        for mount in deployment.inspect(container)["Mounts"]
    }
    for file in ("server/server.key", "clients/client1.key", "join/superlink", "join/supernode-2"):
        assert sources[f"/app/certificates/{file}"] == str(folder / file)


@rows("S88")
def test_the_internal_network(captured: tuple[str, Bridge], deployment: Deployment) -> None:
    transport, _ = captured
    assert deployment.inspect("flower-fl-network")["Internal"] == (transport == "quic")
    assert "9093/tcp -> 127.0.0.1:9093" in deployment.shell("docker port flower-superlink")


@rows("S58")
def test_nodes_are_started_once_the_superlink_is_healthy(captured: tuple[str, Bridge], deployment: Deployment) -> None:
    _, bridge = captured
    happened = bridge.events.read_text().split()

    def at(event: str, container: str) -> int:
        return happened.index(f"{event}/flower-{container}")

    assert at("healthy", "superlink") < at("start", "superexec-serverapp")
    for number in (1, 2):
        assert at("healthy", "superlink") < at("start", f"supernode-{number}")
        assert at("healthy", f"supernode-{number}") < at("start", f"superexec-clientapp-{number}")


@rows("S110")
def test_stop_with_volumes_removes_them(captured: tuple[str, Bridge], deployment: Deployment) -> None:
    transport, _ = captured
    if transport != "quic":
        return
    deployment.stop("./scripts/stop-secure.sh --volumes")
    left = set(deployment.shell("docker volume ls -q").split())
    assert not left & set(VOLUMES)
    assert "flwr-quic/superlink" in deployment.shell("docker images --format '{{.Repository}}'"), "images are kept"
