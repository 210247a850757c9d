"""Probabilities of being the best agree with closed forms, with fine integrals and with draws."""

from __future__ import annotations

from math import asin, pi, sqrt
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import special

from routing.errors import BadModel
from routing.linear_model import Array
from routing.thompson import best_beta, best_of

scores = st.floats(-3, 3)
spreads = st.sampled_from([0.0, 1e-6, 1e-4, 0.01, 0.1, 0.5, 1.0, 2.0])


@st.composite
def normals(draw: st.DrawFn, least: int = 3, most: int = 8) -> tuple[Array, Array]:
    """Means and standard deviations of some arms, some of them in another league than others."""
    arms = draw(st.integers(least, most))
    means = draw(st.lists(scores, min_size=arms, max_size=arms))
    sds = draw(st.lists(spreads, min_size=arms, max_size=arms))
    return np.array(means), np.array(sds)


def precisely(means: Array, sds: Array) -> Array:
    """The integrals ∫ f_k Π F_j one by one, on panels of a quarter of each arm's deviation, 12 nodes each."""
    sds = np.maximum(sds, 1e-9)
    ends = np.sort((means[:, None] + sds[:, None] * np.linspace(-9, 9, 73)).ravel())
    nodes, weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(ends)[:, None] / 2
    z = ((ends[:-1, None] + half * (nodes + 1)).ravel() - means[:, None]) / sds[:, None]
    mass = (half * weights).ravel() * np.exp(-(z**2) / 2) / sds[:, None] / sqrt(2 * pi)
    below = special.ndtr(z)
    return np.array([mass[k] @ np.delete(below, k, 0).prod(axis=0) for k in range(len(means))])


@given(pair=normals(2, 2))
def test_of_two_arms_it_is_the_closed_form(pair: tuple[Array, Array]) -> None:
    """Φ((m₁ − m₂)/√(s₁² + s₂²)), one pair at a time and many at once."""
    means, sds = pair
    spread = float(np.hypot(*sds))
    gap = float(means[0] - means[1])
    expected = float(special.ndtr(gap / spread)) if spread else (1 + np.sign(gap)) / 2
    assert best_of(means, sds) == pytest.approx([expected, 1 - expected], abs=1e-12)
    assert best_of(means[None], sds[None])[0] == pytest.approx(best_of(means, sds), abs=1e-12)


@given(arms=normals())
def test_of_more_arms_it_is_the_integral(arms: tuple[Array, Array]) -> None:
    """To 1e-4, however different their deviations; and always a distribution."""
    means, sds = arms
    assume(sds.max() >= 1e-4)
    p = best_of(means, sds)
    assert p == pytest.approx(precisely(means, sds), abs=1e-4)
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert (p >= 0).all()


@pytest.mark.parametrize("ratio", [1.0, 100.0, 10_000.0, 1e8])
@pytest.mark.parametrize("wide", [1, 2, 4])
def test_arms_of_very_different_certainty_are_integrated_exactly(ratio: float, wide: int) -> None:
    """Five arms, of which some are wider by a factor, at and around the others' means: to 1e-4."""
    sds = np.where(np.arange(5) < wide, 1.0, 1 / ratio)
    for shift in (0.0, 0.5 / ratio, 0.3, 1.0, 3.0):
        for steps in (range(5), range(0, -5, -1), [1, 0, 0, 0, 0]):
            means = shift * np.array(steps, dtype=np.float64)
            assert best_of(means, sds) == pytest.approx(precisely(means, sds), abs=1e-4)


@pytest.mark.parametrize(("arms", "error"), [(20, 1e-4), (50, 1e-3), (100, 1e-3)])
def test_many_arms_alike_beside_a_vague_one_are_the_hardest(arms: int, error: float) -> None:
    """Their maximum is narrower than any of them: to 1e-4 for 20 arms, to 1e-3 for 100."""
    sds = np.where(np.arange(arms) < 1, 1.0, 1e-4)
    for mean in (0.0, -1.0, -2.0):
        means = mean * np.eye(arms)[0]
        assert best_of(means, sds) == pytest.approx(precisely(means, sds), abs=error)


