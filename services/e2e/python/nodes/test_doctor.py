"""``flwr-quic doctor`` and ``flwr-quic status`` beside real servers: what is broken is named, with what mends it."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from federation import Cast, Federation
from harness import OURS, STOCK, Certificates, SuperLink, binary, free_port, wait_for

pytestmark = pytest.mark.hardening


def certs(directory: Path, *command: object) -> None:
    """Run ``flwr-quic certs`` on a directory."""
    argv = [binary(), "certs", *command, "--dir", directory]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a CA, a server and a client, all good."""
    directory = tmp_path_factory.mktemp("pki")
    certs(directory, "ca")
    certs(directory, "server")
    certs(directory, "client", "1")
    return directory


def files_of(directory: Path) -> Certificates:
    """Those of the server."""
    return Certificates(directory / "ca.crt", directory / "server.pem", directory / "server.key")


@pytest.fixture(scope="module")
def link(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    """A SuperLink of ours over both transports, with health checks."""
    directory = tmp_path_factory.mktemp("link")
    with SuperLink(directory, tls=files_of(pki), health=True, transport="grpc,quic") as started:
        yield started


def doctor(*args: object) -> tuple[int, list[dict[str, Any]]]:
    """Its status, and what it found."""
    argv = [str(arg) for arg in [binary(), "doctor", "--format", "json", "--timeout", "3", *args]]
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0)
    return done.returncode, report["findings"]


def problems(findings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that are wrong; each says what mends it."""
    wrong = [one for one in findings if one["level"] == "problem"]
    assert all(one["remedy"] for one in wrong), wrong
    return wrong


def only_problem(*args: object) -> dict[str, Any]:
    """The one thing that is wrong."""
    status, findings = doctor(*args)
    assert status == 1
    (wrong,) = problems(findings)
    return wrong


def everything(link: SuperLink, pki: Path) -> list[object]:
    """The flags that have all of it looked at."""
    return [
        "--certificates", pki, "--superlink", link.fleet, "--control", link.control,
        "--health", link.health, "--transport", "quic",
    ]  # fmt: skip


def test_all_is_well(link: SuperLink, pki: Path) -> None:
    status, findings = doctor(*everything(link, pki), "--strict", "--free", free_port())
    assert (status, problems(findings)) == (0, [])
    found = {one["check"] for one in findings if one["level"] == "ok"}
    wanted = "chain key names expiry permissions ports dns tcp tls quic path-mtu service clock health"
    assert found >= set(wanted.split()), found
    services = [one["says"] for one in findings if one["check"] == "service"]
    assert [("Fleet" in one, "flwr-quic " in one) for one in services] == [(True, True), (False, True)]


def test_a_stock_superlink_is_told_from_ours(pki: Path, tmp_path: Path) -> None:
    with SuperLink(tmp_path, tls=files_of(pki), kind=STOCK) as stock:
        status, findings = doctor(
            "--superlink", stock.fleet, "--control", stock.control, "--root-certificates", pki / "ca.crt"
        )
    assert (status, problems(findings)) == (0, [])
    services = [one["says"] for one in findings if one["check"] == "service"]
    assert all("not flwr-quic" in one for one in services) and len(services) == 2
    assert [one["level"] for one in findings if one["check"] == "clock"] == ["ok"]
    assert [one["level"] for one in findings if one["check"] == "quic"] == ["warning"]


def broken(pki: Path, directory: Path, how: str) -> Path:
    """A copy of the certificates in which one thing is wrong."""
    copy = directory / "pki"
    shutil.copytree(pki, copy)
    if how == "no ca":
        (copy / "ca.crt").unlink()
        shutil.rmtree(copy / "ca")
    elif how == "no server":
        shutil.rmtree(copy / "server")
        for name in ("server.pem", "server.key"):
            (copy / name).unlink()
    elif how == "junk":
        (copy / "server.pem").write_text("junk\n")
    elif how == "foreign key":
        shutil.copy(copy / "clients/client1.key", copy / "server.key")
    elif how == "foreign ca":
        certs(directory / "other", "ca")
        certs(directory / "other", "client", "1")
        shutil.copytree(directory / "other/clients", copy / "clients", dirs_exist_ok=True)
    elif how == "open key":
        (copy / "server.key").chmod(0o644)
    elif how == "no key":
        (copy / "server.key").unlink()
    return copy


@pytest.mark.parametrize(
    "how, check, says, remedy",
    [
        ("no ca", "files", "there is no ca.crt", "flwr-quic certs ca --dir"),
        ("no server", "files", "no certificate of a server", "flwr-quic certs server --dir"),
        ("junk", "files", "holds no certificate", "flwr-quic certs server --dir"),
        ("foreign key", "key", "does not fit the certificate", "flwr-quic certs server --dir"),
        ("foreign ca", "chain", "is not signed by the CA", "flwr-quic certs renew --all --dir"),
        ("open key", "permissions", "everybody on this machine can use the private key", "chmod 400"),
        ("no key", "files", "the private key is missing", "flwr-quic certs server --dir"),
    ],
)
def test_broken_files(
    pki: Path, tmp_path: Path, how: str, check: str, says: str, remedy: str
) -> None:
    found = only_problem("--certificates", broken(pki, tmp_path, how), "--strict", "--transport", "grpc")
    assert (found["check"], says in found["says"], remedy in found["remedy"]) == (check, True, True), found


def test_names_that_are_missing(pki: Path) -> None:
    status, findings = doctor("--certificates", pki, "--host", "fl.example.org", "--host", "localhost")
    assert status == 1
    found = problems(findings)
    # The server's certificate is in a file of each layout.
    assert [one["check"] for one in found] == ["names", "names"]
    assert all(one["remedy"].endswith("--force --san fl.example.org") for one in found)


def lasting(pki: Path, directory: Path, days: float) -> Path:
    """A copy of the certificates, the server's valid for so many days from now."""
    copy = shutil.copytree(pki, directory / f"lasting{days}")
    now = datetime.datetime.now(datetime.timezone.utc)
    old = x509.load_pem_x509_certificate((copy / "server.pem").read_bytes())
    signer = serialization.load_pem_private_key((copy / "ca/ca.key").read_bytes(), None)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=400))
        .not_valid_after(now + datetime.timedelta(days=days, minutes=5))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    pem = builder.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
    for name in ("server.pem", "server/server.crt"):
        (copy / name).write_bytes(pem)
    return copy


