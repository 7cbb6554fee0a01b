"""Protocol section 9.10: how a SuperNode starts and what it says when it cannot."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from harness import Certificates, Process, binary, environment, free_port, make_certificates
from nodekey import PUBLIC_KEY, SIGNATURE, TIMESTAMP, new_key, openssh, pem
from scripted import ScriptedSuperLink
from scripted_appio import ScriptedAppIo
from site_under_test import Site
from startup import Pair, certificate_pair

REFUSAL_SECONDS = 15.0


def start(directory: Path, *flags: object) -> Process:
    """Start with exactly these flags and a free ClientAppIo port."""
    argv: list[object] = [binary(), "supernode", "--isolation", "process"]
    if "--clientappio-api-address" not in flags:
        argv += ["--clientappio-api-address", f"127.0.0.1:{free_port()}"]
    home = directory / "home"
    home.mkdir(exist_ok=True)
    return Process("supernode", [*argv, *flags], directory, environment(home))


def refusal(directory: Path, *flags: object, status: int = 1) -> str:
    """Start with these flags, which must be refused; returns what was said."""
    with start(directory, *flags) as attempt:
        assert attempt.wait(REFUSAL_SECONDS) == status, attempt.tail()
        said = attempt.log
    assert said.strip() and "panicked" not in said and "RUST_BACKTRACE" not in said, said
    return said


# -- keys ---------------------------------------------------------------------------------------


def private_openssh(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
) -> bytes:
    """A private key as `ssh-keygen` writes it, without a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )


def key_files(directory: Path, private: bytes, public: str) -> list[object]:
    """Write both and return the flags that name them."""
    files = (directory / "key", directory / "key.pub")
    files[0].write_bytes(private)
    files[0].chmod(0o600)
    files[1].write_text(public + "\n")
    return [
        *("--auth-supernode-private-key", files[0]),
        *("--auth-supernode-public-key", files[1]),
    ]


@pytest.mark.parametrize("given", ["private", "public"])
def test_163_one_key_file_alone(tmp_path: Path, given: str) -> None:
    """Code 301, and how to make a pair."""
    key = new_key()
    flags = key_files(tmp_path, private_openssh(key), openssh(key))
    one = flags[:2] if given == "private" else flags[2:]
    said = refusal(tmp_path, "--insecure", *one)
    assert "Exit Code: 301" in said and "ref-exit-codes/301.html" in said
    assert "flwr-quic keys node" in said


def unusable_keys() -> dict[str, tuple[bytes, str]]:
    """Pairs of which one half cannot be used, by what is wrong."""
    key = new_key()
    good, public = private_openssh(key), openssh(key)
    none = serialization.NoEncryption()
    sec1 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, none
    )
    return {
        "empty": (b"", public),
        "garbage": (os.urandom(300), public),
        "cut short": (good[:-120], public),
        "SEC1": (sec1, public),
        "rsa": (private_openssh(rsa.generate_private_key(65537, 2048)), public),
        "private is of another kind": (private_openssh(ed25519.Ed25519PrivateKey.generate()), public),
        "public is empty": (good, ""),
        "public of another": (good, openssh(new_key())),
    }


UNUSABLE = unusable_keys()


@pytest.mark.parametrize("case", UNUSABLE)
def test_163_unusable_keys(tmp_path: Path, case: str) -> None:
    """Code 302, the file, and how to make a pair; nothing of the key itself."""
    private, public = UNUSABLE[case]
    said = refusal(tmp_path, "--insecure", *key_files(tmp_path, private, public))
    assert "Exit Code: 302" in said and str(tmp_path / "key") in said
    assert "flwr-quic keys node" in said
    assert not any(line in said for line in private.decode("latin-1").splitlines()[1:-1] if line)


def test_163_key_files_that_are_missing(tmp_path: Path) -> None:
    """Code 302, and which file it is."""
    flags = key_files(tmp_path, private_openssh(new_key()), openssh(new_key()))
    (tmp_path / "key").unlink()
    assert "Exit Code: 302" in refusal(tmp_path, "--insecure", *flags)


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=["P-256", "P-384", "P-521"]
)
def test_163_good_keys_are_presented(
    superlink: ScriptedSuperLink, closing: ExitStack, tmp_path: Path, curve: ec.EllipticCurve
) -> None:
    """A pair of each curve, as `ssh-keygen` writes it, is the node's key on every call."""
    key = new_key(curve)
    flags = key_files(tmp_path, private_openssh(key), openssh(key) + " node@site")
    closing.enter_context(Site(superlink.fleet, tmp_path, *flags)).joined(superlink)
    superlink.wait_calls("SendNodeHeartbeat")
    assert {dict(call.metadata)[PUBLIC_KEY] for call in superlink.calls} == {pem(key)}


def test_keys_of_ours_are_presented(
    superlink: ScriptedSuperLink, closing: ExitStack, tmp_path: Path
) -> None:
    """An Ed25519 pair as openssl writes it proves itself over gRPC by a signature of the same timestamp, and a
    warning says that stock SuperLinks do not know such keys."""
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    flags = key_files(tmp_path, private, public.decode())
    site = closing.enter_context(Site(superlink.fleet, tmp_path, *flags)).joined(superlink)
    for call in superlink.calls:
        shown = dict(call.metadata)
        assert shown[PUBLIC_KEY] == public
        key.public_key().verify(shown[SIGNATURE], shown[TIMESTAMP].encode())
    assert "Ed25519" in site.log and "stock SuperLinks" in site.log


