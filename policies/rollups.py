"""Which sums does a judgement rest on? Additive daily rollups, cut into strata that compare two arms.

A stratum is a day and an allocation epoch: within it the configured shares did not change, so the arms saw
the same traffic. Pooled over strata they did not (shares and base rates both move), which is why totals are
never compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from policies.days import Day
from policies.errors import CannotJudge


@dataclass(frozen=True, slots=True)
class Sums:
    """n analysed values, Σy and Σy². Adding two is the rollup of both."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        """Σy / n. Raises CannotJudge without values."""
        if self.n < 1:
            raise CannotJudge("no_data", "a mean needs at least 1 value, got 0")
        return self.total / self.n

    @property
    def variance(self) -> float:
        """The sample variance (Σy² − (Σy)²/n)/(n − 1), never below 0. Raises CannotJudge for n < 2."""
        if self.n < 2:
            raise CannotJudge("no_data", f"a variance needs at least 2 values, got {self.n}")
        return max(0.0, (self.squares - self.total**2 / self.n) / (self.n - 1))


@dataclass(frozen=True, slots=True)
class Cell:
    """One stored rollup row of one metric. `bucket`: the units' hash bucket, 0 on per-request routes."""

    day: Day
    epoch: int
    arm: str
    bucket: int
    sums: Sums


@dataclass(frozen=True, slots=True)
class Stratum:
    """One day × epoch with both arms' sums, by hash bucket of their units."""

    day: Day
    epoch: int
    champion: Mapping[int, Sums]
    challenger: Mapping[int, Sums]


@dataclass(frozen=True, slots=True)
class ArmCounts:
    """Decisions of an arm over the strata: all, those it served itself, those with a value of the goal."""

    decisions: int = 0
    served: int = 0
    labelled: int = 0


@dataclass(slots=True)
class _Pair:
    champion: dict[int, Sums] = field(default_factory=lambda: defaultdict(Sums))
    challenger: dict[int, Sums] = field(default_factory=lambda: defaultdict(Sums))


def strata(cells: Iterable[Cell], champion: str, challenger: str) -> tuple[Stratum, ...]:
    """The days × epochs in which both arms have values, in order of time; other arms' cells are left out."""
    pairs: dict[tuple[Day, int], _Pair] = defaultdict(_Pair)
    for cell in cells:
        if cell.arm in (champion, challenger) and cell.sums.n > 0:
            pair = pairs[cell.day, cell.epoch]
            side = pair.champion if cell.arm == champion else pair.challenger
            side[cell.bucket] += cell.sums
    return tuple(
        Stratum(day, epoch, dict(pair.champion), dict(pair.challenger))
        for (day, epoch), pair in sorted(pairs.items())
        if pair.champion and pair.challenger
    )


def pooled(buckets: Mapping[int, Sums]) -> Sums:
    """The sums over all buckets of one arm in one stratum."""
    return sum(buckets.values(), Sums())
