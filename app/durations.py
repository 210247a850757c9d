"""How a length of time is written: `250ms`, `2s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)")


def parse_duration(text: str) -> int:
    """The milliseconds of a duration, rounded.

    Raises:
        ValueError: it is not a number with one of the units.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f"must be a number with one of the units {', '.join(_UNITS_MS)}, got {text!r}")
    return round(float(found[1]) * _UNITS_MS[found[2]])


def format_duration(milliseconds: int) -> str:
    """The duration in the largest unit that divides it, but hours up to one day: `24h`, not `1d`."""
    for unit in ("d", "h", "m", "s"):
        size = _UNITS_MS[unit]
        if milliseconds and milliseconds % size == 0 and (unit != "d" or milliseconds > size):
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
