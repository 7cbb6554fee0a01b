"""Node authentication with stock SuperNodes: known keys get in, all others stay out."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from federation import Federation, Roster, SuperNode
from harness import Certificates, SuperLink, binary, wait_for

LinkStarter = Callable[..., SuperLink]


class KeyPair:
    """A node's key pair on disk, as ``ssh-keygen`` writes it."""

    def __init__(self, directory: Path, name: str, curve_bits: int = 384) -> None:
        self.private = directory / name
        self.public = directory / f"{name}.pub"
        argv = ["ssh-keygen", "-q", "-t", "ecdsa", "-b", str(curve_bits), "-N", "", "-f", self.private]
        subprocess.run(list(map(str, argv)), check=True)

    @property
    def line(self) -> str:
        """The public key as one OpenSSH line."""
        return self.public.read_text(encoding="utf-8").strip()


def key_args(private: Path, public: Path) -> list[object]:
    """The SuperNode flags that name a key pair."""
    return ["--auth-supernode-private-key", private, "--auth-supernode-public-key", public]


def allow_list(directory: Path, *pairs: KeyPair) -> Path:
    """A CSV of known keys."""
    path = directory / "keys.csv"
    path.write_text("\n".join(pair.line for pair in pairs) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return KeyPair(tmp_path_factory.mktemp("keys"), "known")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return KeyPair(tmp_path_factory.mktemp("keys"), "stranger")


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates, known: KeyPair
) -> object:
    """A TLS SuperLink that knows one key, with one node that has it."""
    directory = tmp_path_factory.mktemp("guarded")
    with Federation(
        directory,
        tls=certificates,
        nodes=0,
        superlink_args=["--auth-list-public-keys", allow_list(directory, known)],
    ) as federation:
        federation.add_node("known", args=key_args(known.private, known.public))
        yield federation


def test_a_known_key_takes_part(guarded: Federation) -> None:
    run = guarded.app("probe").start().wait_completed()
    assert [reply["code"] for reply in run.events("reply")] == [None]


def test_an_unknown_key_is_refused(guarded: Federation, tmp_path: Path, stranger: KeyPair) -> None:
    log = _refused(guarded.link, tmp_path, key_args(stranger.private, stranger.public))
    assert "Public key not recognized" in log


def test_a_supernode_without_keys_is_refused(guarded: Federation, tmp_path: Path) -> None:
    assert "Public key not recognized" in _refused(guarded.link, tmp_path, [])


def test_a_foreign_private_key_for_a_known_public_key_is_refused(
    guarded: Federation, tmp_path: Path, known: KeyPair, stranger: KeyPair
) -> None:
    log = _refused(guarded.link, tmp_path, key_args(stranger.private, known.public))
    assert "Invalid signature" in log


def test_a_key_that_is_in_use_is_refused(
    guarded: Federation, tmp_path: Path, known: KeyPair
) -> None:
    log = _refused(guarded.link, tmp_path, key_args(known.private, known.public))
    assert "Public key already in use" in log


def test_refused_nodes_leave_the_federation_as_it_was(guarded: Federation) -> None:
    run = guarded.app("probe").start().wait_completed()
    assert len(run.events("nodes")[0]["nodes"]) == 1
    assert [reply["code"] for reply in run.events("reply")] == [None]


def test_a_key_is_free_again_after_its_node_left(guarded: Federation, known: KeyPair) -> None:
    (first,) = guarded.nodes
    guarded.nodes.remove(first)
    assert first.terminate() == 0
    guarded.add_node("successor", args=key_args(known.private, known.public))
    run = guarded.app("probe").start().wait_completed()
    assert len(run.events("nodes")[0]["nodes"]) == 1
    assert [reply["code"] for reply in run.events("reply")] == [None]


@pytest.mark.parametrize("bits", [256, 521])
def test_other_curves_work(tmp_path: Path, start_superlink: LinkStarter, bits: int) -> None:
    pair = KeyPair(tmp_path, f"p{bits}", bits)
    link = start_superlink(args=["--auth-list-public-keys", allow_list(tmp_path, pair)])
    with SuperNode(link, tmp_path, args=key_args(pair.private, pair.public)):
        Roster(link).wait_online(1)


def test_a_missing_key_list_is_refused_at_the_start(tmp_path: Path) -> None:
    link = SuperLink(tmp_path, args=["--auth-list-public-keys", tmp_path / "missing.csv"])
    with link.launch() as process:
        assert process.wait(30) == 1
        assert "missing.csv" in process.log and "Traceback" not in process.log


@pytest.mark.hardening
def test_a_key_added_to_the_list_is_known_without_a_restart(
    tmp_path: Path, known: KeyPair, stranger: KeyPair, start_superlink: LinkStarter
) -> None:
    keys = allow_list(tmp_path, known)
    link = start_superlink(args=["--auth-list-public-keys", keys])
    assert "not recognized" in _refused(
        link, tmp_path, key_args(stranger.private, stranger.public)
    )
    allow_list(tmp_path, known, stranger)
    roster = Roster(link)
    deadline = time.monotonic() + 60
    while not roster.online():
        assert time.monotonic() < deadline, "the key list was not read again"
        with SuperNode(link, tmp_path, args=key_args(stranger.private, stranger.public)) as node:
            wait_for(lambda: roster.online() or not node.running, 30, "the node to join or give up")
            if node.running:
                assert len(roster.online()) == 1
                return


@pytest.mark.hardening
def test_keys_made_by_flwr_quic_work_in_stock_supernodes(
    tmp_path: Path, start_superlink: LinkStarter
) -> None:
    key, known_keys = tmp_path / "node", tmp_path / "keys.csv"
    argv = [binary(), "keys", "node", "--out", key, "--list", known_keys]
    made = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    link = start_superlink(args=["--auth-list-public-keys", known_keys])
    with SuperNode(link, tmp_path, args=key_args(key, tmp_path / "node.pub")):
        Roster(link).wait_online(1)


def _refused(link: SuperLink, directory: Path, args: list[object]) -> str:
    """The log of a SuperNode that was sent away."""
    with SuperNode(link, directory, "refused", args=args) as node:
        node.wait(30)
        assert "UNAUTHENTICATED" in node.log, node.log
        return node.log