# -- addresses and TLS --------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--superlink", "--clientappio-api-address"])
@pytest.mark.parametrize("address", ["localhost", "127.0.0.1:0", "127.0.0.1:65536", "[::1]:x", ""])
def test_161_addresses_that_are_none(tmp_path: Path, flag: str, address: str) -> None:
    """Code 600, the address, and what one looks like."""
    said = refusal(tmp_path, "--insecure", flag, address)
    assert "Exit Code: 600" in said and address in said


def test_161_a_port_in_use(tmp_path: Path) -> None:
    """Status 1, the address and the flag."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refusal(tmp_path, "--insecure", "--clientappio-api-address", address)
        assert address in said and "--clientappio-api-address" in said
        said = refusal(tmp_path, "--insecure", "--health-server-address", address)
        assert address in said and "--health-server-address" in said


def test_159_insecure_with_root_certificates(tmp_path: Path, certificates: Certificates) -> None:
    """Status 1, and both flags."""
    said = refusal(tmp_path, "--insecure", "--root-certificates", certificates.ca)
    assert "--insecure" in said and "--root-certificates" in said


def test_159_root_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    """Status 1 and the path: of a file that is missing, a folder, and a file without PEM."""
    empty = tmp_path / "empty.pem"
    empty.write_text("no certificate\n")
    for path in (tmp_path / "missing.pem", tmp_path, empty):
        said = refusal(tmp_path, "--root-certificates", path)
        assert str(path) in said


def test_159_clientappio_certificates_are_three(
    tmp_path: Path, certificates: Certificates
) -> None:
    """Status 1, and which flags are missing."""
    said = refusal(tmp_path, "--insecure", "--appio-ssl-certfile", certificates.cert)
    assert "--appio-ssl-keyfile" in said and "--appio-ssl-ca-certfile" in said


# -- the SuperLink's certificate ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("ca", "not signed by .*other-ca"),
        ("name", "not valid for 127.0.0.1 but for localhost"),
        ("expired", r"certificate expired on 20\d\d-"),
    ],
)
def test_a_certificate_that_is_refused_is_explained(
    closing: ExitStack, tmp_path: Path, certificates: Certificates, case: str, said: str
) -> None:
    """The log says which check failed; the SuperNode stays and tries again."""
    pair, trusted = Pair(certificates.cert, certificates.key), certificates.ca
    if case == "ca":
        trusted = make_certificates(tmp_path / "other-ca").ca
    else:
        days = (-3.0, -1.0) if case == "expired" else (-1.0, 1.0)
        pair = certificate_pair(tmp_path / "certificates", case, days=days)
        trusted = pair.cert
    server = closing.enter_context(ScriptedAppIo(pair=pair))
    address = server.address
    if case == "expired":
        address = address.replace("127.0.0.1", "localhost")
    node = start(tmp_path, "--superlink", address, "--root-certificates", trusted)
    closing.enter_context(node).wait_log(said, 20)
    assert node.running
    assert node.terminate() == 0


# -- node configuration -------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", ["a=b c=d", 'a="1', "a=1 a=2", "a=[1, 2]", "missing.toml"])
def test_163_node_configurations_that_are_none(tmp_path: Path, pairs: str) -> None:
    """Status 1 and the flag."""
    assert "--node-config" in refusal(tmp_path, "--insecure", "--node-config", pairs)


# -- the data folder ----------------------------------------------------------------------------


def test_a_data_folder_in_use_is_refused(
    superlink: ScriptedSuperLink, closing: ExitStack, tmp_path: Path
) -> None:
    """Two processes never share one; the second says so and the first goes on."""
    folder = tmp_path / "data"
    first = Site(superlink.fleet, tmp_path, "--data-dir", folder)
    closing.enter_context(first).joined(superlink)
    flags = ("--insecure", "--superlink", superlink.fleet, "--data-dir", folder)
    said = refusal(tmp_path, *flags)
    assert "--data-dir" in said and str(folder) in said and "in use by another process" in said
    assert first.running and len(superlink.named("CreateNode")) == 1
    first.kill()
    second = Site(superlink.fleet, tmp_path, "--data-dir", folder, name="second")
    closing.enter_context(second)
    second.wait_log("took its place again after a restart")


def test_a_data_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Below a file, in a read-only place: status 1, the flag and the path."""
    file = tmp_path / "file"
    file.write_text("")
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o555)
    folders = [file, file / "below", Path("/proc/self/data")]
    if os.geteuid() != 0:
        folders.append(sealed / "data")
    for folder in folders:
        said = refusal(tmp_path, "--insecure", "--data-dir", folder)
        assert "--data-dir" in said and str(folder) in said


@pytest.mark.parametrize("size", ["", "lots", "-1", "1.5.2G", "12Q"])
def test_a_quota_that_is_none_is_refused(tmp_path: Path, size: str) -> None:
    assert "--data-quota" in refusal(
        tmp_path, "--insecure", f"--data-quota={size}", status=2
    )


# -- others -------------------------------------------------------------------------------------


def test_300_rest_without_a_scheme(tmp_path: Path) -> None:
    """Code 300, as in Flower."""
    said = refusal(tmp_path, "--insecure", "--rest", "--superlink", "127.0.0.1:9095")
    assert "Exit Code: 300" in said


@pytest.mark.parametrize(
    "flags",
    [
        ["--isolation", "container"],
        ["--rest", "--grpc-adapter"],
        ["--max-retries=-1"],
        ["--max-concurrent-apps", "0"],
        ["--no-such-flag"],
    ],
    ids=" ".join,
)
def test_unknown_values_are_usage_errors(tmp_path: Path, flags: list[str]) -> None:
    """Status 2, as of argparse."""
    done = subprocess.run(
        [binary(), "supernode", "--insecure", *flags],
        capture_output=True,
        env=environment(tmp_path),
        timeout=REFUSAL_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert flags[0].partition("=")[0].encode() in done.stderr
