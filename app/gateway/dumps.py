"""What do the workers of one gateway tell each other of what they have counted?"""

from __future__ import annotations

import msgspec


class Dump(msgspec.Struct, frozen=True):
    """One worker's figures, as its fellow workers read them from disk. Keys are series, labels included."""

    worker: str
    values: dict[str, float]
    histograms: dict[str, tuple[list[int], float]]
