"""Every answer carries the probability it was drawn with, and in doubt the champion answers."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from routing.assignment import Asked, Assignment, Plan
from routing.bucketing import unit_hash
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route, Share
from routing.weights import lay_out

OLD, NEW, THIRD, GONE = (
    Arm(id=1, name="old", url="http://a", role=Role.CHAMPION),
    Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER),
    Arm(id=3, name="third", url="http://c", role=Role.CHALLENGER),
    Arm(id=4, name="gone", url="http://d", role=Role.RETIRED),
)


def route(new_bp: int = 1_000, third_bp: int = 0, **changes: Any) -> Route:
    """A route with these shares for its challengers."""
    weights = {OLD.id: TOTAL_BP - new_bp - third_bp, NEW.id: new_bp, THIRD.id: third_bp}
    plain = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=(OLD, NEW, THIRD, GONE),
        shares=lay_out((), weights, OLD.id),
        salt="1:1",
        epoch=1,
    )
    return msgspec.structs.replace(plain, **changes)


def assign(route: Route, unit: str | None, entropy: int, forced: str | None = None) -> Assignment:
    """What the route's plan assigns."""
    return Plan(route).assign(Asked(unit, entropy, forced))


def certain(answer: Assignment, arm: Arm, reason: Reason) -> bool:
    """Whether the arm was chosen for this reason, without a draw."""
    whole = (answer.propensity_bp, dict(answer.probabilities)) == (TOTAL_BP, {arm.id: TOTAL_BP})
    return whole and (answer.arm, answer.reason) == (arm, reason)


@given(
    new_bp=st.integers(0, 6_000),
    third_bp=st.integers(0, 4_000),
    unit=st.none() | st.text(),
    entropy=st.integers(0, 2**64 - 1),
)
def test_the_propensity_is_the_share_that_the_draw_used(
    new_bp: int, third_bp: int, unit: str | None, entropy: int
) -> None:
    """It is the configured share of the arm, and the draw can be replayed from what is kept of it."""
    split = route(new_bp, third_bp)
    answer = assign(split, unit, entropy)
    configured = {OLD.id: TOTAL_BP - new_bp - third_bp, NEW.id: new_bp, THIRD.id: third_bp}
    assert answer.propensity_bp == configured[answer.arm.id] > 0
    assert dict(answer.probabilities) == {arm: share for arm, share in configured.items() if share}
    assert sum(answer.probabilities.values()) == TOTAL_BP
    assert assign(split, None, answer.unit_hash).arm == answer.arm


@pytest.mark.parametrize("sticky", [True, False])
def test_arms_are_drawn_as_often_as_configured(sticky: bool) -> None:
    """Over many units, or requests that are their own, the shares are those of the split."""
    split = route(1_500, 500)
    random = Random(7)
    drawn: Counter[int] = Counter()
    for number in range(30_000):
        unit = f"user-{number}" if sticky else None
        drawn[assign(split, unit, random.getrandbits(64)).arm.id] += 1
    counts = [drawn[arm.id] for arm in (OLD, NEW, THIRD)]
    assert 0.001 < chisquare(counts, [24_000, 4_500, 1_500]).pvalue < 0.999


@given(unit=st.text(), entropies=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
def test_a_unit_always_gets_the_same_arm(unit: str, entropies: tuple[int, int]) -> None:
    """Chance has no part in it, and what is kept of the unit is its hash under the route's salt."""
    first, second = (assign(route(5_000), unit, entropy) for entropy in entropies)
    assert first == second
    assert (first.unit_hash, first.has_unit) == (unit_hash("1:1", unit), True)


@given(entropy=st.integers(0, 2**64 - 1))
def test_a_request_without_a_unit_is_its_own(entropy: int) -> None:
    """It is drawn by the entropy, which is kept."""
    answer = assign(route(5_000), None, entropy)
    assert (answer.unit_hash, answer.has_unit) == (entropy, False)


def test_a_larger_share_takes_units_from_the_champion_alone() -> None:
    """Whoever met the challenger at 5 % meets it at 20 %; nobody changes between challengers."""
    small = route(500, 1_000)
    weights = {OLD.id: 7_000, NEW.id: 2_000, THIRD.id: 1_000}
    large = msgspec.structs.replace(small, shares=lay_out(small.shares, weights, OLD.id))
    moved: Counter[tuple[str, str]] = Counter()
    for number in range(20_000):
        before, after = (assign(split, f"user-{number}", 0).arm.name for split in (small, large))
        if before != after:
            moved[before, after] += 1
    assert set(moved) == {("old", "new")}
    assert moved["old", "new"] == pytest.approx(3_000, abs=200)


def test_one_arm_with_all_traffic_is_no_draw() -> None:
    """The reason is STATIC, whoever the arm is."""
    assert certain(assign(route(0), "u1", 0), OLD, Reason.STATIC)
    assert certain(assign(route(TOTAL_BP), "u1", 0), NEW, Reason.STATIC)


def test_the_kill_switch_sends_everyone_to_the_champion() -> None:
    """It stands above the split and above a forced arm."""
    killed = route(9_999, kill_switch=True, allow_force=True)
    answers = [assign(killed, f"u{number}", number, forced="new") for number in range(100)]
    assert all(certain(answer, OLD, Reason.KILL_SWITCH) for answer in answers)


@pytest.mark.parametrize("arm", [OLD, NEW, THIRD])
def test_a_forced_arm_answers_where_the_route_allows_it(arm: Arm) -> None:
    """It needs no share, and is no draw."""
    assert certain(assign(route(0, allow_force=True), "u1", 0, forced=arm.name), arm, Reason.FORCED)


@pytest.mark.parametrize(
    ("forced", "allow_force"),
    [("new", False), ("nobody", True), ("gone", True), ("", True), ("NEW", True), (None, True)],
)
def test_a_forced_arm_that_cannot_be_is_ignored(forced: str | None, allow_force: bool) -> None:
    """A disallowed, unknown or retired one leaves the draw as it would have been."""
    split = route(5_000, allow_force=allow_force)
    answer = assign(split, "u1", 0, forced)
    assert answer == assign(split, "u1", 0)
    assert answer.reason is Reason.SPLIT


@pytest.mark.parametrize("arms", [(OLD, NEW, THIRD, GONE), (NEW, GONE, OLD, THIRD)])
def test_a_broken_split_ends_in_the_champion(arms: tuple[Arm, ...]) -> None:
    """A share that nobody can answer is answered by the champion, with reason DEFAULT; others are not."""
    shares = (
        Share(arm_id=GONE.id, start_bp=0, end_bp=5_000),
        Share(arm_id=NEW.id, start_bp=5_000, end_bp=TOTAL_BP),
    )
    broken = route(arms=arms, shares=shares)
    assert certain(assign(broken, None, 0), OLD, Reason.DEFAULT)
    assert assign(broken, None, 2**64 - 1).arm == NEW


@pytest.mark.parametrize(
    "changes", [{}, {"kill_switch": True}, {"allow_force": True}, {"shares": lay_out((), {1: TOTAL_BP}, 1)}]
)
def test_the_unit_is_kept_whatever_the_reason(changes: dict[str, Any]) -> None:
    """A decision that was no draw still says which unit it was for."""
    answer = assign(route(**changes), "u1", 0, forced="new")
    assert (answer.unit_hash, answer.has_unit) == (unit_hash("1:1", "u1"), True)
