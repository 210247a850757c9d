"""A verdict needs all that the rule asks for, says why in numbers, and a streak is made of verdicts alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from policies.days import Day
from policies.estimates import Effect
from policies.metrics import Metric
from policies.promotion import Evidence, Judgement, Streak, decide, extend, judge, odds_of, threshold_for
from policies.rollups import ArmCounts, Stratum, Sums
from policies.spec import Policy
from policies.types import Action, Better, Kind, Verdict

POLICY = Policy()
REVENUE = Metric("revenue", Kind.CONTINUOUS)
CONVERSION = Metric("conversion", Kind.BINARY)
HEALTHY = ArmCounts(decisions=1_000, served=1_000, labelled=900)


def spread(n: int, mean: float, variance: float) -> Sums:
    """Sums with this mean and this sample variance."""
    return Sums(n, n * mean, n * mean**2 + (n - 1) * variance)


def evidence(
    lifts: Sequence[float],
    n: int = 100,
    variance: float = 1.0,
    metric: Metric = REVENUE,
    challengers: int = 1,
) -> Evidence:
    """One day per lift over a champion's mean of 10, with n values of each arm a day."""
    days = tuple(
        on(day, spread(n, 10.0, variance), spread(n, 10.0 * (1 + lift), variance))
        for day, lift in enumerate(lifts)
    )
    return Evidence(days, HEALTHY, HEALTHY, metric, sticky=False, challengers=challengers)


def conversions(days: int, n: int, champion: int, challenger: int) -> Evidence:
    """So many days with n decisions and so many conversions of each arm."""
    arms = Sums(n, champion, champion), Sums(n, challenger, challenger)
    strata = tuple(on(day, *arms) for day in range(days))
    return Evidence(strata, HEALTHY, HEALTHY, CONVERSION, sticky=False)


def on(day: int, champion: Sums, challenger: Sums) -> Stratum:
    """A day without buckets."""
    return Stratum(Day(day, day + 1, str(day)), 1, {0: champion}, {0: challenger})


BETTER = evidence([0.05, 0.06, 0.05, 0.06])
WORSE = evidence([-0.05, -0.06, -0.05, -0.06])
EVEN = evidence([0.001, -0.001, 0.001, -0.001])
UNSURE = evidence([0.05, -0.04, 0.05, -0.04])


@pytest.mark.parametrize(
    ("confidence", "challengers", "threshold"),
    [(0.975, 1, 0.975), (0.975, 2, 0.9875), (0.95, 5, 0.99), (0.99, 10, 0.999)],
)
def test_the_threshold_is_divided_among_challengers(
    confidence: float, challengers: int, threshold: float
) -> None:
    """Bonferroni: 1 − (1 − confidence)/K."""
    assert threshold_for(Policy(confidence=confidence), challengers) == pytest.approx(threshold)


def found(mean: float, error: float, days: int) -> Effect:
    """An effect upon a champion's mean of −4."""
    return Effect(days, mean, error, -4.0, -4.0 + mean, 0.1, 0.1)


@pytest.mark.parametrize(("mean", "error", "days"), [(0.3, 0.2, 3), (-0.1, 0.05, 7), (0.01, 1.0, 30)])
def test_odds_agree_with_students_t(mean: float, error: float, days: int) -> None:
    """P and expected loss are those of a t distribution with days − 1 degrees of freedom; bounds are relative
    to the size of the champion's mean."""
    policy = Policy(minimum_effect=0.02, max_expected_loss=0.01)
    reference = stats.t(days - 1, mean, error)
    odds = odds_of(found(mean, error, days), Better.HIGHER, policy)
    assert odds.enough == pytest.approx(reference.sf(0.02 * 4))
    assert odds.better == pytest.approx(reference.sf(0))
    assert odds.worse == pytest.approx(reference.cdf(0))
    loss, _ = integrate.quad(lambda x: -x * reference.pdf(x), -np.inf, 0)
    assert odds.expected_loss == pytest.approx(loss, rel=1e-5)
    assert odds.allowed_loss == pytest.approx(0.04)


