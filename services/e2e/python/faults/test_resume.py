"""Uploads over QUIC that are interrupted: what has arrived is not sent again, and no app works twice."""

from __future__ import annotations

import copy
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

from federation import Cast, Federation, Run, SuperNode, parse_events
from harness import OURS, Certificates, binary, wait_for
from wires import UdpWire

# Several arrays, which travel at the same time.
ARRAYS = 4
ARRAY_BYTES = 5_000_000
TOTAL = ARRAYS * ARRAY_BYTES


@dataclass
class Site:
    """A node with a key of its own behind a wire, which is all that its SuperLink hears of it."""

    federation: Federation
    wire: UdpWire
    node: SuperNode

    def start(self) -> Run:
        """A run of one round; the reply is as large as the instruction."""
        return self.federation.app("probe").start(arrays=ARRAYS, array_bytes=ARRAY_BYTES)


@contextmanager
def one_site(directory: Path, certificates: Certificates) -> Iterator[Site]:
    """A federation of one site."""
    key = directory / "node-key"
    subprocess.run([binary(), "keys", "node", "--out", key], check=True, capture_output=True)
    args = ["--transport", "quic"]
    args += ["--auth-supernode-private-key", key, "--auth-supernode-public-key", f"{key}.pub"]
    with ExitStack() as stack:
        federation = stack.enter_context(
            Federation(directory, tls=certificates, cast=Cast(OURS, OURS), transport="quic", nodes=0)
        )
        wire = stack.enter_context(UdpWire(federation.link.fleet))
        link = copy.copy(federation.link)
        link.fleet = wire.address
        node = SuperNode(link, directory, "site", args=args, kind=OURS)
        stack.callback(node.close)
        node.wait_log("joined the SuperLink")
        yield Site(federation, wire, node)


def test_a_node_that_is_killed_late_in_an_upload_goes_on_after_its_restart(
    tmp_path: Path, certificates: Certificates
) -> None:
    with one_site(tmp_path, certificates) as site:
        site.wire.cut_at(0.9 * TOTAL)
        run = site.start()
        wait_for(lambda: site.wire.is_cut, 60, "nine tenths of the reply to be sent")
        site.node.kill()
        before = site.wire.sent
        site.wire.mend()
        with site.node.again() as again:
            again.wait_log("took its place again")
            run.check_round()
            sent = site.wire.sent - before
            print(f"sent after the restart: {sent} of {TOTAL} bytes")
            assert sent < 0.15 * TOTAL
            later = [event for event in parse_events(again.log) if event["event"] == "client"]
            assert len(site.node.events("client") + later) == 1
            # And it is a node like any other.
            site.start().check_round()


def test_a_node_whose_address_changes_in_mid_upload_sends_hardly_anything_again(
    tmp_path: Path, certificates: Certificates
) -> None:
    with one_site(tmp_path, certificates) as site:
        # The same twice, once undisturbed: what headers and acknowledgements take is not sent again.
        site.start().check_round()
        undisturbed = site.wire.sent
        run = site.start()
        wait_for(lambda: site.wire.sent > undisturbed + TOTAL // 2, 60, "half of the reply", interval=0.01)
        site.wire.rebind()
        run.check_round()
        again = site.wire.sent - 2 * undisturbed
        print(f"sent more than undisturbed: {again} of {TOTAL} bytes")
        assert again < 0.02 * TOTAL
        assert "connection lost" not in site.node.log
