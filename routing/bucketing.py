"""Which bucket does a unit fall in? One keyed hash, with a version, fixed for ever by golden vectors."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from routing.types import TOTAL_BP

HASH_VERSION = 1
"""Raised when the hash changes: golden vectors are kept per version, and a new version moves every unit."""

UNIT_BUCKETS = 64
"""Hash buckets of units over which the evaluator's jackknife runs."""


def unit_hash(salt: str, unit: str) -> int:
    """The unit's 64-bit hash under a salt (1 to 64 bytes of UTF-8): keyed BLAKE2b, 8 bytes, big-endian.

    Source: RFC 7693. Keyed, so that units of one rollout are not the same groups in the next.
    """
    state = _keyed(salt).copy()
    state.update(unit.encode("utf-8", "surrogatepass"))
    return int.from_bytes(state.digest(), "big")


def bucket(hash64: int) -> int:
    """The basis-point bucket, 0 to 9,999, of a 64-bit hash, without modulo bias: (hash · 10,000) >> 64."""
    return (hash64 * TOTAL_BP) >> 64


def unit_bucket(hash64: int) -> int:
    """The unit's jackknife bucket, 0 to 63, taken from the low bits, which `bucket` does not depend on."""
    return hash64 % UNIT_BUCKETS


@lru_cache(maxsize=1_024)
def _keyed(salt: str) -> blake2b:
    """The hash before it has seen a unit: to copy it is cheaper than to begin with the key each time."""
    return blake2b(digest_size=8, key=salt.encode())