@pytest.mark.parametrize("days, level", [(10, "warning"), (-1, "problem")])
def test_certificates_that_expire_and_what_mends_it(
    pki: Path, tmp_path: Path, days: float, level: str
) -> None:
    directory = lasting(pki, tmp_path, days)
    status, findings = doctor("--certificates", directory)
    assert status == (level == "problem")
    expiring = [one for one in findings if one["check"] == "expiry" and one["level"] != "ok"]
    assert [one["level"] for one in expiring] == [level, level]
    assert all("server" in one["subject"] for one in expiring)
    (remedy,) = {one["remedy"] for one in expiring}
    subprocess.run([binary(), *remedy.split()[1:]], check=True, capture_output=True)
    assert doctor("--certificates", directory)[0] == 0


def test_files_that_the_container_may_not_read(pki: Path, tmp_path: Path) -> None:
    status, findings = doctor("--certificates", pki, "--uid", "49999")
    unreadable = [one for one in problems(findings) if one["check"] == "permissions"]
    assert status == 1 and unreadable
    assert all("49999" in one["says"] for one in unreadable), unreadable
    if os.geteuid() == 0:
        # What it says mends it.
        copy = shutil.copytree(pki, tmp_path / "pki")
        for _ in range(20):
            status, findings = doctor("--certificates", copy, "--uid", "49999")
            if status == 0:
                break
            remedy = problems(findings)[0]["remedy"].removeprefix("sudo ")
            assert remedy.startswith(("chown ", "chmod ")), remedy
            subprocess.run(remedy, shell=True, check=True)
        assert status == 0, findings


def test_a_port_that_is_taken_is_named_with_its_process() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = only_problem("--free", f"{free_port()},{port}", "--transport", "grpc")
        assert found["subject"] == f"port {port}"
        assert f"(process {os.getpid()})" in found["says"]


