"""Sums add up in any order, and strata hold only what can be compared."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.days import Day
from policies.errors import CannotJudge
from policies.rollups import Cell, Sums, pooled, strata

MONDAY, TUESDAY = Day(0, 10, "monday"), Day(10, 20, "tuesday")
whole_sums = st.builds(
    Sums,
    st.integers(0, 10**6),
    st.integers(-(10**9), 10**9).map(float),
    st.integers(0, 10**12).map(float),
)


def of(*values: float) -> Sums:
    """The sums of some values."""
    return Sums(len(values), sum(values), sum(value**2 for value in values))


@given(whole_sums, whole_sums, whole_sums)
def test_sums_are_additive(a: Sums, b: Sums, c: Sums) -> None:
    """Adding is associative and commutative, subtracting undoes it, and nothing added changes nothing."""
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert (a + b) - b == a
    assert a + Sums() == a


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_mean_and_variance_are_those_of_the_values(values: list[float]) -> None:
    """The sums give the sample mean and the sample variance (ddof 1)."""
    assert of(*values).mean == pytest.approx(np.mean(values), abs=1e-9)
    assert of(*values).variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-6)


def test_rounding_never_makes_a_variance_negative() -> None:
    """Equal values of 0.1 have Σy² a little below (Σy)²/n; their variance is 0."""
    assert Sums(3, 0.3, 0.03 - 1e-17).variance == 0


def test_too_few_values_are_refused_with_a_reason() -> None:
    """No mean of nothing, no variance of one."""
    with pytest.raises(CannotJudge, match="at least 1 value, got 0") as nothing:
        _ = Sums().mean
    assert nothing.value.reason == "no_data"
    with pytest.raises(CannotJudge, match="at least 2 values, got 1"):
        _ = of(1.0).variance


def test_strata_are_days_and_epochs_with_both_arms_in_order() -> None:
    """A day × epoch with one arm alone, an empty cell or another arm's cell is no part of a comparison."""
    cells = [
        Cell(TUESDAY, 2, "a", 0, of(1, 2)),
        Cell(TUESDAY, 2, "b", 5, of(3)),
        Cell(TUESDAY, 2, "b", 5, of(4)),
        Cell(TUESDAY, 1, "a", 0, of(1)),
        Cell(TUESDAY, 1, "b", 0, Sums()),
        Cell(TUESDAY, 1, "c", 0, of(9)),
        Cell(MONDAY, 1, "b", 1, of(5)),
        Cell(MONDAY, 1, "a", 0, of(6)),
    ]
    first, second = strata(cells, "a", "b")
    assert (first.day, first.epoch, second.day, second.epoch) == (MONDAY, 1, TUESDAY, 2)
    assert second.challenger == {5: of(3, 4)}
    assert pooled(second.champion) == of(1, 2)
    assert strata(cells, "a", "nobody") == ()


@given(
    st.permutations(
        [
            Cell(day, epoch, arm, b, of(b + 1))
            for day in (MONDAY, TUESDAY)
            for epoch in (1, 2)
            for arm in "ab"
            for b in (0, 1)
        ]
    )
)
def test_the_order_of_cells_does_not_matter(cells: list[Cell]) -> None:
    """Rollup rows may be read in any order."""
    assert strata(cells, "a", "b") == strata(sorted(cells, key=repr), "a", "b")
