"""How much better or worse is the challenger's mean, with what standard error? Stratified by day and epoch.

Arrays run over (…, strata, buckets): leading axes, if any, are worlds of a simulation, estimated by the
same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from policies.errors import CannotJudge
from policies.quadrature import Array, Real
from policies.rollups import Stratum, Sums
from routing.bucketing import UNIT_BUCKETS

MINIMUM_DAYS = 3
"""Fewer days say nothing about how days differ."""

MINIMUM_BUCKETS = 10
"""Fewer hash buckets with units say nothing about how units differ."""

_ROUNDING = 1e-9
"""A standard error below this part of the means is what rounding leaves of values that are all equal."""


@dataclass(frozen=True, slots=True)
class ArmSums:
    """One arm's n, Σy and Σy², each of shape (…, strata, buckets)."""

    n: Array
    total: Array
    squares: Array


@dataclass(frozen=True, slots=True)
class Panel:
    """Both arms' sums, and the day (0, 1, …, every one present) that each stratum belongs to.

    `sticky`: a unit keeps its arm over days, so that the buckets of the last axis are independent and
    strata are not.
    """

    champion: ArmSums
    challenger: ArmSums
    day: NDArray[np.intp]
    sticky: bool


@dataclass(frozen=True, slots=True)
class Effect:
    """Challenger minus champion, in the metric's units, over `days` distinct days.

    The arms' means are standardised with the weights of the effect, so their difference is the effect;
    their errors are sampling noise alone.
    """

    days: int
    mean: Real
    standard_error: Real
    champion_mean: Real
    challenger_mean: Real
    champion_error: Real
    challenger_error: Real

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return self.days - 1


@dataclass(frozen=True, slots=True)
class _Arm:
    """Per stratum: n, mean, and the variance of that mean."""

    n: Array
    mean: Array
    variance: Array


def effect(strata: Sequence[Stratum], sticky: bool) -> Effect:
    """The stratified effect of a challenger over closed, mature days.

    Raises:
        CannotJudge: `few_days`, `few_units` (sticky routes), or `no_spread` (every value equal).
    """
    days = len({stratum.day for stratum in strata})
    if days < MINIMUM_DAYS:
        raise CannotJudge("few_days", f"{MINIMUM_DAYS} mature days with both arms are needed, got {days}")
    panel = _panel(strata, sticky)
    buckets = int(np.count_nonzero(np.sum(panel.champion.n + panel.challenger.n, axis=-2)))
    if sticky and buckets < MINIMUM_BUCKETS:
        raise CannotJudge("few_units", f"{MINIMUM_BUCKETS} hash buckets with units are needed, got {buckets}")
    found = estimate(panel)
    size = np.maximum(np.abs(found.champion_mean), np.abs(found.challenger_mean))
    if found.standard_error <= _ROUNDING * size:
        raise CannotJudge("no_spread", "values that are all equal show no spread to judge by")
    return found


def estimate(panel: Panel) -> Effect:
    """Combine the strata's differences d_s = ȳ_B − ȳ_A with weights w_s = n_A n_B/(n_A + n_B).

    θ = Σ w_s d_s / W, W = Σ w_s. Its variance is the largest of
      - within strata: Σ w_s² (s²_A/n_A + s²_B/n_B) / W²,
      - between days: Σ W_t (D_t − θ)² / ((T − 1) W), with D_t the same mean within day t of T,
      - sticky routes: (G − 1)/G Σ (θ₋g − θ)², leaving out each of G hash buckets of units in turn.
    Assumes that arms were drawn with constant shares within a stratum, and that days (buckets) are
    independent. References: Mantel & Haenszel (1959) for the weights, Birge (1932) for scaling by the spread
    between days, Shao & Tu, The Jackknife and Bootstrap (1995), 2.3, for leaving out groups.
    """
    champion, challenger = _arm(panel.champion), _arm(panel.challenger)
    weight = _ratio(champion.n * challenger.n, champion.n + challenger.n)
    share = _ratio(weight, np.sum(weight, axis=-1, keepdims=True))
    difference = challenger.mean - champion.mean
    mean = np.sum(share * difference, axis=-1)
    of_champion = np.sum(share**2 * champion.variance, axis=-1)
    of_challenger = np.sum(share**2 * challenger.variance, axis=-1)
    variance = np.maximum(of_champion + of_challenger, _between_days(share, difference, mean, panel.day))
    if panel.sticky:
        variance = np.maximum(variance, _between_buckets(panel, mean))
    return Effect(
        days=int(panel.day[-1]) + 1,
        mean=mean,
        standard_error=np.sqrt(variance),
        champion_mean=np.sum(share * champion.mean, axis=-1),
        challenger_mean=np.sum(share * challenger.mean, axis=-1),
        champion_error=np.sqrt(of_champion),
        challenger_error=np.sqrt(of_challenger),
    )


