"""The systemd units: systemd understands them, they forbid what they can, and their commands make a federation.

There is no systemd to start them in a test: what it would run is run by hand, with files where it would put them.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import (
    REPOSITORY,
    Certificates,
    Process,
    binary,
    environment,
    free_port,
    make_appio_tls,
    wait_for,
)

pytestmark = pytest.mark.hardening

FOLDER = REPOSITORY / "scripts" / "systemd"
UNITS = ["flwr-superlink.service", "flwr-supernode@.service", "flwr-superexec@.service"]
# Unit, instance, and the name of its flags.
SERVICES = [
    ("flwr-superlink.service", "", "superlink"),
    ("flwr-supernode@.service", "1", "supernode-1"),
    ("flwr-superexec@.service", "serverapp", "superexec-serverapp"),
    ("flwr-superexec@.service", "clientapp-1", "superexec-clientapp-1"),
]
PROGRAM = "/usr/local/bin/flwr-quic"
# The worst exposure that is borne, of 100 (`systemd-analyze security`).
EXPOSURE_MAX = 15

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is missing: apt-get install systemd",
)


def analyze(*args: object) -> str:
    """What ``systemd-analyze`` says, which must be content."""
    command = ["systemd-analyze", *(str(arg) for arg in args)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_the_unit(tmp_path: Path, name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert PROGRAM in text
    unit = tmp_path / name.replace("@.", "@one.")
    unit.write_text(text.replace(PROGRAM, str(binary())), encoding="utf-8")
    assert analyze("verify", "--man=no", unit) == ""


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_the_unit_forbids_what_it_can(name: str) -> None:
    analyze("security", "--offline=yes", f"--threshold={EXPOSURE_MAX}", FOLDER / name)


def command_of(name: str, instance: str, config: Path, state: Path, credentials: Path) -> list[str]:
    """What systemd would run."""
    text = (FOLDER / name).read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert found
    line = found[1].replace("%i", instance)
    for variable, folder in (("STATE_DIRECTORY", state), ("CREDENTIALS_DIRECTORY", credentials)):
        line = line.replace(f"${{{variable}}}", str(folder))
    assert "$" not in line and "%" not in line, line
    program, *args = shlex.split(line)
    assert program == PROGRAM
    return [str(binary()), *(arg.replace("/etc/flwr-quic", str(config)) for arg in args)]


def test_the_units_make_a_federation(tmp_path: Path, certificates: Certificates) -> None:
    config, credentials = tmp_path / "etc", tmp_path / "credentials"
    credentials.mkdir()
    installed = subprocess.run(
        ["bash", FOLDER / "install.sh"],
        env={"DESTDIR": str(tmp_path / "root"), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        text=True,
    )
    assert "/etc/flwr-quic" in installed.stdout
    shutil.copytree(tmp_path / "root" / "etc" / "flwr-quic", config)
    secret = make_appio_tls(tmp_path, certificates).secret
    for name, file in (
        ("ca.crt", certificates.ca),
        ("server.pem", certificates.cert),
        ("server.key", certificates.key),
        ("join-secret", secret),
    ):
        shutil.copy(file, credentials / name)
    # Ports of the test in place of Flower's.
    fleet, control, serverappio, clientappio = (free_port() for _ in range(4))
    edit(config / "superlink.toml", "transport =", [
        f'fleet-api-address = "127.0.0.1:{fleet}"',
        f'control-api-address = "127.0.0.1:{control}"',
        f'serverappio-api-address = "127.0.0.1:{serverappio}"',
    ])  # fmt: skip
    edit(config / "supernode-1.toml", "node-config", [
        f'clientappio-api-address = "127.0.0.1:{clientappio}"',
    ])  # fmt: skip
    replace(config / "supernode-1.toml", "superlink.example:9092", f"localhost:{fleet}")
    replace(config / "superexec-serverapp.toml", "localhost:9091", f"localhost:{serverappio}")
    replace(config / "superexec-clientapp-1.toml", "localhost:9094", f"localhost:{clientappio}")
    metrics = {}
    for _, _, name in SERVICES:
        metrics[name] = free_port()
        example = re.findall(r"# (metrics-address = .*)", (config / f"{name}.toml").read_text())
        replace(config / f"{name}.toml", f"# {example[0]}", f'metrics-address = "127.0.0.1:{metrics[name]}"')
    with ExitStack() as stack:
        started = {}
        for unit, instance, name in SERVICES:
            state = tmp_path / "state" / name
            state.mkdir(parents=True)
            command = command_of(unit, instance, config, state, credentials)
            process = Process(name, command, tmp_path, environment(state))
            started[name] = stack.enter_context(process)
        started["supernode-1"].wait_log("joined the SuperLink")
        started["superlink"].wait_log("node joined")
        for name, port in metrics.items():
            wait_for(lambda port=port: is_ready(port), 30, f"{name} to be ready")
        assert (tmp_path / "state" / "superlink" / "state.db").is_file()


def is_ready(port: int) -> bool:
    """Whether the daemon with metrics on this port is of use."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return bool(opener.open(f"http://127.0.0.1:{port}/readyz", timeout=10).read() == b"ready\n")
    except OSError:
        return False


def edit(file: Path, before: str, lines: list[str]) -> None:
    """Put lines in front of the one that begins with ``before``."""
    replace(file, f"\n{before}", "\n" + "\n".join([*lines, before]))


def replace(file: Path, old: str, new: str) -> None:
    """Replace the only place where ``old`` is."""
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, (file, old)
    file.write_text(text.replace(old, new), encoding="utf-8")
