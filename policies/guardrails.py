"""Does a challenger do harm now? A test that may be looked at as often as one likes, within one epoch.

Harm is a relative worsening of a binary metric beyond a limit. Only events count (errors, or conversions
that fail to come): given that one fell on either arm, the shares say with which probability it was which,
so the base rate may move as it will.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import NamedTuple

import numpy as np
from scipy import special

from policies.quadrature import Array, Real
from policies.rollups import Sums
from policies.spec import Guardrail
from policies.types import Better

_LARGEST_LOG = 690.0


@dataclass(frozen=True, slots=True)
class GuardrailReading:
    """What a guardrail says. `breached` needs `e_value` ≥ `limit` and `enough` values of the challenger."""

    metric: str
    e_value: float
    limit: float
    breached: bool
    enough: bool
    champion_rate: float | None
    challenger_rate: float | None


class Cohort(NamedTuple):
    """Cumulative sums of a binary metric, of decisions that were drawn by these shares (bp)."""

    champion: Sums
    challenger: Sums
    champion_share_bp: int
    challenger_share_bp: int


def breach(
    guardrail: Guardrail,
    champion: Sums,
    challenger: Sums,
    champion_share_bp: int,
    challenger_share_bp: int,
    better: Better = Better.LOWER,
) -> GuardrailReading:
    """Read a guardrail over one allocation epoch's cumulative sums of a binary metric.

    With `better: lower` the null is rate_B ≤ (1 + δ)·rate_A, δ the limit. Then an event on either arm is
    B's with probability at most θ₀ = s_B(1 + δ)/(s_A + s_B(1 + δ)), s the arms' shares: those configured,
    or those observed where they give a greater θ₀. With `better: higher` the null is rate_A ≤ (1 +
    δ)·rate_B, and the arms change places: it is the champion's surplus of conversions that counts.

    The e-value exceeds 1/(1 − confidence) at any of infinitely many looks with probability at most 1 −
    confidence (Ville). Assumes decisions that are drawn independently; a sticky unit that fails often
    counts each time.
    """
    cohort = Cohort(champion, challenger, champion_share_bp, challenger_share_bp)
    e_value = _e_value(guardrail, cohort, better)
    return _reading(guardrail, e_value, champion, challenger)


def breach_in(
    guardrail: Guardrail, cohorts: Sequence[Cohort], better: Better = Better.LOWER
) -> GuardrailReading:
    """Read a guardrail over cohorts, each drawn by shares of its own, which units keep as shares change.

    Each has its e-value Eₖ as in `breach`, in the order in which they began, as there may be ever more. Of
    the K so far E = Σ Eₖ/k(k + 1) + 1/(K + 1) is one too: the weights sum to 1, and that of the cohorts to
    come stands at the 1 with which they begin. Source: Vovk and Wang, E-values: calibration, combination and
    applications, Annals of Statistics 49, 2021 (weighted means, whatever their dependence).
    """
    e_value = 1 / (len(cohorts) + 1) + sum(
        _e_value(guardrail, cohort, better) / (k * (k + 1)) for k, cohort in enumerate(cohorts, 1)
    )
    champion = sum((cohort.champion for cohort in cohorts), Sums())
    challenger = sum((cohort.challenger for cohort in cohorts), Sums())
    return _reading(guardrail, e_value, champion, challenger)


def _reading(guardrail: Guardrail, e_value: float, champion: Sums, challenger: Sums) -> GuardrailReading:
    limit = round(1 / (1 - guardrail.confidence), 9)
    enough = challenger.n >= guardrail.min_events
    return GuardrailReading(
        metric=guardrail.metric,
        e_value=e_value,
        limit=limit,
        breached=enough and e_value >= limit,
        enough=enough,
        champion_rate=champion.mean if champion.n else None,
        challenger_rate=challenger.mean if challenger.n else None,
    )


def _e_value(guardrail: Guardrail, cohort: Cohort, better: Better) -> float:
    champion, challenger = cohort.champion, cohort.challenger
    if better is Better.LOWER:
        suspect, reference = challenger, champion
        shares = cohort.challenger_share_bp, cohort.champion_share_bp
    else:
        suspect, reference = champion, challenger
        shares = cohort.champion_share_bp, cohort.challenger_share_bp
    odds = odds_of_traffic(shares, suspect.n, reference.n) * (1 + guardrail.max_relative_increase)
    return exp(min(float(log_e_value(suspect.total, reference.total, odds)), _LARGEST_LOG))


def odds_of_traffic(shares_bp: tuple[int, int], suspect: Real, reference: Real) -> Array:
    """The odds that a decision is the suspect's and not the reference's, by share or as seen: the greater.

    Infinite without traffic of the reference.
    """
    shares, seen = np.asarray(shares_bp, dtype=np.float64), np.asarray([suspect, reference], dtype=np.float64)
    return np.maximum(_odds(shares[0], shares[1]), _odds(seen[0], seen[1]))


def log_e_value(hits: Real, misses: Real, odds: Array) -> Array:
    """The log of the e-value against "an event is the suspect's with odds of at most `odds`".

    E = ∫_{θ₀}^1 θʰ(1 − θ)ᵐ dθ / ((1 − θ₀) θ₀ʰ(1 − θ₀)ᵐ), θ₀ = odds/(1 + odds): the likelihood ratio of h
    hits and m misses, mixed over a uniform θ > θ₀. It is a martingale at θ₀ and a supermartingale below. 0
    where the odds are infinite. References: Robbins, Statistical methods related to the law of the iterated
    logarithm (1970); Ramdas et al., Game-theoretic statistics and safe anytime-valid inference (2023).
    """
    known = np.isfinite(odds) & (odds > 0)
    odds = np.where(known, odds, 1.0)
    theta = odds / (1 + odds)
    tail = np.asarray(special.betaincc(hits + 1, misses + 1, theta))
    log_tail = np.log(tail, out=np.full(tail.shape, -np.inf), where=tail > 0)
    mixed = special.betaln(hits + 1, misses + 1) + log_tail + np.log1p(odds)
    return np.where(known, mixed - hits * np.log(theta) + misses * np.log1p(odds), 0.0)


def _odds(first: Array, second: Array) -> Array:
    return np.asarray(np.divide(first, second, out=np.full(np.shape(first), np.inf), where=second > 0))
