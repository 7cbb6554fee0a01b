"""Processes, ports, certificates, and the SuperLink under test.

Which SuperLink a run tests is decided by the environment:

* ``FLWR_QUIC_BIN=path``: ``path superlink --transport grpc ...`` (default: the newest
  ``target/{release,debug}/flwr-quic`` of this repository);
* ``FLWR_E2E_REFERENCE=1``: stock ``flower-superlink`` of the running virtual environment.

Every process is started in a session of its own, logs to a file, and is ended by its own pid or
its own session, never by name. Nothing here waits blindly: ``wait_for`` polls a condition until
a deadline. SuperNodes, SuperExecs and the command line are in ``federation``.

    with SuperLink(tmp_path, tls=certificates) as link:
        channel = grpc.insecure_channel(link.serverappio)
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional, Sequence, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[3]
VENV_BIN = Path(sys.executable).parent
REFERENCE = os.environ.get("FLWR_E2E_REFERENCE", "") not in ("", "0")

START_SECONDS = 60.0
STOP_SECONDS = 15.0

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_handed_out_ports: set[int] = set()


# -- waiting and ports --------------------------------------------------------------------------


def wait_for(
    predicate: Callable[[], T], timeout: float, what: str, interval: float = 0.05
) -> T:
    """The first truthy value of ``predicate``; an ``AssertionError`` naming ``what`` otherwise."""
    deadline = time.monotonic() + timeout
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"timed out after {timeout:.0f} s waiting for {what}")
        time.sleep(interval)


def free_port() -> int:
    """A loopback TCP port that is free now and was not handed out before in this process."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in _handed_out_ports:
            _handed_out_ports.add(port)
            return port


def port_is_open(address: str) -> bool:
    """Whether something accepts TCP connections on ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


# -- processes ----------------------------------------------------------------------------------


def plain(text: str) -> str:
    """``text`` without terminal colours."""
    return _ANSI.sub("", text)


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a Flower program: own Flower home, stock programs first in PATH."""
    env = dict(os.environ)
    env.update(
        FLWR_HOME=str(home),
        FLWR_TELEMETRY_ENABLED="0",
        PATH=f"{VENV_BIN}{os.pathsep}{env.get('PATH', '')}",
        PYTHONUNBUFFERED="1",
        # A terminal of 80 columns would wrap what the command line prints.
        COLUMNS="250",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
    )
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"):
        env.pop(name, None)
    env.update(extra)
    return env