def test_a_lower_better_metric_is_judged_from_the_other_side() -> None:
    """An effect of −0.3 is to `lower` what +0.3 is to `higher`."""
    higher = odds_of(found(0.3, 0.2, 9), Better.HIGHER, POLICY)
    lower = odds_of(found(-0.3, 0.2, 9), Better.LOWER, POLICY)
    assert (lower.enough, lower.worse, lower.expected_loss) == (
        higher.enough,
        higher.worse,
        higher.expected_loss,
    )


VERDICTS = [
    (
        replace(BETTER, challenger=replace(HEALTHY, served=940)),
        POLICY,
        Verdict.UNHEALTHY,
        "the challenger served 94.0% of its decisions, at least 95% are needed",
    ),
    (
        replace(BETTER, challenger=replace(HEALTHY, labelled=700)),
        POLICY,
        Verdict.UNHEALTHY,
        "90.0% of the champion's decisions have a value, but 70.0% of the challenger's",
    ),
    (
        Evidence((), HEALTHY, HEALTHY, REVENUE, sticky=False),
        POLICY,
        Verdict.INSUFFICIENT_DATA,
        "the champion needs 100 samples, got 0",
    ),
    (
        replace(BETTER, strata=BETTER.strata[:2]),
        POLICY,
        Verdict.INSUFFICIENT_DATA,
        "3 mature days with both arms are needed, got 2",
    ),
    (
        replace(BETTER, day=Day(9, 10, "9")),
        POLICY,
        Verdict.INSUFFICIENT_DATA,
        "both arms need values on day 9, at least one has none",
    ),
    (
        conversions(3, 1_000, 40, 33),
        POLICY,
        Verdict.INSUFFICIENT_DATA,
        "the challenger needs 100 conversions, got 99",
    ),
    (
        evidence([0.0, 0.0, 0.0], variance=0.0),
        POLICY,
        Verdict.INSUFFICIENT_DATA,
        "values that are all equal show no spread to judge by",
    ),
    (BETTER, POLICY, Verdict.WIN, r"P\(better\) 0.9\d+ > 0.9750 and expected loss \S+ ≤ 0.05 over 4 days"),
    (
        BETTER,
        Policy(minimum_effect=0.02),
        Verdict.WIN,
        r"P\(better by at least 2.00%\) 0.9\d+ > 0.9750 and .* over 4 days",
    ),
    (WORSE, POLICY, Verdict.LOSE, r"P\(worse\) 0.9\d+ > 0.9900 over 4 days"),
    (
        EVEN,
        Policy(minimum_effect=0.05),
        Verdict.TIE,
        r"the lift's 95 % interval lies within ±5.00% over 4 days",
    ),
    (EVEN, POLICY, Verdict.INCONCLUSIVE, r"P\(better\) 0.5000 ≤ 0.9750 over 4 days"),
    (UNSURE, POLICY, Verdict.INCONCLUSIVE, r"P\(better\) 0.\d+ ≤ 0.9750 over 4 days"),
    (
        BETTER,
        Policy(max_expected_loss=0.0),
        Verdict.INCONCLUSIVE,
        r"P\(better\) 0.9\d+, but expected loss \S+ > 0 over 4 days",
    ),
    (
        replace(BETTER, strata=(*BETTER.strata, on(9, Sums(100, inf, inf), Sums(100, 1.0, 1.0)))),
        POLICY,
        Verdict.ERROR,
        "the numbers could not be judged: ",
    ),
    (
        replace(BETTER, strata=(*BETTER.strata, on(9, Sums(100, nan, nan), Sums(100, 1.0, 1.0)))),
        POLICY,
        Verdict.ERROR,
        "the numbers could not be judged: the effect must be finite, got nan",
    ),
]


