"""Every mix of our programs and Flower's, in both isolations on each side, with TLS wherever the
programs allow it. The support table of the README is this table."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import MIXES, QUIC, table

from federation import Cast, Federation
from harness import OURS, REPOSITORY, STOCK, Certificates, make_appio_tls


def name(mix: tuple) -> str:
    """Such as ``ours-process-stock+stock-subprocess``."""
    superlink, supernode, server, client = mix
    parts = ([superlink, *server], [supernode, *client])
    return "+".join("-".join(part for part in side if part) for side in parts)


@pytest.mark.parametrize("mix", MIXES, ids=name)
def test_two_rounds_in_every_mix(tmp_path: Path, certificates: Certificates, mix: tuple) -> None:
    superlink, supernode, server, client = mix
    by_quic = supernode == QUIC
    node = OURS if by_quic else supernode
    cast = Cast(superlink, node, server[1] or STOCK, client[1] or STOCK)
    with Federation(
        tmp_path,
        tls=certificates,
        isolation=server[0],
        node_isolation=client[0],
        nodes=1,
        cast=cast,
        transport="quic" if by_quic else "grpc",
        node_args=["--transport", "quic"] if by_quic else [],
        appio=make_appio_tls(tmp_path, certificates),
    ) as federation:
        run = federation.app("probe").start(rounds=2, arrays=3).wait_completed()
        sent, replies = run.events("round"), run.events("reply")
        assert [reply["code"] for reply in replies] == [None, None]
        for asked, reply in zip(sent, replies):
            assert reply["checksum"] == reply["saw"]["checksum"] == asked["checksum"]
        # State is kept between the rounds, wherever the apps run.
        assert [reply["saw"]["calls"] for reply in replies] == [1, 2]


def test_the_readme_shows_this_table() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert table() in readme, "put the output of services/e2e/python/mix/support.py into the README"
