"""Guardrails may be looked at after every event, and still seldom roll back what does no harm."""

from __future__ import annotations

from math import exp, inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import integrate

from policies.guardrails import Cohort, breach, breach_in, log_e_value, odds_of_traffic
from policies.rollups import Sums
from policies.spec import Guardrail
from policies.types import Better

Array = NDArray[np.float64]
GUARDRAIL = Guardrail()


def ones(n: int, hits: float) -> Sums:
    """Sums of a binary metric."""
    return Sums(n, hits, hits)


def log_e(hits: float, misses: float, odds: float) -> float:
    """One e-value's logarithm."""
    return float(log_e_value(hits, misses, np.asarray(odds)))


@pytest.mark.parametrize(
    ("hits", "misses", "odds"),
    [(0, 0, 1.0), (5, 3, 1.0), (20, 4, 0.5), (2, 40, 0.1), (30, 10, 3.0), (7, 0, 0.01), (0, 9, 1.1)],
)
def test_the_e_value_agrees_with_its_integral(hits: int, misses: int, odds: float) -> None:
    """The likelihood ratio mixed over a uniform θ in (θ₀, 1), by numerical integration."""
    theta = odds / (1 + odds)

    def ratio(x: float) -> float:
        return float((x / theta) ** hits * ((1 - x) / (1 - theta)) ** misses / (1 - theta))

    direct, _ = integrate.quad(ratio, theta, 1)
    assert exp(log_e(hits, misses, odds)) == pytest.approx(direct, rel=1e-7)


def test_no_event_is_no_evidence() -> None:
    """The e-value starts at 1, and stays there where no traffic of the reference can be expected."""
    assert log_e(0, 0, 0.3) == pytest.approx(0)
    assert log_e(50, 0, inf) == 0
    assert log_e(50, 0, 0.0) == 0


@given(hits=st.integers(0, 10**6), misses=st.integers(0, 10**6), odds=st.floats(1e-4, 1e4))
def test_e_values_are_numbers_and_more_hits_raise_them(hits: int, misses: int, odds: float) -> None:
    """Up to a million events: never NaN, one more event of the suspect is more evidence, one of the reference
    is less."""
    here = log_e(hits, misses, odds)
    assert here < inf
    assert not np.isnan(here)
    slack = 1e-6 + 1e-9 * (hits + misses)
    assert log_e(hits + 1, misses, odds) >= here - slack
    assert log_e(hits, misses + 1, odds) <= here + slack


@given(
    hits=st.integers(0, 10**4),
    misses=st.integers(0, 10**4),
    odds=st.floats(1e-3, 1e3),
    factor=st.floats(1, 100),
)
def test_greater_odds_never_make_a_breach(hits: int, misses: int, odds: float, factor: float) -> None:
    """Evidence beyond 1 against greater odds is also evidence against smaller ones: the greater of configured
    and observed traffic is the careful choice."""
    assert log_e(hits, misses, odds * factor) <= max(0, log_e(hits, misses, odds)) + 1e-6


@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("odds", [0.1, 1.1])
def test_a_look_after_every_event_is_seldom_a_false_alarm(confidence: float, odds: float) -> None:
    """With events that fall on the suspect exactly as often as the null allows, in at most 1 − confidence of
    2,000 worlds does any of 500 looks exceed the limit."""
    size, looks = 2_000, 500
    draw = np.random.default_rng(4)
    hits = np.cumsum(draw.random((size, looks)) < odds / (1 + odds), axis=1).astype(np.float64)
    misses = np.arange(1, looks + 1) - hits
    alarm = np.max(log_e_value(hits, misses, np.asarray(odds)), axis=1) >= -np.log(1 - confidence)
    allowed = 1 - confidence
    assert np.mean(alarm) <= allowed + 3 * sqrt(allowed * confidence / size)


def traffic(seed: int, size: int, increase: float) -> tuple[Array, Array, Array, Array]:
    """Cumulative n and errors of champion (90 %) and challenger at 100 looks, 200 decisions apart, while the
    base rate swings between 1 and 5 %."""
    draw = np.random.default_rng(seed)
    base = 0.03 + 0.02 * np.sin(np.arange(100) / 8)
    n_b = draw.binomial(200, 0.1, (size, 100))
    a, b = draw.binomial(200 - n_b, base), draw.binomial(n_b, base * (1 + increase))
    return cumulated(200 - n_b), cumulated(a), cumulated(n_b), cumulated(b)