@pytest.mark.parametrize(("given_evidence", "policy", "verdict", "reason"), VERDICTS)
def test_every_verdict_names_its_numbers(
    given_evidence: Evidence, policy: Policy, verdict: Verdict, reason: str
) -> None:
    """Each verdict comes with a sentence that holds the number and the bound which decided it."""
    judgement = judge(given_evidence, policy)
    assert judgement.verdict is verdict
    assert re.match(reason, judgement.reason), judgement.reason


PRECEDENCE = [Verdict.UNHEALTHY, Verdict.INSUFFICIENT_DATA, Verdict.LOSE, Verdict.TIE, Verdict.INCONCLUSIVE]


def test_the_first_verdict_that_applies_is_given() -> None:
    """Mend one fault after another: unhealthy, then too few values, then worse (though by less than the
    minimum effect), then equal within it, then nothing to say."""
    small = Policy(minimum_effect=0.05)
    slightly_worse = evidence([-0.02, -0.021, -0.02, -0.021], variance=0.1)
    broken = replace(slightly_worse, challenger=replace(HEALTHY, served=900))
    steps = [
        (broken, replace(small, min_samples=500)),
        (slightly_worse, replace(small, min_samples=500)),
        (slightly_worse, small),
        (EVEN, small),
        (EVEN, POLICY),
    ]
    assert [judge(given_evidence, policy).verdict for given_evidence, policy in steps] == PRECEDENCE


def test_few_decisions_are_insufficient_before_they_are_unhealthy() -> None:
    """Of fewer decisions than samples needed nothing is said about health."""
    few = replace(BETTER, challenger=ArmCounts(decisions=99, served=0, labelled=0))
    assert judge(few, POLICY).verdict is Verdict.WIN
    assert judge(replace(few, challenger=ArmCounts(100, 0, 0)), POLICY).verdict is Verdict.UNHEALTHY


def test_a_judgement_carries_what_it_rests_on() -> None:
    """Values, means and intervals of both arms, lift, chances that complement each other, losses, days."""
    judgement = judge(BETTER, POLICY)
    assert judgement.champion is not None
    assert judgement.challenger is not None
    assert judgement.lift is not None
    assert (judgement.champion.n, judgement.challenger.n) == (400, 400)
    assert judgement.champion.mean == pytest.approx(10)
    assert judgement.champion.high - judgement.champion.mean == pytest.approx(1.96 / 20, rel=0.01)
    assert judgement.lift.mean == pytest.approx(0.055)
    assert judgement.lift.low < 0.055 < judgement.lift.high
    assert judgement.chance_to_beat is not None
    assert judgement.chance_worse == pytest.approx(1 - judgement.chance_to_beat)
    assert judgement.allowed_loss == pytest.approx(0.05)
    assert judgement.days == 4


def test_the_chance_of_a_win_is_that_of_a_t_test() -> None:
    """Of the daily differences, one-sided, where days differ by more than sampling noise."""
    lifts = [0.05, 0.02, -0.01, 0.04, 0.03]
    judgement = judge(evidence(lifts, n=100_000), POLICY)
    reference = stats.ttest_1samp(lifts, 0, alternative="greater")
    assert judgement.chance_to_beat == pytest.approx(1 - reference.pvalue)


def test_who_served_changes_no_number() -> None:
    """Fallbacks are a matter of health; the numbers are those of the assigned arms."""
    some = replace(BETTER, challenger=replace(HEALTHY, served=960))
    assert judge(some, POLICY) == judge(BETTER, POLICY)


def test_a_win_over_one_is_not_always_a_win_among_many() -> None:
    """The same evidence must pass a higher threshold where more challengers are judged."""
    alone = evidence([0.05, 0.03, 0.05, 0.03])
    assert judge(alone, POLICY).verdict is Verdict.WIN
    among = judge(replace(alone, challengers=10), POLICY)
    assert among.verdict is Verdict.INCONCLUSIVE
    assert "≤ 0.9975" in among.reason