@pytest.mark.parametrize("sd", [0.0, 1e-12, 1.0, 1e9])
@pytest.mark.parametrize("arms", [1, 2, 3, 5, 12])
def test_arms_alike_are_even(arms: int, sd: float) -> None:
    """Each is the best with probability 1/K, in any units, even those that are certain."""
    assert best_of(np.full(arms, -2e-3), np.full(arms, sd)) == pytest.approx(
        np.full(arms, 1 / arms), abs=1e-9
    )


@given(sds=st.lists(st.floats(0.01, 10), min_size=3, max_size=3))
def test_of_three_arms_with_one_mean_it_is_an_orthant(sds: list[float]) -> None:
    """P(X₁ > X₂ and X₁ > X₃) = ¼ + asin(ρ)/2π, with ρ = s₁²/√((s₁² + s₂²)(s₁² + s₃²)) (Sheppard 1899)."""
    p = best_of(np.zeros(3), np.array(sds))
    for k in range(3):
        own, one, two = (sds[(k + step) % 3] ** 2 for step in range(3))
        rho = own / sqrt((own + one) * (own + two))
        assert p[k] == pytest.approx(0.25 + asin(rho) / (2 * pi), abs=1e-4)


@pytest.mark.parametrize(
    ("means", "sds"),
    [
        ([0.05, 0.06, 0.055], [0.01, 0.01, 0.02]),
        ([0.1, 0.1, 0.1, 0.1, 0.1], [0.01, 0.02, 0.03, 0.04, 0.05]),
        ([1.0, 0.9, 0.5, 0.0], [0.001, 0.1, 10.0, 1.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]),
        ([3.0, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0], [0.1, 0.5, 1.0, 2.0, 3.0, 3.0, 4.0]),
    ],
)
def test_it_is_how_often_draws_are_the_highest(means: list[float], sds: list[float]) -> None:
    """Of 400,000 draws, within 4 standard errors and the integral's own 1e-4."""
    size = 400_000
    draws = np.random.default_rng(3).normal(means, sds, (size, len(means)))
    tied = draws == draws.max(axis=1, keepdims=True)
    shares_of_draws = (tied / tied.sum(axis=1, keepdims=True)).mean(axis=0)
    error = 4 * np.sqrt(np.maximum(shares_of_draws * (1 - shares_of_draws), 1 / size) / size)
    assert (np.abs(best_of(np.array(means), np.array(sds)) - shares_of_draws) <= error + 1e-4).all()


@given(
    arms=normals(2, 6),
    order=st.randoms(use_true_random=False),
    unit=st.floats(1e-6, 1e6),
    shift=st.floats(-10, 10),
)
def test_neither_order_nor_units_matter(
    arms: tuple[Array, Array], order: Random, unit: float, shift: float
) -> None:
    """Arms in another order get the same; so do scores in other units, from another zero."""
    means, sds = arms
    assume(sds.max() >= 1e-4)
    places = list(range(len(means)))
    order.shuffle(places)
    assert best_of(means[places], sds[places]) == pytest.approx(best_of(means, sds)[places], abs=1e-9)
    assert best_of(unit * (means + shift), unit * sds) == pytest.approx(best_of(means, sds), abs=1e-6)


@given(arms=normals(3, 6), better=st.floats(0, 1))
def test_a_higher_mean_is_never_less_often_the_best(arms: tuple[Array, Array], better: float) -> None:
    """But for the error of the integral."""
    means, sds = arms
    raised = means + better * np.eye(len(means))[0]
    assert best_of(raised, sds)[0] >= best_of(means, sds)[0] - 2e-4


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ([2.0, 1.0, 0.0], [1, 0, 0]),
        ([2.0, 2.0, 0.0], [0.5, 0.5, 0]),
        ([1e-9, 0.0, 0.0], [1, 0, 0]),
        ([1.0, 2.0], [0, 1]),
        ([7.0], [1]),
    ],
)
def test_certain_scores_leave_the_highest(means: list[float], expected: list[float]) -> None:
    """Without any variance the highest takes all, and ties share equally; also among many rows."""
    none = np.zeros(len(means))
    assert best_of(np.array(means), none) == pytest.approx(expected)
    rows = best_of(np.array([means, means]), np.array([none, none + 1.0]))
    assert rows[0] == pytest.approx(expected)
    assert rows[1] == pytest.approx(best_of(np.array(means), none + 1.0), abs=1e-12)


