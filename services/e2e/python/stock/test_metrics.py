"""Metrics of our daemons, as Prometheus would read them."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from federation import Cast, Federation
from harness import OURS, STOCK, Certificates, SuperLink, free_port, wait_for

pytestmark = pytest.mark.hardening

ARRAY_BYTES = 3_000_000
TYPES = {
    "flwr_quic_address_validations": "counter",
    "flwr_quic_body_bytes": "counter",
    "flwr_quic_build_info": "gauge",
    "flwr_quic_call_duration_seconds": "histogram",
    "flwr_quic_calls": "counter",
    "flwr_quic_calls_held": "gauge",
    "flwr_quic_calls_refused": "counter",
    "flwr_quic_calls_under_way": "gauge",
    "flwr_quic_certificate_expiry_timestamp_seconds": "gauge",
    "flwr_quic_certificate_refused": "gauge",
    "flwr_quic_client_body_bytes": "counter",
    "flwr_quic_client_calls": "counter",
    "flwr_quic_connection_bytes": "counter",
    "flwr_quic_connection_congestion_window_bytes": "histogram",
    "flwr_quic_connection_datagrams_received": "counter",
    "flwr_quic_connection_rtt_seconds": "histogram",
    "flwr_quic_connections": "gauge",
    "flwr_quic_connections_begun": "counter",
    "flwr_quic_connections_refused": "counter",
    "flwr_quic_datagrams_received": "counter",
    "flwr_quic_disk_free_bytes": "gauge",
    "flwr_quic_disk_size_bytes": "gauge",
    "flwr_quic_instruction_oldest_age_seconds": "gauge",
    "flwr_quic_instructions": "gauge",
    "flwr_quic_memory_lent_bytes": "gauge",
    "flwr_quic_node_app_launches": "counter",
    "flwr_quic_node_messages_in_hand": "gauge",
    "flwr_quic_node_objects": "counter",
    "flwr_quic_node_registered": "gauge",
    "flwr_quic_node_replies": "counter",
    "flwr_quic_node_store_bytes": "gauge",
    "flwr_quic_node_store_objects": "gauge",
    "flwr_quic_nodes": "gauge",
    "flwr_quic_object_bytes": "counter",
    "flwr_quic_objects": "counter",
    "flwr_quic_packets_lost": "counter",
    "flwr_quic_packets_sent": "counter",
    "flwr_quic_ready": "gauge",
    "flwr_quic_round_duration_seconds": "histogram",
    "flwr_quic_round_replies": "counter",
    "flwr_quic_run_standstill_seconds": "gauge",
    "flwr_quic_runs": "gauge",
    "flwr_quic_store_bytes": "gauge",
    "flwr_quic_store_objects": "gauge",
    "flwr_quic_streams_open": "gauge",
    "flwr_quic_streams_stalled": "counter",
    "process_cpu_seconds": "counter",
    "process_max_fds": "gauge",
    "process_open_fds": "gauge",
    "process_resident_memory_bytes": "gauge",
    "process_start_time_seconds": "gauge",
    "process_threads": "gauge",
    "process_virtual_memory_bytes": "gauge",
    "process_virtual_memory_max_bytes": "gauge",
}
LABELS = {
    *("protocol", "call", "transport", "code", "direction", "side", "reason", "le"),
    *("role", "version", "folder", "state", "status", "kind", "outcome", "waits_for", "stage", "app"),
}


class Metrics:
    """One reading of ``/metrics``."""

    def __init__(self, address: str) -> None:
        text = fetch(address, "/metrics")
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def sum(self, name: str, **labels: str) -> float:
        """All samples of that name which have these labels, together."""
        samples = [sample for family in self.families.values() for sample in family.samples]
        return sum(
            sample.value
            for sample in samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def check_shape(self) -> None:
        """Every metric is a known one, explained, and labelled with nothing but names of ours."""
        for name, family in self.families.items():
            assert family.type == TYPES[name], name
            assert family.documentation, name
            for sample in family.samples:
                assert set(sample.labels) <= LABELS, sample


def fetch(address: str, path: str) -> str:
    """What is answered to a GET, which is text."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}{path}", timeout=10) as answer:
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        return str(answer.read().decode())


