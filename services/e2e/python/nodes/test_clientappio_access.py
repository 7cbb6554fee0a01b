"""Who may call ClientAppIo: join secrets, tokens, and TLS."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
from harness import Certificates, binary
from scripted import ScriptedSuperLink
from site_under_test import Site
from wire import expect_error, instruction, make_fab

Code = grpc.StatusCode
Start = Callable[..., Site]

HEADER = "flwr-quic-join-secret"


def join_secret(directory: Path) -> Path:
    """Make a join secret."""
    file = directory / "join-secret"
    subprocess.run([binary(), "keys", "join-secret", "--out", file], check=True)
    return file


def test_launchers_need_the_join_secret_and_apps_their_token(
    superlink: ScriptedSuperLink, start_site: Start, tmp_path: Path
) -> None:
    file = join_secret(tmp_path)
    site = start_site("--appio-join-secret-file", file)
    run_id = superlink.run(make_fab())
    sent = superlink.send(instruction(run_id, superlink.node_id))
    proof = [(HEADER, file.read_text().strip())]
    with site.peer() as launcher, site.peer() as app:
        for wrong in ([], [(HEADER, "0" * 64)], [(HEADER, "")]):
            for call in (
                lambda: launcher.list_apps(metadata=wrong),
                lambda: launcher.request_token(run_id, metadata=wrong),
            ):
                error = expect_error(Code.UNAUTHENTICATED, None, call)
                assert "--appio-join-secret-file" in (error.details() or "")
        assert launcher.list_apps(metadata=proof) == [run_id]
        app.answer(app.begin(launcher.request_token(run_id, metadata=proof)))
    superlink.wait_reply(sent)
    assert file.read_text().strip() not in site.log


def test_tls_on_clientappio(
    superlink: ScriptedSuperLink, start_site: Start, certificates: Certificates, tmp_path: Path
) -> None:
    """Everything over TLS, nothing in the clear."""
    file = join_secret(tmp_path)
    site = start_site(
        "--appio-ssl-certfile", certificates.cert,
        "--appio-ssl-keyfile", certificates.key,
        "--appio-ssl-ca-certfile", certificates.ca,
        "--appio-join-secret-file", file,
    )  # fmt: skip
    run_id = superlink.run(make_fab())
    sent = superlink.send(instruction(run_id, superlink.node_id))
    roots = certificates.ca.read_bytes()
    proof = [(HEADER, file.read_text().strip())]
    with site.peer(root_certificates=roots) as launcher:
        with site.peer(root_certificates=roots) as app:
            expect_error(Code.UNAUTHENTICATED, None, launcher.list_apps)
            assert launcher.list_apps(metadata=proof) == [run_id]
            app.answer(app.begin(launcher.request_token(run_id, metadata=proof)))
    superlink.wait_reply(sent)
    with site.peer() as plain:
        expect_error(Code.UNAVAILABLE, None, plain.get_run, run_id, timeout=10)
