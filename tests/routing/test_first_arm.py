"""Who keeps its first arm moves only when the arm is no more, and is counted where the arm was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from routing.assignment import Asked, Assignment, Plan
from routing.bandit import BanditTerms, Learned
from routing.first_arm import FirstArm, decoded, encode
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route
from routing.weights import lay_out

UNITS = [f"u{number}" for number in range(200)]
FIRST = FirstArm(2, 1, Reason.SPLIT, 7, 1_000, {1: 9_000, 2: 1_000})


def arms(champion: int, *others: int) -> tuple[Arm, ...]:
    """Arms with these ids."""
    roles = {champion: Role.CHAMPION}
    ids = sorted({champion, *others})
    return tuple(
        Arm(id=arm, name=f"a{arm}", url="http://a", role=roles.get(arm, Role.CHALLENGER)) for arm in ids
    )


def route(weights: dict[int, int], champion: int = 1, before: Route | None = None, **changes: Any) -> Route:
    """A route whose units keep their arms, divided so; its buckets are those of the route before, moved."""
    shares = lay_out(() if before is None else before.shares, weights, champion)
    plain = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=arms(champion, *weights),
        shares=shares,
        salt="1:1",
        epoch=1 if before is None else before.epoch + 1,
        first_arm_ms=3_600_000,
    )
    return msgspec.structs.replace(plain, **changes)


class Kept:
    """A store: what each unit got first, as gateways keep it."""

    def __init__(self) -> None:
        self.first: dict[str, FirstArm] = {}

    def assign(self, plan: Plan, unit: str, at_ms: int = 0) -> Assignment:
        """What a unit is assigned, and keeps from then on."""
        assignment = plan.assign(Asked(unit, 0, at_ms=at_ms, first=self.first.get(unit)))
        first = plan.first_of(assignment, at_ms)
        if first is not None:
            self.first[unit] = first
        return assignment

    def arms(self, plan: Plan, units: Sequence[str] = UNITS) -> dict[str, int]:
        """Which arm each unit gets."""
        return {unit: self.assign(plan, unit).arm.id for unit in units}


@st.composite
def divisions(draw: st.DrawFn) -> list[tuple[int, dict[int, int]]]:
    """Divisions among up to four arms as people, ramps and promotions make them, each with its champion.

    Arms come and go, and shares rise and fall; the champion is mostly the one before.
    """
    steps: list[tuple[int, dict[int, int]]] = []
    champion = 1
    for _ in range(draw(st.integers(2, 6))):
        ids = draw(st.sets(st.integers(1, 4), min_size=1)) | {champion}
        cuts = sorted(draw(st.lists(st.integers(0, TOTAL_BP), min_size=len(ids) - 1, max_size=len(ids) - 1)))
        bounds = [0, *cuts, TOTAL_BP]
        weights = {arm: bounds[place + 1] - bounds[place] for place, arm in enumerate(sorted(ids))}
        if draw(st.integers(0, 5)) == 0:
            champion = draw(st.sampled_from(sorted(ids)))
        steps.append((champion, weights))
    return steps


@given(steps=divisions())
def test_a_unit_moves_only_when_its_arm_has_no_share_or_another_was_promoted(
    steps: list[tuple[int, dict[int, int]]],
) -> None:
    """Whatever is added, removed or ramped, and by how much; then it is drawn for anew."""
    kept, before, plan = Kept(), None, None
    for champion, weights in steps:
        present = route(weights, champion, before)
        plan = Plan(present, plan)
        sharing = [arm for arm, share in weights.items() if share]
        for unit in UNITS[:50]:
            had = kept.first.get(unit)
            stays = had is not None and had.arm_id in sharing and champion in (had.champion_id, had.arm_id)
            arm = kept.assign(plan, unit).arm.id
            if had is not None and stays and len(sharing) > 1:
                assert arm == had.arm_id
            else:
                assert arm in sharing
                assert arm == plan.assign(Asked(unit, 0, first=had)).arm.id
        before = present


@given(
    first=st.integers(1, 9_999),
    second=st.integers(1, 9_999),
    third=st.integers(0, 5_000),
)
def test_a_ramp_moves_nobody_and_an_arm_that_goes_only_its_own(first: int, second: int, third: int) -> None:
    """Counted: 0 move on a ramp and when an arm is added, and when one goes, exactly those who had it."""
    kept = Kept()
    start = route({1: TOTAL_BP - first, 2: first})
    before = kept.arms(Plan(start))
    ramped = route({1: TOTAL_BP - second, 2: second}, before=start)
    assert _moved(before, kept.arms(Plan(ramped))) == 0
    grown = {1: TOTAL_BP - second, 2: second - min(third, second - 1), 3: min(third, second - 1)}
    added = route(grown, before=ramped)
    assert _moved(before, kept.arms(Plan(added))) == 0
    gone = route({1: 6_000, 3: 4_000}, before=added)
    after = kept.arms(Plan(gone))
    assert _moved(before, after) == Counter(before.values())[2]
    assert all(after[unit] == 1 for unit, arm in before.items() if arm == 1)


def test_who_has_lost_an_arm_is_divided_like_everybody_else() -> None:
    """By a hash that knows nothing of the one before: else all who had one arm would go to the same other,
    and be compared with new units, who are divided by the shares."""
    units = [f"u{number}" for number in range(20_000)]
    kept = Kept()
    start = route({1: 4_000, 2: 3_000, 3: 3_000})
    before = kept.arms(Plan(start), units)
    lost = [unit for unit, arm in before.items() if arm == 3]
    later = Plan(route({1: 7_000, 2: 3_000, 3: 0}, before=start))
    after = Counter(kept.arms(later, lost).values())
    assert chisquare([after[1], after[2]], [0.7 * len(lost), 0.3 * len(lost)]).pvalue > 0.001
    assert all(kept.first[unit].epoch == 2 for unit in lost)
    promoted = Plan(route({1: 5_000, 2: 5_000}, champion=2))
    had_the_old_one = [unit for unit, arm in before.items() if arm == 1]
    drawn = Counter(kept.arms(promoted, had_the_old_one).values())
    half = len(had_the_old_one) / 2
    assert chisquare([drawn[1], drawn[2]], [half, half]).pvalue > 0.001


def test_what_is_kept_is_the_first_decision() -> None:
    """Its reason, probabilities and epoch, however the traffic is divided now."""
    plan = Plan(route({1: 1, 2: 9_999}, epoch=9))
    answer = plan.assign(Asked("u1", 0, first=FIRST))
    assert (answer.arm.id, answer.reason, answer.propensity_bp) == (2, Reason.SPLIT, 1_000)
    assert (dict(answer.probabilities), answer.first) == (FIRST.probabilities, FIRST)
    assert plan.first_of(answer, 5) is None


def test_only_what_was_drawn_is_to_be_kept() -> None:
    """Of a unit: not a kill switch, a forced arm, a sole arm, a fault, nor a request of its own."""
    drawn = Plan(route({1: 5_000, 2: 5_000}))
    assignment = drawn.assign(Asked("u1", 0))
    first = drawn.first_of(assignment, 123)
    assert first == FirstArm(assignment.arm.id, 1, Reason.SPLIT, 1, 123, {1: 5_000, 2: 5_000})
    assert drawn.first_of(drawn.assign(Asked(None, 0)), 0) is None
    forced = Plan(route({1: 5_000, 2: 5_000}, allow_force=True))
    assert forced.first_of(forced.assign(Asked("u1", 0, forced="a2")), 0) is None
    for plain in (
        route({1: 5_000, 2: 5_000}, kill_switch=True),
        route({1: TOTAL_BP, 2: 0}),
        route({1: 5_000, 2: 5_000}, bandit=BanditTerms()),
        route({1: 5_000, 2: 5_000}, first_arm_ms=None),
    ):
        plan = Plan(plain)
        assert plan.first_of(plan.assign(Asked("u1", 0)), 0) is None


def test_a_bandit_leaves_units_their_arms() -> None:
    """It draws for each unit once; an apprentice, or one at fault, leaves all to the champion."""
    terms = BanditTerms(learned=Learned(at_ms=0, schema=0))
    kept = Kept()
    drawing = Plan(route({1: TOTAL_BP, 2: 0}, bandit=terms))
    first = {unit: kept.assign(drawing, unit, at_ms=number) for number, unit in enumerate(UNITS)}
    assert {answer.reason for answer in first.values()} == {Reason.BANDIT}
    assert {answer.arm.id for answer in first.values()} == {1, 2}
    again = {unit: kept.assign(drawing, unit, at_ms=10**6) for unit in UNITS}
    assert all(again[unit].arm == first[unit].arm for unit in UNITS)
    for bandit, reason in (
        (msgspec.structs.replace(terms, is_apprentice=True), Reason.STATIC),
        (BanditTerms(), Reason.DEFAULT),
    ):
        plan = Plan(route({1: TOTAL_BP, 2: 0}, bandit=bandit))
        answers = [kept.assign(plan, unit) for unit in UNITS]
        assert {(answer.arm.id, answer.reason) for answer in answers} == {(1, reason)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": {1: 9_000, 2: 999}}, "probabilities must sum to 10000, got 9999"),
        ({"arm_id": 3}, r"probabilities\.3 must be in \[1, 10000\], got 0"),
        ({"probabilities": {1: 20_000, 2: -10_000}}, "probabilities must be at least 0, got -10000"),
        ({"probabilities": {1: -1, 2: 10_001}}, "probabilities must be at least 0, got -1"),
        ({"reason": Reason.KILL_SWITCH}, r"reason must be one of \['SPLIT', 'BANDIT'\], got KILL_SWITCH"),
        ({"epoch": -1}, r"epoch must be in \[0, 4294967295\], got -1"),
        ({"champion_id": 2**32}, r"champion_id must be in \[0, 4294967295\], got 4294967296"),
        ({"at_ms": 2**47}, r"at_ms must be in \[0, 140737488355327\], got 140737488355328"),
    ],
)
def test_what_no_decision_can_have_been_is_refused(changes: dict[str, Any], message: str) -> None:
    """Its arm had a chance, and the chances of all sum to one."""
    with pytest.raises(ValueError, match=message):
        msgspec.structs.replace(FIRST, **changes)


def test_what_is_kept_can_be_read_again() -> None:
    """In the form that stores hold, which is this for good; anything else is nothing."""
    text = b'[2,1,"SPLIT",7,1000,{"1":9000,"2":1000}]'
    assert encode(FIRST) == text
    assert decoded(text) == FIRST
    for other in (b"", b"[]", b"null", b"\xff\xfe", text[:-1], text.replace(b"9000", b"9001"), b"[" * 10_000):
        assert decoded(other) is None


def _moved(before: dict[str, int], after: dict[str, int]) -> int:
    return sum(after[unit] != arm for unit, arm in before.items())
