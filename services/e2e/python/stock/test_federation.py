"""Whole federations: TLS and insecure, every isolation, the gRPC adapter, REST; the digits app learns."""

from __future__ import annotations

import copy
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from federation import Cast, Federation, SuperNode, run_config, superexec
from harness import OURS, STOCK, Certificates, binary, free_port, make_certificates


def test_digits_learns_with_tls_and_subprocess_isolation(shared: Federation) -> None:
    output = shared.app("digits").flwr("run", ".", "--stream", timeout=120)
    rounds = re.findall(r"^round (\d+): accuracy ([\d.]+) \([\d.]+ s\)$", output.text, re.MULTILINE)
    assert [int(number) for number, _ in rounds] == [1, 2, 3], output.text
    assert float(rounds[-1][1]) > 0.9, output.text


def test_digits_evaluates_on_the_nodes_when_asked(shared: Federation) -> None:
    overrides = run_config({"num-server-rounds": 1, "fraction-evaluate": 1.0})
    output = shared.app("digits").flwr("run", ".", "--stream", *overrides, timeout=120)
    aggregated = re.findall(r"Aggregated MetricRecord: (\{.*\})", output.text)
    assert len(aggregated) == 2 and "'accuracy'" in aggregated[1], output.text


@pytest.mark.parametrize(
    ("superlink", "supernode", "tls"),
    [
        ("process", "process", False),
        ("process", "subprocess", True),
        ("subprocess", "process", False),
    ],
)
def test_a_round_in_every_isolation(
    tmp_path: Path, certificates: Certificates, superlink: str, supernode: str, tls: bool
) -> None:
    with Federation(
        tmp_path,
        tls=certificates if tls else None,
        isolation=superlink,
        node_isolation=supernode,
        nodes=1,
    ) as federation:
        federation.app("probe").start(arrays=3).check_round()


@pytest.mark.hardening
@pytest.mark.parametrize("isolation", ["subprocess", "process"])
def test_a_round_beside_an_appio_api_with_tls(
    tmp_path: Path, certificates: Certificates, isolation: str
) -> None:
    secret = tmp_path / "join-secret"
    subprocess.run([binary(), "keys", "join-secret", "--out", secret], check=True)
    plaintext = f"127.0.0.1:{free_port()}"
    flags: list[object] = ["--appio-ssl-ca-certfile", certificates.ca]
    flags += ["--appio-ssl-certfile", certificates.cert, "--appio-ssl-keyfile", certificates.key]
    flags += ["--appio-join-secret-file", secret, "--appio-plaintext-address", plaintext]
    with Federation(
        tmp_path, tls=certificates, isolation=isolation, nodes=1, superlink_args=flags
    ) as federation:
        if isolation == "process":
            # The stock SuperExec that the federation started cannot speak TLS.
            home = federation.link.home
            with superexec("serverapp", plaintext, tmp_path, home, name="plain-superexec"):
                federation.app("probe").start(arrays=3).check_round()
        else:
            federation.app("probe").start(arrays=3).check_round()


def test_a_round_through_the_grpc_adapter(tmp_path: Path) -> None:
    with Federation(
        tmp_path,
        nodes=1,
        superlink_args=["--fleet-api-type", "grpc-adapter"],
        node_args=["--grpc-adapter"],
    ) as federation:
        federation.app("probe").start(arrays=3).check_round()


@pytest.mark.hardening
@pytest.mark.parametrize("superlink", [OURS, STOCK])
def test_a_round_through_the_grpc_adapter_with_our_supernode(
    tmp_path: Path, superlink: str
) -> None:
    with Federation(
        tmp_path,
        nodes=1,
        superlink_args=["--fleet-api-type", "grpc-adapter"],
        node_args=["--grpc-adapter"],
        cast=Cast(superlink, OURS),
    ) as federation:
        federation.app("probe").start(arrays=3).check_round()


@pytest.mark.parametrize("tls", [False, True])
def test_a_round_through_rest(tmp_path: Path, certificates: Certificates, tls: bool) -> None:
    federation = Federation(
        tmp_path,
        tls=certificates if tls else None,
        nodes=1,
        superlink_args=["--fleet-api-type", "rest"],
    )
    scheme = "https" if tls else "http"
    federation.node_args = ["--rest", "--superlink", f"{scheme}://{federation.link.fleet}"]
    with federation:
        federation.app("probe").start(arrays=3).check_round()


@pytest.mark.hardening
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("superlink", [OURS, STOCK])
def test_a_round_through_rest_with_our_supernode(
    tmp_path: Path, certificates: Certificates, superlink: str, tls: bool
) -> None:
    if superlink == STOCK and importlib.util.find_spec("uvicorn") is None:
        pytest.skip("stock flower-superlink speaks REST only with flwr[rest]")
    federation = Federation(
        tmp_path,
        tls=certificates if tls else None,
        nodes=1,
        superlink_args=["--fleet-api-type", "rest"],
        cast=Cast(superlink, OURS),
    )
    scheme = "https" if tls else "http"
    federation.node_args = ["--rest", "--superlink", f"{scheme}://{federation.link.fleet}"]
    with federation:
        federation.app("probe").start(arrays=3).check_round()


@pytest.mark.hardening
def test_our_supernode_on_rest_outlives_its_superlink(tmp_path: Path) -> None:
    federation = Federation(
        tmp_path, nodes=1, superlink_args=["--fleet-api-type", "rest"], cast=Cast(OURS, OURS)
    )
    federation.node_args = ["--rest", "--superlink", f"http://{federation.link.fleet}"]
    with federation:
        (node,) = federation.nodes
        node.wait_log("joined the SuperLink")
        federation.link.process.kill()
        federation.link.restart()
        # At its next heartbeat, it learns that it is forgotten.
        federation.app("probe").start(arrays=3).check_round()
        assert node.log.count("joined the SuperLink") == 2
        assert node.terminate() == 0


def test_a_supernode_that_distrusts_the_certificate_stays_out(
    shared: Federation, tmp_path: Path
) -> None:
    stranger = make_certificates(tmp_path / "other-ca")
    link = copy.copy(shared.link)
    link.tls = stranger
    with SuperNode(link, tmp_path, "distrustful", args=["--max-retries", "1"]) as node:
        node.wait_log("Giving up reconnection")
        node.wait_log("handshake failed|CERTIFICATE_VERIFY_FAILED")
    assert len(_online(shared)) == 2


def _online(federation: Federation) -> list[int]:
    run = federation.app("probe").start(rounds=0).wait_completed()
    nodes: list[int] = run.events("nodes")[0]["nodes"]
    return nodes
