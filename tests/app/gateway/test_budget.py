"""Claims about retry budgets: what may be sent again, and that it is never more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.budget import FLOOR, WINDOW_SECONDS, Budgets, RetryBudget
from routing.types import Arm, Match, Role, Route, Share, Upstream


def spend(budget: RetryBudget, now: float) -> int:
    """Takes until it is refused: how often it was granted."""
    granted = 0
    while budget.take(now):
        granted += 1
    return granted


def test_a_quiet_route_may_retry_a_little() -> None:
    """Three times in ten seconds, without any traffic that would earn it."""
    budget = RetryBudget(10)
    assert spend(budget, 100.0) == FLOOR == 3
    assert spend(budget, 109.9) == 0
    assert spend(budget, 111.0) == 3


@pytest.mark.parametrize(("percent", "granted"), [(10, 103), (1, 13), (100, 1_003), (0, 0)])
def test_retries_are_a_share_of_the_requests(percent: int, granted: int) -> None:
    """So many percent of a thousand requests, and the floor; nothing at all at 0 %."""
    budget = RetryBudget(percent)
    for _ in range(1_000):
        budget.note_request(50.0)
    assert spend(budget, 50.5) == granted
    assert budget.refusals == 1


def test_requests_earn_for_a_while() -> None:
    """Nine seconds later they still do, eleven seconds later no more."""
    for later, granted in ((9.0, 103), (11.0, 3)):
        budget = RetryBudget(10)
        for _ in range(1_000):
            budget.note_request(50.0)
        assert spend(budget, 50.0 + later) == granted


def test_a_steady_route_retries_at_its_share() -> None:
    """At a hundred requests a second, all of which ask for a retry, one in ten gets it."""
    budget, granted = RetryBudget(10), 0
    for count in range(6_000):
        budget.note_request(count / 100)
        granted += budget.take(count / 100)
    assert 500 <= granted <= 610


def test_a_long_silence_is_survived() -> None:
    """After a day without a request the budget is the floor."""
    budget = RetryBudget(10)
    for _ in range(1_000):
        budget.note_request(0.5)
    assert spend(budget, 86_400.0) == 3


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.sampled_from((0, 0, 0, 1, 64, 700, 1_024, 9_216, 10_239)), st.booleans()), max_size=300
    ),
)
def test_no_window_holds_more_retries_than_it_may(percent: int, steps: list[tuple[int, bool]]) -> None:
    """At every retry, over the ten seconds up to it: retries ≤ percent of the requests + the floor."""
    budget, now = RetryBudget(percent), 0
    requests: list[int] = []
    retries: list[int] = []
    for later, is_retry in steps:
        now += later
        if not is_retry:
            budget.note_request(now / 1_024)
            requests.append(now)
        elif budget.take(now / 1_024):
            retries.append(now)
            oldest = now - WINDOW_SECONDS * 1_024
            retried, asked = (sum(at > oldest for at in times) for times in (retries, requests))
            assert retried * 100 <= percent * asked + FLOOR * 100


def test_the_state_is_said() -> None:
    """In one line, for whoever looks."""
    budget = RetryBudget(10)
    budget.note_request(1.0)
    assert spend(budget, 1.0) == 3
    assert repr(budget) == "<RetryBudget 10 %, 3 retries of 1 requests, 1 refused>"


def route_of(route_id: int, **upstream: Any) -> Route:
    """A route with one arm."""
    return Route(
        id=route_id,
        name=f"route{route_id}",
        match=Match(),
        arms=(Arm(id=1, name="old", url="http://127.0.0.1:1", role=Role.CHAMPION),),
        shares=(Share(arm_id=1, start_bp=0, end_bp=10_000),),
        salt="salt",
        epoch=1,
        upstream=Upstream(**upstream),
    )


def test_a_budget_outlives_snapshots() -> None:
    """A route that stays keeps what it has spent, and goes by its new share; one that is gone has none."""
    budgets = Budgets()
    budgets.adopt((route_of(1), route_of(2)))
    assert spend(budgets.of(1), 5.0) == 3
    budgets.adopt((route_of(1, retry_percent=50),))
    assert spend(budgets.of(1), 5.0) == 0
    assert budgets.of(1).percent == 50
    assert spend(budgets.of(2), 5.0) == 0
