"""Where do random bits come from? From the system's generator, many at a time: each call costs."""

from __future__ import annotations

import os
from typing import Final

_POOL_BYTES: Final = 8_192


class Draws:
    """Random bits that nobody can foresee. Mutable state: the pool that is left."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def getrandbits(self, bits: int) -> int:
        """So many random bits, a multiple of eight."""
        size = bits // 8
        start, end = self._at, self._at + size
        if end > len(self._pool):
            self._pool, start, end = os.urandom(_POOL_BYTES), 0, size
        self._at = end
        return int.from_bytes(self._pool[start:end], "big")
