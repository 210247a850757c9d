"""A day is unhealthy when the arms can no longer be compared, and only when that is beyond chance."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from policies.health import LABELLED_APART, health_problem
from policies.rollups import ArmCounts

FINE = ArmCounts(decisions=10_000, served=10_000, labelled=8_000)


@pytest.mark.parametrize(
    ("challenger", "problem"),
    [
        (ArmCounts(1_000, 1_000, 800), None),
        (ArmCounts(1_000, 950, 800), None),
        (
            ArmCounts(1_000, 949, 800),
            "the challenger served 94.9% of its decisions, at least 95% are needed",
        ),
        (
            ArmCounts(1_000, 1_000, 700),
            "80.0% of the champion's decisions have a value, but 70.0% of the challenger's",
        ),
        (
            ArmCounts(1_000, 1_000, 900),
            "80.0% of the champion's decisions have a value, but 90.0% of the challenger's",
        ),
        (ArmCounts(10**6, 10**6, 770_000), None),
        (ArmCounts(100, 100, 70), None),
        (ArmCounts(99, 0, 0), None),
    ],
    ids=["fine", "served 95 %", "served less", "fewer", "more", "4 % apart", "by chance", "few decisions"],
)
def test_what_is_unhealthy_is_said_in_numbers(challenger: ArmCounts, problem: str | None) -> None:
    """Too few served, or shares of labelled decisions apart by more than 5 % and more than chance."""
    assert health_problem(FINE, challenger, at_least=100) == problem


def test_a_champion_with_few_decisions_says_nothing_either() -> None:
    """Both arms need the number."""
    assert health_problem(ArmCounts(99, 99, 0), ArmCounts(1_000, 0, 0), at_least=100) is None


def test_coverage_is_compared_by_ratio() -> None:
    """Where few decisions get a value at all, 1 % against 2 % is unequal."""
    rare, twice = ArmCounts(100_000, 100_000, 1_000), ArmCounts(100_000, 100_000, 2_000)
    assert health_problem(rare, twice, at_least=100) is not None


def test_no_labels_at_all_are_equal_coverage() -> None:
    """Nothing on either side is for the sample size to refuse."""
    assert health_problem(ArmCounts(1_000, 1_000, 0), ArmCounts(1_000, 1_000, 0), at_least=100) is None


@given(
    n=st.tuples(st.integers(100, 10**5), st.integers(100, 10**5)),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_unequal_coverage_is_beyond_chance_and_matters(
    n: tuple[int, int], shares: tuple[float, float]
) -> None:
    """Exactly where the chi-square test has p < 0.001 and shares differ by over 5 % of the greater, whichever
    arm has it."""
    a, b = (ArmCounts(of, of, round(of * share)) for of, share in zip(n, shares, strict=True))
    table = [[arm.labelled, arm.decisions - arm.labelled] for arm in (a, b)]
    assume(all(sum(column) for column in zip(*table, strict=True)))
    p = stats.chi2_contingency(table, correction=False).pvalue
    assume(not 0.0009 < p < 0.0011)
    first, second = a.labelled / a.decisions, b.labelled / b.decisions
    unequal = p < 0.001 and abs(first - second) > LABELLED_APART * max(first, second)
    assert (health_problem(a, b, 100) is not None) == unequal
    assert (health_problem(b, a, 100) is not None) == unequal
