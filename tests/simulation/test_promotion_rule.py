"""The promotion rule's operating characteristics, by simulation.

Worlds are simulated as arrays and judged by the rule's own functions: `estimate`, `odds_of`, `Odds.win` and
`.lose` take the same arrays that `judge` gives them one world at a time. Only the streak is counted here,
in two lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from policies.days import Day
from policies.estimates import ArmSums, Panel, estimate
from policies.metrics import Metric
from policies.promotion import Evidence, Streak, decide, extend, judge, odds_of
from policies.rollups import ArmCounts, Stratum, Sums
from policies.spec import Policy
from policies.types import Action, Better, Kind, Verdict

Array = NDArray[np.float64]

DAYS = 30
UNITS = 2_000
RATE = 0.05
FLAT = np.ones(DAYS)
WEEKLY = 1 + 0.2 * np.sin(2 * np.pi * np.arange(DAYS) / 7)
STEPPED = np.where(np.arange(DAYS) < 10, 1.0, 0.7)
FIXED = np.full(DAYS, 0.5)
RAMP = np.repeat([0.05, 0.25, 0.5], [8, 8, DAYS - 16])
POLICY = Policy()


@dataclass(frozen=True, slots=True)
class Worlds:
    """Both arms' sums over (worlds, days, buckets)."""

    champion: ArmSums
    challenger: ArmSums
    sticky: bool = False

    def until(self, day: int) -> Panel:
        """What is known after a number of days, one stratum each."""
        cut = [
            ArmSums(arm.n[:, :day], arm.total[:, :day], arm.squares[:, :day])
            for arm in (self.champion, self.challenger)
        ]
        return Panel(cut[0], cut[1], np.arange(day), self.sticky)


@dataclass(frozen=True, slots=True)
class Share:
    """A simulated share with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, hits: NDArray[np.bool_]) -> Share:
        share = float(np.mean(hits))
        return cls(share, sqrt(max(share * (1 - share), 1 / hits.size) / hits.size))

    def surely_at_most(self, bound: float) -> bool:
        """Not above the bound by more than three standard errors."""
        return self.value <= bound + 3 * self.error

    def surely_at_least(self, bound: float) -> bool:
        return self.value >= bound - 3 * self.error


@dataclass(frozen=True, slots=True)
class Fate:
    """How the worlds ended within the horizon."""

    promoted: Share
    rolled_back: Share


def play(worlds: Worlds, kind: Kind, policy: Policy = POLICY, better: Better = Better.HIGHER) -> Fate:
    """Judge every world once a day until it is promoted, rolled back, or at its horizon."""
    size = worlds.champion.n.shape[0]
    winning = np.zeros(size, dtype=np.intp)
    promoted, rolled_back = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    for day in range(3, DAYS + 1):
        panel = worlds.until(day)
        odds = odds_of(estimate(panel), better, policy)
        judged = _enough(panel, kind, policy)
        winning = np.where(odds.win(policy.confidence) & judged, winning + 1, 0)
        rolled_back |= odds.lose(policy.losing_confidence) & judged & ~promoted
        promoted |= (winning >= policy.winning_days) & (day >= policy.minimum_days) & ~rolled_back
    return Fate(Share.of(promoted), Share.of(rolled_back))


def _enough(panel: Panel, kind: Kind, policy: Policy) -> NDArray[np.bool_]:
    arms = (panel.champion, panel.challenger)
    enough = [np.sum(arm.n, axis=(1, 2)) >= policy.min_samples for arm in arms]
    if kind is Kind.BINARY:
        enough += [np.sum(arm.total, axis=(1, 2)) >= policy.min_conversions for arm in arms]
    return np.asarray(np.logical_and.reduce(enough))


def fresh_binary(seed: int, size: int, base: Array, share: Array, lift: float, noise: float = 0) -> Worlds:
    """New units every day. `noise`: standard deviation of a day's relative effect of the challenger."""
    draw = np.random.default_rng(seed)
    n_b = np.rint(UNITS * share).astype(np.intp)
    n_a = UNITS - n_b
    of_day = np.clip(1 + lift + noise * draw.standard_normal((size, DAYS)), 0, None)
    a = draw.binomial(n_a, RATE * base, (size, DAYS))
    b = draw.binomial(n_b, RATE * base * of_day)
    return Worlds(_ones(n_a, a), _ones(n_b, b))