def test_nobody_is_there(pki: Path) -> None:
    found = only_problem("--superlink", f"127.0.0.1:{free_port()}", "--root-certificates", pki / "ca.crt")
    assert (found["check"], found["says"]) == ("tcp", "nobody listens there")


def test_a_name_without_address(pki: Path) -> None:
    found = only_problem("--superlink", "no-such-host.invalid:9092", "--root-certificates", pki / "ca.crt")
    assert (found["check"], "has no address" in found["says"]) == ("dns", True)


def test_a_wrong_ca(link: SuperLink, tmp_path: Path) -> None:
    certs(tmp_path / "other", "ca")
    status, findings = doctor(
        "--superlink", link.fleet, "--root-certificates", tmp_path / "other/ca.crt", "--transport", "quic"
    )
    wrong = {one["check"]: one for one in problems(findings)}
    assert status == 1 and set(wrong) == {"tls", "quic"}
    assert "is not signed by" in wrong["tls"]["says"]
    assert "--root-certificates" in wrong["tls"]["remedy"]


def test_a_name_that_the_certificate_does_not_have(link: SuperLink, pki: Path) -> None:
    address = f"127.0.0.2:{link.control.rpartition(':')[2]}"
    with SuperLink(pki.parent / "elsewhere", tls=files_of(pki)) as other:
        other.close()
        other.control = f"127.0.0.2:{free_port()}"
        other.start()
        found = only_problem("--control", other.control, "--root-certificates", pki / "ca.crt")
    assert address and found["check"] == "tls"
    assert "not valid for 127.0.0.2" in found["says"]


def test_tls_where_there_is_none(tmp_path: Path, pki: Path) -> None:
    with SuperLink(tmp_path) as plain:
        found = only_problem("--control", plain.control, "--root-certificates", pki / "ca.crt")
        assert found["check"] == "tls" and "--insecure" in found["remedy"]
        status, findings = doctor("--control", plain.control, "--insecure")
        assert status == 0
        assert [one["level"] for one in findings if one["check"] == "tls"] == ["warning"]


def test_another_api_is_there(link: SuperLink, pki: Path) -> None:
    roots = ["--root-certificates", pki / "ca.crt"]
    found = only_problem("--superlink", link.control, *roots)
    assert (found["check"], "the Control API is there instead" in found["says"]) == ("service", True)


def test_no_quic(pki: Path, tmp_path: Path) -> None:
    with SuperLink(tmp_path, tls=files_of(pki)) as over_tcp:
        given = ["--superlink", over_tcp.fleet, "--root-certificates", pki / "ca.crt"]
        found = only_problem(*given, "--transport", "quic")
        assert found["check"] == "quic" and "--transport grpc,quic" in found["remedy"]
        status, findings = doctor(*given)
        assert status == 0
        assert [one["level"] for one in findings if one["check"] == "quic"] == ["warning"]


