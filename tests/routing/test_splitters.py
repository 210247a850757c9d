"""Whoever divides the traffic keeps the same promises: by weights, or by any kind of bandit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from routing.assignment import Asked, Assignment, Plan
from routing.bandit import BanditTerms, Learned
from routing.claims import SigningKey
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind, Value
from routing.learning import learned_of
from routing.linear_model import Sums
from routing.rules import Condition, Op, Override
from routing.snapshot import Snapshot
from routing.types import SERVING, TOTAL_BP, Arm, Match, Reason, Role, Route, Share
from routing.weights import lay_out

COUNTRY = Feature(
    name="country",
    source=Source(kind=SourceKind.JSON, name="/country"),
    type=FeatureType.CATEGORICAL,
    values=("DE", "FR"),
)
HOUR = Feature(
    name="hour", source=Source(kind=SourceKind.QUERY, name="hour"), type=FeatureType.NUMERIC, maximum=24.0
)
FEATURES = (COUNTRY, HOUR)
CONTEXTS: tuple[dict[str, Value] | None, ...] = (
    {"country": "DE", "hour": 3.0},
    {"country": "FR", "hour": 21.0},
    {"country": "elsewhere"},
    None,
)
SHADOW = Arm(id=90, name="shadow", url="http://s", role=Role.SHADOW)
RETIRED = Arm(id=91, name="retired", url="http://r", role=Role.RETIRED)


def arms(serving: int) -> tuple[Arm, ...]:
    """So many that serve, the champion among them, and two that do not."""
    champion = min(serving, 2)
    asked = (
        Arm(id=k, name=f"a{k}", url="http://a", role=Role.CHAMPION if k == champion else Role.CHALLENGER)
        for k in range(1, serving + 1)
    )
    return (SHADOW, *asked, RETIRED)


def by_weights(*weights: int) -> Route:
    """Arms 1, 2, … with these shares."""
    shares = lay_out((), dict(enumerate(weights, 1)), min(len(weights), 2))
    return Route(
        id=1,
        name="r",
        match=Match(path_prefix="/r"),
        arms=arms(len(weights)),
        shares=shares,
        salt="1:1",
        epoch=1,
    )


def knowledge(serving: int, features: Sequence[Feature], is_binary: bool) -> Learned:
    """What 120 rewards of each arm taught; arms that do not serve did best, and the last one has only 60."""
    draw = np.random.default_rng(serving)
    encoder = Encoder(features) if features else None
    sums: dict[int, Sums] = {}
    for place, arm in enumerate(arms(serving)):
        n = 60 if place == serving > 1 else 120
        rows: list[dict[str, Value]] = [
            {"country": str(draw.choice(COUNTRY.values)), "hour": draw.uniform(0, 24)} for _ in range(n)
        ]
        xs = encoder.encode_many(rows) if encoder is not None else np.ones((n, 1))
        likely = 0.3 + 0.02 * place if arm.role in SERVING else 0.9
        of_context = 0.2 * xs[:, place % xs.shape[1]]
        rewards = draw.random(n) < likely if is_binary else draw.normal(likely, 1, n) + of_context
        sums[arm.id] = Sums.empty(xs.shape[1]).plus_many(xs, rewards, 0, 1.0)
    return learned_of(sums, 1.0, encoder.version if encoder is not None else 0, 5)


def by_bandit(serving: int, features: Sequence[Feature] = FEATURES, **terms: Any) -> Route:
    """So many arms, whose bandit looks at these features; none of them is cold unless `warm_up` says so."""
    learned = knowledge(serving, features, terms.get("is_binary", False))
    bandit = BanditTerms(**{"learned": learned, "warm_up": 50, **terms})
    plain = by_weights(*[TOTAL_BP if arm.role is Role.CHAMPION else 0 for arm in arms(serving)[1:-1]])
    return msgspec.structs.replace(plain, context=tuple(features), bandit=bandit)


@dataclass(frozen=True, slots=True)
class Splitter:
    """A route, and the reason of what is neither killed, forced nor pinned there."""

    route: Route
    reason: Reason

    @property
    def serving(self) -> list[Arm]:
        return [arm for arm in self.route.arms if arm.role in SERVING]

    @property
    def bounds(self) -> dict[int, tuple[int, int]]:
        """Between what the shares must lie; of a split by weights, what they must be."""
        if (bandit := self.route.bandit) is None:
            return {arm.id: (self.route.probabilities.get(arm.id, 0),) * 2 for arm in self.serving}
        return {arm.id: (bandit.floor_bp, bandit.caps_bp.get(arm.id, TOTAL_BP)) for arm in self.serving}


SPLITTERS = {
    "weights": Splitter(by_weights(2_500, 7_000, 500), Reason.SPLIT),
    "weights of which one is 0": Splitter(by_weights(0, 4_000, 6_000), Reason.SPLIT),
    "all to a challenger": Splitter(by_weights(TOTAL_BP, 0), Reason.STATIC),
    "weights of one arm": Splitter(by_weights(TOTAL_BP), Reason.STATIC),
    "rates": Splitter(by_bandit(3, (), is_binary=True), Reason.BANDIT),
    "rates, one cold": Splitter(by_bandit(3, (), is_binary=True, warm_up=100), Reason.BANDIT),
    "means": Splitter(by_bandit(3, ()), Reason.BANDIT),
    "means, capped": Splitter(by_bandit(3, (), caps_bp={1: 3_000, 2: 4_500}), Reason.BANDIT),
    "linear, two arms": Splitter(by_bandit(2), Reason.BANDIT),
    "linear, three arms": Splitter(by_bandit(3), Reason.BANDIT),
    "linear, five arms": Splitter(by_bandit(5), Reason.BANDIT),
    "linear, no floor": Splitter(by_bandit(3, floor_bp=0), Reason.BANDIT),
    "linear, high floor": Splitter(by_bandit(5, floor_bp=1_500), Reason.BANDIT),
    "linear, capped": Splitter(by_bandit(3, caps_bp={1: 3_000, 3: 2_000}), Reason.BANDIT),
    "linear, one cold": Splitter(by_bandit(3, warm_up=100), Reason.BANDIT),
    "linear, all cold": Splitter(by_bandit(3, warm_up=10**6), Reason.BANDIT),
    "cold and capped": Splitter(by_bandit(3, warm_up=100, caps_bp={3: 800}), Reason.BANDIT),
    "apprentice": Splitter(by_bandit(3, is_apprentice=True), Reason.STATIC),
    "bandit of one arm": Splitter(by_bandit(1), Reason.STATIC),
    "nothing learnt yet": Splitter(by_bandit(3, learned=None), Reason.DEFAULT),
}

DRAWING = {
    name: splitter for name, splitter in SPLITTERS.items() if splitter.reason in (Reason.SPLIT, Reason.BANDIT)
}
every_splitter = pytest.mark.parametrize("splitter", SPLITTERS.values(), ids=list(SPLITTERS))
every_draw = pytest.mark.parametrize("splitter", DRAWING.values(), ids=list(DRAWING))
every_bandit = pytest.mark.parametrize(
    "splitter",
    [splitter for splitter in DRAWING.values() if splitter.route.bandit is not None],
    ids=[name for name, splitter in DRAWING.items() if splitter.route.bandit is not None],
)


def requests(seed: int, count: int, context: int | None = None) -> Iterator[Asked]:
    """Some with a unit and some without, in one context or in any."""
    random = Random(seed)
    for number in range(count):
        unit = f"user-{random.randrange(50)}" if random.random() < 0.5 else None
        place = number % len(CONTEXTS) if context is None else context
        bits = random.getrandbits(64), random.getrandbits(64)
        yield Asked(unit, bits[0], at_ms=number, nonce=bits[1], context=CONTEXTS[place])


@every_splitter
def test_shares_make_a_whole_of_arms_that_serve(splitter: Splitter) -> None:
    """They sum to 10,000 and go to arms that may answer; the propensity is the share of the arm."""
    plan = Plan(splitter.route)
    serving = {arm.id for arm in splitter.serving}
    for asked in requests(1, 100):
        answer = plan.assign(asked)
        assert answer.reason is splitter.reason
        assert answer.arm.id in serving
        assert answer.probabilities.keys() <= serving
        assert sum(answer.probabilities.values()) == TOTAL_BP
        assert answer.propensity_bp == answer.probabilities[answer.arm.id] > 0


@every_draw
def test_shares_stay_within_their_bounds(splitter: Splitter) -> None:
    """A bandit's within floor and cap; those of a split by weights are as they were declared."""
    for answer in map(Plan(splitter.route).assign, requests(2, 100)):
        for arm_id, (low, high) in splitter.bounds.items():
            assert low <= answer.probabilities.get(arm_id, 0) <= high