class Process:
    """One program, in its own session, with standard output and error in one log file."""

    started: list["Process"] = []
    closed: list["Process"] = []

    def __init__(
        self,
        name: str,
        argv: Sequence[object],
        directory: Path,
        env: Optional[dict[str, str]] = None,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.env = env
        directory.mkdir(parents=True, exist_ok=True)
        self.log_path = _unused(directory, name)
        with self.log_path.open("wb") as log:
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=str(directory),
                env=env,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        Process.started.append(self)

    @property
    def log(self) -> str:
        """Everything logged so far, without colours."""
        return plain(self.log_path.read_text(encoding="utf-8", errors="replace"))

    @property
    def running(self) -> bool:
        """Whether the program itself (not its children) still runs."""
        return self._popen.poll() is None

    @property
    def returncode(self) -> Optional[int]:
        """The exit status, negative for a signal, or ``None`` while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """The exit status, once the program has ended by itself."""
        wait_for(lambda: not self.running, timeout, f"{self.name} to end\n{self.tail()}")
        status = self._popen.poll()
        assert status is not None
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the program, not to its children."""
        self._popen.send_signal(number)

    def terminate(self, timeout: float = STOP_SECONDS) -> int:
        """SIGTERM, then the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self) -> int:
        """SIGKILL, then the exit status (-9)."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def close(self) -> None:
        """End the program, politely first, then whatever is left of its session."""
        if self.running:
            self.signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self._popen.wait(STOP_SECONDS)
        for pid in session_members(self.pid):
            _kill(pid)
        if self in Process.started:
            Process.started.remove(self)
            Process.closed.append(self)

    def children(self) -> dict[int, str]:
        """Live processes of this session other than the program: pid to command line."""
        members = session_members(self.pid)
        members.pop(self.pid, None)
        return members

    def wait_log(self, pattern: str, timeout: float = START_SECONDS) -> "re.Match[str]":
        """The first match of a regular expression in the log; fails if the program ends first."""
        compiled = re.compile(pattern, re.MULTILINE)

        def find() -> Optional["re.Match[str]"]:
            alive = self.running
            match = compiled.search(self.log)
            if match is None and not alive:
                raise AssertionError(
                    f"{self.name} ended with {self.returncode} before logging {pattern!r}\n"
                    f"{self.tail()}"
                )
            return match

        match = wait_for(find, timeout, f"{pattern!r} in the log of {self.name}\n{self.tail()}")
        assert match is not None
        return match

    def tail(self, lines: int = 40) -> str:
        """The last lines of the log under a heading, for failure messages."""
        text = "\n".join(self.log.splitlines()[-lines:])
        return f"--- {self.name} ({self.log_path}) ---\n{text}"

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def session_members(session: int) -> dict[int, str]:
    """Live (not zombie) processes of a session: pid to command line. Linux only."""
    members = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except (OSError, UnicodeDecodeError):
            continue
        if fields[0] != "Z" and int(fields[3]) == session:
            members[int(entry.name)] = command
    return members


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _unused(directory: Path, name: str) -> Path:
    path, number = directory / f"{name}.log", 1
    while path.exists():
        number += 1
        path = directory / f"{name}-{number}.log"
    return path


# -- certificates -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificates:
    """PEM files of one CA and one server certificate for localhost, 127.0.0.1 and ::1."""

    ca: Path
    cert: Path
    key: Path


def make_certificates(directory: Path) -> Certificates:
    """A fresh CA and server certificate, valid for a day."""
    directory.mkdir(parents=True, exist_ok=True)
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = _certificate("flwr-quic test CA", "flwr-quic test CA", ca_key, ca_key, authority=True)
    leaf = _certificate("localhost", "flwr-quic test CA", server_key, ca_key, authority=False)
    files = Certificates(directory / "ca.crt", directory / "server.pem", directory / "server.key")
    files.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.cert.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    files.key.chmod(0o600)
    return files


def _certificate(
    subject: str,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        loopback = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
        names = [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in loopback)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(signer, hashes.SHA256())


@dataclass(frozen=True)
class AppIoTls:
    """TLS of an AppIo service, and the secret that lets launchers in."""

    certificates: Certificates
    secret: Path

    def server_flags(self) -> list[object]:
        """For the daemon that serves it."""
        files = self.certificates
        return [
            "--appio-ssl-ca-certfile", files.ca,
            "--appio-ssl-certfile", files.cert,
            "--appio-ssl-keyfile", files.key,
            "--appio-join-secret-file", self.secret,
        ]  # fmt: skip

    def launcher_flags(self) -> list[object]:
        """For a SuperExec of ours that reaches it."""
        return [
            "--root-certificates", self.certificates.ca,
            "--appio-join-secret-file", self.secret,
        ]  # fmt: skip


def make_appio_tls(directory: Path, certificates: Certificates) -> AppIoTls:
    """The given certificates with a fresh join secret."""
    secret = directory / "join-secret"
    if not secret.exists():
        secret.write_text(os.urandom(32).hex() + "\n", encoding="ascii")
        secret.chmod(0o600)
    return AppIoTls(certificates, secret)


# -- the SuperLink under test -------------------------------------------------------------------


STOCK, OURS = "stock", "ours"
"""Whose program plays a role: Flower's from PyPI, or the one under test."""


def superlink_command(kind: Optional[str] = None, transport: str = "grpc") -> list[str]:
    """The command line of a SuperLink, of the one under test by default, without its flags.

    ``transport`` concerns ours only.
    """
    if kind == STOCK or (kind is None and REFERENCE):
        return [str(VENV_BIN / "flower-superlink")]
    return [str(binary()), "superlink", "--transport", transport]


def binary() -> Path:
    """The ``flwr-quic`` binary under test."""
    named = os.environ.get("FLWR_QUIC_BIN")
    if named:
        path = Path(named).resolve()
        if not path.is_file():
            raise FileNotFoundError(f"FLWR_QUIC_BIN names {named}, which is not a file")
        return path
    built = [REPOSITORY / "target" / kind / "flwr-quic" for kind in ("release", "debug")]
    built = [path for path in built if path.is_file()]
    if not built:
        raise FileNotFoundError(
            "no flwr-quic binary: run `cargo build --release -p flwr-quic`, or set FLWR_QUIC_BIN, "
            "or set FLWR_E2E_REFERENCE=1 to test stock flower-superlink"
        )
    return max(built, key=lambda path: path.stat().st_mtime)


class SuperLink:
    """A running SuperLink on free loopback ports; a context manager that ends it.

    ``tls`` is a ``Certificates`` for Control and Fleet, or ``None`` for ``--insecure``. Addresses
    are ``127.0.0.1:port`` strings: ``serverappio``, ``fleet``, ``control`` and ``health`` (``None``
    unless asked for). With ``simulation`` there are ``simulationio`` and ``control`` only. ``args``
    are appended to the command line as they are; ``transport`` is what Fleet is served over. ``appio`` is the TLS of ServerAppIo, which only
    ours has.
    """

    def __init__(
        self,
        directory: Path,
        tls: Optional[Certificates] = None,
        isolation: str = "process",
        health: bool = False,
        simulation: bool = False,
        args: Sequence[object] = (),
        env: Optional[dict[str, str]] = None,
        kind: Optional[str] = None,
        appio: Optional["AppIoTls"] = None,
        transport: str = "grpc",
    ) -> None:
        self.directory = Path(directory)
        self.transport = transport
        self.simulation = simulation
        self.simulationio = f"127.0.0.1:{free_port()}"
        self.tls = tls
        self.kind = kind
        self.appio = appio
        self.isolation = isolation
        self.home = self.directory / "superlink-home"
        self.home.mkdir(parents=True, exist_ok=True)
        self.serverappio = f"127.0.0.1:{free_port()}"
        self.fleet = f"127.0.0.1:{free_port()}"
        self.control = f"127.0.0.1:{free_port()}"
        self.health = f"127.0.0.1:{free_port()}" if health else None
        self.args = list(args)
        self.env = dict(env or {})
        self._process: Optional[Process] = None

    @property
    def process(self) -> Process:
        """The server process; fails before ``start``."""
        assert self._process is not None, "the SuperLink was not started"
        return self._process

    @property
    def log(self) -> str:
        """What the server (and, in subprocess isolation, its children) logged so far."""
        return self.process.log

    @property
    def addresses(self) -> list[str]:
        """All addresses this server listens on over TCP."""
        apps = [self.simulationio] if self.simulation else [self.serverappio]
        if not self.simulation and "grpc" in self.transport:
            apps.append(self.fleet)
        every = [self.control, *apps, self.health]
        return [address for address in every if address is not None]

    def command(self) -> list[str]:
        """The whole command line."""
        flags: list[object] = [
            "--isolation", self.isolation,
            "--serverappio-api-address", self.serverappio,
            "--fleet-api-address", self.fleet,
            "--control-api-address", self.control,
        ]  # fmt: skip
        if self.tls is None:
            flags.append("--insecure")
        else:
            flags += ["--ssl-ca-certfile", self.tls.ca]
            flags += ["--ssl-certfile", self.tls.cert, "--ssl-keyfile", self.tls.key]
        if self.simulation:
            flags += ["--simulation", "--simulationio-api-address", self.simulationio]
        if self.health is not None:
            flags += ["--health-server-address", self.health]
        if self.appio is not None:
            flags += self.appio.server_flags()
        command = superlink_command(self.kind, self.transport)
        return [*command, *(str(flag) for flag in [*flags, *self.args])]

    def launch(self) -> Process:
        """Start the program without waiting for its ports (for starts that must fail)."""
        env = environment(self.home, **self.env)
        self._process = Process("superlink", self.command(), self.directory, env)
        return self._process

    def start(self) -> "SuperLink":
        """Start the program and wait until every port accepts connections."""
        process = self.launch()

        def listening() -> bool:
            if not process.running:
                raise AssertionError(
                    f"the SuperLink ended with {process.returncode}\n{process.tail()}"
                )
            return all(port_is_open(address) for address in self.addresses)

        wait_for(listening, START_SECONDS, "the SuperLink's ports")
        return self

    def restart(self) -> "SuperLink":
        """Start again on the same ports, after the program has ended."""
        self.process.close()
        return self.start()

    def close(self) -> None:
        """End the server and its children."""
        if self._process is not None:
            self._process.close()

    def __enter__(self) -> "SuperLink":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()