def _ones(n: NDArray[np.intp], hits: NDArray[np.int64]) -> ArmSums:
    total = hits.astype(np.float64)[..., None]
    return ArmSums(np.broadcast_to(n.astype(np.float64)[:, None], total.shape), total, total)


def fresh_revenue(seed: int, size: int, base: Array, share: Array, lift: float) -> Worlds:
    """Log-normal values (σ = 1) of new units every day. A day's sums are drawn from 2,000 possible ones per
    size."""
    draw = np.random.default_rng(seed)
    n_b = np.rint(UNITS * share).astype(np.intp)
    pools = {int(n): _pool(draw, int(n)) for n in {*n_b, *(UNITS - n_b)}}
    a = _days_of(draw, size, UNITS - n_b, base, pools)
    return Worlds(a, _days_of(draw, size, n_b, base * (1 + lift), pools))


def _pool(draw: np.random.Generator, n: int) -> tuple[Array, Array]:
    values = draw.lognormal(0, 1, (2_000, n))
    return values.sum(axis=1), (values**2).sum(axis=1)


def _days_of(
    draw: np.random.Generator,
    size: int,
    n: NDArray[np.intp],
    scale: Array,
    pools: dict[int, tuple[Array, Array]],
) -> ArmSums:
    picks = draw.integers(0, 2_000, (size, DAYS))
    total = np.stack([pools[int(n[day])][0][picks[:, day]] * scale[day] for day in range(DAYS)], axis=1)
    squares = np.stack(
        [pools[int(n[day])][1][picks[:, day]] * scale[day] ** 2 for day in range(DAYS)], axis=1
    )
    return ArmSums(
        np.broadcast_to(n.astype(np.float64)[:, None], (size, DAYS, 1)), total[..., None], squares[..., None]
    )


def returning(seed: int, size: int, kind: Kind, lift: float) -> Worlds:
    """2,048 users in 64 buckets, 40 % active each day, who keep their arm and their own rate or spending."""
    draw = np.random.default_rng(seed)
    parts = [_returning(draw, min(50, size - start), kind, lift) for start in range(0, size, 50)]
    champion, challenger = (
        ArmSums(*(np.concatenate([part[arm][row] for part in parts]) for row in range(3))) for arm in range(2)
    )
    return Worlds(champion, challenger, sticky=True)


def _returning(draw: np.random.Generator, size: int, kind: Kind, lift: float) -> list[list[Array]]:
    users = (size, 64, 32)
    treated = draw.random(users, dtype=np.float32) < 0.5
    own = draw.gamma(0.5, 2.0, users).astype(np.float32) * np.where(treated, 1 + lift, 1).astype(np.float32)
    sums: list[list[list[Array]]] = [[[], [], []], [[], [], []]]
    for _ in range(DAYS):
        active = draw.random(users, dtype=np.float32) < 0.4
        if kind is Kind.BINARY:
            values = (draw.random(users, dtype=np.float32) < np.minimum(own * np.float32(RATE), 1)).astype(
                np.float32
            )
        else:
            values = own * np.exp(draw.standard_normal(users, dtype=np.float32))
        for arm, there in enumerate((active & ~treated, active & treated)):
            for row, what in enumerate((there, values * there, values**2 * there)):
                sums[arm][row].append(np.sum(what, axis=-1, dtype=np.float64))
    return [[np.stack(row, axis=1) for row in arm] for arm in sums]


TRAFFIC = {
    f"{base_name}, {share_name}": (base, share)
    for base_name, base in (("flat", FLAT), ("weekly", WEEKLY), ("stepped", STEPPED))
    for share_name, share in (("fixed", FIXED), ("ramp", RAMP))
}
FRESH: dict[Kind, Callable[[int, int, Array, Array, float], Worlds]] = {
    Kind.BINARY: fresh_binary,
    Kind.CONTINUOUS: fresh_revenue,
}
SPREAD = {Kind.BINARY: sqrt((1 - RATE) / RATE), Kind.CONTINUOUS: sqrt(np.e - 1)}
"""Standard deviation over mean of one value."""