def test_a_federation_of_both_transports_is_counted(
    tmp_path: Path, certificates: Certificates
) -> None:
    link, node = (f"127.0.0.1:{free_port()}" for _ in range(2))
    with Federation(
        tmp_path,
        tls=certificates,
        cast=Cast(OURS, OURS),
        transport="grpc,quic",
        nodes=1,
        superlink_args=["--metrics-address", link],
        node_args=["--transport", "quic", "--metrics-address", node],
    ) as site:
        site.node_args = []
        site.add_node("stock", kind=STOCK)
        assert fetch(link, "/healthz") == "ok\n"
        before = Metrics(link)
        site.app("probe").start(nodes=2, array_bytes=ARRAY_BYTES).check_round(replies=2)
        after, at_node = Metrics(link), Metrics(node)

    for read in (before, after, at_node):
        read.check_shape()
    assert {"flwr_quic_connections", "flwr_quic_calls", "flwr_quic_body_bytes"} <= set(after.families)
    assert after.sum("flwr_quic_connections", side="server") == 1
    assert after.sum("flwr_quic_connections_begun_total", side="server") >= 1
    assert at_node.sum("flwr_quic_connections_begun_total", side="client") >= 1
    for transport in ("quic", "grpc"):
        answered = after.sum("flwr_quic_calls_total", protocol="flwr.fleet", transport=transport, code="ok")
        assert answered > 0, transport
    # The array went to the node and came back, and not much more than that.
    for direction, opposite in (("sent", "received"), ("received", "sent")):
        moved = [
            read.sum("flwr_quic_connection_bytes_total", side="server", direction=direction)
            for read in (before, after)
        ]
        assert ARRAY_BYTES < moved[1] - moved[0] < 1.5 * ARRAY_BYTES, (direction, moved)
        bodies = after.sum("flwr_quic_body_bytes_total", transport="quic", direction=direction)
        assert ARRAY_BYTES <= bodies < moved[1], (direction, bodies, moved)
        there = at_node.sum("flwr_quic_connection_bytes_total", side="client", direction=opposite)
        assert ARRAY_BYTES < there < 1.5 * ARRAY_BYTES, (opposite, there)
    assert after.sum("flwr_quic_connection_rtt_seconds_count", side="server") >= 1
    assert after.sum("flwr_quic_connection_rtt_seconds_sum", side="server") > 0
    sent = after.sum("flwr_quic_packets_sent_total", side="server")
    assert ARRAY_BYTES / 6472 < sent
    assert 0 <= after.sum("flwr_quic_packets_lost_total", side="server") < sent


def test_datagrams_of_nobody_are_counted(tmp_path: Path, certificates: Certificates) -> None:
    address = f"127.0.0.1:{free_port()}"
    args = ["--metrics-address", address]
    with SuperLink(tmp_path, certificates, kind=OURS, transport="grpc,quic", args=args) as link:
        host, port = link.fleet.split(":")
        received = "flwr_quic_datagrams_received_total"
        assert Metrics(address).sum(received, side="server") == 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for length in range(1, 101):
                stranger.sendto(os.urandom(10 * length), (host, int(port)))
        wait_for(
            lambda: Metrics(address).sum(received, side="server") == 100, 10, "100 datagrams"
        )
        read = Metrics(address)
        read.check_shape()
        assert read.sum("flwr_quic_connection_datagrams_received_total", side="server") == 0


def test_calls_that_no_service_has_seen_are_counted(
    tmp_path: Path, certificates: Certificates
) -> None:
    address = f"127.0.0.1:{free_port()}"
    args = ["--metrics-address", address]
    with SuperLink(tmp_path, certificates, kind=OURS, args=args) as link:
        credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
        with grpc.secure_channel(link.fleet, credentials) as channel:
            fleet = "/flwr.proto.Fleet/"
            for method, request, code in (
                (fleet + "CreateNode", b"", grpc.StatusCode.UNAUTHENTICATED),
                ("/flwr.proto.Other/CreateNode", b"", grpc.StatusCode.UNIMPLEMENTED),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(method)(request, timeout=10)
                assert refused.value.code() == code
        read = Metrics(address)
        read.check_shape()
        for code in ("unauthenticated", "unimplemented"):
            labels = {"protocol": "flwr.fleet", "transport": "grpc", "call": "unread", "code": code}
            assert read.sum("flwr_quic_calls_total", **labels) == 1, code


def test_a_scraper_that_misbehaves_costs_little(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    host, port = address.split(":")
    with SuperLink(tmp_path, kind=OURS, args=["--metrics-address", address]):
        for path, code in (("/", 404), ("/metrics/more", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                fetch(address, path)
            assert refused.value.code == code
        with socket.create_connection((host, int(port)), timeout=10) as garbage:
            garbage.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert garbage.recv(100).startswith(b"HTTP/1.1 400")
        # As many as are served at once say nothing: further ones are turned away, until these are.
        silent = [socket.create_connection((host, int(port)), timeout=20) for _ in range(8)]
        with socket.create_connection((host, int(port)), timeout=10) as late:
            with pytest.raises(ConnectionError):
                late.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                if late.recv(100) == b"":
                    raise ConnectionResetError
        for connection in silent:
            assert connection.recv(100) == b""
            connection.close()
        assert fetch(address, "/healthz") == "ok\n"
