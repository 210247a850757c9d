"""How do two arms compare on their totals alone? For a person who asks; promotion is judged on strata.

Totals compare arms of one period with constant shares. Over a ramp they mislead; `estimates` does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from policies.errors import BadSpec
from policies.lifts import lift_of_betas, lift_of_gammas, lift_of_students
from policies.posterior import Beta, Gamma, LogRatio, Posterior, StudentT, chance_above, shortfall
from policies.totals import Totals, check_totals, log_ratio, parse_totals, student, within
from policies.types import Better, Kind

LEVEL = 0.95
"""The probability of every interval."""


class PriorName(StrEnum):
    """What is believed before the data: flat, Jeffreys', or Beta(a, b) and Gamma(shape a, rate b)."""

    FLAT = "flat"
    JEFFREYS = "jeffreys"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Prior:
    """A prior; `a` and `b` count only for PriorName.OWN."""

    name: PriorName = PriorName.FLAT
    a: float = 1.0
    b: float = 1.0


FLAT = Prior()


@dataclass(frozen=True, slots=True)
class Interval:
    """A posterior mean (of a ratio: the ratio of the totals) and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Champion against challenger.

    `chance_to_beat`: that the challenger is better. `loss_X`: the expected loss of choosing X, in the
    metric's units. `lift`: (challenger − champion)/|champion|, never mirrored, its mean that of the two
    means; None where the champion's mean is 0.
    """

    chance_to_beat: float
    loss_champion: float
    loss_challenger: float
    lift: Interval | None
    champion: Interval
    challenger: Interval


def parse_prior(text: str) -> Prior:
    """`flat`, `jeffreys` or `a=1,b=1`. Raises BadSpec for anything else."""
    if text in (PriorName.FLAT, PriorName.JEFFREYS):
        return Prior(PriorName(text))
    bound = "must be flat, jeffreys or a=NUMBER,b=NUMBER"
    values = parse_totals(text, "prior", bound)
    if set(values) != {"a", "b"}:
        raise BadSpec("prior", f"{bound}, got {text!r}")
    return Prior(PriorName.OWN, values["a"], values["b"])


def compare(
    kind: Kind, champion: Totals, challenger: Totals, better: Better = Better.HIGHER, prior: Prior = FLAT
) -> Comparison:
    """Compare two arms by their totals (named as in totals.FIELDS).

    Binary: Beta–Binomial, flat = Beta(1, 1). Count: Gamma–Poisson without over-dispersion, flat = shape 1,
    rate 0. Continuous: Normal–Inverse-Gamma under the reference prior, which is also Jeffreys' independence
    prior. Ratio: log-normal by the delta method, flat on the logarithm. `better: lower` mirrors chance and
    losses.

    Raises:
        BadSpec: totals that no data can have, too few of them, or a prior that does not apply to the kind.
    """
    check_totals(kind, champion, "champion")
    check_totals(kind, challenger, "challenger")
    match kind:
        case Kind.BINARY:
            found = _betas(_beta(champion, prior), _beta(challenger, prior))
        case Kind.COUNT:
            found = _gammas(_gamma(champion, prior), _gamma(challenger, prior))
        case Kind.CONTINUOUS:
            _only(prior, kind, PriorName.FLAT, PriorName.JEFFREYS)
            found = _students(student(champion, "champion"), student(challenger, "challenger"))
        case Kind.RATIO:
            _only(prior, kind, PriorName.FLAT)
            found = _ratios(log_ratio(champion, "champion"), log_ratio(challenger, "challenger"))
        case _:
            assert_never(kind)
    return found if better is Better.HIGHER else _mirrored(found)


def _mirrored(found: Comparison) -> Comparison:
    return Comparison(
        chance_to_beat=1 - found.chance_to_beat,
        loss_champion=found.loss_challenger,
        loss_challenger=found.loss_champion,
        lift=found.lift,
        champion=found.champion,
        challenger=found.challenger,
    )


def _only(prior: Prior, kind: Kind, *allowed: PriorName) -> None:
    if prior.name not in allowed:
        raise BadSpec("prior", f"must be {' or '.join(allowed)} for kind {kind}, got {prior.name}")


def _beta(totals: Totals, prior: Prior) -> Beta:
    a, b = _parameters(prior, flat=(1.0, 1.0), jeffreys=(0.5, 0.5), smallest_b=0.1)
    return Beta(a + totals["sum"], b + totals["n"] - totals["sum"])


def _gamma(totals: Totals, prior: Prior) -> Gamma:
    a, b = _parameters(prior, flat=(1.0, 0.0), jeffreys=(0.5, 0.0), smallest_b=0.0)
    return Gamma(a + totals["sum"], b + totals["exposure"])


def _parameters(
    prior: Prior, flat: tuple[float, float], jeffreys: tuple[float, float], smallest_b: float
) -> tuple[float, float]:
    match prior.name:
        case PriorName.FLAT:
            return flat
        case PriorName.JEFFREYS:
            return jeffreys
        case PriorName.OWN:
            within("prior.a", prior.a, 0.1, 1e9)
            within("prior.b", prior.b, smallest_b, 1e9)
            return prior.a, prior.b
        case _:
            assert_never(prior.name)


def _betas(a: Beta, b: Beta) -> Comparison:
    return _comparison(a, b, chance_above(b, a), lift_of_betas(a, b, LEVEL))


def _gammas(a: Gamma, b: Gamma) -> Comparison:
    return _comparison(a, b, b.chance_above(a), lift_of_gammas(a, b, LEVEL))


def _students(a: StudentT, b: StudentT) -> Comparison:
    return _comparison(a, b, chance_above(b, a), lift_of_students(a, b, LEVEL))


def _comparison(a: Posterior, b: Posterior, chance: float, lift: tuple[float, float]) -> Comparison:
    base, other = float(a.mean), float(b.mean)
    return Comparison(
        chance_to_beat=chance,
        loss_champion=shortfall(a, b),
        loss_challenger=shortfall(b, a),
        lift=Interval((other - base) / abs(base), *lift) if base else None,
        champion=Interval(base, *a.interval(LEVEL)),
        challenger=Interval(other, *b.interval(LEVEL)),
    )


def _ratios(a: LogRatio, b: LogRatio) -> Comparison:
    return Comparison(
        chance_to_beat=b.chance_above(a),
        loss_champion=a.shortfall(b),
        loss_challenger=b.shortfall(a),
        lift=Interval(b.median / a.median - 1, *b.lift_over(a, LEVEL)),
        champion=Interval(a.median, *a.interval(LEVEL)),
        challenger=Interval(b.median, *b.interval(LEVEL)),
    )