def detectable(kind: Kind) -> float:
    """The lift that a one-sided test (α 0.05) on 14 days of a fixed, even split detects with power 0.8."""
    return (1.6449 + 0.8416) * SPREAD[kind] * sqrt(2 / (14 * UNITS / 2))


@pytest.mark.parametrize("kind", FRESH)
@pytest.mark.parametrize("traffic", TRAFFIC)
def test_identical_arms_are_rarely_promoted(kind: Kind, traffic: str) -> None:
    """At most 5 % of identical challengers are promoted within 30 days (2,000 worlds, three standard
    errors)."""
    worlds = FRESH[kind](11, 2_000, *TRAFFIC[traffic], 0.0)
    assert play(worlds, kind).promoted.surely_at_most(0.05)


@pytest.mark.parametrize("kind", FRESH)
def test_worse_arms_are_hardly_ever_promoted(kind: Kind) -> None:
    """At most 0.5 % of challengers that are worse by half the detectable effect are promoted; most worse by
    all of it are rolled back."""
    slightly = FRESH[kind](12, 2_000, FLAT, FIXED, -detectable(kind) / 2)
    assert play(slightly, kind).promoted.surely_at_most(0.005)
    clearly = FRESH[kind](13, 2_000, FLAT, FIXED, -detectable(kind))
    assert play(clearly, kind).rolled_back.surely_at_least(0.8)


@pytest.mark.parametrize("kind", FRESH)
def test_better_arms_are_promoted(kind: Kind) -> None:
    """At the effect that a fixed 14-day test finds with power 0.8, the rule promotes 9 of 10 within 30
    days."""
    worlds = FRESH[kind](14, 2_000, FLAT, FIXED, detectable(kind))
    assert play(worlds, kind).promoted.surely_at_least(0.9)


def test_restless_days_promote_few_identical_arms() -> None:
    """With daily arm effects as large as sampling noise, at most 8 % of challengers without any are
    promoted."""
    noise = SPREAD[Kind.BINARY] * sqrt(2 / (UNITS / 2))
    worlds = fresh_binary(15, 2_000, FLAT, FIXED, 0.0, noise=noise)
    assert play(worlds, Kind.BINARY).promoted.surely_at_most(0.08)


@pytest.mark.parametrize("kind", FRESH)
def test_returning_users_promote_few_identical_arms(kind: Kind) -> None:
    """Where users return on several days, the jackknife over buckets keeps false promotions at 5 %; without
    it, the same worlds promote far more."""
    worlds = returning(16, 800, kind, 0.0)
    assert play(worlds, kind).promoted.surely_at_most(0.05)
    assert not play(as_if_fresh(worlds), kind).promoted.surely_at_most(0.05)


def as_if_fresh(worlds: Worlds) -> Worlds:
    """The same sums, with the buckets forgotten."""
    cut = [
        ArmSums(*(np.sum(part, axis=-1, keepdims=True) for part in (arm.n, arm.total, arm.squares)))
        for arm in (worlds.champion, worlds.challenger)
    ]
    return Worlds(cut[0], cut[1])


def test_a_ramp_over_a_falling_base_rate_fools_totals_but_not_strata() -> None:
    """Two identical arms, a ramp from 10 to 50 % while the base rate falls from 5 to 4 %: totals "prove"
    harm in most worlds, strata in no more than the 1 % that the losing confidence of 0.99 allows."""
    draw, size, units = np.random.default_rng(17), 2_000, 100_000
    n_b = np.rint(units * np.linspace(0.1, 0.5, 20)).astype(np.intp)
    rate = np.linspace(0.05, 0.04, 20)
    worlds = Worlds(
        _ones(units - n_b, draw.binomial(units - n_b, rate, (size, 20))),
        _ones(n_b, draw.binomial(n_b, rate, (size, 20))),
    )
    panel = worlds.until(20)
    by_strata = odds_of(estimate(panel), Better.HIGHER, POLICY).lose(0.99)
    assert Share.of(by_strata).surely_at_most(0.01)
    n_a, n_b_all = np.sum(panel.champion.n, axis=(1, 2)), np.sum(panel.challenger.n, axis=(1, 2))
    a, b = (
        np.sum(panel.champion.total, axis=(1, 2)) / n_a,
        np.sum(panel.challenger.total, axis=(1, 2)) / n_b_all,
    )
    z = (b - a) / np.sqrt(a * (1 - a) / n_a + b * (1 - b) / n_b_all)
    assert Share.of(z < -2.326).surely_at_least(0.95)


