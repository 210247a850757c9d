"""Totals of real data are let through and describe it; those that no data can have are refused.

The refusals, kind by kind, are in test_comparison.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from policies.errors import BadSpec
from policies.totals import FIELDS, check_totals, log_ratio, parse_totals, student, within
from policies.types import Kind

values = st.lists(st.integers(1, 10**6).map(lambda value: value / 1_000), min_size=3, max_size=40)


def continuous(of: list[float]) -> dict[str, float]:
    """The totals of values."""
    return {"n": len(of), "sum": sum(of), "sum_squares": sum(value**2 for value in of)}


def ratio(num: list[float], den: list[float]) -> dict[str, float]:
    """The totals of pairs."""
    return {
        "n": len(num),
        "num": sum(num),
        "den": sum(den),
        "num_squares": sum(m**2 for m in num),
        "den_squares": sum(d**2 for d in den),
        "cross": sum(m * d for m, d in zip(num, den, strict=True)),
    }


@given(of=values)
def test_the_posterior_of_a_mean_is_students(of: list[float]) -> None:
    """Its 95 % interval is the textbook's, ȳ ± t·s/√n."""
    assume(max(of) > 1.001 * min(of))
    check_totals(Kind.CONTINUOUS, continuous(of), "champion")
    found = student(continuous(of), "champion")
    reference = stats.t(len(of) - 1, np.mean(of), stats.sem(of))
    assert found.interval(0.95) == pytest.approx(reference.interval(0.95), rel=1e-5)


@given(num=values, den=values)
def test_the_posterior_of_a_ratio_is_that_of_the_delta_method(num: list[float], den: list[float]) -> None:
    """The log of R with the variance of the residuals m − R·d over (n d̄² R²)."""
    size = min(len(num), len(den))
    num, den = num[:size], den[:size]
    m, d = np.array(num), np.array(den)
    centre = m.sum() / d.sum()
    residual = float(np.std(m - centre * d, ddof=1))
    assume(residual > 1e-3 * np.mean(m))
    check_totals(Kind.RATIO, ratio(num, den), "champion")
    found = log_ratio(ratio(num, den), "champion")
    assert found.log == pytest.approx(log(centre))
    assert found.sd == pytest.approx(residual / sqrt(size) / np.mean(d) / centre, rel=1e-4)


@pytest.mark.parametrize("value", [0.1, 1.0, 1e6 / 3])
def test_equal_values_are_refused_whatever_rounding_leaves(value: float) -> None:
    """A spread that is rounding is none."""
    with pytest.raises(BadSpec, match=r"champion\.sum_squares must exceed"):
        student(continuous([value] * 1_000), "champion")


def test_every_kind_says_how_an_arm_is_described() -> None:
    """And wants exactly that: a field too many is refused like one too few."""
    assert set(FIELDS) == set(Kind)
    for kind, names in FIELDS.items():
        for wrong in (dict.fromkeys(names[1:], 1.0), dict.fromkeys((*names, "extra"), 1.0)):
            with pytest.raises(BadSpec, match=f"champion must name exactly {', '.join(names)}"):
                check_totals(kind, wrong, "champion")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--champion must be NAME=NUMBER,NAME=NUMBER, got ''"),
        ("n=1,", "--champion must be NAME=NUMBER,NAME=NUMBER, got 'n=1,'"),
        ("n=1,n=2", "--champion must name n once, got 'n=1,n=2'"),
        ("n=one", "--champion must be NAME=NUMBER,NAME=NUMBER, got 'n=one'"),
    ],
)
def test_unreadable_totals_are_refused(text: str, message: str) -> None:
    """With what was read."""
    with pytest.raises(BadSpec) as refused:
        parse_totals(text, "--champion")
    assert str(refused.value) == message


def test_bounds_are_inclusive() -> None:
    """And NaN is within none."""
    within("x", 0, 0, 1)
    within("x", 1, 0, 1)
    for value in (-0.001, 1.001, float("nan")):
        with pytest.raises(BadSpec, match=r"x must be in \[0, 1\], got"):
            within("x", value, 0, 1)
