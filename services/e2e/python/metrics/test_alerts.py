"""Every shipped alert fires for what it is about, and not before; see ``HASTE`` for how tests get by without hours."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import grpc
import pytest
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub

from federation import Cast, Federation, supernode_command
from harness import (
    OURS,
    Certificates,
    Process,
    SuperLink,
    binary,
    environment,
    free_port,
    wait_for,
)
from watching import NEEDS_PROMETHEUS, Prometheus, hasty_rules

pytestmark = [pytest.mark.hardening, NEEDS_PROMETHEUS]

# What fires because a machine is small, or the certificates of the tests are short-lived, is another test's.
ELSEWHERE = {"FlowerDiskLow", "FlowerCertificateExpiring"}


def firing(prometheus: Prometheus) -> set[str]:
    """The alerts that fire and are this test's."""
    return {alert["alertname"] for alert in prometheus.firing()} - ELSEWHERE


class Watched:
    """A federation without TLS, of a SuperLink, a node and a SuperExec, and a Prometheus with the alerts."""

    def __init__(self, directory: Path) -> None:
        self.link, self.node, self.exec = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.directory = directory
        self.federation = Federation(
            directory,
            isolation="process",
            node_isolation="subprocess",
            nodes=0,
            cast=Cast(OURS, OURS, server_launcher=OURS),
            superlink_args=["--metrics-address", self.link],
            superexec_args=["--metrics-address", self.exec],
        )

    def __enter__(self) -> "Watched":
        self.federation.__enter__()
        try:
            self.site = self.federation.add_node("node", args=["--metrics-address", self.node])
            jobs = {"superlink": [self.link], "supernode": [self.node], "superexec": [self.exec]}
            self.prometheus = Prometheus(self.directory, jobs, hasty_rules())
            self.prometheus.wait_value("sum(flwr_quic_ready)", 3)
            wait_for(lambda: not firing(self.prometheus), 30, "all alerts of the start to end")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "prometheus"):
            self.prometheus.close()
        self.federation.__exit__()