def test_a_champion_without_a_mean_has_no_lift() -> None:
    """Nothing is relative to 0, but the chances stand, and no loss is allowed."""
    days = tuple(
        on(day, spread(100, 0.0, 1.0), spread(100, mean, 1.0)) for day, mean in enumerate([0.5, 0.6, 0.5])
    )
    judgement = judge(replace(BETTER, strata=days), POLICY)
    assert (judgement.lift, judgement.allowed_loss) == (None, 0)
    assert judgement.chance_to_beat is not None
    assert judgement.chance_to_beat > 0.9


values = st.lists(st.floats(-100, 100), min_size=2, max_size=5)
several = st.lists(st.tuples(values, values), min_size=3, max_size=6)


def judged(days: list[tuple[list[float], list[float]]], sign: int, better: Better) -> Judgement:
    """The judgement of continuous values, or of their negatives, by a policy that takes few."""
    strata = (on(day, of(a, sign), of(b, sign)) for day, (a, b) in enumerate(days))
    metric = Metric("value", Kind.CONTINUOUS, better)
    few = Policy(
        min_samples=1, minimum_effect=0.2, confidence=0.7, losing_confidence=0.7, max_expected_loss=1
    )
    return judge(Evidence(tuple(strata), HEALTHY, HEALTHY, metric, sticky=False), few)


def of(some: list[float], sign: int) -> Sums:
    """The sums of some values, each times the sign."""
    return Sums(len(some), sign * sum(some), sum(value**2 for value in some))


@given(days=several)
def test_a_negated_metric_mirrors_every_answer(days: list[tuple[list[float], list[float]]]) -> None:
    """Values that are better higher, negated and better lower: the same verdict, chances and losses, and the
    lift's negative."""
    higher, lower = judged(days, 1, Better.HIGHER), judged(days, -1, Better.LOWER)
    same = ("verdict", "reason", "chance_to_beat", "chance_worse", "expected_loss", "allowed_loss", "days")
    assert [getattr(lower, name) for name in same] == [getattr(higher, name) for name in same]
    assert (lower.lift is None) == (higher.lift is None)
    if lower.lift is not None and higher.lift is not None:
        assert (lower.lift.mean, lower.lift.low) == (-higher.lift.mean, -higher.lift.high)


anything = st.builds(Sums, st.integers(0, 10**12), st.floats(), st.floats())
counts = st.builds(ArmCounts, *(st.integers(0, 10**12) for _ in range(3)))


@given(
    sides=st.lists(st.tuples(anything, anything), max_size=5), metric=st.sampled_from([REVENUE, CONVERSION])
)
def test_no_evidence_makes_judge_raise(sides: list[tuple[Sums, Sums]], metric: Metric) -> None:
    """Sums of any size, infinite or no numbers at all: a verdict and a sentence, and never a win on numbers
    that are not finite."""
    strata = tuple(on(day, a, b) for day, (a, b) in enumerate(sides))
    judgement = judge(Evidence(strata, ArmCounts(), ArmCounts(), metric, sticky=False), POLICY)
    assert judgement.reason
    if judgement.verdict in (Verdict.WIN, Verdict.LOSE, Verdict.TIE):
        assert judgement.chance_to_beat is not None
        assert judgement.expected_loss is not None
        assert isfinite(judgement.chance_to_beat)
        assert isfinite(judgement.expected_loss)


FROZEN = (Verdict.INSUFFICIENT_DATA, Verdict.UNHEALTHY, Verdict.ERROR)