@every_splitter
def test_what_is_no_draw_is_certain(splitter: Splitter) -> None:
    """Only then has one arm the whole of 10,000, of which no other has any."""
    for answer in map(Plan(splitter.route).assign, requests(3, 100)):
        is_draw = answer.reason in (Reason.SPLIT, Reason.BANDIT)
        assert (answer.propensity_bp < TOTAL_BP) == is_draw == (len(answer.probabilities) > 1)


@every_splitter
def test_the_same_request_has_the_same_answer(splitter: Splitter) -> None:
    """When it is asked again, and from a snapshot that was written and read."""
    key = SigningKey(id=1, secret=b"k" * 32)
    written = msgspec.json.encode(Snapshot(version=1, created_at_ms=0, routes=(splitter.route,), keys=(key,)))
    plan, read = Plan(splitter.route), Plan(msgspec.json.decode(written, type=Snapshot).routes[0])
    for asked in requests(4, 100):
        assert plan.assign(asked) == plan.assign(asked) == read.assign(asked)


@every_draw
@pytest.mark.parametrize("context", range(len(CONTEXTS)))
def test_arms_are_drawn_as_often_as_is_logged(splitter: Splitter, context: int) -> None:
    """Chi-square of 2,000 seeded decisions in a context, of units that are all different (p > 0.0005)."""
    plan, drawn, logged = Plan(splitter.route), Counter[int](), Counter[int]()
    for number, asked in enumerate(requests(5 + context, 2_000, context)):
        asked.unit = None if asked.unit is None else f"{context} {number}"
        answer = plan.assign(asked)
        drawn[answer.arm.id] += 1
        logged.update(answer.probabilities)
    expected = {arm_id: total / TOTAL_BP for arm_id, total in logged.items()}
    assert drawn.keys() <= expected.keys()
    assert chisquare([drawn[arm_id] for arm_id in expected], list(expected.values())).pvalue > 0.0005