@pytest.mark.slow
def test_a_node_that_is_killed(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        watched.federation.kill(watched.site)
        watched.prometheus.wait_firing("FlowerDaemonDown", job="supernode", instance=watched.node)
        # Its last heartbeat is good for a minute.
        watched.prometheus.wait_firing("FlowerNodeLost", timeout=100, job="superlink")
        assert firing(watched.prometheus) == {"FlowerDaemonDown", "FlowerNodeLost"}


def test_a_run_in_which_nothing_happens(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        app = watched.federation.app("probe")
        run = app.start(client="sleep", client_seconds=3600)
        watched.prometheus.wait_firing("FlowerRunStalled", timeout=60, job="superlink")
        assert firing(watched.prometheus) == {"FlowerRunStalled"}
        app.flwr("stop", run.run_id)
        watched.prometheus.wait_quiet("FlowerRunStalled")


def test_a_message_that_nobody_fetches(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        # Until it counts as offline, messages are sent to it.
        watched.federation.kill(watched.site)
        app = watched.federation.app("probe")
        run = app.start()
        watched.prometheus.wait_firing("FlowerMessagesWaiting", timeout=60, job="superlink")
        app.flwr("stop", run.run_id)
        watched.prometheus.wait_quiet("FlowerMessagesWaiting")


def test_an_app_that_is_killed(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        run = watched.federation.app("probe").start(server="wait")
        run.wait_event("rounds-done")
        os.kill(run.events("start")[0]["pid"], signal.SIGKILL)
        watched.prometheus.wait_firing("FlowerAppsDie", job="superexec", app="flwr-serverapp")
        assert run.wait_finished() == "finished:failed"


def test_a_node_that_reaches_nobody_on_a_disk_that_is_small(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk that nobody else sees, and that is gone with the process.
    mounted = 'mount -t tmpfs -o size=64m tmpfs "$0" && exec "$@"'
    private = ["unshare", "--mount", "sh", "-c", mounted, disk]
    if subprocess.run([*private, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting takes root")
    command = [*supernode_command(OURS), "--insecure", "--superlink", f"127.0.0.1:{free_port()}"]
    command += ["--data-dir", str(disk), "--metrics-address", address, "--isolation", "process"]
    command += ["--clientappio-api-address", f"127.0.0.1:{free_port()}"]
    with Process("node", [*private, *command], tmp_path, environment(tmp_path)):
        with Prometheus(tmp_path, {"supernode": [address]}, hasty_rules()) as prometheus:
            assert isinstance(prometheus, Prometheus)
            prometheus.wait_firing("FlowerDiskLow", job="supernode", folder="data")
            prometheus.wait_firing("FlowerDaemonNotReady", job="supernode", instance=address)


def test_a_certificate_that_expires_soon(tmp_path: Path, certificates: Certificates) -> None:
    soon, late = (f"127.0.0.1:{free_port()}" for _ in range(2))
    folder = tmp_path / "long-lived"
    for command in (["ca"], ["server", "--san", "localhost"]):
        subprocess.run([binary(), "certs", *command, "--dir", folder], check=True)
    lasting = Certificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    links = [
        SuperLink(tmp_path / name, tls, kind=OURS, args=["--metrics-address", address])
        for name, tls, address in (("soon", certificates, soon), ("late", lasting, late))
    ]
    with links[0], links[1]:
        with Prometheus(tmp_path, {"superlink": [soon, late]}, hasty_rules()) as prometheus:
            assert isinstance(prometheus, Prometheus)
            for role in ("server", "server_ca"):
                prometheus.wait_firing("FlowerCertificateExpiring", instance=soon, role=role)
            alerts = prometheus.firing()
            assert not [alert for alert in alerts if alert.get("instance") == late], alerts
            # What is in force is told of, whatever the files have.
            lasting.key.write_bytes((folder / "ca/ca.key").read_bytes())
            prometheus.wait_firing("FlowerCertificateRefused", instance=late)
            expiry = f'flwr_quic_certificate_expiry_timestamp_seconds{{instance="{late}",role="server"}}'
            served = prometheus.value(expiry)
            subprocess.run([binary(), "certs", "server", "--force", "--dir", folder], check=True)
            prometheus.wait_quiet("FlowerCertificateRefused")
            renewed = prometheus.value(expiry)
            assert served and renewed and served < renewed
            lines = re.findall("The certificates of Fleet and Control stay as they were", links[1].log)
            assert len(lines) == 1


def test_calls_that_are_refused(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        with grpc.insecure_channel(watched.federation.link.serverappio) as channel:
            stub = ServerAppIoStub(channel)

            def fires() -> bool:
                for _ in range(20):
                    with pytest.raises(grpc.RpcError):
                        stub.GetFab(GetFabRequest(hash_str="0" * 64, run_id=7), timeout=10)
                return "FlowerErrorRate" in firing(watched.prometheus)

            wait_for(fires, 60, "refused calls to be noticed", interval=0.3)
        assert firing(watched.prometheus) == {"FlowerErrorRate"}
        watched.prometheus.wait_quiet("FlowerErrorRate", timeout=60)


def test_calls_without_a_signature(tmp_path: Path) -> None:
    with Watched(tmp_path) as watched:
        with grpc.insecure_channel(watched.federation.link.fleet) as channel:
            create_node = channel.unary_unary("/flwr.proto.Fleet/CreateNode")

            def fires() -> bool:
                for _ in range(20):
                    with pytest.raises(grpc.RpcError) as refused:
                        create_node(b"", timeout=10)
                    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
                return "FlowerCallsUnread" in firing(watched.prometheus)

            wait_for(fires, 60, "calls of a stranger to be noticed", interval=0.3)
        assert firing(watched.prometheus) == {"FlowerCallsUnread"}
        watched.prometheus.wait_quiet("FlowerCallsUnread", timeout=60)
