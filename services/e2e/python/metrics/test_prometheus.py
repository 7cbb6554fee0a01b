"""What a real Prometheus learns of a federation, and what promtool says of what is shipped."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from federation import Cast, Federation
from harness import OURS, REPOSITORY, Certificates, free_port, wait_for
from watching import MONITORING, NEEDS_PROMETHEUS, Prometheus, fetch

pytestmark = [pytest.mark.hardening, NEEDS_PROMETHEUS]

ROUNDS = 4
ARRAY_BYTES = 300_000
OUR_METRICS = re.compile(r"\b(?:flwr_quic|process)_[a-z_]+\b")


class Site:
    """A federation of our daemons with TLS, two nodes, a SuperExec and a Prometheus."""

    def __init__(self, directory: Path, certificates: Certificates) -> None:
        self.addresses = {
            role: f"127.0.0.1:{free_port()}" for role in ("link", "node-0", "node-1", "exec")
        }
        self.federation = Federation(
            directory,
            tls=certificates,
            isolation="process",
            node_isolation="subprocess",
            nodes=0,
            cast=Cast(OURS, OURS, server_launcher=OURS),
            transport="grpc,quic",
            superlink_args=[
                *("--metrics-address", self.addresses["link"]),
                *("--database", directory / "state.db", "--storage-dir", directory / "objects"),
            ],
            superexec_args=["--metrics-address", self.addresses["exec"]],
        )
        self.directory = directory

    def start(self) -> Prometheus:
        """Two nodes, one of them over QUIC, and Prometheus."""
        for index, transport in enumerate(("grpc", "quic")):
            name = f"node-{index}"
            args = ["--transport", transport, "--metrics-address", self.addresses[name]]
            self.federation.add_node(name, f"partition-id={index}", args)
        link, *nodes, launcher = self.addresses.values()
        jobs = {"superlink": [link], "supernode": nodes, "superexec": [launcher]}
        return Prometheus(self.directory, jobs)

    def pages(self) -> dict[str, str]:
        """What each daemon serves."""
        return {role: fetch(f"http://{at}/metrics") for role, at in self.addresses.items()}


@pytest.fixture(name="site", scope="module")
def _site(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[tuple[Site, Prometheus]]:
    """A federation in which one run has been, as Prometheus has seen it."""
    site = Site(tmp_path_factory.mktemp("site"), certificates)
    with site.federation as federation, site.start() as prometheus:
        assert isinstance(prometheus, Prometheus)
        prometheus.wait_value('flwr_quic_nodes{state="online"}', 2)
        app = federation.app("probe")
        run = app.start(
            nodes=2, rounds=ROUNDS, array_bytes=ARRAY_BYTES, client="sleep", client_seconds=3
        )
        run.wait_completed(timeout=120)
        prometheus.wait_value('flwr_quic_runs{status="completed"}', 1)
        prometheus.wait_value('flwr_quic_apps_ended_total{outcome="success"}', 1)
        yield site, prometheus


def test_a_run_is_counted(site: tuple[Site, Prometheus]) -> None:
    _, prometheus = site
    expected = {
        "min(up)": 1,
        "count(flwr_quic_ready == 1)": 4,
        'count(flwr_quic_build_info{version=~".+"})': 4,
        'flwr_quic_nodes{state="offline"}': 0,
        'sum(flwr_quic_runs{status!="completed"})': 0,
        # What was in the state is gone with the run.
        "sum(flwr_quic_instructions)": 0,
        "flwr_quic_store_objects": 0,
        "flwr_quic_store_bytes": 0,
        "flwr_quic_run_standstill_seconds": 0,
        # The probe trains in odd rounds and evaluates in even ones.
        'flwr_quic_round_duration_seconds_count{kind="train"}': ROUNDS / 2,
        'flwr_quic_round_duration_seconds_count{kind="evaluate"}': ROUNDS / 2,
        'sum(flwr_quic_round_replies_total{outcome="content"})': 2 * ROUNDS,
        'min(flwr_quic_node_replies_total{outcome="content"})': ROUNDS,
        'max(flwr_quic_node_replies_total{outcome="content"})': ROUNDS,
        "sum(flwr_quic_node_app_launches_total)": 2 * ROUNDS,
        "sum(flwr_quic_node_registered)": 2,
        'flwr_quic_apps_started_total{app="flwr-serverapp"}': 1,
        'flwr_quic_apps_running{app="flwr-serverapp"}': 0,
        # And while it ran:
        'max_over_time(flwr_quic_runs{status="running"}[10m])': 1,
        'max_over_time(flwr_quic_instructions{state="working"}[10m])': 2,
        'max_over_time(flwr_quic_calls_held{waits_for="replies"}[10m])': 1,
        'max_over_time(sum(flwr_quic_node_messages_in_hand{stage="working"})[10m:1s])': 2,
        'max_over_time(flwr_quic_apps_running{app="flwr-serverapp"}[10m])': 1,
    }
    for expression, value in expected.items():
        prometheus.wait_value(expression, value)


def test_durations_are_those_of_the_rounds(site: tuple[Site, Prometheus]) -> None:
    _, prometheus = site
    seconds = prometheus.value("sum(flwr_quic_round_duration_seconds_sum)")
    # Each ClientApp sleeps for three.
    assert seconds is not None and 3 * ROUNDS <= seconds < 60


def test_objects_are_counted_by_direction_and_transport(site: tuple[Site, Prometheus]) -> None:
    _, prometheus = site
    # Arrays come from the ServerApp and go to both nodes, over gRPC and QUIC; they come back and go to the ServerApp.
    # The replies of a round are alike: whoever is second sends what is not there yet, and that may be nothing.
    arrays = {
        ("received", "grpc"): (ROUNDS, 2 * ROUNDS),
        ("received", "quic"): (0, ROUNDS),
        ("sent", "grpc"): (2 * ROUNDS, 3 * ROUNDS),
        ("sent", "quic"): (ROUNDS, ROUNDS),
    }
    for (direction, transport), (least, most) in arrays.items():
        labels = f'{{direction="{direction}", transport="{transport}"}}'
        objects = prometheus.value(f"flwr_quic_objects_total{labels}")
        assert objects is not None and objects > least, (labels, objects)
        octets = prometheus.value(f"flwr_quic_object_bytes_total{labels}")
        assert octets is not None
        assert least * ARRAY_BYTES < octets < 1.3 * most * ARRAY_BYTES, (labels, octets)
    received = prometheus.value('sum(flwr_quic_object_bytes_total{direction="received"})')
    assert received is not None and received > 2 * ROUNDS * ARRAY_BYTES
    for direction in ("received", "sent"):
        least = prometheus.value(f'min(flwr_quic_node_objects_total{{direction="{direction}"}})')
        assert least is not None and least > ROUNDS


def test_processes_disks_and_certificates_are_measured(site: tuple[Site, Prometheus]) -> None:
    _, prometheus = site
    now = time.time()
    within = {
        "process_resident_memory_bytes": (1e6, 1e9),
        "process_open_fds": (5, 1000),
        "process_start_time_seconds": (now - 600, now),
        "process_threads": (2, 1000),
    }
    for name, (least, most) in within.items():
        samples = prometheus.query(name)
        assert len(samples) == 4, samples
        assert all(least <= value <= most for _, value in samples), samples
    disk = shutil.disk_usage("/")
    for folder in ("storage", "database", "data"):
        size = prometheus.query(f'flwr_quic_disk_size_bytes{{folder="{folder}"}}')
        free = prometheus.query(f'flwr_quic_disk_free_bytes{{folder="{folder}"}}')
        assert size and len(size) == len(free)
        assert all(0 < value for _, value in [*size, *free]), (size, free, disk)
    database = prometheus.value("flwr_quic_database_bytes")
    assert database is not None and database > 4096
    # The certificates of the tests are valid for a day.
    expiries = prometheus.query("flwr_quic_certificate_expiry_timestamp_seconds")
    roles = sorted((labels["job"], labels["role"]) for labels, _ in expiries)
    ours = [("superlink", "server"), ("superlink", "server_ca")]
    assert roles == [*ours, ("supernode", "superlink_ca"), ("supernode", "superlink_ca")]
    assert all(now + 3600 < value < now + 86_400 for _, value in expiries), expiries


def test_promtool_finds_nothing_wrong_with_pages(site: tuple[Site, Prometheus]) -> None:
    for role, page in site[0].pages().items():
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=page.encode(), capture_output=True, check=False
        )
        said = (checked.stdout + checked.stderr).decode()
        assert checked.returncode == 0 and not said, f"{role}: {said}"


def test_what_is_shown_and_alerted_is_measured(site: tuple[Site, Prometheus]) -> None:
    watched, prometheus = site
    text = "".join(watched.pages().values())
    measured = set(re.findall(r"^([a-z_]+)(?:\{| )", text, re.MULTILINE))
    for expression in [*shown(), *alerted()]:
        prometheus.query(expression)
        for name in OUR_METRICS.findall(expression):
            # Nobody was lost, and nothing went wrong, so these have never been counted.
            assert name in measured | {"flwr_quic_calls_refused_total"}, expression


def test_every_metric_is_in_the_readme(site: tuple[Site, Prometheus]) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for role, page in site[0].pages().items():
        for family in text_string_to_metric_families(page):
            name = family.name + ("_total" if family.type == "counter" else "")
            is_usual = name.startswith("process_")
            assert is_usual or f"`{name}`" in readme, f"{name} of the {role} is not in README.md"


def shown() -> list[str]:
    """The expressions of the dashboard."""
    dashboard = json.loads(
        (MONITORING / "grafana" / "dashboards" / "flwr-quic.json").read_text(encoding="utf-8")
    )
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(targets) > 20
    return [target["expr"] for target in targets]


def alerted() -> list[str]:
    """The expressions of the alerts, as promtool prints them."""
    rules = (MONITORING / "alerts.yml").read_text(encoding="utf-8")
    found = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?:          .+\n)*)", rules)
    assert len(found) == rules.count("- alert:")
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ],
    ids=lambda command: "-".join(command[:2]),
)
def test_promtool_is_content_with_what_is_shipped(command: list[str]) -> None:
    checked = subprocess.run(
        ["promtool", *command], cwd=MONITORING, capture_output=True, check=False, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = (MONITORING / "alerts_test.yml").read_text(encoding="utf-8")
    for name in re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yml").read_text()):
        assert f"alertname: {name}" in tested, f"{name} has no test"


def test_metrics_are_reached_inside_the_network_only() -> None:
    overlay = (MONITORING / "docker-compose.monitoring.yml").read_text(encoding="utf-8")
    published = re.findall(r"ports:\n((?:\s+- .+\n)+)", overlay)
    assert published and all(
        line.strip().startswith("- 127.0.0.1:") for block in published for line in block.splitlines()
    )
    assert "9100:" not in overlay
    config = (MONITORING / "prometheus.yml").read_text(encoding="utf-8")
    for target in re.findall(r"([a-z0-9-]+):9100", config):
        assert f"  {target}: *metrics\n" in overlay, target


def test_readiness_follows_the_peer(tmp_path: Path) -> None:
    link, node, launcher = (f"127.0.0.1:{free_port()}" for _ in range(3))

    def ready(address: str) -> str:
        try:
            return fetch(f"http://{address}/readyz")
        except OSError as error:
            # Of an HTTP error as well, whose body says why.
            return error.read().decode() if hasattr(error, "read") else str(error)

    federation = Federation(
        tmp_path,
        isolation="process",
        node_isolation="subprocess",
        nodes=0,
        cast=Cast(OURS, OURS, server_launcher=OURS),
        superlink_args=["--metrics-address", link],
        superexec_args=["--metrics-address", launcher],
    )
    with federation:
        federation.add_node("node", args=["--metrics-address", node])
        for address in (link, node, launcher):
            wait_for(lambda at=address: ready(at) == "ready\n", 30, f"{address} to be ready")
        federation.link.process.kill()
        wait_for(lambda: "the SuperLink" in ready(node), 30, "the node to notice")
        wait_for(lambda: "the daemon" in ready(launcher), 30, "the SuperExec to notice")
        assert "connection" in ready(node) or "reached" in ready(node)
        federation.link.start()
        for address in (link, node, launcher):
            wait_for(lambda at=address: ready(at) == "ready\n", 60, f"{address} to be ready again")