@every_splitter
def test_a_unit_keeps_its_arm_unless_a_bandit_draws(splitter: Splitter) -> None:
    """By weights, whatever the time and the bits; a bandit draws anew for each decision in one context."""
    plan, met = Plan(splitter.route), Counter[tuple[str, int]]()
    for asked in requests(9, 2_000, 0):
        if asked.unit is not None:
            met[asked.unit, plan.assign(asked).arm.id] += 1
    arms_of_units = Counter(unit for unit, _ in met)
    assert len(arms_of_units) == 50
    assert (max(arms_of_units.values()) == 1) == (splitter.reason is not Reason.BANDIT)


class User:
    """A request of which only the unit is known."""

    def value(self, attribute: str) -> Value | None:
        """The unit."""
        return "u1" if attribute == "unit" else None


@every_splitter
def test_what_pins_traffic_comes_first(splitter: Splitter) -> None:
    """Kill switch, forced arm, override, each of them certain; then the splitter, for everybody else."""
    champion, pinned, forced = splitter.route.champion, splitter.serving[0], splitter.serving[-1]
    override = Override(
        id=9, arm_id=pinned.id, when=(Condition(attribute="unit", op=Op.EQUALS, values=("u1",)),)
    )
    route = msgspec.structs.replace(splitter.route, overrides=(override,), allow_force=True)
    killed = msgspec.structs.replace(route, kill_switch=True)
    asked = [Asked("u1", 0, forced=name, subject=User(), context=CONTEXTS[0]) for name in (forced.name, None)]
    assert [told(Plan(killed).assign(each)) for each in asked] == [(champion.id, "KILL_SWITCH")] * 2
    assert told(Plan(route).assign(asked[0])) == (forced.id, "FORCED")
    assert told(Plan(route).assign(asked[1])) == (pinned.id, "OVERRIDE")
    for other in requests(6, 20):
        assert Plan(route).assign(other) == Plan(splitter.route).assign(other)


