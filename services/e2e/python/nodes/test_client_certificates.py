"""SuperNodes that have to show a certificate that a CA signed, over QUIC and over gRPC."""

from __future__ import annotations

import datetime
import re
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from federation import Cast, Federation, SuperNode, superexec
from harness import (
    OURS,
    STOCK,
    AppIoTls,
    Certificates,
    Process,
    binary,
    environment,
    make_appio_tls,
    wait_for,
)

LISTED = "node1"
REFUSED = "wants a client certificate that its CA signed: give one with --ssl-client-certfile"


def made(directory: Path, *command: object) -> None:
    """Run a command of ours that makes files."""
    subprocess.run([binary(), *command], cwd=directory, check=True, capture_output=True)


def key_flags(directory: Path, name: str) -> list[object]:
    """The flags of a node's key."""
    private = directory / name
    return [
        "--auth-supernode-private-key", private,
        "--auth-supernode-public-key", f"{private}.pub",
    ]  # fmt: skip


def shown(certificate: Path, with_key: bool = True) -> list[object]:
    """The flags of a certificate, with a key of its own or that of the node."""
    key = ["--ssl-client-keyfile", certificate.with_suffix(".key")] if with_key else []
    return ["--ssl-client-certfile", certificate, *key]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two CAs with a client each, a third client for the key of the node, a listed key and another one."""
    directory = tmp_path_factory.mktemp("clients")
    for ca in ("ours", "theirs"):
        made(directory, "certs", "ca", "--dir", ca)
        made(directory, "certs", "client", "1", "--dir", ca)
    made(directory, "keys", "node", "--out", LISTED, "--list", "keys.csv", "--type", "ed25519")
    made(directory, "keys", "node", "--out", "node2")
    made(directory, "certs", "client", "2", "--dir", "ours", "--node-key", f"{LISTED}.pub")
    return directory


@pytest.fixture(scope="module")
def federation(
    site: Path, certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    """A SuperLink that lets in whom the CA has signed and the list knows."""
    with Federation(
        tmp_path_factory.mktemp("federation"),
        tls=certificates,
        nodes=0,
        superlink_args=[
            "--ssl-client-ca-certfile", site / "ours" / "ca.crt",
            "--auth-list-public-keys", site / "keys.csv",
        ],
        cast=Cast(OURS, OURS),
        transport="grpc,quic",
    ) as started:  # fmt: skip
        yield started


def client(site: Path, ca: str, number: int) -> Path:
    """The certificate of a client."""
    return site / ca / "clients" / f"client{number}.crt"


def expired(site: Path, directory: Path) -> Path:
    """A certificate of our CA whose time is over."""
    ca = x509.load_pem_x509_certificate((site / "ours/ca/ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((site / "ours/ca/ca.key").read_bytes(), None)
    path = directory / "client.crt"
    key = (site / "ours/clients/client1.key").read_bytes()
    path.with_suffix(".key").write_bytes(key)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(ca.subject)
        .issuer_name(ca.subject)
        .public_key(serialization.load_pem_private_key(key, None).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    path.write_bytes(
        builder.sign(signer, hashes.SHA384()).public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.mark.parametrize("transport", ["quic", "grpc", "auto"])
@pytest.mark.parametrize("own_key", [True, False], ids=["own-key", "node-key"])
def test_a_node_with_a_certificate_works(
    site: Path, federation: Federation, tmp_path: Path, transport: str, own_key: bool
) -> None:
    """Its key is that of the list, whichever key the certificate has."""
    certificate = client(site, "ours", 1 if own_key else 2)
    args = ["--transport", transport, *key_flags(site, LISTED), *shown(certificate, own_key)]
    name = f"{transport}-{own_key}"
    node = federation.add_node(name, args=args)
    node.wait_log("joined the SuperLink")
    federation.app("probe").start(arrays=1).check_round()
    federation.nodes.remove(node)
    node.close()


@pytest.mark.parametrize("transport", ["quic", "grpc"])
@pytest.mark.parametrize(
    "who, said_here, said_there",
    [
        ("nobody", REFUSED, "TLS handshake failed .*(sent no certificates|UnknownIssuer)"),
        ("stranger", REFUSED, "TLS handshake failed .*invalid peer certificate: BadSignature"),
    ],
)
def test_others_are_refused_and_both_ends_say_why(
    site: Path,
    federation: Federation,
    tmp_path: Path,
    transport: str,
    who: str,
    said_here: str,
    said_there: str,
) -> None:
    flags = {
        "nobody": key_flags(site, LISTED),
        "stranger": [*key_flags(site, LISTED), *shown(client(site, "theirs", 1))],
    }[who]
    args = ["--transport", transport, *flags]
    before = len(federation.link.log)
    with SuperNode(federation.link, tmp_path, "refused", args=args, kind=OURS) as node:
        node.wait_log(said_here)
        wait_for(
            lambda: re.search(said_there, federation.link.log[before:]), 30, f"{said_there!r} there"
        )
        assert "joined the SuperLink" not in node.log


@pytest.mark.parametrize("transport", ["quic", "grpc"])
def test_a_certificate_does_not_stand_for_a_key_on_the_list(
    site: Path, federation: Federation, tmp_path: Path, transport: str
) -> None:
    flags = [*key_flags(site, "node2"), *shown(client(site, "ours", 1))]
    args = ["--transport", transport, *flags]
    with SuperNode(federation.link, tmp_path, "unlisted", args=args, kind=OURS) as node:
        node.wait_log("Public key not recognized")
        assert "joined the SuperLink" not in node.log


def test_a_stock_node_is_refused(federation: Federation, tmp_path: Path) -> None:
    with SuperNode(federation.link, tmp_path, "stock", kind=STOCK) as node:
        node.wait_log("retrying|UNAVAILABLE|Connection attempt failed")


@pytest.mark.parametrize(
    "case, words",
    [
        ("missing", "does not exist"),
        ("expired", "expired on"),
        ("key of another", "does not fit the certificate"),
        ("no key", "give its own key with --ssl-client-keyfile"),
        ("key alone", "give also `--ssl-client-certfile`"),
        ("junk", "holds no certificate"),
        ("insecure", "Conflicting options"),
    ],
)
def test_a_node_does_not_start_with_files_that_cannot_do(
    site: Path, certificates: Certificates, tmp_path: Path, case: str, words: str
) -> None:
    good = client(site, "ours", 1)
    junk = tmp_path / "junk.crt"
    junk.write_text("junk\n", encoding="ascii")
    flags: dict[str, list[object]] = {
        "missing": shown(tmp_path / "none.crt"),
        "expired": shown(expired(site, tmp_path)),
        "key of another": ["--ssl-client-certfile", good, "--ssl-client-keyfile", certificates.key],
        "no key": ["--ssl-client-certfile", good],
        "key alone": ["--ssl-client-keyfile", good.with_suffix(".key")],
        "junk": ["--ssl-client-certfile", junk, "--ssl-client-keyfile", good.with_suffix(".key")],
        "insecure": [*shown(good), "--insecure"],
    }
    trust = [] if case == "insecure" else ["--root-certificates", certificates.ca]
    argv = [binary(), "supernode", "--clientappio-api-address", "127.0.0.1:1", *trust, *flags[case]]
    with Process("supernode", argv, tmp_path, environment(tmp_path)) as process:
        assert process.wait() == 1
        assert words in process.log, process.log


@pytest.mark.parametrize("transport", ["quic", "grpc"])
def test_a_superexec_has_to_show_a_certificate(
    site: Path, certificates: Certificates, tmp_path: Path, transport: str
) -> None:
    """Its join secret alone does not let it in."""
    appio: AppIoTls = make_appio_tls(tmp_path, certificates)
    with Federation(
        tmp_path,
        tls=certificates,
        isolation="process",
        nodes=1,
        node_isolation="subprocess",
        superlink_args=["--appio-ssl-client-ca-certfile", site / "ours" / "ca.crt"],
        cast=Cast(OURS, OURS, server_launcher=OURS),
        appio=appio,
        transport="grpc,quic",
    ) as started:
        # The one that was started with the federation shows none.
        assert started.superexec is not None
        started.superexec.wait_log(REFUSED)
        started.superexec.close()
        link, carried = started.link, ["--appio-transport", transport]
        for ca in ("theirs", "ours"):
            args = [*carried, *shown(client(site, ca, 1))]
            with superexec(
                "serverapp", link.serverappio, tmp_path, link.home, ca, OURS, appio, args
            ) as process:
                if ca == "theirs":
                    process.wait_log(REFUSED)
                else:
                    started.app("probe").start(arrays=1).check_round()


def test_the_certificate_of_a_client_serves_appio_as_well(
    site: Path, certificates: Certificates, tmp_path: Path
) -> None:
    """It is all that a SuperNode has in the layout of the guide."""
    own = client(site, "ours", 1)
    files = Certificates(site / "ours" / "ca.crt", own, own.with_suffix(".key"))
    with Federation(
        tmp_path,
        tls=certificates,
        nodes=1,
        node_isolation="process",
        cast=Cast(OURS, OURS, client_launcher=OURS),
        appio=AppIoTls(files, make_appio_tls(tmp_path, certificates).secret),
    ) as started:
        started.app("probe").start(arrays=1).check_round()