def cumulated(parts: NDArray[np.int64]) -> Array:
    """The sums so far, world by world."""
    return np.cumsum(parts, axis=1, dtype=np.float64)


def breaches(seed: int, size: int, increase: float) -> float:
    """The share of worlds in which `breach` says so at any look."""
    rows = zip(*traffic(seed, size, increase), strict=True)
    return sum(
        any(
            breach(GUARDRAIL, ones(int(m), x), ones(int(n), y), 9_000, 1_000).breached
            for m, x, n, y in zip(*row, strict=True)
        )
        for row in rows
    ) / size  # fmt: skip


def test_an_arm_at_the_limit_is_seldom_rolled_back_and_a_harmful_one_is() -> None:
    """Over a moving base rate and 100 looks: with 10 % more errors, as allowed, at most 1 % of worlds; with
    three times the errors, nearly all."""
    assert breaches(5, 200, 0.10) <= 0.01 + 3 * sqrt(0.01 / 200)
    assert breaches(6, 40, 2.0) >= 0.95


def test_cohorts_have_a_weighted_mean_of_their_e_values() -> None:
    """A half of the first, a sixth of the second, and a third of 1; the rates are of all together."""
    small = Cohort(ones(9_000, 90), ones(1_000, 40), 9_000, 1_000)
    large = Cohort(ones(5_000, 50), ones(5_000, 50), 5_000, 5_000)
    alone = [breach(GUARDRAIL, *cohort).e_value for cohort in (small, large)]
    assert breach_in(GUARDRAIL, (small,)).e_value == pytest.approx((alone[0] + 1) / 2)
    both = breach_in(GUARDRAIL, (small, large))
    assert both.e_value == pytest.approx(alone[0] / 2 + alone[1] / 6 + 1 / 3)
    assert both.breached
    assert both.champion_rate == pytest.approx(140 / 14_000)
    assert both.challenger_rate == pytest.approx(90 / 6_000)


@pytest.mark.parametrize("better", list(Better))
def test_cohorts_of_another_size_alarm_on_nothing(better: Better) -> None:
    """Of 300 worlds without harm, looked at 50 times while a ramp goes from 10 to 50 %, at most 1 % are
    withdrawn, give or take, though those who came early have other rates than those who came late."""
    draw = np.random.default_rng(3)
    alarms = 0
    for _ in range(300):
        counts = draw.poisson([[[900, 100]], [[500, 500]]], (2, 50, 2)).cumsum(axis=1)
        events = draw.binomial(np.diff(counts, axis=1, prepend=0), [[[0.05]], [[0.01]]]).cumsum(axis=1)
        alarms += any(
            breach_in(
                GUARDRAIL,
                [
                    Cohort(ones(int(n[0]), x[0]), ones(int(n[1]), x[1]), *shares)
                    for n, x, shares in zip(
                        counts[:, look], events[:, look], ((9_000, 1_000), (5_000, 5_000)), strict=True
                    )
                ],
                better,
            ).breached
            for look in range(50)
        )
    assert alarms <= 300 * 0.01 + 3 * sqrt(300 * 0.01)


def test_a_reading_names_rates_and_limit() -> None:
    """3 % against 1 % of 10,000 each breaches a confidence of 0.99, whose limit is exactly 100."""
    reading = breach(GUARDRAIL, ones(10_000, 100), ones(10_000, 300), 5_000, 5_000)
    assert (reading.metric, reading.limit, reading.enough, reading.breached) == ("error", 100, True, True)
    assert (reading.champion_rate, reading.challenger_rate) == (0.01, 0.03)
    assert reading.e_value > 1e6