def told(answer: Assignment) -> tuple[int, str]:
    """Which arm was certain, and why."""
    assert (answer.propensity_bp, dict(answer.probabilities)) == (TOTAL_BP, {answer.arm.id: TOTAL_BP})
    return answer.arm.id, str(answer.reason)


@every_bandit
def test_an_apprentice_considers_what_it_would_do(splitter: Splitter) -> None:
    """The champion answers for certain, and what the bandit would have given it is told."""
    assert splitter.route.bandit is not None
    terms = msgspec.structs.replace(splitter.route.bandit, is_apprentice=True)
    apprentice, bandit = Plan(msgspec.structs.replace(splitter.route, bandit=terms)), Plan(splitter.route)
    champion = splitter.route.champion
    for asked in requests(7, 100):
        answer, chosen = apprentice.assign(asked), bandit.assign(asked)
        assert told(answer) == (champion.id, "STATIC")
        assert answer.considered_bp == chosen.probabilities.get(champion.id, 0)
        assert chosen.considered_bp is None


def moves(before: Sequence[Share], after: Sequence[Share]) -> Counter[tuple[int, int]]:
    """How many buckets went from which arm to which."""
    owners = (
        [share.arm_id for share in shares for _ in range(share.start_bp, share.end_bp)]
        for shares in (before, after)
    )
    return Counter((old, new) for old, new in zip(*owners, strict=True) if old != new)


@given(first=st.integers(0, 5_000), second=st.integers(0, 4_000), added=st.integers(1, 1_000))
def test_an_arm_that_comes_and_goes_moves_its_own_units_alone(first: int, second: int, added: int) -> None:
    """By weights it takes its share from the champion; when it is removed, everybody is where they were."""
    weights = {1: TOTAL_BP - first - second, 2: first, 3: second}
    before = lay_out(lay_out((), {1: TOTAL_BP - second, 3: second}, 1), weights, 1)
    there = lay_out(before, {**weights, 1: weights[1] - added, 4: added}, 1)
    assert moves(before, there) == {(1, 4): added}
    assert lay_out(there, weights, 1) == before


@given(
    share=st.integers(1, 6_000),
    other=st.integers(0, 4_000),
    steps=st.lists(st.integers(0, 6_000), min_size=1, max_size=4),
)
def test_a_ramp_moves_as_many_units_as_its_steps_are_high(share: int, other: int, steps: list[int]) -> None:
    """Between the champion and the arm that ramps; when that is removed, as many as it had."""
    shares = lay_out((), {1: TOTAL_BP - share - other, 2: share, 3: other}, 1)
    for step in steps:
        after = lay_out(shares, {1: TOTAL_BP - step - other, 2: step, 3: other}, 1)
        direction = (1, 2) if step > share else (2, 1)
        assert moves(shares, after) == ({direction: abs(step - share)} if step != share else {})
        shares, share = after, step
    assert moves(shares, lay_out(shares, {1: TOTAL_BP - other, 3: other}, 1)) == (
        {(2, 1): share} if share else {}
    )
