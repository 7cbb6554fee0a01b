"""What both sides share: events in the log, and arrays with a checksum."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord


def emit(event: str, **fields: Any) -> None:
    """One event as one line of JSON, in a single write."""
    sys.stdout.write(f"PROBE {json.dumps({'event': event, **fields})}\n")
    sys.stdout.flush()


def make_arrays(count: int, size: int, seed: int) -> ArrayRecord:
    """``count`` arrays of ``size`` random bytes each, all different."""
    rng = np.random.default_rng(seed)
    words = -(-size // 8)
    record = {}
    for index in range(count):
        values = rng.integers(0, 2**63, words, dtype=np.uint64).view(np.uint8)[:size]
        record[f"array-{index}"] = Array(values)
    return ArrayRecord(record)


def checksum(record: ArrayRecord) -> str:
    """SHA-256 over names, types, shapes and data, in order."""
    digest = hashlib.sha256()
    for name, array in record.items():
        digest.update(f"{name} {array.dtype} {list(array.shape)} ".encode())
        digest.update(array.data)
    return digest.hexdigest()


def size(record: ArrayRecord) -> int:
    """Bytes of all arrays as they travel."""
    return sum(len(array.data) for array in record.values())
