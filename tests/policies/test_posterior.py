"""Posteriors agree with closed forms and reference implementations, also where arithmetic is hardest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from policies.posterior import Beta, Gamma, LogRatio, Posterior, StudentT, chance_above, shortfall
from policies.quadrature import crossing

shapes = st.floats(0.5, 1e4)
betas = st.builds(Beta, shapes, shapes)
gammas = st.builds(Gamma, shapes, st.floats(0.1, 1e4))
students = st.builds(StudentT, st.floats(2.5, 1e5), st.floats(-10, 10), st.floats(0.01, 10))
pairs = st.one_of(*(st.tuples(kind, kind) for kind in (betas, gammas, students)))

EXTREME = [
    (Beta(1, 11), Beta(11, 1)),
    (Beta(0.5, 10.5), Beta(10.5, 0.5)),
    (Beta(5e8, 5e8), Beta(5e8 + 2e4, 5e8 - 2e4)),
    (Beta(1e3, 1e9), Beta(1.1e3, 1e9)),
    (Beta(0.5, 1e9), Beta(1e9, 0.5)),
    (Beta(2, 3), Beta(5e8, 5e8)),
    (Gamma(0.5, 1e9), Gamma(1e6, 1e6)),
    (Gamma(1e9, 1e9), Gamma(1e9 + 3e4, 1e9)),
    (StudentT(2, 0, 1), StudentT(1e9, 1e-5, 1e-5)),
]


def miller(a: Beta, b: Beta) -> float:
    """P(B > A) for integer parameters: Evan Miller's sum."""
    i = np.arange(round(b.a))
    terms = special.betaln(a.a + i, b.b + a.b) - np.log(b.b + i) - special.betaln(1 + i, b.b)
    return float(np.sum(np.exp(terms - special.betaln(a.a, a.b))))


def test_known_values_of_a_flat_prior() -> None:
    """49 of 100 against 51 of 100: P 0.6107705, loss of choosing B 0.0191165, of A 0.0387243."""
    a, b = Beta(50, 52), Beta(52, 50)
    assert chance_above(b, a) == pytest.approx(0.6107705, abs=5e-8)
    assert shortfall(b, a) == pytest.approx(0.0191165, abs=5e-8)
    assert shortfall(a, b) == pytest.approx(0.0387243, abs=5e-8)


def test_known_value_of_counts() -> None:
    """10 in 100 against 20 in 120 under Gamma(1, 1): P 0.904225."""
    assert Gamma(21, 121).chance_above(Gamma(11, 101)) == pytest.approx(0.904225, abs=5e-7)


@given(*(st.integers(1, 300) for _ in range(4)))
def test_integer_betas_agree_with_millers_closed_form(a: int, b: int, c: int, d: int) -> None:
    """Quadrature agrees with the finite sum to 1e-10."""
    assert chance_above(Beta(c, d), Beta(a, b)) == pytest.approx(miller(Beta(a, b), Beta(c, d)), abs=1e-10)


@given(x=gammas, y=gammas)
def test_gammas_agree_with_their_closed_form(x: Gamma, y: Gamma) -> None:
    """The quadrature of two Gammas is the incomplete beta function."""
    assert chance_above(x, y) == pytest.approx(x.chance_above(y), abs=1e-9)


@given(x=betas, y=betas)
def test_the_loss_of_betas_agrees_with_its_closed_form(x: Beta, y: Beta) -> None:
    """E max(Y − X, 0) = m_Y·P(Y⁺ > X) − m_X·P(Y > X⁺), with one more success in ⁺."""
    closed = y.mean * chance_above(Beta(y.a + 1, y.b), x) - x.mean * chance_above(y, Beta(x.a + 1, x.b))
    assert shortfall(x, y) == pytest.approx(closed, abs=1e-9)


