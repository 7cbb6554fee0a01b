"""TLS on every hop, seen from outside: packets of a run with all programs ours but the apps."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from capture import PREFACE, Capture, Listeners, Stream, unavailable
from federation import Cast, Federation
from harness import OURS, Certificates, Process, make_appio_tls

TLS_HANDSHAKE = b"\x16\x03"


@pytest.mark.hardening
@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_nothing_is_in_plain_text_outside_of_the_childrens_endpoints(
    tmp_path: Path, certificates: Certificates
) -> None:
    federation = Federation(
        tmp_path,
        tls=certificates,
        isolation="process",
        nodes=1,
        cast=Cast(OURS, OURS, OURS, OURS),
        appio=make_appio_tls(tmp_path, certificates),
    )
    link = federation.link
    (clientappio,) = federation.clientappio
    addresses = [link.fleet, link.control, link.serverappio, clientappio]
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    marker = f"marker-{secrets.token_hex(16)}"

    with Capture(tmp_path, sorted(ports)) as capture, Listeners() as listeners, federation:
        (node,) = federation.nodes
        assert federation.superexec is not None and node.superexec is not None
        superexecs = [federation.superexec, node.superexec]
        daemons = [link.process, node, *superexecs]
        _check_flags(daemons)
        run = federation.app("probe").start(say=marker, text=marker).wait_completed()
        assert marker in run.log()
        assert [reply["code"] for reply in run.events("reply")] == [None]

    at_daemons = [stream for stream in capture.streams if stream.server[1] in ports]
    assert not [stream for stream in capture.streams if stream.client[1] in ports]
    for stream in at_daemons:
        _check_encrypted(stream, marker)
    # All four were used, so there was something to see.
    assert {stream.server[1] for stream in at_daemons if stream.sent} == ports

    launchers, sessions = {one.pid for one in superexecs}, {one.pid for one in daemons}
    at_children = set()
    for stream in capture.streams:
        if stream in at_daemons:
            continue
        assert stream.sent.startswith(PREFACE), stream
        owners = listeners.owners(stream.server[1])
        assert owners, f"nobody knows who listened on {stream.server}"
        # Other tests may run beside this one.
        ours = [owner for owner in owners if owner.session in sessions]
        for owner in ours:
            assert owner.pid in launchers, (owner, stream.server)
            assert owner.host == stream.server[0] == stream.client[0] == "127.0.0.1"
        at_children.update(owner.pid for owner in ours)
    assert at_children == launchers


def _check_flags(daemons: list[Process]) -> None:
    for daemon in daemons:
        assert "--insecure" not in daemon.argv, daemon.argv


def _check_encrypted(stream: Stream, marker: str) -> None:
    sent = stream.sent
    # Some connections only ask whether a port is open.
    assert not sent or sent.startswith(TLS_HANDSHAKE), (stream.server, sent[:40])
    for data in [sent, *stream.packets]:
        assert PREFACE not in data and marker.encode() not in data, (stream.server, data[:40])