def test_a_lower_better_metric_mirrors_every_world() -> None:
    """Negated revenue under `better: lower` meets the same fates as revenue under `better: higher`."""
    worlds = fresh_revenue(18, 500, FLAT, FIXED, 0.03)
    a, b = (ArmSums(arm.n, -arm.total, arm.squares) for arm in (worlds.champion, worlds.challenger))
    negated = Worlds(a, b)
    assert play(worlds, Kind.CONTINUOUS) == play(negated, Kind.CONTINUOUS, better=Better.LOWER)


@pytest.mark.parametrize("lift", [-0.2, 0.0, 0.2])
@pytest.mark.parametrize("sticky", [False, True])
def test_arrays_of_worlds_meet_the_fate_that_judge_decides(lift: float, sticky: bool) -> None:
    """A world judged day by day with `judge`, `extend` and `decide` ends as it does among arrays of
    worlds."""
    size = 4
    worlds = returning(19, size, Kind.BINARY, lift) if sticky else fresh_binary(19, size, FLAT, RAMP, lift)
    fates = [_fate(worlds, world) for world in range(size)]
    fate = play(worlds, Kind.BINARY)
    assert fate.promoted.value == fates.count(Action.STEP) / size
    assert fate.rolled_back.value == fates.count(Action.ROLLBACK) / size


def _fate(worlds: Worlds, world: int) -> Action:
    strata = tuple(_strata(worlds, world))
    streak, metric = Streak(), Metric("conversion", Kind.BINARY)
    for day in range(1, DAYS + 1):
        evidence = Evidence(strata[:day], ArmCounts(), ArmCounts(), metric, worlds.sticky)
        verdict = judge(evidence, POLICY).verdict
        assert verdict is not Verdict.ERROR
        streak = extend(streak, verdict)
        action = decide(POLICY, streak, verdict, day)
        if action is not Action.HOLD:
            return action
    raise AssertionError("a world must end at its horizon")


def _strata(worlds: Worlds, world: int) -> Iterator[Stratum]:
    for day in range(DAYS):
        arms = (_buckets(worlds.champion, world, day), _buckets(worlds.challenger, world, day))
        yield Stratum(Day(day, day + 1, str(day)), 0, *arms)


def _buckets(arm: ArmSums, world: int, day: int) -> dict[int, Sums]:
    rows = zip(arm.n[world, day], arm.total[world, day], arm.squares[world, day], strict=True)
    return {bucket: Sums(int(n), float(y), float(yy)) for bucket, (n, y, yy) in enumerate(rows) if n}


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", FRESH)
@pytest.mark.parametrize("traffic", TRAFFIC)
def test_identical_arms_are_rarely_promoted_in_many_worlds(kind: Kind, traffic: str) -> None:
    """As above, in 20,000 worlds, whose own estimate must not exceed 5 %."""
    assert play(FRESH[kind](21, 20_000, *TRAFFIC[traffic], 0.0), kind).promoted.value <= 0.05


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", FRESH)
def test_worse_and_better_arms_in_many_worlds(kind: Kind) -> None:
    """In 20,000 worlds: at most 0.5 % of worse arms promoted, and about 0.9 of arms better by the
    detectable effect."""
    worse = play(FRESH[kind](22, 20_000, FLAT, FIXED, -detectable(kind) / 2), kind)
    assert worse.promoted.value <= 0.005
    better = play(FRESH[kind](23, 20_000, FLAT, FIXED, detectable(kind)), kind)
    assert better.promoted.surely_at_least(0.9)


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("kind", FRESH)
def test_returning_users_in_many_worlds(kind: Kind) -> None:
    """In 20,000 worlds of returning users, at most 5 % of identical challengers are promoted."""
    fates = [play(returning(seed, 1_000, kind, 0.0), kind).promoted.value for seed in range(100, 120)]
    assert np.mean(fates) <= 0.05