def _between_days(share: Array, difference: Array, mean: Array, day: NDArray[np.intp]) -> Array:
    starts = np.flatnonzero(np.diff(day, prepend=-1))
    of_day = np.add.reduceat(share, starts, axis=-1)
    day_mean = _ratio(np.add.reduceat(share * difference, starts, axis=-1), of_day)
    return np.asarray(np.sum(of_day * (day_mean - mean[..., None]) ** 2, axis=-1) / (len(starts) - 1))


def _between_buckets(panel: Panel, mean: Array) -> Array:
    """The jackknife's variance. A bucket without units leaves the effect as it is, and counts for nothing."""
    n_a, mean_a = _without_each(panel.champion)
    n_b, mean_b = _without_each(panel.challenger)
    weight = _ratio(n_a * n_b, n_a + n_b)
    all_weight = np.sum(weight, axis=-2)
    without = _ratio(np.sum(weight * (mean_b - mean_a), axis=-2), all_weight)
    moved = np.where(all_weight > 0, without - mean[..., None], 0.0)
    groups = np.count_nonzero(np.sum(panel.champion.n + panel.challenger.n, axis=-2), axis=-1)
    return np.asarray((groups - 1) / np.maximum(groups, 1) * np.sum(moved**2, axis=-1))


def _without_each(arm: ArmSums) -> tuple[Array, Array]:
    """Per stratum, n and mean of the arm without each bucket."""
    n = np.sum(arm.n, axis=-1, keepdims=True) - arm.n
    return n, _ratio(np.sum(arm.total, axis=-1, keepdims=True) - arm.total, n)


def _arm(sums: ArmSums) -> _Arm:
    """An arm's strata. One with a single value has no variance of its own, and takes the arm's mean one."""
    n, total, squares = (np.sum(values, axis=-1) for values in (sums.n, sums.total, sums.squares))
    mean = _ratio(total, n)
    around = np.maximum(squares - total * mean, 0)
    own = np.maximum(n - 1, 0)
    typical = _ratio(np.sum(around, axis=-1, keepdims=True), np.sum(own, axis=-1, keepdims=True))
    spread = np.where(own > 0, _ratio(around, own), typical)
    return _Arm(n, mean, _ratio(spread, n))


def _ratio(top: Array, bottom: Array) -> Array:
    """The quotient, 0 where the divisor is."""
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    return np.divide(top, bottom, out=np.zeros(shape), where=np.broadcast_to(bottom, shape) > 0)


def _panel(strata: Sequence[Stratum], sticky: bool) -> Panel:
    ordered = sorted(strata, key=lambda stratum: (stratum.day, stratum.epoch))
    starts = sorted({stratum.day for stratum in ordered})
    return Panel(
        champion=_sums([stratum.champion for stratum in ordered], sticky),
        challenger=_sums([stratum.challenger for stratum in ordered], sticky),
        day=np.array([starts.index(stratum.day) for stratum in ordered], dtype=np.intp),
        sticky=sticky,
    )


def _sums(strata: Sequence[Mapping[int, Sums]], sticky: bool) -> ArmSums:
    cells = np.zeros((3, len(strata), UNIT_BUCKETS if sticky else 1))
    for row, buckets in enumerate(strata):
        for bucket, sums in buckets.items():
            cells[:, row, bucket if sticky else 0] += (sums.n, sums.total, sums.squares)
    return ArmSums(*cells)
