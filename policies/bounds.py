"""What lies outside its bounds? Each fault names field, bound and value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from policies.errors import BadSpec


def duplicates(where: str, names: Sequence[str]) -> Iterator[BadSpec]:
    """Names that stand more than once."""
    for name, times in Counter(names).items():
        if times > 1:
            yield BadSpec(where, f"must have different names, got {name!r} {times} times")


def in_range(where: str, value: float, low: float, high: float, unit: str = "") -> Iterator[BadSpec]:
    """A value outside [low, high]."""
    if not low <= value <= high:
        yield BadSpec(where, f"must be in [{low}, {high}]{unit}, got {value}")


def in_open_unit(where: str, value: float) -> Iterator[BadSpec]:
    """A confidence that is none."""
    if not 0.5 <= value < 1:
        yield BadSpec(where, f"must be in [0.5, 1), got {value}")
