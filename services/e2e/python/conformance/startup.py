"""Starting a SuperLink with flags of one's own choice, mostly wrong ones."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from harness import Process, environment, free_port, superlink_command, wait_for

REFUSAL_SECONDS = 30.0


@dataclass(frozen=True)
class Ports:
    """Addresses for one start."""

    serverappio: str
    fleet: str
    control: str

    def flags(self) -> dict[str, str]:
        """The address flags by name."""
        return {
            "--serverappio-api-address": self.serverappio,
            "--fleet-api-address": self.fleet,
            "--control-api-address": self.control,
        }


def ports() -> Ports:
    """Three free loopback addresses."""
    return Ports(*(f"127.0.0.1:{free_port()}" for _ in range(3)))


class Start:
    """One start with exactly these flags; a context manager that ends the program."""

    def __init__(self, directory: Path, *flags: object, env: dict[str, str] | None = None) -> None:
        argv = [*superlink_command(), *flags]
        self.process = Process(
            "superlink", argv, directory, environment(directory / "home", **(env or {}))
        )

    def refusal(self, status: int = 1) -> str:
        """Require that the program ends by itself with this status; returns what it said."""
        seen = self.process.wait(REFUSAL_SECONDS)
        assert seen == status, f"status {seen}\n{self.process.tail()}"
        said = self.process.log
        assert said.strip(), "the program ended without a word"
        assert "panicked" not in said and "RUST_BACKTRACE" not in said, said
        return said

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait for a condition while the program runs."""

        def holds() -> Any:
            alive = self.process.running
            value = condition()
            assert value or alive, f"ended with {self.process.returncode}\n{self.process.tail()}"
            return value

        return wait_for(holds, REFUSAL_SECONDS, f"{what}\n{self.process.tail()}")

    def __enter__(self) -> Start:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()


def start(
    directory: Path,
    *flags: object,
    where: Ports | None = None,
    isolation: str = "process",
    env: dict[str, str] | None = None,
) -> Start:
    """Start with free ports and process isolation before the given flags."""
    where = where or ports()
    addresses = [part for pair in where.flags().items() for part in pair]
    return Start(directory, "--isolation", isolation, *addresses, *flags, env=env)


def refusal(directory: Path, *flags: object, status: int = 1, **fields: Any) -> str:
    """Start with free ports and these flags, which must be refused; returns what was said."""
    with start(directory, *flags, **fields) as attempt:
        return attempt.refusal(status)


def caught_signals(pid: int) -> int:
    """Bit mask of the signals a process has handlers for. Linux only."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    assert found is not None
    return int(found.group(1), 16)


# -- certificates -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A certificate and a key, both PEM files."""

    cert: Path
    key: Path


def certificate_pair(directory: Path, name: str, *, days: tuple[float, float] = (-1, 1)) -> Pair:
    """Write a self-signed certificate for localhost, valid between two days from now."""
    directory.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.timezone.utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
    pair.cert.write_bytes(cert.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pair
