"""Intervals of a relative difference agree with closed forms and keep their symmetries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from policies.lifts import lift_of_betas, lift_of_gammas, lift_of_students
from policies.posterior import Beta, Gamma, StudentT

betas = st.builds(Beta, st.floats(0.5, 1e4), st.floats(0.5, 1e4))
smooth_betas = st.builds(Beta, st.floats(0.5, 1e4), st.floats(10, 1e4))
gammas = st.builds(Gamma, st.floats(0.5, 1e4), st.floats(0.1, 1e4))


@given(a=gammas, b=gammas, level=st.floats(0.5, 0.96))
def test_the_ratio_of_gammas_is_an_f_distribution(a: Gamma, b: Gamma, level: float) -> None:
    """B/A divided by the ratio of the means has F(2·shape_B, 2·shape_A)."""
    low, high = stats.f(2 * b.shape, 2 * a.shape).interval(level)
    ratio = b.mean / a.mean
    assert lift_of_gammas(a, b, level) == pytest.approx(
        (ratio * low - 1, ratio * high - 1), rel=1e-6, abs=1e-8
    )


@given(a=smooth_betas, b=smooth_betas)
def test_exchanged_betas_have_the_inverse_ratio(a: Beta, b: Beta) -> None:
    """The interval of A/B is that of B/A turned over."""
    assert turned(lift_of_betas(b, a, 0.9)) == pytest.approx(lift_of_betas(a, b, 0.9), rel=1e-5, abs=1e-7)


@given(a=betas, b=betas)
def test_rates_of_nearly_one_have_the_inverse_ratio_nearly(a: Beta, b: Beta) -> None:
    """Where a density does not die at 1 the integrand has a kink there, and the ratio is good to 1 %."""
    there, back = lift_of_betas(a, b, 0.9), turned(lift_of_betas(b, a, 0.9))
    assert [1 + end for end in there] == pytest.approx([1 + end for end in back], rel=1e-2)


def turned(lift: tuple[float, float]) -> tuple[float, float]:
    """The interval of 1/(1 + lift) − 1."""
    low, high = lift
    return 1 / (1 + high) - 1, 1 / (1 + low) - 1


@pytest.mark.parametrize(("a", "b"), [(Beta(10, 90), Beta(14, 90)), (Beta(1, 30), Beta(3, 8))])
def test_the_tails_of_betas_agree_with_a_double_integral(a: Beta, b: Beta) -> None:
    """P(B ≤ rA) at the ends is 5 % and 95 %."""
    for end, tail in zip(lift_of_betas(a, b, 0.9), (0.05, 0.95), strict=True):
        ratio = 1 + end

        def below(x: float, ratio: float = ratio) -> float:
            return float(stats.beta(b.a, b.b).cdf(ratio * x) * stats.beta(a.a, a.b).pdf(x))

        chance, _ = integrate.quad(below, 0, 1, points=[a.mean, min(1.0, 1 / ratio)])
        assert chance == pytest.approx(tail, abs=1e-7)


def test_over_a_known_champion_the_lift_is_the_challengers_interval() -> None:
    """With an A that hardly varies, (B − A)/|A| is B shifted and scaled, whatever A's sign."""
    b = StudentT(df=9, loc=2.2, scale=0.3)
    low, high = b.interval(0.95)
    for mean in (2.0, -2.0):
        found = lift_of_students(StudentT(df=1e6, loc=mean, scale=1e-7), b, 0.95)
        assert found == pytest.approx(((low - mean) / 2, (high - mean) / 2), rel=1e-5)


@given(
    loc=st.tuples(st.floats(3, 10), st.floats(-10, 10)),
    scale=st.tuples(st.floats(0.01, 2), st.floats(0.01, 2)),
    df=st.floats(5, 1e4),
)
def test_negated_values_mirror_the_lift(
    loc: tuple[float, float], scale: tuple[float, float], df: float
) -> None:
    """(−B + A)/|A| is the negative of (B − A)/|A|, where A's sign is certain and where it is not."""
    a, b = (StudentT(df, *one) for one in zip(loc, scale, strict=True))
    low, high = lift_of_students(a, b, 0.95)
    mirrored = lift_of_students(StudentT(df, -a.loc, a.scale), StudentT(df, -b.loc, b.scale), 0.95)
    assert mirrored == pytest.approx((-high, -low), rel=1e-5, abs=1e-6)


def test_a_challenger_around_nothing_is_minus_one_hundred_percent() -> None:
    """B around 0 over a certain A: the interval lies around −1."""
    low, high = lift_of_students(StudentT(50, 5.0, 0.1), StudentT(50, 0.0, 0.5), 0.95)
    assert low + high == pytest.approx(-2, abs=1e-6)
    assert -1.3 < low < -1 < high < -0.7


def test_an_uncertain_sign_gives_a_wide_interval_and_no_failure() -> None:
    """Where A may be 0 or less, hardly any lift can be left out."""
    low, high = lift_of_students(StudentT(5, 0.0, 1.0), StudentT(5, 1.0, 1.0), 0.95)
    assert low < -4
    assert high > 20
    assert np.isfinite([low, high]).all()
