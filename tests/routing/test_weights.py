"""Weights are refused or kept exactly, and a change of them moves no unit that it need not move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.assignment import Asked, Plan
from routing.errors import BadWeights
from routing.types import TOTAL_BP, Arm, Match, Role, Route, Share, probabilities
from routing.weights import check_weights, lay_out

CHAMPION = 1
CHALLENGERS = (2, 3, 4)
ARMS = (CHAMPION, *CHALLENGERS)


@st.composite
def splits(draw: st.DrawFn, arms: Sequence[int] = ARMS) -> dict[int, int]:
    """Any division of 10,000 among the arms, zeros included."""
    cuts = draw(st.lists(st.integers(0, TOTAL_BP), min_size=len(arms) - 1, max_size=len(arms) - 1))
    ends = [0, *sorted(cuts), TOTAL_BP]
    return {arm: ends[place + 1] - ends[place] for place, arm in enumerate(arms)}


def owners(shares: Sequence[Share]) -> list[int]:
    """The arm of each bucket."""
    return [share.arm_id for share in shares for _ in range(share.start_bp, share.end_bp)]


def moves(before: Sequence[Share], after: Sequence[Share]) -> Counter[tuple[int, int]]:
    """How many buckets went from which arm to which."""
    pairs = zip(owners(before), owners(after), strict=True)
    return Counter((old, new) for old, new in pairs if old != new)


def laid_out(weights: Mapping[int, int], previous: Sequence[Share] = ()) -> tuple[Share, ...]:
    """A division by these weights."""
    return lay_out(previous, weights, CHAMPION)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"old": 9_000, "new": 999}, r"weights must sum to 10000, got 9999"),
        ({"old": 9_000, "new": 1_001}, r"weights must sum to 10000, got 10001"),
        ({}, r"weights must sum to 10000, got 0"),
        ({"old": 10_001, "new": -1}, r"weights\.old must be in \[0, 10000\], got 10001"),
        ({"new": -1, "old": 10_001}, r"weights\.new must be in \[0, 10000\], got -1"),
        ({"old": 9_000, "gbm": 1_000}, r"unknown arm 'gbm'; the route has \['new', 'old'\]"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights: dict[str, int], message: str) -> None:
    """The refusal names field, bound and value; nothing is repaired."""
    with pytest.raises(BadWeights, match=message):
        check_weights(weights, {"old", "new"})


@pytest.mark.parametrize("weights", [{"old": 10_000}, {"old": 0, "new": 10_000}, {"old": 1, "new": 9_999}])
def test_weights_that_sum_are_accepted(weights: dict[str, int]) -> None:
    """An arm may have nothing, or be left out."""
    check_weights(weights, {"old", "new"})


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({CHAMPION: 9_000, 2: 500}, r"weights must sum to 10000, got 9500"),
        ({CHAMPION: 11_000, 2: -1_000}, r"weights\.1 must be in \[0, 10000\], got 11000"),
    ],
)
def test_a_division_by_bad_weights_is_refused(weights: dict[int, int], message: str) -> None:
    """What is missing is not quietly given to the champion."""
    with pytest.raises(BadWeights, match=message):
        laid_out(weights)


@given(steps=st.lists(splits(), min_size=1, max_size=5))
def test_every_arm_gets_exactly_its_share(steps: list[dict[int, int]]) -> None:
    """After any history of splits, each arm holds its basis points, and the shares adjoin."""
    shares: tuple[Share, ...] = ()
    for weights in steps:
        shares = laid_out(weights, shares)
        held = {arm: share for arm, share in weights.items() if share}
        assert probabilities(shares) == held == Counter(owners(shares))
        assert [share.start_bp for share in shares[1:]] == [share.end_bp for share in shares[:-1]]
        assert (shares[0].start_bp, shares[-1].end_bp) == (0, TOTAL_BP)


@given(
    start=st.lists(splits(), min_size=1, max_size=3),
    arm=st.sampled_from(CHALLENGERS),
    part=st.floats(0, 1),
)
def test_raising_a_challenger_moves_units_from_the_champion_to_it_alone(
    start: list[dict[int, int]], arm: int, part: float
) -> None:
    """As many as its share grew by, and no other unit sees another arm."""
    before: tuple[Share, ...] = ()
    for weights in start:
        before = laid_out(weights, before)
    growth = int(start[-1][CHAMPION] * part)
    weights = {
        **start[-1],
        CHAMPION: start[-1][CHAMPION] - growth,
        arm: start[-1][arm] + growth,
    }
    assert moves(before, laid_out(weights, before)) == Counter({(CHAMPION, arm): growth} if growth else {})


@given(
    start=st.lists(splits(), min_size=1, max_size=3),
    arm=st.sampled_from(CHALLENGERS),
    part=st.floats(0, 1),
)
def test_lowering_a_challenger_moves_units_back_to_the_champion_alone(
    start: list[dict[int, int]], arm: int, part: float
) -> None:
    """As many as its share shrank by; the units that it keeps are ones that it had."""
    before: tuple[Share, ...] = ()
    for weights in start:
        before = laid_out(weights, before)
    loss = int(start[-1][arm] * part)
    weights = {**start[-1], CHAMPION: start[-1][CHAMPION] + loss, arm: start[-1][arm] - loss}
    assert moves(before, laid_out(weights, before)) == Counter({(arm, CHAMPION): loss} if loss else {})


@given(first=splits(), second=splits())
def test_a_change_of_all_shares_moves_no_unit_without_need(
    first: dict[int, int], second: dict[int, int]
) -> None:
    """Who shrinks loses just that, who grows gains just that.

    Units go from challenger to challenger only in so far as the champion's own did not suffice.
    """
    before = laid_out(first)
    moved = moves(before, laid_out(second, before))
    grown = 0
    for arm in CHALLENGERS:
        growth = second[arm] - first[arm]
        grown += max(0, growth)
        assert sum(moved[other, arm] for other in ARMS) == max(0, growth)
        assert sum(moved[arm, other] for other in ARMS) == max(0, -growth)
    between = sum(moved[one, other] for one in CHALLENGERS for other in CHALLENGERS)
    assert between == max(0, grown - first[CHAMPION])


def test_a_ramp_keeps_everyone_who_has_met_the_challenger() -> None:
    """Over all steps up, the units of the smaller share are among those of the larger one."""
    shares = laid_out({CHAMPION: 10_000, 2: 0})
    met: set[int] = set()
    for share_bp in (100, 500, 2_500, 5_000, 10_000):
        shares = laid_out({CHAMPION: 10_000 - share_bp, 2: share_bp}, shares)
        now = {number for number, owner in enumerate(owners(shares)) if owner == 2}
        assert met <= now
        assert len(now) == share_bp
        met = now


@given(weights=splits(), promoted=st.sampled_from(CHALLENGERS))
def test_a_promotion_moves_no_unit_of_the_winner(weights: dict[int, int], promoted: int) -> None:
    """With all traffic for the new champion, the others' units go to it and its own stay."""
    before = laid_out(weights)
    everything = {arm: TOTAL_BP if arm == promoted else 0 for arm in ARMS}
    after = lay_out(before, everything, promoted)
    assert after == (Share(arm_id=promoted, start_bp=0, end_bp=TOTAL_BP),)


@given(first=splits(), second=splits(arms=(CHAMPION, 2, 3)))
def test_an_arm_that_is_gone_keeps_no_unit(first: dict[int, int], second: dict[int, int]) -> None:
    """Its units are divided like the champion's, and the other arms' shares are exact."""
    after = laid_out(second, laid_out(first))
    assert probabilities(after) == {arm: share for arm, share in second.items() if share}


@given(weights=splits(), bucket=st.integers(0, TOTAL_BP - 1))
def test_a_bucket_has_one_arm(weights: dict[int, int], bucket: int) -> None:
    """The look-up agrees with the division written out."""
    shares = laid_out(weights)
    arms = tuple(
        Arm(
            id=arm, name=f"a{arm}", url="http://a", role=Role.CHAMPION if arm == CHAMPION else Role.CHALLENGER
        )
        for arm in (CHAMPION, *CHALLENGERS)
    )
    route = Route(id=1, name="r", match=Match(host="a"), arms=arms, shares=shares, salt="1:1", epoch=1)
    first = -(-(bucket << 64) // TOTAL_BP)  # the least hash that falls into the bucket
    assert Plan(route).assign(Asked(None, first)).arm.id == owners(shares)[bucket]