@pytest.mark.parametrize(
    ("before", "verdict", "after"),
    [
        (Streak(), Verdict.WIN, Streak(winning=1)),
        (Streak(winning=2, frozen=2), Verdict.WIN, Streak(winning=3)),
        (Streak(losing=1), Verdict.WIN, Streak(winning=1)),
        (Streak(winning=2), Verdict.LOSE, Streak(losing=1)),
        (Streak(losing=1, frozen=3), Verdict.LOSE, Streak(losing=2)),
        (Streak(winning=2), Verdict.TIE, Streak()),
        (Streak(losing=2), Verdict.INCONCLUSIVE, Streak()),
        *((Streak(winning=2), verdict, Streak(winning=2, frozen=1)) for verdict in FROZEN),
        *((Streak(losing=1, frozen=2), verdict, Streak(losing=1, frozen=3)) for verdict in FROZEN),
        *((Streak(winning=2, frozen=3), verdict, Streak()) for verdict in FROZEN),
    ],
)
def test_a_day_extends_freezes_or_ends_a_streak(before: Streak, verdict: Verdict, after: Streak) -> None:
    """Wins and losses count and end each other; ties end both; days without a verdict freeze, three at
    most."""
    assert extend(before, verdict) == after


@pytest.mark.parametrize(
    ("policy", "streak", "verdict", "days", "action"),
    [
        (POLICY, Streak(winning=3), Verdict.WIN, 7, Action.STEP),
        (POLICY, Streak(winning=2), Verdict.WIN, 7, Action.HOLD),
        (POLICY, Streak(winning=6), Verdict.WIN, 6, Action.HOLD),
        (POLICY, Streak(winning=3, frozen=1), Verdict.UNHEALTHY, 7, Action.HOLD),
        (POLICY, Streak(winning=3, frozen=1), Verdict.INSUFFICIENT_DATA, 7, Action.HOLD),
        (POLICY, Streak(losing=1), Verdict.LOSE, 3, Action.ROLLBACK),
        (Policy(losing_days=2), Streak(losing=1), Verdict.LOSE, 3, Action.HOLD),
        (Policy(losing_days=2), Streak(losing=2), Verdict.LOSE, 3, Action.ROLLBACK),
        (POLICY, Streak(), Verdict.INCONCLUSIVE, 29, Action.HOLD),
        (POLICY, Streak(), Verdict.INCONCLUSIVE, 30, Action.END),
        (POLICY, Streak(winning=2), Verdict.WIN, 30, Action.END),
        (POLICY, Streak(winning=3), Verdict.WIN, 30, Action.STEP),
        (POLICY, Streak(losing=1), Verdict.LOSE, 30, Action.ROLLBACK),
        (Policy(winning_days=1, minimum_days=1), Streak(winning=1), Verdict.WIN, 3, Action.STEP),
    ],
)
def test_what_a_day_calls_for(
    policy: Policy, streak: Streak, verdict: Verdict, days: int, action: Action
) -> None:
    """A losing streak rolls back first, a full winning one on a winning day steps, the horizon ends, all else
    holds."""
    assert decide(policy, streak, verdict, days) is action


@given(verdicts=st.lists(st.sampled_from(Verdict), max_size=30))
def test_a_streak_is_never_winning_and_losing(verdicts: list[Verdict]) -> None:
    """Nor longer than the days of its own verdict, nor frozen for more than three days; and it never survives
    the other verdict."""
    streak = Streak()
    for verdict in verdicts:
        streak = extend(streak, verdict)
        assert not (streak.winning and streak.losing)
        assert streak.frozen <= 3
    assert streak.winning <= verdicts.count(Verdict.WIN)
    assert streak.losing <= verdicts.count(Verdict.LOSE)


def test_defaults_are_those_of_the_documentation() -> None:
    """The promotion rule out of the box."""
    assert (POLICY.confidence, POLICY.losing_confidence) == (0.975, 0.99)
    assert (POLICY.winning_days, POLICY.minimum_days, POLICY.horizon_days, POLICY.losing_days) == (
        3,
        7,
        30,
        1,
    )
    assert (POLICY.max_expected_loss, POLICY.minimum_effect) == (0.005, 0.0)
    assert (POLICY.min_samples, POLICY.min_conversions) == (100, 100)
    assert (POLICY.ramp_bp, POLICY.bake_ms) == ((10_000,), 0)
