"""One value per decision, whatever the order in which its outcomes are read."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.metrics import Outcome, combine
from policies.types import Aggregate

OUTCOMES = (
    Outcome(value=1.0, at_ms=50, received_at_ms=10, event="b"),
    Outcome(value=2.0, at_ms=40, received_at_ms=10, event="a"),
    Outcome(value=4.0, at_ms=50, received_at_ms=30, event="c"),
)


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [(Aggregate.FIRST, 2.0), (Aggregate.LAST, 4.0), (Aggregate.SUM, 7.0), (Aggregate.MAX, 4.0)],
)
def test_the_order_of_reading_changes_nothing(aggregate: Aggregate, value: float) -> None:
    """First is by receipt, then event; last by time, then event; in every order of the same outcomes."""
    assert {combine(aggregate, order) for order in permutations(OUTCOMES)} == {value}


@pytest.mark.parametrize("aggregate", Aggregate)
def test_no_outcome_is_no_value(aggregate: Aggregate) -> None:
    """Silence is None, not 0."""
    assert combine(aggregate, []) is None


@given(value=st.floats(-1e15, 1e15), aggregate=st.sampled_from(Aggregate))
def test_a_single_outcome_is_the_value(value: float, aggregate: Aggregate) -> None:
    """Every aggregate of one outcome is that outcome."""
    assert combine(aggregate, [Outcome(value, 1, 1, "a")]) == value