@given(pairs)
def test_a_pair_is_judged_alike_from_both_sides(pair: tuple[Posterior, Posterior]) -> None:
    """P(X > Y) + P(Y > X) = 1, and the difference of the losses is the difference of the means."""
    x, y = pair
    assert chance_above(x, y) + chance_above(y, x) == pytest.approx(1, abs=1e-9)
    assert shortfall(x, y) - shortfall(y, x) == pytest.approx(float(y.mean - x.mean), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("x", "y"), EXTREME)
def test_extreme_posteriors_stay_exact(x: Posterior, y: Posterior) -> None:
    """Shapes below 1, a billion values, hardly overlapping arms: finite, complementary, losses that add
    up."""
    assert 0 <= chance_above(y, x) <= 1
    assert chance_above(x, y) + chance_above(y, x) == pytest.approx(1, abs=1e-9)
    scale = max(float(x.width), float(y.width), abs(float(x.mean)), abs(float(y.mean)))
    assert shortfall(x, y) - shortfall(y, x) == pytest.approx(float(y.mean - x.mean), abs=1e-8 * scale)


@given(st.one_of(betas, gammas, students))
def test_an_arm_against_its_equal_is_even(x: Posterior) -> None:
    """P = ½, whatever the posterior."""
    assert chance_above(x, x) == pytest.approx(0.5, abs=1e-7)


@pytest.mark.parametrize("x", [Beta(0.5, 0.5), Beta(1, 1e9), Beta(1e3, 1e9), Beta(5e8, 5e8), Beta(60, 40)])
def test_the_interval_of_a_beta_leaves_out_its_tails(x: Beta) -> None:
    """2.5 % on each side, also where the library's inverse function fails."""
    low, high = (np.asarray(end) for end in x.interval(0.95))
    assert x.below(low) == pytest.approx(0.025, abs=1e-9)
    assert x.above(high) == pytest.approx(0.025, abs=1e-9)


@pytest.mark.parametrize(
    ("x", "reference"),
    [
        (Beta(3, 40), stats.beta(3, 40)),
        (Gamma(7, 20), stats.gamma(7, scale=1 / 20)),
        (StudentT(9, 2, 0.3), stats.t(9, 2, 0.3)),
    ],
    ids=["beta", "gamma", "t"],
)
def test_posteriors_agree_with_reference_distributions(x: Posterior, reference: stats.rv_continuous) -> None:
    """Tails, intervals, and the expected excess E max(X − c, 0), against another implementation."""
    c = np.asarray(reference.mean() * 1.1)
    assert x.below(c) == pytest.approx(reference.cdf(c))
    assert x.above(c) == pytest.approx(reference.sf(c))
    assert x.interval(0.95) == pytest.approx(reference.interval(0.95))
    assert x.excess(c) == pytest.approx(reference.expect(lambda v: max(v - float(c), 0.0)), rel=1e-6)
    over = x.nodes()
    assert over.expectation(over.at) == pytest.approx(reference.mean())


def test_log_ratios_agree_with_draws() -> None:
    """Chance, loss and lift of two log-normal ratios, against a million draws."""
    x, y = LogRatio(log=0.1, sd=0.2), LogRatio(log=0.0, sd=0.3)
    draw = np.random.default_rng(1)
    of_x, of_y = (np.exp(draw.normal(one.log, one.sd, 1_000_000)) for one in (x, y))
    assert x.chance_above(y) == pytest.approx(np.mean(of_x > of_y), abs=2e-3)
    assert x.shortfall(y) == pytest.approx(np.mean(np.maximum(of_y - of_x, 0)), rel=1e-2)
    assert x.lift_over(y, 0.95) == pytest.approx(np.quantile(of_x / of_y - 1, [0.025, 0.975]), abs=1e-2)


def test_a_crossing_outside_its_bracket_is_the_nearer_end() -> None:
    """A search that cannot find answers with an end, and one that can finds to 1e-11."""
    assert crossing(lambda x: x, 5.0, 0.0, 1.0) == 1.0
    assert crossing(lambda x: x, -5.0, 0.0, 1.0) == 0.0
    assert crossing(lambda x: x**9, 0.5, 0.0, 10.0) == pytest.approx(0.5 ** (1 / 9), abs=1e-10)
