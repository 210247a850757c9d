"""Does a challenger do harm now? A test that may be looked at as often as one likes, within one epoch.

Harm is a relative worsening of a binary metric beyond a limit. Only events count (errors, or conversions
that fail to come): given that one fell on either arm, the shares say with which probability it was which,
so the base rate may move as it will.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log, log1p

import numpy as np
from scipy import special

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
    delta = guardrail.max_relative_increase
    if better is Better.LOWER:
        suspect, reference, shares = challenger, champion, (challenger_share_bp, champion_share_bp)
    else:
        suspect, reference, shares = champion, challenger, (champion_share_bp, challenger_share_bp)
    odds = max(_share_odds(*shares), _share_odds(suspect.n, reference.n)) * (1 + delta)
    e_value = exp(min(log_e_value(suspect.total, suspect.total + reference.total, odds), _LARGEST_LOG))
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


def log_e_value(hits: float, events: float, odds: float) -> float:
    """The log of the e-value against "an event is a hit with probability at most θ₀ = odds/(1 + odds)".

    E = ∫_{θ₀}^1 θᵏ(1 − θ)ⁿ⁻ᵏ dθ / ((1 − θ₀) θ₀ᵏ(1 − θ₀)ⁿ⁻ᵏ): the likelihood ratio, mixed over a uniform θ >
    θ₀, of k hits in n events. A martingale at θ₀, a supermartingale below it. Reference: Robbins,
    Statistical methods related to the law of the iterated logarithm (1970); Ramdas et al., Game-theoretic
    statistics and safe anytime-valid inference (2023). −∞ where it underflows; 0 for infinite odds.
    """
    if not odds < np.inf or odds <= 0:
        return 0.0
    misses = events - hits
    theta = odds / (1 + odds)
    upper = float(special.betaincc(hits + 1, misses + 1, theta))
    if upper == 0:
        return -np.inf
    mixed = float(special.betaln(hits + 1, misses + 1)) + log(upper) + log1p(odds)
    return mixed - hits * log(theta) + misses * log1p(odds)


def _share_odds(suspect: float, reference: float) -> float:
    """The odds that traffic is the suspect's; 0, which decides nothing, without any."""
    if suspect <= 0:
        return 0.0
    return suspect / reference if reference > 0 else np.inf
