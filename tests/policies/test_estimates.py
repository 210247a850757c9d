"""The stratified effect agrees with direct computations, and is not fooled by moving shares or by returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from policies.days import Day
from policies.errors import CannotJudge
from policies.estimates import MINIMUM_BUCKETS, Effect, effect
from policies.rollups import Cell, Stratum, Sums, pooled, strata

Array = NDArray[np.float64]
Buckets = dict[int, Sums]


def on(day: int, champion: Sums | Buckets, challenger: Sums | Buckets, epoch: int = 1) -> Stratum:
    """A stratum; sums without buckets are all in bucket 0."""
    a, b = ({0: arm} if isinstance(arm, Sums) else arm for arm in (champion, challenger))
    return Stratum(Day(day, day + 1, str(day)), epoch, a, b)


def ones(n: int, hits: float) -> Sums:
    """Sums of a binary metric."""
    return Sums(n, hits, hits)


def of(values: Sequence[float] | Array) -> Sums:
    """The sums of some values."""
    array = np.asarray(values, dtype=np.float64)
    return Sums(array.size, float(array.sum()), float((array**2).sum()))


def spread(n: int, mean: float, variance: float) -> Sums:
    """Sums with this mean and this sample variance."""
    return Sums(n, n * mean, n * mean**2 + (n - 1) * variance)


def table(times: int) -> list[Stratum]:
    """Weights 7.5, 10, 7.5; differences 0.1, 0, 0.2; so many times the values."""
    rows = [(30, 3, 10, 2), (20, 4, 20, 4), (10, 1, 30, 9)]
    return [
        on(day, ones(times * n_a, times * a), ones(times * n_b, times * b))
        for day, (n_a, a, n_b, b) in enumerate(rows)
    ]


def test_the_effect_of_a_small_table_by_hand() -> None:
    """θ = (7.5·0.1 + 10·0 + 7.5·0.2)/25 = 0.09, each arm standardised with the same shares 0.3, 0.4, 0.3."""
    found = effect(table(1), sticky=False)
    assert found.mean == pytest.approx(0.09)
    assert found.champion_mean == pytest.approx(0.3 * 0.1 + 0.4 * 0.2 + 0.3 * 0.1)
    assert found.challenger_mean == pytest.approx(0.3 * 0.2 + 0.4 * 0.2 + 0.3 * 0.3)
    of_champion = 0.3**2 * 0.09 / 29 + 0.4**2 * 0.16 / 19 + 0.3**2 * 0.09 / 9
    of_challenger = 0.3**2 * 0.16 / 9 + 0.4**2 * 0.16 / 19 + 0.3**2 * 0.21 / 29
    assert found.champion_error == pytest.approx(sqrt(of_champion))
    assert found.challenger_error == pytest.approx(sqrt(of_challenger))
    assert found.standard_error == pytest.approx(sqrt(of_champion + of_challenger))
    assert (found.days, found.df) == (3, 2)


def test_days_that_differ_by_more_than_sampling_noise_widen_it_by_hand() -> None:
    """With 100 times the values the days' spread is the larger: Σ share·(d − θ)²/(T − 1) = 0.00345."""
    assert effect(table(100), sticky=False).standard_error == pytest.approx(sqrt(0.00345))


def test_equal_days_give_welchs_statistic() -> None:
    """Three equal days are one with three times the values: θ/error = √3 · t of Welch's test of one."""
    draw = np.random.default_rng(1)
    a, b = draw.normal(1, 1, 40), draw.normal(1.3, 3, 25)
    found = effect([on(day, of(a), of(b)) for day in range(3)], sticky=False)
    welch = stats.ttest_ind(b, a, equal_var=False).statistic
    assert found.mean / found.standard_error == pytest.approx(sqrt(3) * welch)


def test_restless_days_give_the_paired_t_test() -> None:
    """With even days and little noise within them, θ/error is Student's t over the days' differences."""
    of_day = np.array([0.1, 0.3, -0.05, 0.2, 0.15])
    days = [on(day, spread(1000, 1.0, 1e-6), spread(1000, 1.0 + d, 1e-6)) for day, d in enumerate(of_day)]
    found = effect(days, sticky=False)
    reference = stats.ttest_1samp(of_day, 0)
    assert found.mean / found.standard_error == pytest.approx(reference.statistic)
    assert found.df == reference.df


