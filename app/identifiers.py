"""Identifiers: a prefix that names the kind, and a UUIDv7 in hex, so that ids sort by time."""

import os
import time
import uuid
from enum import StrEnum


class Prefix(StrEnum):
    """The kinds of things that have an id."""

    TENANT = "ten"
    API_KEY = "key"
    DATASET = "ds"
    UPLOAD = "upl"
    GENERATOR = "gen"
    CHECKPOINT = "ckp"
    SAMPLE_BATCH = "smp"
    REPORT = "rpt"
    EXPORT = "exp"
    JOB = "job"


def uuid7() -> uuid.UUID:
    """Return a UUID version 7: 48 bits of Unix milliseconds, then randomness (RFC 9562, 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return uuid.UUID(int=value)


def new_id(prefix: Prefix) -> str:
    """Return a fresh id such as `ds_0193f5c0...` (32 hex digits after the underscore)."""
    return f"{prefix}_{uuid7().hex}"
