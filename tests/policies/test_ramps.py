"""A split always sums to 10,000, the champion pays first, and no arm is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.ramps import all_to, next_share, with_share, without

ARMS = ("a", "b", "c", "d")


@st.composite
def splits(draw: st.DrawFn) -> dict[str, int]:
    """Any division of 10,000 among the arms."""
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=3, max_size=3)))
    ends = [0, *cuts, 10_000]
    return {arm: ends[place + 1] - ends[place] for place, arm in enumerate(ARMS)}


@given(weights=splits(), share_bp=st.integers(0, 10_000))
def test_a_new_share_keeps_the_sum_and_every_arm(weights: dict[str, int], share_bp: int) -> None:
    """The arm gets what it was to get, the shares still sum to 10,000, and no other challenger gains."""
    split = with_share(weights, "b", share_bp, champion="a")
    assert split["b"] == share_bp
    assert sum(split.values()) == 10_000
    assert set(split) == set(ARMS)
    assert min(split.values()) >= 0
    assert all(split[arm] <= weights[arm] for arm in ("c", "d"))


@given(weights=splits())
def test_a_challenger_that_leaves_pays_its_champion(weights: dict[str, int]) -> None:
    """What an arm gives back goes to the champion alone."""
    split = without(weights, "c", champion="a")
    assert split == {**weights, "a": weights["a"] + weights["c"], "c": 0}


def test_other_challengers_pay_only_when_the_champion_would_be_left_short() -> None:
    """The champion pays down to half of what is left, then the others pay in proportion."""
    weights = {"a": 5_000, "b": 500, "c": 1_500, "d": 3_000}
    assert with_share(weights, "b", 2_000, champion="a") == {"a": 4_001, "b": 2_000, "c": 1_333, "d": 2_666}
    assert with_share(weights, "b", 5_000, champion="a") == {"a": 2_501, "b": 5_000, "c": 833, "d": 1_666}
    assert with_share(weights, "b", 800, champion="a") == {"a": 4_700, "b": 800, "c": 1_500, "d": 3_000}


@given(weights=splits(), share_bp=st.integers(0, 9_998))
def test_a_champion_with_traffic_keeps_some(weights: dict[str, int], share_bp: int) -> None:
    """Whatever a challenger steps up to, there is still something to compare it with."""
    split = with_share(weights, "b", share_bp, champion="a")
    assert split["a"] >= min(weights["a"], (10_000 - share_bp) // 2)


@pytest.mark.parametrize(
    ("share_bp", "expected"), [(0, 500), (500, 2_500), (700, 2_500), (2_500, 10_000), (10_000, 10_000)]
)
def test_the_next_step_is_the_first_above(share_bp: int, expected: int) -> None:
    """A share between two steps goes on to the higher; after the last step there is only promotion."""
    assert next_share((500, 2_500, 10_000), share_bp) == expected


def test_all_traffic_to_one_arm() -> None:
    """The others stay in the split, with nothing."""
    assert all_to("b", ARMS) == {"a": 0, "b": 10_000, "c": 0, "d": 0}