def ramp() -> Iterator[tuple[int, int, float]]:
    """20 days of (n of the champion, n of the challenger, rate): 10 to 50 %, while 5 % falls to 4 %."""
    for share, rate in zip(np.linspace(0.1, 0.5, 20), np.linspace(0.05, 0.04, 20), strict=True):
        n_b = round(100_000 * share)
        yield 100_000 - n_b, n_b, float(rate)


def test_a_moving_share_over_a_moving_base_rate_makes_no_effect_between_identical_arms() -> None:
    """Where both arms have exactly the day's rate, the effect is 0 to rounding. Their totals are 4.7 standard
    errors apart (Simpson)."""
    days = [on(day, ones(a, a * rate), ones(b, b * rate)) for day, (a, b, rate) in enumerate(ramp())]
    found = effect(days, sticky=False)
    assert found.mean == pytest.approx(0, abs=1e-12)
    assert found.champion_mean == pytest.approx(found.challenger_mean)
    a, b = (sum((pooled(arm) for arm in arms), Sums()) for arms in zip(*map(sides, days), strict=True))
    z = (b.mean - a.mean) / sqrt(a.variance / a.n + b.variance / b.n)
    assert z < -4.5


def sides(stratum: Stratum) -> tuple[Buckets, Buckets]:
    """Both arms of a stratum."""
    return dict(stratum.champion), dict(stratum.challenger)


def test_noise_on_that_ramp_is_as_wide_as_the_effect_says() -> None:
    """Over 400 drawn worlds of the same ramp, the effect divided by its error has mean 0 and no more than its
    own spread."""
    draw = np.random.default_rng(2)
    scores = []
    for _ in range(400):
        days = [
            on(day, ones(a, float(draw.binomial(a, rate))), ones(b, float(draw.binomial(b, rate))))
            for day, (a, b, rate) in enumerate(ramp())
        ]
        found = effect(days, sticky=False)
        scores.append(float(found.mean / found.standard_error))
    assert abs(np.mean(scores)) < 3 / sqrt(400)
    assert 0.8 < np.std(scores) < 1.05


def test_estimates_read_assigned_arms_only() -> None:
    """The challenger fails on its worst requests and the champion answers them. By assigned arm the effect is
    the truth, −0.1; booked on who served, the challenger would seem the better arm."""
    log = [
        (day, assigned, "a" if assigned == "b" and value == 0 and request % 2 else assigned, value)
        for day in range(4)
        for assigned, hits in (("a", 50), ("b", 40))
        for request in range(100)
        for value in [float(request < hits)]
    ]
    assert effect(strata(cells(log, by=1), "a", "b"), sticky=False).mean == pytest.approx(-0.1)
    assert effect(strata(cells(log, by=2), "a", "b"), sticky=False).mean > 0.1


def test_other_arms_are_not_read() -> None:
    """What a third arm did changes nothing between two."""
    log = [(day, arm, arm, float(day + n)) for day in range(3) for arm in "ab" for n in range(5)]
    third = [(day, "c", "c", 1e6) for day in range(3)]
    alone, with_third = (strata(cells(rows, by=1), "a", "b") for rows in (log, log + third))
    assert effect(alone, sticky=False) == effect(with_third, sticky=False)


def cells(log: list[tuple[int, str, str, float]], by: int) -> Iterator[Cell]:
    """One rollup row per exchange, booked on the arm in column `by`: 1 assigned, 2 served."""
    for row in log:
        yield Cell(Day(row[0], row[0] + 1, str(row[0])), 1, (row[1], row[2])[by - 1], 0, of([row[3]]))


def returning(seed: int, days: int = 8, users: int = 1_000) -> list[Stratum]:
    """Users who keep their arm, bucket and level of spending, 40 % of them active each day."""
    draw = np.random.default_rng(seed)
    arm, bucket, level = draw.integers(0, 2, users), draw.integers(0, 64, users), draw.gamma(0.5, 2, users)
    found = []
    for day in range(days):
        active, value = draw.random(users) < 0.4, level * draw.lognormal(0, 0.5, users)
        a, b = (by_bucket(value[here], bucket[here]) for here in (active & (arm == side) for side in (0, 1)))
        found.append(on(day, a, b))
    return found


