"""Node authentication as stock peers do it: an EC key and three headers a call."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

PUBLIC_KEY = "flwr-public-key-bin"
TIMESTAMP = "flwr-timestamp"
SIGNATURE = "flwr-signature-bin"


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    """Make a node key, P-384 unless another curve is given."""
    return ec.generate_private_key(curve or ec.SECP384R1())


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half as the PEM text that travels in the header."""
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def openssh(key: Any) -> str:
    """Return the public half as one OpenSSH line, as the allow-list file holds it."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def sign(key: ec.EllipticCurvePrivateKey, text: str) -> bytes:
    """Sign the timestamp text as stock peers do: ECDSA over SHA-256, DER."""
    return key.sign(text.encode("ascii"), ec.ECDSA(hashes.SHA256()))


def timestamp(age: float = 0.0) -> str:
    """Return the instant `age` seconds ago (negative: ahead) in Flower's timestamp format."""
    return (datetime.now(timezone.utc) - timedelta(seconds=age)).isoformat()


def signed(
    key: ec.EllipticCurvePrivateKey, text: str | None = None
) -> list[tuple[str, str | bytes]]:
    """Return the three authentication headers for `text`, the present instant by default."""
    text = timestamp() if text is None else text
    return [(PUBLIC_KEY, pem(key)), (TIMESTAMP, text), (SIGNATURE, sign(key, text))]