def test_harm_counts_from_the_limit_on() -> None:
    """10 % more errors in a million values are what the default allows; 16 % are a breach, and without an
    allowance 10 % are one too."""
    champion, tenth_more, more = ones(10**6, 50_000), ones(10**6, 55_000), ones(10**6, 58_000)
    assert not breach(GUARDRAIL, champion, tenth_more, 5_000, 5_000).breached
    assert breach(GUARDRAIL, champion, more, 5_000, 5_000).breached
    assert breach(Guardrail(max_relative_increase=0), champion, tenth_more, 5_000, 5_000).breached


def test_equal_rates_are_no_breach_whatever_the_shares() -> None:
    """The shares say which part of the events is the challenger's."""
    for share in (100, 5_000, 9_900):
        n = 100 * share
        reading = breach(GUARDRAIL, ones(10**6 - n, (10**6 - n) / 50), ones(n, n / 50), 10_000 - share, share)
        assert reading.e_value < 1
        assert not reading.breached


@pytest.mark.parametrize(("n", "breached"), [(49, False), (50, True)])
def test_a_breach_needs_a_minimum_of_values(n: int, breached: bool) -> None:
    """However clear, not before the challenger has min_events values."""
    reading = breach(GUARDRAIL, ones(50, 0), ones(n, n), 5_000, 5_000)
    assert reading.e_value > reading.limit
    assert (reading.enough, reading.breached) == (breached, breached)


def test_without_values_there_are_no_rates_and_no_breach() -> None:
    """Silence is neither harm nor health."""
    reading = breach(GUARDRAIL, Sums(), Sums(), 9_000, 1_000)
    assert (reading.champion_rate, reading.challenger_rate) == (None, None)
    assert (reading.e_value, reading.breached, reading.enough) == (1, False, False)


def test_without_a_champion_nothing_can_be_worse() -> None:
    """With all traffic on the challenger there is nothing to compare its errors with."""
    reading = breach(GUARDRAIL, Sums(), ones(1_000, 1_000), 0, 10_000)
    assert (reading.e_value, reading.breached) == (1, False)


def test_where_higher_is_better_missing_conversions_are_the_harm() -> None:
    """A challenger that converts half as often breaches, one that converts twice as often does not; the
    evidence is that of exchanged arms."""
    less, more = ones(5_000, 250), ones(5_000, 500)
    guardrail = Guardrail(metric="conversion")
    assert breach(guardrail, more, less, 5_000, 5_000, Better.HIGHER).breached
    assert not breach(guardrail, less, more, 5_000, 5_000, Better.HIGHER).breached
    higher = breach(guardrail, more, less, 7_000, 3_000, Better.HIGHER)
    assert higher.e_value == breach(guardrail, less, more, 3_000, 7_000, Better.LOWER).e_value
    assert (higher.champion_rate, higher.challenger_rate) == (0.1, 0.05)


def test_evidence_starts_anew_with_each_epoch() -> None:
    """Two identical arms: the challenger's share falls from 50 to 5 % while errors fall from 10 to 1 %. No
    epoch alone shows harm; sums carried over from one to the next would."""
    first = (ones(10_000, 1_000), ones(10_000, 1_000), 5_000, 5_000)
    second = (ones(95_000, 950), ones(5_000, 50), 9_500, 500)
    assert not breach(GUARDRAIL, *first).breached
    assert not breach(GUARDRAIL, *second).breached
    assert breach(GUARDRAIL, first[0] + second[0], first[1] + second[1], 9_500, 500).breached


def test_the_greater_of_configured_and_observed_odds_counts() -> None:
    """By share 1 to 9, as seen 1 to 4; infinite without traffic of the reference."""
    assert odds_of_traffic((1_000, 9_000), 20.0, 80.0) == pytest.approx(0.25)
    assert odds_of_traffic((1_000, 9_000), 5.0, 95.0) == pytest.approx(1 / 9)
    assert odds_of_traffic((1_000, 9_000), 5.0, 0.0) == inf
    assert odds_of_traffic((10_000, 0), 5.0, 5.0) == inf


def test_a_great_many_events_stay_finite() -> None:
    """A hundred million values: the e-value has a ceiling, not an overflow."""
    reading = breach(GUARDRAIL, ones(10**8, 10**6), ones(10**8, 10**7), 5_000, 5_000)
    assert reading.breached
    assert 1e290 < reading.e_value < inf