def by_bucket(value: Array, bucket: NDArray[np.int64]) -> Buckets:
    """The sums of each bucket that has values."""
    return {int(one): of(value[bucket == one]) for one in np.unique(bucket)}


def test_the_buckets_of_returning_units_widen_the_interval() -> None:
    """The same sums give the same effect; only with the buckets does its error know that users return, and is
    as large as effects of identical arms are over 40 worlds."""
    worlds = [returning(seed) for seed in range(40)]
    as_units = [effect(world, sticky=True) for world in worlds]
    as_requests = [effect(world, sticky=False) for world in worlds]
    assert [one.mean for one in as_units] == pytest.approx([one.mean for one in as_requests])
    actual = np.std([float(one.mean) for one in as_units])
    assert np.mean([one.standard_error for one in as_units]) == pytest.approx(actual, rel=0.2)
    assert np.mean([one.standard_error for one in as_requests]) < 0.75 * actual


sums = st.lists(st.floats(-100, 100), min_size=1, max_size=4).map(of)
buckets = st.dictionaries(st.integers(0, 63), sums, min_size=1, max_size=12)
cuts = st.builds(on, st.integers(0, 4), buckets, buckets, st.integers(1, 2))
tables = st.lists(cuts, min_size=2, max_size=8, unique_by=lambda stratum: (stratum.day, stratum.epoch))


def judgeable(days: list[Stratum], sticky: bool) -> Effect | None:
    """The effect, or None where it is refused."""
    try:
        return effect(days, sticky)
    except CannotJudge:
        return None


def theta(days: list[Stratum]) -> float | None:
    """Σ w d / Σ w, stratum by stratum; None where none has both arms."""
    pairs = [(pooled(s.champion), pooled(s.challenger)) for s in days]
    rows = [(a.n * b.n / (a.n + b.n), b.mean - a.mean) for a, b in pairs if a.n and b.n]
    return sum(w * d for w, d in rows) / sum(w for w, _ in rows) if rows else None


def variance_by_hand(days: list[Stratum], sticky: bool) -> float:
    """The largest of the three variances, by loops that leave out one bucket after another."""
    centre = theta(days)
    assert centre is not None
    pairs = [(s.day, pooled(s.champion), pooled(s.challenger)) for s in days]
    weights = [a.n * b.n / (a.n + b.n) for _, a, b in pairs]
    total = sum(weights)
    variances = [
        sum(w**2 * sum(spread_of(days, arm, row) for arm in (0, 1)) for row, w in enumerate(weights))
        / total**2
    ]
    dates = sorted({day for day, _, _ in pairs})
    between = 0.0
    for day in dates:
        of_day = theta([s for s in days if s.day == day])
        assert of_day is not None
        here = sum(w for w, (when, _, _) in zip(weights, pairs, strict=True) if when == day)
        between += here / total * (of_day - centre) ** 2
    variances.append(between / (len(dates) - 1))
    if sticky:
        groups = sorted({bucket for s in days for side in sides(s) for bucket in side})
        left = [theta([without(s, group) for s in days]) for group in groups]
        moved = [(value - centre) ** 2 for value in left if value is not None]
        variances.append((len(groups) - 1) / len(groups) * sum(moved))
    return max(variances)


def spread_of(days: list[Stratum], arm: int, row: int) -> float:
    """The variance of one arm's mean in one stratum; a single value takes the arm's pooled variance."""
    all_sums = [pooled(sides(stratum)[arm]) for stratum in days]
    mine = all_sums[row]
    if mine.n > 1:
        return mine.variance / mine.n
    own = sum(one.n - 1 for one in all_sums)
    around = sum((one.n - 1) * one.variance for one in all_sums if one.n > 1)
    return around / own / mine.n if own else 0.0


def without(stratum: Stratum, bucket: int) -> Stratum:
    """The stratum without the units of a bucket."""
    a, b = ({key: one for key, one in side.items() if key != bucket} for side in sides(stratum))
    return Stratum(stratum.day, stratum.epoch, a, b)


@given(days=tables, sticky=st.booleans())
def test_the_effect_agrees_with_its_definition(days: list[Stratum], sticky: bool) -> None:
    """On any small days, several epochs a day, effect and error are those of loops over the formulas and of
    a literal leave-one-bucket-out jackknife."""
    if (found := judgeable(days, sticky)) is not None:
        assert found.mean == pytest.approx(theta(days), abs=1e-9)
        assert found.standard_error == pytest.approx(sqrt(variance_by_hand(days, sticky)), rel=1e-4, abs=1e-5)