def test_an_arm_far_below_has_no_chance_and_changes_nothing() -> None:
    """Whether it is below by 10 or by 10²⁰⁰ deviations."""
    two = best_of(np.array([0.1, 0.0]), np.array([0.1, 0.1]))
    for far in (-1e1, -1e8, -1e200):
        three = best_of(np.array([0.1, 0.0, far]), np.array([0.1, 0.1, 0.05]))
        assert three == pytest.approx([*two, 0], abs=1e-4)


def miller(a: float, b: float, c: float, d: float) -> float:
    """P(Beta(c, d) > Beta(a, b)) for integers: Evan Miller's sum."""
    i = np.arange(round(c))
    terms = special.betaln(a + i, d + b) - np.log(d + i) - special.betaln(1 + i, d) - special.betaln(a, b)
    return float(np.sum(np.exp(terms)))


def test_known_value_of_two_rates() -> None:
    """49 of 100 against 51 of 100 under a uniform prior: 0.6107705."""
    assert best_beta([49, 51], [51, 49])[1] == pytest.approx(0.6107705, abs=5e-8)


@given(*(st.integers(0, 400) for _ in range(4)))
def test_two_rates_agree_with_millers_closed_form(s1: int, f1: int, s2: int, f2: int) -> None:
    """To 1e-8, also without any success."""
    expected = miller(1 + s1, 1 + f1, 1 + s2, 1 + f2)
    assert best_beta([s1, s2], [f1, f2]) == pytest.approx([1 - expected, expected], abs=1e-8)


@pytest.mark.parametrize("count", [0, 0.3, 50, 1e9])
@pytest.mark.parametrize("arms", [1, 2, 3, 10])
def test_rates_alike_are_even(arms: int, count: float) -> None:
    """Whatever is known of them."""
    assert best_beta([count] * arms, [2 * count] * arms) == pytest.approx([1 / arms] * arms, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=2, max_size=5))
def test_rates_of_any_counts_make_a_distribution(counts: list[tuple[float, float]]) -> None:
    """Of which a mirror image exchanges two arms; nothing overflows."""
    successes, failures = (list(column) for column in zip(*counts, strict=True))
    p = best_beta(successes, failures)
    assert p.sum() == pytest.approx(1)
    assert (p >= 0).all()
    if len(p) == 2:
        assert best_beta(failures, successes) == pytest.approx(p[::-1], abs=1e-6)


@pytest.mark.parametrize(
    ("successes", "failures"),
    [([5, 8, 2, 0], [95, 92, 40, 3]), ([1, 0, 3], [1_000, 10, 20_000]), ([0.5, 2.5, 7], [3.5, 8.5, 30])],
)
def test_rates_agree_with_draws(successes: list[float], failures: list[float]) -> None:
    """Of 400,000 draws, within 4 standard errors."""
    size = 400_000
    draws = np.random.default_rng(4).beta(
        1 + np.array(successes), 1 + np.array(failures), (size, len(successes))
    )
    often = np.bincount(draws.argmax(axis=1), minlength=len(successes)) / size
    error = 4 * np.sqrt(np.maximum(often * (1 - often), 1 / size) / size)
    assert (np.abs(best_beta(successes, failures) - often) <= error).all()


def test_rates_of_a_thousand_millions_agree_with_the_normal() -> None:
    """Where the Beta is normal: Φ of the difference over its deviation."""
    s, f = np.array([5e8, 5e8 + 2e4]), np.array([5e8, 5e8 - 2e4])
    m = (1 + s) / (2 + s + f)
    expected = special.ndtr((m[1] - m[0]) / np.sqrt(np.sum(m * (1 - m) / (s + f))))
    assert best_beta(s, f)[1] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("count", [-1.0, float("nan"), float("inf")])
def test_counts_that_cannot_be_are_refused(count: float) -> None:
    """Of successes as of failures."""
    with pytest.raises(BadModel, match="successes must be finite and at least 0, got"):
        best_beta([1, count], [1, 1])
    with pytest.raises(BadModel, match="failures must be finite and at least 0, got"):
        best_beta([1, 1], [1, count])
