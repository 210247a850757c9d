"""What was learnt reaches the gateway whole, or the champion answers; what is logged is what was drawn by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from routing.assignment import Asked, Assignment, Plan
from routing.bandit import BanditTerms, Learned, Posterior
from routing.bucketing import bucket, unit_hash
from routing.claims import Claims, decision_id
from routing.context import Encoder
from routing.errors import BadModel
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.learning import bandit_of, learned_of, models_of
from routing.linear_model import DAY_MS, Sums
from routing.rules import Condition, Op, Override
from routing.types import TOTAL_BP, Arm, Match, Reason, Role, Route, Share

OLD, NEW, THIRD = (
    Arm(id=1, name="old", url="http://a", role=Role.CHAMPION),
    Arm(id=2, name="new", url="http://b", role=Role.CHALLENGER),
    Arm(id=3, name="third", url="http://c", role=Role.CHALLENGER),
)
COUNTRY = Feature(
    name="country",
    source=Source(kind=SourceKind.JSON, name="/country"),
    type=FeatureType.CATEGORICAL,
    values=("DE", "FR"),
    default="FR",
)
ENCODER = Encoder([COUNTRY])
GERMAN, FRENCH = {"country": "DE"}, {"country": "FR"}


def sums(seed: int, german: float, french: float, n: int = 400) -> Sums:
    """What an arm has earned in each country, on average."""
    draws = np.random.default_rng(seed)
    contexts = [GERMAN if row % 2 else FRENCH for row in range(n)]
    means = np.array([german if context is GERMAN else french for context in contexts])
    return Sums.empty(ENCODER.width).plus_many(
        ENCODER.encode_many(contexts), means + draws.normal(0, 0.5, n), 0, 1.0
    )


ARMS = {1: sums(1, 1.0, 1.0), 2: sums(2, 2.0, 0.0)}
LEARNED = learned_of(ARMS, 1.0, ENCODER.version, 5)


def route(learned: Learned | None = LEARNED, arms: tuple[Arm, ...] = (OLD, NEW), **changes: Any) -> Route:
    """A route whose bandit has learnt that Germany is for `new`."""
    terms = {name: changes.pop(name) for name in BanditTerms.__struct_fields__ if name in changes}
    plain = Route(
        id=1,
        name="bid",
        match=Match(path_prefix="/r/bid"),
        arms=arms,
        shares=(Share(arm_id=1, start_bp=0, end_bp=TOTAL_BP),),
        salt="1:1",
        epoch=1,
        context=(COUNTRY,),
        bandit=BanditTerms(learned=learned, **terms),
    )
    return msgspec.structs.replace(plain, **changes)


def ask(plan: Plan, context: dict[str, Any] | None, nonce: int = 0, **more: Any) -> Assignment:
    """What the plan assigns in a context."""
    return plan.assign(Asked(more.pop("unit", None), 0, nonce=nonce, context=context, **more))


def test_the_arm_that_earns_more_in_a_context_gets_it() -> None:
    """All but the floor, and the probability that is told is the share that it was drawn by."""
    plan = Plan(route(floor_bp=200))
    german, french = ask(plan, GERMAN), ask(plan, FRENCH)
    assert (german.reason, french.reason) == (Reason.BANDIT, Reason.BANDIT)
    assert dict(german.probabilities) == {1: 200, 2: 9_800}
    assert dict(french.probabilities) == {1: 9_800, 2: 200}
    assert german.propensity_bp == german.probabilities[german.arm.id]


@given(nonce=st.integers(0, 2**64 - 1), at_ms=st.integers(0, 2**41), unit=st.none() | st.text())
@settings(max_examples=200)
def test_a_choice_is_replayed_from_the_decisions_id(nonce: int, at_ms: int, unit: str | None) -> None:
    """Its hash draws the arm, whatever the unit; so the logged probability is the whole truth."""
    plan = Plan(route(warm_up=10**6))
    answer = ask(plan, GERMAN, nonce, at_ms=at_ms, unit=unit)
    assert dict(answer.probabilities) == {1: 5_000, 2: 5_000}
    claims = Claims(1, answer.arm.id, 0, False, answer.reason, answer.propensity_bp, 1, 1, at_ms, nonce)
    drawn = bucket(unit_hash("1:1", decision_id(claims)))
    assert answer.arm is (OLD if drawn < 5_000 else NEW)
    if unit is not None:
        assert (answer.unit_hash, answer.has_unit) == (unit_hash("1:1", unit), True)


def test_realised_shares_are_the_logged_ones() -> None:
    """Chi-square over 20,000 decisions of two contexts, against what each was logged with (p > 0.001)."""
    random, plan = Random(7), Plan(route(floor_bp=1_500))
    drawn: Counter[tuple[str, int]] = Counter()
    expected: Counter[tuple[str, int]] = Counter()
    for _ in range(20_000):
        context = random.choice((GERMAN, FRENCH))
        answer = ask(plan, context, random.getrandbits(64))
        drawn[context["country"], answer.arm.id] += 1
        for arm_id, share in answer.probabilities.items():
            expected[context["country"], arm_id] += share
    cells = sorted(expected)
    assert chisquare([drawn[c] for c in cells], [expected[c] / TOTAL_BP for c in cells]).pvalue > 0.001


def test_an_apprentice_chooses_nothing() -> None:
    """The champion answers for certain; what the bandit would have given it is noted."""
    answer = ask(Plan(route(is_apprentice=True)), GERMAN)
    assert (answer.arm, answer.reason, answer.propensity_bp) == (OLD, Reason.STATIC, TOTAL_BP)
    assert answer.considered_bp == 100
    assert ask(Plan(route()), GERMAN).considered_bp is None


def test_an_arm_of_which_nothing_is_known_gets_an_even_share() -> None:
    """The others share the rest by what was learnt of them."""
    answer = ask(Plan(route(arms=(OLD, NEW, THIRD), floor_bp=0)), GERMAN)
    assert dict(answer.probabilities) == {2: 6_667, 3: 3_333}


def test_a_lonely_champion_is_no_choice() -> None:
    """As without a bandit."""
    answer = ask(Plan(route(arms=(OLD,))), GERMAN)
    assert (answer.arm, answer.reason, answer.propensity_bp) == (OLD, Reason.STATIC, TOTAL_BP)


def test_an_arm_that_answers_nobody_is_left_out() -> None:
    """Though something was learnt of it while it did."""
    shadow = msgspec.structs.replace(NEW, role=Role.SHADOW)
    assert ask(Plan(route(arms=(OLD, shadow, THIRD))), GERMAN).probabilities.keys() <= {1, 3}


def test_what_pins_traffic_comes_before_the_bandit() -> None:
    """Kill switch, forced arm, override."""
    pin = Override(id=9, arm_id=2, when=(Condition(attribute="unit", op=Op.EQUALS, values=("u1",)),))

    class Subject:
        def value(self, attribute: str) -> str | None:
            return "u1" if attribute == "unit" else None

    asked: dict[str, Any] = {"unit": "u1", "forced": "new", "subject": Subject()}
    pinned = route(overrides=(pin,), allow_force=True)
    killed = msgspec.structs.replace(pinned, kill_switch=True)
    assert ask(Plan(killed), GERMAN, **asked).reason is Reason.KILL_SWITCH
    assert ask(Plan(pinned), GERMAN, **asked).reason is Reason.FORCED
    assert ask(Plan(pinned), GERMAN, **{**asked, "forced": None}).reason is Reason.OVERRIDE


def with_arm(**changes: Any) -> Learned:
    """What was learnt, with something else of the second arm."""
    first, second = LEARNED.arms
    return msgspec.structs.replace(LEARNED, arms=(first, msgspec.structs.replace(second, **changes)))


NAN = np.full(ENCODER.width, np.nan).tobytes()
ODD = np.arange(float(ENCODER.width**2)).tobytes()
NEGATIVE = (-np.eye(ENCODER.width)).tobytes()


@pytest.mark.parametrize(
    ("learned", "message"),
    [
        (None, "learned must be there, got nothing yet"),
        (msgspec.structs.replace(LEARNED, schema=7), f"learned.schema must be {ENCODER.version}, got 7"),
        (with_arm(mean=b""), "mean of arm 2 must be 32 bytes long, got 0"),
        (with_arm(mean=b"x" * 23), "mean of arm 2 must be 32 bytes long, got 23"),
        (with_arm(covariance=b"x" * 71), "covariance of arm 2 must be 128 bytes long, got 71"),
        (with_arm(mean=NAN), "must be finite"),
        (with_arm(covariance=ODD), "symmetric"),
        (with_arm(covariance=NEGATIVE), "semi-definite"),
    ],
)
def test_what_cannot_have_been_learnt_leaves_the_champion(learned: Learned | None, message: str) -> None:
    """Reason DEFAULT, and the plan says what is wrong; an override still pins."""
    plan = Plan(route(learned))
    assert plan.fault is not None
    assert message in plan.fault
    answer = ask(plan, GERMAN)
    assert (answer.arm, answer.reason, answer.propensity_bp) == (OLD, Reason.DEFAULT, TOTAL_BP)


@pytest.mark.parametrize("terms", [{"floor_bp": 6_000}, {"caps_bp": {1: 100, 2: 100}}, {"floor_bp": -1}])
def test_terms_that_cannot_be_leave_the_champion(terms: dict[str, Any]) -> None:
    """They are refused when declared; should they come all the same, nobody is harmed."""
    assert ask(Plan(route(**terms)), GERMAN).reason is Reason.DEFAULT


def test_rewards_of_0_and_1_without_context_are_counted() -> None:
    """Beta posteriors of the counts, as in the closed form: 49 of 100 against 51 of 100 is 0.6107705."""
    xs = np.ones((100, 1))
    one, two = (Sums.empty(1).plus_many(xs, np.arange(100) < wins, 0, 1.0) for wins in (49, 51))
    learned = learned_of({1: one, 2: two}, 1.0, 0, 0)
    terms: dict[str, Any] = {"is_binary": True, "floor_bp": 0, "context": ()}
    answer = ask(Plan(route(learned, **terms)), None)
    assert dict(answer.probabilities) == {1: 3_892, 2: 6_108}


def test_a_bandit_needs_no_context() -> None:
    """Rewards of any size: the intercept is all there is, and the better mean wins."""
    draws = np.random.default_rng(3)
    xs = np.ones((500, 1))
    one, two = (Sums.empty(1).plus_many(xs, draws.normal(mean, 1, 500), 0, 1.0) for mean in (5.0, 6.0))
    answer = ask(Plan(route(learned_of({1: one, 2: two}, 1.0, 0, 0), context=())), None)
    assert dict(answer.probabilities) == {1: 100, 2: 9_900}


Lesson = tuple[int, bool, float, int]
"""Arm, whether from Germany, reward, time."""

euros = st.integers(-500, 500).map(lambda cents: cents / 100)
lessons = st.tuples(st.integers(1, 3), st.booleans(), euros, st.integers(0, 30 * DAY_MS))


def taught(log: Sequence[Lesson], gamma: float) -> dict[int, Sums]:
    """What a learner knows of these rewards, told one by one: of which arm, in which country, when."""
    known: dict[int, Sums] = {}
    for arm_id, is_german, reward, at_ms in log:
        x = ENCODER.encode(GERMAN if is_german else FRENCH)
        known[arm_id] = known.get(arm_id, Sums.empty(ENCODER.width)).plus(x, reward, at_ms, gamma)
    return known


def merged(one: Mapping[int, Sums], two: Mapping[int, Sums], gamma: float) -> dict[int, Sums]:
    """What two learners know together."""
    none = Sums.empty(ENCODER.width)
    return {k: one.get(k, none).merge(two.get(k, none), gamma) for k in {**two, **one}}


@given(
    log=st.lists(lessons, min_size=1, max_size=20),
    gamma=st.sampled_from([1.0, 0.8]),
    order=st.randoms(use_true_random=False),
    cut=st.integers(0, 20),
)
def test_neither_delay_nor_order_nor_learners_change_what_is_believed(
    log: list[Lesson], gamma: float, order: Random, cut: int
) -> None:
    """The same posterior, its prior included, whichever rewards were late and whoever learnt of them."""
    late = log.copy()
    order.shuffle(late)
    expected = models_of(taught(log, gamma), gamma)
    got = models_of(merged(taught(late[:cut], gamma), taught(late[cut:], gamma), gamma), gamma)
    assert got.keys() == expected.keys()
    for arm_id, model in expected.items():
        size = float(np.sqrt(model.noise))
        assert got[arm_id].mean == pytest.approx(model.mean, rel=1e-9, abs=1e-6 * size + 1e-12)
        assert got[arm_id].covariance == pytest.approx(model.covariance, rel=1e-6, abs=1e-9 * size**2)
        assert got[arm_id].noise == pytest.approx(model.noise, rel=1e-6)


def test_models_are_as_of_the_latest_reward_of_all() -> None:
    """Of an arm that was tried long ago less is known by now."""
    old = sums(1, 1.0, 1.0)
    recent = Sums.empty(ENCODER.width).plus(ENCODER.encode(GERMAN), 1.0, 10 * 86_400_000, 0.8)
    models = models_of({1: old, 2: recent}, 0.8)
    fresh = models_of({1: old}, 0.8)[1]
    assert models[1].covariance[0, 0] > fresh.covariance[0, 0]


def test_what_was_learnt_survives_the_snapshot_file() -> None:
    """To the bit."""
    encoded = msgspec.json.encode(route())
    assert msgspec.json.decode(encoded, type=Route) == route()


def test_nothing_learnt_of_anybody_is_an_even_split() -> None:
    """After the learner has looked, and found nothing."""
    terms = BanditTerms(learned=learned_of({}, 1.0, 0, 5), floor_bp=0)
    assert bandit_of(terms, [1, 2], 0, 1).shares(np.ones(1)) == (5_000, 5_000)
    with pytest.raises(BadModel):
        bandit_of(BanditTerms(), [1, 2], 0, 1)
    assert Posterior(arm_id=1, rewards=0).mean == b""


def test_a_plan_takes_over_a_bandit_that_has_not_changed() -> None:
    """What was learnt is checked once; what is new, or of other arms or features, is looked at again."""
    plan = Plan(route())
    assert Plan(route(), plan).bandit is plan.bandit
    broken = Plan(route(None))
    assert Plan(route(None), broken).fault == broken.fault is not None
    for other in (route(floor_bp=300), route(arms=(OLD, NEW, THIRD)), route(None)):
        assert Plan(other, plan).bandit is not plan.bandit
    other_features = route(context=(msgspec.structs.replace(COUNTRY, default=None),))
    assert Plan(other_features, plan).fault is not None
