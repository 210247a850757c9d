"""What a mature decision teaches, and that it teaches the same in whatever order and parts it comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.bandits import BanditSpec
from policies.lessons import GRACE_MS, SETTLE_MS, Apprentice, Knowledge, Lessons, Mature, lessons_of, wait_ms
from policies.metrics import Metric, Outcome
from policies.rewards import Reward
from policies.spec import ArmSpec, RouteSpec
from policies.types import Aggregate, Better, Kind
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.types import Match, Role, Upstream
from tests.policies.knowledge import same

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
PROFIT = Metric("profit", Kind.CONTINUOUS, window_ms=HOUR_MS, aggregate=Aggregate.SUM)
COST = Metric("cost", Kind.CONTINUOUS, Better.LOWER, window_ms=2 * HOUR_MS)
COUNTRY = Feature(
    name="country",
    source=Source(kind=SourceKind.HEADER, name="X-Country"),
    type=FeatureType.CATEGORICAL,
    values=("DE", "FR"),
)
OLD, NEW = 1, 2
ARMS = (OLD, NEW)
NOTHING = Knowledge({})


def lessons(
    expression: str = "profit", default: float = 0.0, features: Sequence[Feature] = (), **changes: Any
) -> Lessons:
    """How a bandit with this reward learns."""
    bandit = BanditSpec(reward=Reward(expression, default), **changes)
    return Lessons(bandit, (PROFIT, COST), features)


def outcome(value: float, at_ms: int = 1_000, received_at_ms: int | None = None) -> Outcome:
    """A reported value; times count from the decision, which was at 0."""
    return Outcome(value, at_ms, at_ms if received_at_ms is None else received_at_ms, "a:1")


def mature(arm_id: int = NEW, at_ms: int = 0, **changes: Any) -> Mature:
    """A decision of which `outcomes` were reported."""
    plain: dict[str, Any] = {"context": None, "considered_bp": None, "outcomes": {}}
    return Mature(arm_id=arm_id, at_ms=at_ms, **{**plain, **changes})


def reward(how: Lessons, **outcomes: Outcome) -> float | None:
    """What one decision with these outcomes teaches; None: nothing."""
    told = {name: [value] for name, value in outcomes.items()}
    known, changed = how.learn(NOTHING, [mature(outcomes=told)], ARMS)
    assert (known.unusable, changed) == ((0, {NEW}) if known.sums else (1, frozenset()))
    return known.sums[NEW].y if known.sums else None


def test_a_decision_teaches_its_reward() -> None:
    """A metric's value, negative where less is better; an expression's, in which what is missing counts 0."""
    assert reward(lessons(), profit=outcome(3.0)) == 3.0
    assert reward(lessons("cost"), cost=outcome(3.0)) == -3.0
    assert reward(lessons("profit - 2 * cost"), profit=outcome(3.0), cost=outcome(1.0)) == 1.0
    assert reward(lessons("profit - 2 * cost"), cost=outcome(1.0)) == -2.0


def test_without_an_outcome_a_decision_teaches_the_default() -> None:
    """Zero, or what was declared; an outcome of another metric is none."""
    assert reward(lessons()) == 0.0
    assert reward(lessons(default=-1.5), cost=outcome(3.0)) == -1.5


def test_several_outcomes_are_combined_as_the_metric_says() -> None:
    """The sum of profits, of costs the one received first."""
    told = {
        "profit": [outcome(1.0), outcome(2.0)],
        "cost": [outcome(5.0, 9, 9), outcome(7.0, 2, 2)],
    }
    known, _ = lessons("profit - cost").learn(NOTHING, [mature(outcomes=told)], ARMS)
    assert known.sums[NEW].y == 3.0 - 7.0


@pytest.mark.parametrize("value", [0.0, 1e13])
def test_a_reward_without_a_value_teaches_nothing(value: float) -> None:
    """A division by zero, or a number that would drown all others, is counted as unusable."""
    told = outcome(value)
    expression = "profit / cost" if value == 0 else "profit"
    assert reward(lessons(expression, default=1.0), profit=told, cost=told) is None


@pytest.mark.parametrize(
    ("told", "counts"),
    [
        (outcome(1.0, HOUR_MS, HOUR_MS), True),
        (outcome(1.0, HOUR_MS + 1, HOUR_MS + 1), False),
        (outcome(1.0, 0, 2 * HOUR_MS + GRACE_MS), True),
        (outcome(1.0, 0, 2 * HOUR_MS + GRACE_MS + 1), False),
    ],
)
def test_an_outcome_counts_within_its_own_window_until_the_reward_is_mature(
    told: Outcome, counts: bool
) -> None:
    """It happened within the window of its metric, and was received before the longest one has closed."""
    assert reward(lessons("profit - cost", default=-9.0), profit=told) == (1.0 if counts else -9.0)


def test_an_arm_that_is_gone_is_not_learnt_of() -> None:
    """Its decisions are unusable, and those of the others are not touched."""
    known, changed = lessons(default=1.0).learn(NOTHING, [mature(OLD), mature(3), mature(NEW)], ARMS)
    assert (known.unusable, set(changed), set(known.sums)) == (1, {OLD, NEW}, {OLD, NEW})


def test_a_context_is_read_by_the_present_declaration() -> None:
    """Whichever it was recorded under: a value that is declared now has its column, others are other."""
    how = lessons(features=(COUNTRY,), default=1.0)
    contexts = [{"country": "DE"}, {"country": "US", "hour": 3.0}, {"country": 7.5}, {}]
    known, _ = how.learn(NOTHING, [mature(context=context) for context in contexts], ARMS)
    encoder = Encoder((COUNTRY,))
    rows = encoder.encode_many([{"country": "DE"}, {"country": "US"}, {}, {}])
    assert known.sums[NEW].xx == pytest.approx(rows.T @ rows)
    assert (how.schema, how.width, known.unusable) == (encoder.version, encoder.width, 0)


def test_without_a_context_nothing_is_learnt_where_one_is_declared() -> None:
    """Nobody knows what it was: that is not the same as a context in which everything was missing."""
    known, _ = lessons(features=(COUNTRY,)).learn(NOTHING, [mature(), mature(context={})], ARMS)
    assert (known.unusable, known.sums[NEW].n) == (1, 1)
    known, _ = lessons().learn(NOTHING, [mature(), mature(context={"country": "DE"})], ARMS)
    assert (known.unusable, known.sums[NEW].n, known.sums[NEW].width) == (0, 2, 1)


def test_rewards_are_discounted_by_the_time_of_their_decisions() -> None:
    """A reward of two days ago weighs γ², however late it is learnt."""
    days = [mature(at_ms=day * DAY_MS, outcomes={"profit": [outcome(1.0, day * DAY_MS)]}) for day in range(3)]
    known, _ = lessons(discount=0.5).learn(NOTHING, days[::-1], ARMS)
    sums = known.sums[NEW]
    assert (sums.n, sums.weight, sums.weight_squares, sums.y) == (3, 1.75, 1.3125, 1.75)
    assert sums.as_of_ms == 2 * DAY_MS


def test_an_apprentice_is_credited_by_its_probability() -> None:
    """Where it would have chosen the same arm, as far as it would, the reward is its own as well."""
    told = [
        mature(OLD, considered_bp=7_500, outcomes={"profit": [outcome(2.0)]}),
        mature(OLD, considered_bp=2_500, outcomes={"profit": [outcome(1.0)]}),
        mature(OLD, considered_bp=0),
        mature(OLD, outcomes={"profit": [outcome(5.0)]}),
        mature(3, considered_bp=10_000, outcomes={"profit": [outcome(5.0)]}),
    ]
    known, _ = lessons().learn(NOTHING, told, ARMS)
    assert known.apprentice == Apprentice(3, 1.0, 1.75, 3.0)


CONTEXTS = st.none() | st.fixed_dictionaries({}, optional={"country": st.sampled_from(["DE", "FR", "US"])})
DECISIONS = st.builds(
    mature,
    arm_id=st.sampled_from([OLD, NEW, 3]),
    at_ms=st.integers(0, 20 * DAY_MS),
    context=CONTEXTS,
    considered_bp=st.none() | st.integers(0, 10_000),
)
VALUES = st.none() | st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(DECISIONS, VALUES), max_size=12), st.randoms(use_true_random=False))
def test_order_and_parts_change_nothing(drawn: list[tuple[Mature, float | None]], random: Any) -> None:
    """Decisions teach the same at once, one by one, and in any order and any parts of them."""
    how = lessons(features=(COUNTRY,), discount=0.8)
    told = [
        decision
        if value is None
        else replace(decision, outcomes={"profit": [outcome(value, decision.at_ms)]})
        for decision, value in drawn
    ]
    at_once, _ = how.learn(NOTHING, told, ARMS)
    random.shuffle(told)
    known = NOTHING
    changed: set[int] = set()
    while told:
        part = [told.pop() for _ in range(random.randint(1, len(told)))]
        known, more = how.learn(known, part, ARMS)
        changed |= more
    assert same(known, at_once)
    assert changed == at_once.sums.keys()


def test_sums_of_another_meaning_have_another_name() -> None:
    """Of whatever changes what the sums are sums of; what merely divides the traffic leaves it."""
    plain = lessons("profit", 0.0, (COUNTRY,))
    others = [
        lessons("profit", 1.0, (COUNTRY,)),
        lessons("cost", 0.0, (COUNTRY,)),
        lessons("profit", 0.0, (replace_values("DE", "FR", "US"),)),
        lessons("profit", 0.0),
        lessons("profit", 0.0, (COUNTRY,), discount=0.9),
        *(
            Lessons(plain.bandit, (changed, COST), (COUNTRY,))
            for changed in (
                replace(PROFIT, kind=Kind.BINARY),
                replace(PROFIT, better=Better.LOWER),
                replace(PROFIT, window_ms=1),
                replace(PROFIT, aggregate=Aggregate.MAX),
            )
        ),
    ]
    assert len({plain.meaning, *(other.meaning for other in others)}) == 1 + len(others)
    same_sums = [
        lessons("profit", 0, (COUNTRY,), floor_bp=0, caps={"new": 100}, warm_up=1, apprentice=True),
        Lessons(plain.bandit, (replace(COST, window_ms=1), PROFIT), (COUNTRY,)),
    ]
    assert {known.meaning for known in same_sums} == {plain.meaning}


def replace_values(*values: str) -> Feature:
    """The country with other values."""
    return Feature(name="country", source=COUNTRY.source, type=COUNTRY.type, values=values)


def test_rewards_of_0_and_1_without_a_context_are_binary() -> None:
    """With a context they are not: each has its own rate."""
    conversion = Metric("conversion", Kind.BINARY)
    bandit = BanditSpec(reward=Reward("conversion"))
    assert Lessons(bandit, (conversion,), ()).is_binary
    assert not Lessons(bandit, (conversion,), (COUNTRY,)).is_binary
    assert not lessons().is_binary


def test_a_reward_is_waited_for_until_all_that_is_said_of_it_is_in_the_log() -> None:
    """The longest window with its grace, or as long as an answer may take, and then on its way to the log."""
    spec = RouteSpec(
        name="ads",
        arms=(ArmSpec("old", "http://127.0.0.1:1/", Role.CHAMPION),),
        weights={"old": 10_000},
        match=Match(path_prefix="/r/ads"),
        metrics=(PROFIT, COST),
    )
    assert lessons_of(spec) is None
    bandit = BanditSpec(reward=Reward("profit"))
    assert wait_ms(spec, bandit) == HOUR_MS + GRACE_MS + SETTLE_MS
    assert wait_ms(spec, BanditSpec(reward=Reward("profit + cost"))) == 2 * HOUR_MS + GRACE_MS + SETTLE_MS
    slow = replace(spec, upstream=Upstream(timeout_ms=3 * HOUR_MS), bandit=bandit)
    assert wait_ms(slow, bandit) == 3 * HOUR_MS + SETTLE_MS
    found = lessons_of(slow)
    assert found is not None
    assert found.window_ms == HOUR_MS
