"""Has a challenger earned its next step? The verdict of one closed day, the streak of verdicts, what follows.

Evidence accumulates over the whole rollout, and a ramp step does not reset it. Where on the ramp a rollout
stands, its bake time and approvals are the lifecycle's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

from policies.comparison import LEVEL, Interval
from policies.days import Day
from policies.errors import CannotJudge
from policies.estimates import Effect, effect
from policies.health import health_problem
from policies.metrics import Metric
from policies.posterior import StudentT
from policies.quadrature import Array, Real
from policies.rollups import ArmCounts, Stratum, Sums, pooled
from policies.spec import Policy
from policies.types import Action, Better, Kind, Verdict

Yes: TypeAlias = NDArray[np.bool_]
"""Whether; one per world where the effect holds arrays."""

LONGEST_FREEZE = 3
"""Days without a verdict that a streak survives."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a judgement rests on: strata of closed, mature days, and counts of decisions in the same epochs.

    `challengers`: how many are judged against this champion at once; the threshold is corrected for them.
    `day`: the day that is judged. Without values of both arms on it there is no verdict, however strong the
    evidence of earlier days: a streak is not made of silence. None: the newest day of the strata.
    """

    strata: tuple[Stratum, ...]
    champion: ArmCounts
    challenger: ArmCounts
    metric: Metric
    sticky: bool
    challengers: int = 1
    day: Day | None = None


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """An arm's analysed values and standardised mean, with a 95 % interval for sampling noise alone."""

    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, in a sentence and in numbers; None where there is no honest number.

    `lift` is (challenger − champion)/|champion|, with the champion's mean taken as known; `expected_loss`
    that of choosing the challenger, `allowed_loss` its bound, both in the metric's units.
    """

    verdict: Verdict
    reason: str
    days: int
    threshold: float
    chance_to_beat: float | None = None
    chance_worse: float | None = None
    expected_loss: float | None = None
    allowed_loss: float | None = None
    lift: Interval | None = None
    champion: ArmEstimate | None = None
    challenger: ArmEstimate | None = None


@dataclass(frozen=True, slots=True)
class Odds:
    """What the posterior of the effect says; one number per world where the effect holds arrays.

    `enough`: P(better by at least the minimum effect); `better`, `worse`: P(better at all), P(worse at all).
    """

    enough: Array
    better: Array
    worse: Array
    expected_loss: Array
    allowed_loss: Real

    def win(self, threshold: float) -> Yes:
        """Likely enough to be better, and little to lose if not."""
        return np.asarray((self.enough > threshold) & (self.expected_loss <= self.allowed_loss))

    def lose(self, threshold: float) -> Yes:
        """Likely enough to be worse."""
        return np.asarray(self.worse > threshold)


@dataclass(frozen=True, slots=True)
class Streak:
    """Consecutive winning or losing verdicts, and how many days they have been frozen for want of one."""

    winning: int = 0
    losing: int = 0
    frozen: int = 0


def threshold_for(policy: Policy, challengers: int) -> float:
    """The chance that a win must exceed: 1 − (1 − confidence)/K for K challengers (Bonferroni)."""
    return 1 - (1 - policy.confidence) / challengers


def odds_of(effect: Effect, better: Better, policy: Policy) -> Odds:
    """The posterior of the effect is Student-t with days − 1 degrees of freedom around its mean.

    The minimum effect and the allowed loss are relative to |champion's mean|, which is taken as known.
    """
    sign = 1 if better is Better.HIGHER else -1
    gain = StudentT(effect.df, sign * effect.mean, effect.standard_error)
    loss = StudentT(effect.df, -sign * effect.mean, effect.standard_error)
    size = np.abs(effect.champion_mean)
    return Odds(
        enough=gain.above(policy.minimum_effect * size),
        better=gain.above(0.0),
        worse=gain.below(0.0),
        expected_loss=loss.excess(0.0),
        allowed_loss=policy.max_expected_loss * size,
    )


def judge(evidence: Evidence, policy: Policy) -> Judgement:
    """The verdict of the newest mature day, on all the evidence of the rollout. Raises for nothing in it.

    In this order: unhealthy, insufficient_data, win, lose, tie (the 95 % interval lies inside ±
    minimum_effect), inconclusive; error where the numbers fail.
    """
    blank = Judgement(
        verdict=Verdict.INSUFFICIENT_DATA,
        reason="",
        days=len({stratum.day for stratum in evidence.strata}),
        threshold=threshold_for(policy, evidence.challengers),
    )
    if problem := health_problem(evidence.champion, evidence.challenger, policy.min_samples):
        return replace(blank, verdict=Verdict.UNHEALTHY, reason=problem)
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            return _judged(evidence, policy, blank)
    except CannotJudge as error:
        return replace(blank, reason=str(error))
    except ArithmeticError as error:
        return replace(blank, verdict=Verdict.ERROR, reason=f"the numbers could not be judged: {error}")


def _judged(evidence: Evidence, policy: Policy, blank: Judgement) -> Judgement:
    _require_that_day(evidence)
    champion = _total(evidence, lambda stratum: pooled(stratum.champion))
    challenger = _total(evidence, lambda stratum: pooled(stratum.challenger))
    _require_samples(evidence.metric, policy, champion, challenger)
    found = effect(evidence.strata, evidence.sticky)
    odds = odds_of(found, evidence.metric.better, policy)
    _require_finite(found, odds)
    numbers = replace(
        blank,
        chance_to_beat=float(odds.better),
        chance_worse=float(odds.worse),
        expected_loss=float(odds.expected_loss),
        allowed_loss=float(odds.allowed_loss),
        lift=_lift(found),
        champion=_arm(evidence.metric, champion.n, found.champion_mean, found.champion_error),
        challenger=_arm(evidence.metric, challenger.n, found.challenger_mean, found.challenger_error),
    )
    verdict = _verdict(odds, numbers, policy)
    return replace(numbers, verdict=verdict, reason=_sentence(verdict, odds, numbers, policy))


def _total(evidence: Evidence, side: Callable[[Stratum], Sums]) -> Sums:
    return sum((side(stratum) for stratum in evidence.strata), Sums())


def _require_that_day(evidence: Evidence) -> None:
    day = evidence.day
    if day is not None and all(stratum.day != day for stratum in evidence.strata):
        raise CannotJudge("no_data", f"both arms need values on day {day.label}, at least one has none")


def _require_samples(metric: Metric, policy: Policy, champion: Sums, challenger: Sums) -> None:
    for name, sums in (("champion", champion), ("challenger", challenger)):
        if sums.n < policy.min_samples:
            raise CannotJudge("few_samples", f"the {name} needs {policy.min_samples} samples, got {sums.n}")
        if metric.kind is Kind.BINARY and sums.total < policy.min_conversions:
            bound = f"the {name} needs {policy.min_conversions} conversions"
            raise CannotJudge("few_conversions", f"{bound}, got {sums.total:g}")


def _require_finite(found: Effect, odds: Odds) -> None:
    for value in (found.mean, found.standard_error, odds.better, odds.expected_loss, odds.allowed_loss):
        if not np.isfinite(value):
            raise FloatingPointError(f"the effect must be finite, got {value}")


def _lift(found: Effect) -> Interval | None:
    size = float(np.abs(found.champion_mean))
    if size == 0:
        return None
    low, high = StudentT(found.df, found.mean, found.standard_error).interval(LEVEL)
    return Interval(float(found.mean) / size, low / size, high / size)


def _arm(metric: Metric, n: int, mean: Real, error: Real) -> ArmEstimate:
    least, most = (0.0, 1.0) if metric.kind is Kind.BINARY else (-np.inf, np.inf)
    centre, reach = float(mean), 1.96 * float(error)
    return ArmEstimate(n, centre, max(least, centre - reach), min(most, centre + reach))


def _verdict(odds: Odds, numbers: Judgement, policy: Policy) -> Verdict:
    if odds.win(numbers.threshold):
        return Verdict.WIN
    if odds.lose(policy.losing_confidence):
        return Verdict.LOSE
    lift, least = numbers.lift, policy.minimum_effect
    if lift is not None and -least < lift.low and lift.high < least:
        return Verdict.TIE
    return Verdict.INCONCLUSIVE


def _sentence(verdict: Verdict, odds: Odds, numbers: Judgement, policy: Policy) -> str:
    """Why this verdict, with the numbers that decided it."""
    asked = f" by at least {policy.minimum_effect:.2%}" if policy.minimum_effect else ""
    chance = f"P(better{asked}) {float(odds.enough):.4f}"
    loss = f"expected loss {float(odds.expected_loss):.3g}"
    over = f"over {numbers.days} days"
    match verdict:
        case Verdict.WIN:
            return f"{chance} > {numbers.threshold:.4f} and {loss} ≤ {float(odds.allowed_loss):.3g} {over}"
        case Verdict.LOSE:
            return f"P(worse) {float(odds.worse):.4f} > {policy.losing_confidence:.4f} {over}"
        case Verdict.TIE:
            return f"the lift's 95 % interval lies within ±{policy.minimum_effect:.2%} {over}"
        case _ if odds.enough > numbers.threshold:
            return f"{chance}, but {loss} > {float(odds.allowed_loss):.3g} {over}"
        case _:
            return f"{chance} ≤ {numbers.threshold:.4f} {over}"


def extend(streak: Streak, verdict: Verdict) -> Streak:
    """The streak after one more day. A day without a verdict freezes it, three days in a row at most."""
    match verdict:
        case Verdict.WIN:
            return Streak(winning=streak.winning + 1)
        case Verdict.LOSE:
            return Streak(losing=streak.losing + 1)
        case Verdict.TIE | Verdict.INCONCLUSIVE:
            return Streak()
        case Verdict.INSUFFICIENT_DATA | Verdict.UNHEALTHY | Verdict.ERROR:
            frozen = streak.frozen + 1
            return replace(streak, frozen=frozen) if frozen <= LONGEST_FREEZE else Streak()
        case _:
            assert_never(verdict)


def decide(policy: Policy, streak: Streak, verdict: Verdict, days: int) -> Action:
    """What the verdict of a day calls for, `streak` already extended by it: rollback, step, end or hold.

    `days` is the number of judged days of the rollout. A step needs a winning day of its own: a frozen
    streak holds.
    """
    if streak.losing >= policy.losing_days:
        return Action.ROLLBACK
    if verdict is Verdict.WIN and streak.winning >= policy.winning_days and days >= policy.minimum_days:
        return Action.STEP
    return Action.END if days >= policy.horizon_days else Action.HOLD