@given(days=tables, sticky=st.booleans())
def test_negated_values_mirror_the_effect(days: list[Stratum], sticky: bool) -> None:
    """−y has the negative of every mean and the same errors, exactly."""
    found, negated = judgeable(days, sticky), judgeable([negative(s) for s in days], sticky)
    assert (found is None) == (negated is None)
    if found is not None and negated is not None:
        assert negated.mean == -found.mean
        assert (negated.champion_mean, negated.challenger_mean) == (
            -found.champion_mean,
            -found.challenger_mean,
        )
        assert negated.standard_error == found.standard_error


def negative(stratum: Stratum) -> Stratum:
    """The same values, negated."""
    a, b = (
        {key: Sums(one.n, -one.total, one.squares) for key, one in side.items()} for side in sides(stratum)
    )
    return Stratum(stratum.day, stratum.epoch, a, b)


@given(days=tables, sticky=st.booleans(), data=st.data())
def test_the_order_of_strata_does_not_matter(days: list[Stratum], sticky: bool, data: st.DataObject) -> None:
    """Days may be read in any order."""
    shuffled = data.draw(st.permutations(days))
    assert judgeable(list(shuffled), sticky) == judgeable(days, sticky)


@given(days=tables, sticky=st.booleans())
def test_exchanged_arms_exchange_the_effect(days: list[Stratum], sticky: bool) -> None:
    """Which arm is called champion changes the sign alone."""
    there = judgeable(days, sticky)
    back = judgeable([Stratum(s.day, s.epoch, s.challenger, s.champion) for s in days], sticky)
    assert (there is None) == (back is None)
    if there is not None and back is not None:
        assert back.mean == pytest.approx(-there.mean, abs=1e-9)
        assert back.standard_error == pytest.approx(there.standard_error)


def test_two_days_are_too_few() -> None:
    """Two days say nothing about how days differ, however many epochs they have."""
    epochs = [on(day, of([1, 2]), of([2, 4]), epoch) for day in (0, 1) for epoch in (1, 2, 3)]
    with pytest.raises(CannotJudge, match="3 mature days with both arms are needed, got 2") as refused:
        effect(epochs, sticky=False)
    assert refused.value.reason == "few_days"


def test_too_few_buckets_of_units_are_refused_on_sticky_routes_only() -> None:
    """Nine buckets say nothing about how units differ; requests that are their own units need none."""
    few = {bucket: of([1.0, 2.0 + bucket]) for bucket in range(MINIMUM_BUCKETS - 1)}
    days = [on(day, few, few) for day in range(3)]
    with pytest.raises(CannotJudge, match="10 hash buckets with units are needed, got 9") as refused:
        effect(days, sticky=True)
    assert refused.value.reason == "few_units"
    assert effect(days, sticky=False).mean == 0


def summed(value: float, n: int) -> Sums:
    """The sums of n equal values as a machine adds them, rounding each time."""
    total = squares = 0.0
    for _ in range(n):
        total, squares = total + value, squares + value * value
    return Sums(n, total, squares)


@pytest.mark.parametrize("value", [1.0, 0.1, 0.3, 0.015, 0.2, 2.3])
def test_what_rounding_leaves_of_equal_values_is_no_evidence(value: float) -> None:
    """Where every value of both arms is the same, sums differ by rounding; nobody wins or loses by that."""
    draw = np.random.default_rng(3)
    near = draw.integers(-30, 30, (8, 2))
    days = [
        on(day, summed(value, 9_000 + int(a)), summed(value, 1_000 + int(b)))
        for day, (a, b) in enumerate(near)
    ]
    found = judgeable(days, sticky=False)
    assert found is None or np.abs(found.mean) < 1e-3 * found.standard_error


def test_values_that_are_all_equal_are_refused() -> None:
    """No spread, no standard error, no judgement."""
    days = [on(day, of([2, 2, 2]), of([2, 2])) for day in range(3)]
    with pytest.raises(CannotJudge, match="all equal") as refused:
        effect(days, sticky=False)
    assert refused.value.reason == "no_spread"