def test_a_certificate_is_demanded(pki: Path, tmp_path: Path) -> None:
    demanding = ["--control-ssl-client-ca-certfile", pki / "ca.crt"]
    with SuperLink(tmp_path, tls=files_of(pki), args=demanding) as picky:
        given = ["--control", picky.control, "--root-certificates", pki / "ca.crt"]
        found = only_problem(*given)
        assert "demands a certificate" in found["says"]
        client = pki / "clients/client1.crt"
        shows = ["--ssl-client-certfile", client, "--ssl-client-keyfile", client.with_suffix(".key")]
        assert doctor(*given, *shows)[0] == 0
        assert "demands" not in status(*given, *shows)["superlink"]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    done = subprocess.run([binary(), "doctor"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "give --certificates DIR" in done.stderr


# -- status -------------------------------------------------------------------------------------


def status(*args: object) -> dict[str, Any]:
    """What it says."""
    argv = [str(arg) for arg in [binary(), "status", "--format", "json", *args]]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_status_of_a_federation_at_work(pki: Path, tmp_path: Path) -> None:
    metrics = f"127.0.0.1:{free_port()}"
    options = {"cast": Cast(OURS, OURS), "nodes": 2, "superlink_args": ["--metrics-address", metrics]}
    with Federation(tmp_path, tls=files_of(pki), **options) as site:
        given = ["--control", site.link.control, "--root-certificates", pki / "ca.crt"]
        assert status(*given)["runs"] == []
        run = site.app("probe").start(nodes=2, client="sleep", client_seconds=8.0, arrays=3)
        run.wait_event("round")
        (seen,) = status(*given)["runs"]
        assert (seen["id"], seen["status"]) == (str(run.run_id), "running")
        figures = status(*given, "--metrics", metrics)["figures"]
        if figures["nodes"]:
            assert figures["nodes"]["online"] == 2
        run.wait_completed()
        wait_for(lambda: status(*given)["runs"][0]["status"] == "finished:completed", 20, "the end")
        figures = status(*given, "--metrics", metrics)["figures"]
        assert sum(one["bytes"] for one in figures["transfers"]) > 0
        text = subprocess.run(
            [binary(), "status", *given, "--metrics", metrics], capture_output=True, text=True, check=True
        ).stdout
        assert str(run.run_id) in text and "nodes " in text and "finished:completed" in text, text


def test_status_is_watched(link: SuperLink, pki: Path) -> None:
    argv = [str(binary()), "status", "--control", link.control, "--watch", "1", "--format", "json"]
    with subprocess.Popen(
        [*argv, "--root-certificates", str(pki / "ca.crt")], stdout=subprocess.PIPE, text=True
    ) as watching:
        assert watching.stdout is not None
        lines = [json.loads(watching.stdout.readline()) for _ in range(2)]
        watching.terminate()
    assert lines[0]["superlink"] == link.control and lines[0]["now"] < lines[1]["now"]


def test_watching_ends_with_its_reader(link: SuperLink, pki: Path) -> None:
    given = ["--control", link.control, "--root-certificates", str(pki / "ca.crt"), "--watch", "1"]
    with subprocess.Popen([str(binary()), "status", *given], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("SuperLink ")
        watching.stdout.close()
        assert watching.wait(20) == 0


def test_what_cannot_be_printed_is_a_failure(link: SuperLink, pki: Path) -> None:
    given = ["--control", link.control, "--root-certificates", str(pki / "ca.crt"), "--watch", "1"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [str(binary()), "status", *given], stdout=full, stderr=subprocess.PIPE, check=False, timeout=20
        )
    assert done.returncode == 1 and b"stdout cannot be written" in done.stderr, done


def test_watching_goes_on_when_nobody_answers(tmp_path: Path) -> None:
    """And says so in the form that was asked for, the metrics included."""
    metrics, link = f"127.0.0.1:{free_port()}", SuperLink(tmp_path / "late")
    argv = [str(binary()), "status", "--insecure", "--control", link.control, "--metrics", metrics]
    with subprocess.Popen([*argv, "--watch", "1", "--format", "json"], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert list(first) == ["error"] and "Connection refused" in first["error"], first
        with link:
            missing = json.loads(next(line for line in watching.stdout if "metrics" in line))
            assert "--metrics-address" in missing["error"], missing
        watching.terminate()


@pytest.mark.parametrize("case", ["nobody", "wrong ca", "no metrics", "fleet"])
def test_status_says_why_there_is_none(link: SuperLink, pki: Path, tmp_path: Path, case: str) -> None:
    certs(tmp_path / "other", "ca")
    good = ["--root-certificates", pki / "ca.crt"]
    given, words = {
        "nobody": ([f"127.0.0.1:{free_port()}", *good], "Connection refused"),
        "wrong ca": ([link.control, "--root-certificates", tmp_path / "other/ca.crt"], "is not signed by"),
        "no metrics": ([link.control, *good, "--metrics", f"127.0.0.1:{free_port()}"], "--metrics-address"),
        "fleet": ([link.fleet, *good], "does not serve the Control API"),
    }[case]
    argv = [str(arg) for arg in [binary(), "status", "--control", *given]]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and words in done.stderr, done
