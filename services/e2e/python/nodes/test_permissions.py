"""Certificates whose files are other users', or read-only: what commands and scripts do about them as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Iterator

import pytest
from harness import REPOSITORY, binary

pytestmark = [
    pytest.mark.hardening,
    pytest.mark.skipif(os.geteuid() != 0, reason="being two users takes root"),
]

# Who types the commands, and the user of the containers.
OPERATOR, CONTAINERS = 65534, 49999
# There is no sudo among them.
TOOLS = "bash cat chmod chown dirname id install ln mkdir mktemp rm stat sed".split()


def run(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    """What the operator types in the folder of the certificates."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; {command}"],
        cwd=root / "certificates",
        env={"PATH": str(root / "bin"), "HOME": "/nonexistent"},
        user=OPERATOR,
        group=OPERATOR,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )


def good(root: Path, command: str) -> str:
    """What it prints, if it works."""
    done = run(root, command)
    assert done.returncode == 0, done
    return done.stdout


def refused(root: Path, command: str) -> str:
    """Why it does not work, which leaves everything as it was."""
    before = contents(root)
    done = run(root, command)
    assert done.returncode == 1, done
    assert contents(root) == before
    return done.stderr


def contents(root: Path) -> dict[str, tuple[bytes, int]]:
    """All files of the certificates, with their modes."""
    files = [path for path in sorted((root / "certificates").rglob("*")) if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mode) for path in files}


@pytest.fixture()
def root() -> Iterator[Path]:
    """A copy of the scripts, and certificates that the operator has made with them."""
    folder = Path(tempfile.mkdtemp(prefix="flwr-permissions-"))
    try:
        folder.chmod(0o755)
        tools = folder / "bin"
        tools.mkdir()
        for tool in TOOLS:
            (tools / tool).symlink_to(str(shutil.which(tool)))
        shutil.copy(binary(), tools / "flwr-quic")
        shutil.copytree(REPOSITORY / "certificates/scripts", folder / "certificates/scripts")
        shutil.copytree(REPOSITORY / "docker/scripts", folder / "docker/scripts")
        os.chown(folder / "certificates", OPERATOR, OPERATOR)
        for script in ("ca.sh", "server_cert.sh", "client_cert.sh 1"):
            good(folder, f"./scripts/setup/generate_{script}")
        yield folder
    finally:
        shutil.rmtree(folder)


def give_away(root: Path) -> None:
    """Makes the server's key what start-secure.sh makes it."""
    key = root / "certificates/server/server.key"
    os.chown(key, CONTAINERS, OPERATOR)
    key.chmod(0o440)


def test_keys_of_the_containers_are_not_half_written(root: Path) -> None:
    give_away(root)
    said = refused(root, "./scripts/setup/generate_server_cert.sh")
    assert "server.key belongs to" in said and "sudo chown" in said, said
    renew = "flwr-quic certs renew --dir . --all --new-keys"
    assert "server.key" in refused(root, f"{renew} --in-place")
    # A new file would be the operator's, and the containers could not read it.
    said = refused(root, renew)
    assert f"to user {CONTAINERS}" in said and "as root" in said, said
    # Certificates are the operator's.
    assert "renewed" in good(root, "flwr-quic certs renew --dir . --all --in-place")


def test_read_only_keys_are_written_over_by_their_owner(root: Path) -> None:
    key = root / "certificates/server/server.key"
    key.chmod(0o400)
    for command in (
        "./scripts/setup/generate_server_cert.sh",
        "flwr-quic certs renew --dir . --all --new-keys --in-place",
    ):
        before = (key.read_bytes(), key.stat().st_ino)
        good(root, command)
        assert key.read_bytes() != before[0] and key.stat().st_ino == before[1]
        assert key.stat().st_mode & 0o777 == 0o400
        good(root, "flwr-quic certs verify --dir .")


def test_doctor_does_not_have_unreadable_files_made_again(root: Path) -> None:
    for name in ("ca/ca.key", "server/server.key", "clients/client1.crt"):
        os.chown(root / "certificates" / name, 0, 0)
        (root / "certificates" / name).chmod(0o600)
    report = json.loads(run(root, "flwr-quic doctor --certificates . --format json").stdout)
    wrong = [one for one in report["findings"] if one["level"] == "problem"]
    assert {Path(one["subject"]).name for one in wrong} == {"ca.key", "server.key", "client1.crt"}
    for one in wrong:
        assert "sudo chgrp" in one["remedy"] and "--force" not in one["remedy"], one


@pytest.mark.parametrize("strict", ["yes", "no"])
def test_keys_do_not_become_readable_by_all(root: Path, strict: str) -> None:
    shared = "source scripts/setup/common.sh; source ../docker/scripts/certificates.sh; warn() { :; }"
    shared += "; supernodes() { echo 1; }"
    good(root, f"{shared}; join_secrets_exist")
    said = refused(root, f"{shared}; certificates_permit {strict}")
    assert "sudo chown" in said, said
