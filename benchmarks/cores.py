"""How busy the two cores were: says who was the bottleneck, and whether somebody else used the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from benchmarks.processes import LOAD_CORE, MEASURED_CORE, core

_STAT = Path("/proc/stat")


class Busy(msgspec.Struct, frozen=True):
    """Shares of time, 0 to 1, in which a core was not idle; `stolen`: another machine had it."""

    measured: float
    load: float
    stolen: float


@contextmanager
def busy() -> Iterator[Callable[[], Busy]]:
    """Gives what says, after the block, how busy the cores were during it. Zeros where nobody counts."""
    before = _ticks()
    after: list[dict[str, list[int]]] = []
    yield lambda: _busy(before, after[0])
    after.append(_ticks())


def _ticks() -> dict[str, list[int]]:
    if not _STAT.exists():
        return {}
    lines = (line.split() for line in _STAT.read_text().splitlines() if line.startswith("cpu"))
    return {name: [int(number) for number in numbers] for name, *numbers in lines}


def _busy(before: dict[str, list[int]], after: dict[str, list[int]]) -> Busy:
    shares = []
    stolen = 0.0
    for number in (MEASURED_CORE, LOAD_CORE):
        name = f"cpu{core(number)}"
        if name not in before:
            return Busy(0.0, 0.0, 0.0)
        spent = [end - start for start, end in zip(before[name], after[name], strict=True)][:8]
        total = max(1, sum(spent))
        shares.append(1 - (spent[3] + spent[4]) / total)
        stolen = max(stolen, spent[7] / total)
    return Busy(shares[0], shares[1], stolen)
