"""Certificates that change while a federation runs: nobody is cut off, and who comes later sees the new ones."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shutil
import signal
import socket
import ssl
import subprocess
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from federation import Cast, Federation
from harness import (
    OURS,
    STOCK,
    AppIoTls,
    Certificates,
    Process,
    SuperLink,
    binary,
    plain,
    wait_for,
)

pytestmark = pytest.mark.hardening

TOOK_UP = "Took up the certificates of Fleet and Control: .*valid until "
STAYS = "The certificates of Fleet and Control stay as they were: "
BOTH = {"transport": "grpc,quic"}
# Rounds that are long enough for a change in their middle.
SLOW = {"rounds": 3, "nodes": 1, "client": "sleep", "client_seconds": 1.5}


def certs(directory: Path, *command: object) -> None:
    """Run ``flwr-quic certs`` on the certificates in a directory."""
    argv = [binary(), "certs", *command, "--dir", directory]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture()
def pki(tmp_path: Path) -> Certificates:
    """A CA and a server certificate, both ours, that can be renewed."""
    directory = tmp_path / "pki"
    certs(directory, "ca")
    certs(directory, "server")
    return Certificates(directory / "ca.crt", directory / "server.pem", directory / "server.key")


def shown(address: str) -> str:
    """The certificate that a server shows now, as PEM."""
    host, port = address.split(":")
    return ssl.get_server_certificate((host, int(port)))


def wait_shown(address: str, certificate: Path) -> None:
    """Wait until a server shows the first certificate of a file."""
    first = re.split("(?<=-----END CERTIFICATE-----)", certificate.read_text())[0].strip()
    wait_for(lambda: shown(address).strip() == first, 30, f"{address} to show {certificate}")


def connections(address: str) -> set[str]:
    """The far ends of TCP connections to a server of this machine."""
    wanted = f"0100007F:{int(address.rpartition(':')[2]):04X}"
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        if local == wanted and state == "01":
            found.add(remote)
    return found


@pytest.mark.parametrize("node, transport", [(STOCK, "grpc"), (OURS, "grpc"), (OURS, "quic")])
@pytest.mark.parametrize("asked", [True, False], ids=["sighup", "unasked"])
def test_a_new_certificate_in_the_middle_of_a_run(
    tmp_path: Path, pki: Certificates, node: str, transport: str, asked: bool
) -> None:
    args = ["--transport", transport] if node == OURS else []
    cast = Cast(OURS, node)
    with Federation(tmp_path, tls=pki, nodes=1, node_args=args, cast=cast, **BOTH) as site:
        run = site.app("probe").start(**SLOW)
        run.wait_event("round")
        before = connections(site.link.fleet)
        assert before or transport == "quic"
        old = shown(site.link.control)

        certs(pki.ca.parent, "renew", "--all", "--new-keys")
        if asked:
            site.link.process.signal(signal.SIGHUP)
        site.link.process.wait_log(TOOK_UP)
        for address in (site.link.control, site.link.fleet):
            assert shown(address) != old
            wait_shown(address, pki.cert)

        run.wait_completed()
        assert [reply["code"] for reply in run.events("reply")] == [None] * 3
        assert before <= connections(site.link.fleet)
        assert "connection ended" not in site.nodes[0].log
        # Who comes now knows the CA, and takes the new certificate.
        late = site.add_node("late", args=args)
        site.app("probe").start(nodes=2).check_round(replies=2)
        assert late.running


def test_one_ca_follows_another_in_the_middle_of_a_run(tmp_path: Path, pki: Certificates) -> None:
    directory = pki.ca.parent
    args = ["--transport", "quic"]
    cast = Cast(OURS, OURS)
    with Federation(tmp_path, tls=pki, nodes=1, node_args=args, cast=cast, **BOTH) as site:
        run = site.app("probe").start(**SLOW)
        run.wait_event("round")
        former = tmp_path / "former.crt"
        shutil.copy(pki.ca, former)
        certs(directory, "ca", "--rollover")
        site.nodes[0].wait_log("Took up the certificates for connecting: ")
        certs(directory, "renew")
        wait_shown(site.link.control, pki.cert)
        certs(directory, "ca", "--retire")
        run.wait_completed()
        assert "connection ended" not in site.nodes[0].log

        # Only who trusts the new CA gets in.
        site.link.tls = replace(pki, ca=former)
        for transport in ("grpc", "quic"):
            behind = site.add_node(f"behind-{transport}", args=["--transport", transport])
            behind.wait_log("is not signed by the CA in .*former.crt")
            site.nodes.remove(behind)
        site.link.tls = pki
        site.add_node("ahead")
        site.node_args = []
        site.add_node("stock", kind=STOCK)
        site.app("probe").start(nodes=3).check_round(replies=3)


def test_what_is_broken_is_refused_and_the_old_certificate_serves_on(
    tmp_path: Path, pki: Certificates
) -> None:
    with SuperLink(tmp_path, tls=pki, isolation="process", **BOTH) as link:
        old, key = shown(link.control), pki.key.read_bytes()
        for junk, said in [
            (pki.ca.parent.joinpath("ca/ca.key").read_bytes(), "does not fit the certificate"),
            (b"junk", "holds no private key"),
        ]:
            pki.key.write_bytes(junk)
            link.process.signal(signal.SIGHUP)
            link.process.wait_log(STAYS + ".*" + said)
            assert shown(link.control) == old
        # Nobody has to say that it is mended.
        pki.key.write_bytes(key)
        certs(pki.ca.parent, "renew", "--all")
        wait_shown(link.control, pki.cert)
        assert len(re.findall(STAYS, link.log)) == 2


def test_files_behind_a_link_that_is_switched(tmp_path: Path, pki: Certificates) -> None:
    """As Kubernetes does it with secrets."""
    mounted = tmp_path / "mounted"
    for version in ("1", "2"):
        shutil.copytree(pki.ca.parent, mounted / version)
    certs(mounted / "2", "renew", "--all", "--new-keys")
    (mounted / "..data").symlink_to("1")
    names = ("ca.crt", "server.pem", "server.key")
    for name in names:
        (mounted / name).symlink_to(Path("..data") / name)
    tls = Certificates(*(mounted / name for name in names))
    with SuperLink(tmp_path, tls=tls, isolation="process") as link:
        wait_shown(link.control, mounted / "1" / "server.pem")
        (mounted / "..next").symlink_to("2")
        (mounted / "..next").rename(mounted / "..data")
        wait_shown(link.control, mounted / "2" / "server.pem")


@pytest.mark.parametrize("transport", ["grpc", "quic"])
def test_client_certificates_and_their_ca(
    tmp_path: Path, pki: Certificates, transport: str
) -> None:
    """A node shows what it has now when it connects again, and is judged by the CA there is now."""
    clients = tmp_path / "clients"
    certs(clients, "ca")
    certs(clients, "client", "1")
    certificate = clients / "clients/client1.crt"
    shows = ["--ssl-client-certfile", certificate, "--ssl-client-keyfile", certificate.with_suffix(".key")]
    options = {
        "superlink_args": ["--ssl-client-ca-certfile", clients / "ca.crt"],
        "node_args": ["--transport", transport, *shows],
        "cast": Cast(OURS, OURS),
        "nodes": 1,
        **BOTH,
    }
    with Federation(tmp_path, tls=pki, **options) as site:
        site.nodes[0].wait_log("joined the SuperLink")
        former = tmp_path / "former"
        shutil.copytree(clients, former)
        certs(clients, "ca", "--force")
        certs(clients, "renew", "--all", "--new-keys")
        site.link.process.wait_log(TOOK_UP)
        site.nodes[0].wait_log("Took up the certificates for connecting: ")
        for name, own in (("behind", former), ("ahead", clients)):
            other = own / "clients/client1.crt"
            args = ["--ssl-client-certfile", other, "--ssl-client-keyfile", other.with_suffix(".key")]
            node = site.add_node(name, args=args)
            node.wait_log("joined the SuperLink" if own == clients else "wants a client certificate")
            site.nodes.remove(node)
            node.close()
        site.link.restart()
        site.nodes[0].wait_log("joined the SuperLink(.|\n)*joined the SuperLink")
        site.app("probe").start().check_round()


def test_appio_and_its_superexec(tmp_path: Path, pki: Certificates) -> None:
    """The CA of AppIo changes; the SuperExec trusts the new one when it connects again."""
    secret = tmp_path / "secret"
    subprocess.run([binary(), "keys", "join-secret", "--out", secret], check=True)
    appio = tmp_path / "appio"
    certs(appio, "ca")
    certs(appio, "server")
    tls = Certificates(appio / "ca.crt", appio / "server.pem", appio / "server.key")
    cast = Cast(OURS, OURS, server_launcher=OURS)
    options = {"isolation": "process", "appio": AppIoTls(tls, secret), "cast": cast, "nodes": 1}
    with Federation(tmp_path, tls=pki, node_isolation="subprocess", **options) as site:
        site.app("probe").start().check_round()
        certs(appio, "ca", "--force")
        certs(appio, "renew", "--all")
        site.link.process.wait_log("Took up the certificates of AppIo: ")
        assert isinstance(site.superexec, Process)
        site.superexec.wait_log("Took up the certificates for connecting: ")
        site.app("probe").start().check_round()
        site.link.restart()
        site.app("probe").start().check_round()


def test_whoever_asks_is_told_that_nothing_has_changed(tmp_path: Path, pki: Certificates) -> None:
    with SuperLink(tmp_path, tls=pki, isolation="process") as link:
        link.process.signal(signal.SIGHUP)
        link.process.wait_log("The certificates of Fleet and Control are as they were")
        with socket.create_connection(tuple(link.control.split(":"))):
            assert link.process.running


def in_terminal(link: SuperLink, log: Path, ignores: bool) -> tuple[subprocess.Popen[bytes], int]:
    """A SuperLink that leads the session of a terminal, and the other end of that."""
    ours, its = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(its, termios.TIOCSCTTY, 0)
        if ignores:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with log.open("wb") as out:
        process = subprocess.Popen(  # pylint: disable=subprocess-popen-preexec-fn
            link.command(), stdin=its, stdout=out, stderr=out, preexec_fn=take_terminal
        )
    os.close(its)
    wait_for(lambda: "Starting Fleet API" in log.read_text(), 30, "the SuperLink to serve")
    return process, ours


@pytest.mark.parametrize("ignores", [False, True], ids=["usual", "nohup"])
def test_a_terminal_that_is_closed(tmp_path: Path, pki: Certificates, ignores: bool) -> None:
    """It takes a SuperLink with it, unless that was started with nohup."""
    log = tmp_path / "in-terminal.log"
    link = SuperLink(tmp_path, tls=pki, isolation="process")
    process, terminal = in_terminal(link, log, ignores)
    try:
        process.send_signal(signal.SIGHUP)
        if ignores:
            os.close(terminal)
            certs(pki.ca.parent, "renew", "--all")
            wait_shown(link.control, pki.cert)
            assert process.poll() is None
        else:
            wait_for(lambda: "are as they were" in log.read_text(), 20, "an answer to SIGHUP")
            os.close(terminal)
            assert process.wait(20) == 0
            assert "Shutting down signal=SIGHUP" in plain(log.read_text())
    finally:
        process.kill()
        process.wait()
