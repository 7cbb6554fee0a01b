"""TLS on the AppIo API: launchers prove themselves with a join secret, apps with their token."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from harness import Certificates, SuperLink, binary, free_port
from wire import AppIo, Control, expect_error, make_fab

pytestmark = pytest.mark.hardening

HEADER = "flwr-quic-join-secret"


@dataclass
class Secured:
    """A SuperLink with TLS on AppIo and an address without, and its join secret."""

    link: SuperLink
    plaintext: str
    secret: str
    roots: bytes

    def appio(self) -> AppIo:
        """A caller over TLS."""
        return AppIo(self.link.serverappio, root_certificates=self.roots)

    def pending(self) -> int:
        """A run that waits for its launch."""
        with Control(self.link.control) as control:
            return control.start_run(make_fab())


def appio_tls(certificates: Certificates, directory: Path) -> tuple[list[object], str]:
    """The flags of an AppIo API with TLS, and its join secret."""
    file = directory / "join-secret"
    subprocess.run([binary(), "keys", "join-secret", "--out", file], check=True)
    flags: list[object] = ["--appio-ssl-ca-certfile", certificates.ca]
    flags += ["--appio-ssl-certfile", certificates.cert, "--appio-ssl-keyfile", certificates.key]
    return [*flags, "--appio-join-secret-file", file], file.read_text().strip()


@pytest.fixture()
def secured(
    start_superlink: Callable[..., SuperLink], certificates: Certificates, tmp_path: Path
) -> Iterator[Secured]:
    flags, secret = appio_tls(certificates, tmp_path)
    plaintext = f"127.0.0.1:{free_port()}"
    link = start_superlink(args=[*flags, "--appio-plaintext-address", plaintext])
    yield Secured(link, plaintext, secret, certificates.ca.read_bytes())


def test_a_launcher_with_the_join_secret_launches_over_tls(secured: Secured) -> None:
    run_id = secured.pending()
    proof = [(HEADER, secured.secret)]
    with secured.appio() as launcher, secured.appio() as app:
        assert launcher.list_apps(metadata=proof) == [run_id]
        token = launcher.request_token(run_id, metadata=proof)
        assert token
        # The app itself has its token and no secret.
        assert app.pull_inputs(token).run.run_id == run_id
        app.update_status(run_id, "running")
        assert app.get_nodes(run_id) == []


@pytest.mark.parametrize("proof", [None, "0" * 64, "", "short"])
def test_nobody_else_launches_over_tls(secured: Secured, proof: str | None) -> None:
    run_id = secured.pending()
    metadata = [] if proof is None else [(HEADER, proof)]
    with secured.appio() as caller:
        for call in (
            lambda: caller.list_apps(metadata=metadata),
            lambda: caller.request_token(run_id, metadata=metadata),
        ):
            error = expect_error(grpc.StatusCode.UNAUTHENTICATED, None, call)
            assert "--appio-join-secret-file" in (error.details() or "")
    assert secured.secret not in secured.link.log


def test_the_plaintext_address_serves_launchers_without_a_secret(secured: Secured) -> None:
    run_id = secured.pending()
    with AppIo(secured.plaintext) as launcher:
        assert launcher.list_apps() == [run_id]
        token = launcher.request_token(run_id)
        assert launcher.pull_inputs(token).run.run_id == run_id


def test_plain_text_is_refused_where_tls_is_spoken(secured: Secured) -> None:
    with AppIo(secured.link.serverappio) as caller:
        expect_error(grpc.StatusCode.UNAVAILABLE, None, caller.list_apps, timeout=10)
