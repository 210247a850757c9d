"""Where does the relative difference (B − A)/|A| of two means lie? Its interval, from their posteriors."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, expm1, log

import numpy as np

from policies.posterior import Beta, Gamma, StudentT, chance_above
from policies.quadrature import crossing

_WIDER = 0.99
"""The level of the two arms' own intervals that bracket a quantile of their lift, up to a level of 0.96."""

_SIGN_CERTAIN = 1e-9
_LARGEST_LIFT = 1e12


def lift_of_betas(a: Beta, b: Beta, level: float) -> tuple[float, float]:
    """Where P(B/A ≤ r) reaches each tail, minus 1.

    It is ∫ F_B(rx) dF_A(x), or ∫ (1 − F_A(x/r)) dF_B(x), by quadrature over the relatively narrower.
    """
    over_a = a.relative_width <= b.relative_width
    over = (a if over_a else b).nodes()

    def chance(log_of_ratio: float) -> float:
        ratio = exp(log_of_ratio)
        return over.expectation(b.below(over.at * ratio) if over_a else a.above(over.at / ratio))

    (a_low, a_high), (b_low, b_high) = a.interval(_WIDER), b.interval(_WIDER)
    low, high = _tails(chance, level, log(b_low / a_high), log(b_high / a_low))
    return expm1(low), expm1(high)


def lift_of_gammas(a: Gamma, b: Gamma, level: float) -> tuple[float, float]:
    """Closed: B/A is rate_A/rate_B · x/(1 − x), where x ~ Beta(shape_B, shape_A)."""
    low, high = Beta(b.shape, a.shape).interval(level)
    scale = a.rate / b.rate
    return scale * low / (1 - low) - 1, scale * high / (1 - high) - 1


def lift_of_students(a: StudentT, b: StudentT, level: float) -> tuple[float, float]:
    """Where P((B − A)/|A| ≤ r) reaches each tail.

    Where A's sign s is certain to 1e-9 this is P(B ≤ (1 + sr)A), by quadrature over the narrower. Else it is
    ∫ F_B(x + r|x|) dF_A(x), over A alone: good to 0.002 in probability even where B is by far the narrower.
    """
    wrong_sign = min(float(a.below(0.0)), float(a.above(0.0)))
    if wrong_sign <= _SIGN_CERTAIN:
        return _tails(_certain(a, b), level, *_corners(a, b))
    return _tails(_uncertain(a, b), level, -_LARGEST_LIFT, _LARGEST_LIFT)


def _certain(a: StudentT, b: StudentT) -> Callable[[float], float]:
    sign = float(np.sign(a.loc))

    def chance(lift: float) -> float:
        factor = 1 + sign * lift
        return chance_above(StudentT(a.df, factor * a.loc, abs(factor) * a.scale), b)

    return chance


def _uncertain(a: StudentT, b: StudentT) -> Callable[[float], float]:
    over = a.nodes()
    return lambda lift: over.expectation(b.below(over.at + lift * np.abs(over.at)))


def _corners(a: StudentT, b: StudentT) -> tuple[float, float]:
    """The least and the greatest lift between points of the two arms' intervals."""
    lifts = [(y - x) / abs(x) for x in a.interval(_WIDER) for y in b.interval(_WIDER)]
    return min(lifts), max(lifts)


def _tails(chance: Callable[[float], float], level: float, low: float, high: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    return crossing(chance, tail, low, high), crossing(chance, 1 - tail, low, high)
