"""Candidates choose as they say, among the arms that still answer, and never by what they are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.candidates import Always, Candidate, Learned, Thompson, Uniform, Weights
from app.decision_logs import Evidence, LogBook, Logged
from app.targets import target_of
from policies.bandits import BanditSpec
from policies.decision_log import check_target
from policies.errors import CannotJudge
from policies.lessons import Lessons
from policies.metrics import Outcome
from policies.quadrature import Array
from policies.rewards import Reward
from policies.spec import RouteSpec
from routing.bandit import BanditTerms
from routing.learning import bandit_of, learned_of
from routing.linear_model import Sums
from routing.types import TOTAL_BP
from tests.app.db.stage import START_MS
from tests.app.logged_world import SPEC, Visit, visits

FOLDS = 5
ARMS = {"old": 0, "new": 1}
CONVERSION = Reward("conversion")


def with_bandit(spec: RouteSpec = SPEC, **changes: object) -> RouteSpec:
    """The route with a bandit that learns from conversions."""
    bandit = replace(BanditSpec(CONVERSION, warm_up=20), **changes)  # type: ignore[arg-type] # names of fields
    return replace(spec, bandit=bandit, weights={"old": TOTAL_BP, "new": 0})


def logged(visit: Visit) -> Logged:
    """A visit as the log has it."""
    at_ms = visit.claims.at_ms
    return Logged(
        id=str(visit.claims.nonce),
        arm=visit.arm,
        unit=str(visit.claims.unit_hash) if visit.claims.has_unit else None,
        propensity=visit.claims.propensity_bp / TOTAL_BP,
        at_ms=at_ms,
        context=visit.context,
        outcomes={name: [Outcome(value, at_ms, at_ms, "")] for name, value in visit.outcomes.items()},
    )


def evidence(spec: RouteSpec, decisions: Sequence[Logged]) -> Evidence:
    """What these decisions, oldest first, come to; a bandit is asked about."""
    book = LogBook(spec, CONVERSION, CONVERSION)
    book.add(decisions[::-1])
    return book.close()


def judged(
    candidate: Candidate, spec: RouteSpec = SPEC, n: int = 200, seed: int = 1
) -> tuple[Array, Evidence]:
    """A candidate's probabilities over a log."""
    found = evidence(spec, [logged(visit) for visit in visits(ARMS, n, seed, units=n // 2)])
    target = target_of(candidate, found, spec, FOLDS)
    check_target(found.log, target)
    return target, found


def test_those_that_learn_nothing_choose_as_they_say() -> None:
    """One arm, all alike, or by shares; arms that are not named get nothing."""
    assert (judged(Always("new"))[0] == [0, 1]).all()
    assert (judged(Uniform())[0] == [0.5, 0.5]).all()
    assert (judged(Weights({"new": TOTAL_BP}))[0] == [0, 1]).all()
    assert (judged(Weights({"new": 3_000, "old": 7_000}))[0] == [0.7, 0.3]).all()


@pytest.mark.parametrize(
    "candidate", [Uniform(), Learned(), Learned(0.1), Thompson(), Weights({"old": TOTAL_BP})]
)
def test_nobody_chooses_an_arm_that_is_gone(candidate: Candidate) -> None:
    """However well it did: its decisions stay in the log, as the traffic that they are of does."""
    spec = with_bandit()
    decisions = [logged(visit) for visit in visits(ARMS, 300)]
    gone = [
        Logged(f"x{n}", "gone", None, 0.5, START_MS + n, {"country": "DE"}, decisions[0].outcomes)
        for n in range(50)
    ]
    found = evidence(spec, [*gone, *decisions])
    target = target_of(candidate, found, spec, FOLDS)
    check_target(found.log, target)
    assert found.arms == ("old", "new", "gone")
    assert (target[:, 2] == 0).all()


def test_what_is_learned_follows_the_context() -> None:
    """Greedy and bandit choose `new` for users from DE, `old` for those from FR; a softmax prefers them."""
    for candidate, least in ((Learned(), 1.0), (Learned(0.1), 0.7), (Thompson(), 0.85)):
        target, found = judged(candidate, with_bandit(), 4_000)
        assert found.log.features is not None
        is_german = found.log.features[:, 0] == 1
        right = np.where(is_german, target[:, 1], target[:, 0])
        assert float(np.mean(right)) >= least, candidate


@settings(max_examples=20)
@given(seed=st.integers(0, 1_000), at=st.integers(0, 199))
def test_nobody_knows_the_reward_that_it_is_judged_on(seed: int, at: int) -> None:
    """Another reward changes nothing for any decision of its fold, and something for others."""
    spec = with_bandit()
    decisions = [logged(visit) for visit in visits(ARMS, 200, seed, units=100)]
    before = evidence(spec, decisions)
    flipped = 1.0 - before.log.rewards[at]
    changed = [*decisions]
    changed[at] = replace_outcome(decisions[at], flipped)
    after = evidence(spec, changed)
    assert after.log.rewards[at] == flipped
    own = before.log.units % FOLDS == before.log.units[at] % FOLDS
    for candidate in (Learned(), Learned(0.1), Thompson()):
        one, other = (target_of(candidate, found, spec, FOLDS) for found in (before, after))
        assert np.array_equal(one[own], other[own])
    assert not np.array_equal(one[~own], other[~own]), "the bandit learns from the others"


def replace_outcome(decision: Logged, value: float) -> Logged:
    """The decision with another conversion."""
    outcomes = {"conversion": [Outcome(value, decision.at_ms, decision.at_ms, "")]}
    fields = {name: getattr(decision, name) for name in decision.__struct_fields__}
    return Logged(**{**fields, "outcomes": outcomes})


@pytest.mark.parametrize(
    "spec",
    [
        with_bandit(),
        with_bandit(floor_bp=1_000, caps={"new": 4_000}, discount=0.5),
        with_bandit(replace(SPEC, context=())),
        with_bandit(warm_up=10**6),
    ],
    ids=["contextual", "bounded", "binary", "cold"],
)
def test_the_bandit_is_the_one_that_gateways_would_have(spec: RouteSpec) -> None:
    """Had it learned from exactly the decisions outside a fold, it would divide traffic like this."""
    target, found = judged(Thompson(), spec, 400)
    assert spec.bandit is not None
    lessons = Lessons(spec.bandit, spec.metrics, spec.context)
    log, gamma = found.log, spec.bandit.discount
    rows = np.ones((log.n, 1)) if log.features is None else np.hstack([np.ones((log.n, 1)), log.features])
    for fold in range(FOLDS):
        own = log.units % FOLDS == fold
        sums = {
            arm: Sums.empty(lessons.width).plus_many(
                rows[~own & (log.arms == arm)],
                log.rewards[~own & (log.arms == arm)],
                found.at_ms[~own & (log.arms == arm)],
                gamma,
            )
            for arm in (0, 1)
        }
        terms = BanditTerms(
            floor_bp=spec.bandit.floor_bp,
            caps_bp={1: spec.bandit.caps["new"]} if spec.bandit.caps else {},
            warm_up=spec.bandit.warm_up,
            is_binary=lessons.is_binary,
            learned=learned_of(sums, gamma, lessons.schema, 0),
        )
        shares = bandit_of(terms, [0, 1], lessons.schema, lessons.width).shares_many(rows[own])
        assert np.abs(target[own] - shares / TOTAL_BP).max() <= 1.5 / TOTAL_BP


def test_a_bandit_learns_by_its_own_reward() -> None:
    """Judged by revenue, it goes on learning from conversions."""
    spec = with_bandit()
    decisions = [logged(visit) for visit in visits(ARMS, 300)]
    by_conversions = target_of(Thompson(), evidence(spec, decisions), spec, FOLDS)
    book = LogBook(spec, Reward("revenue"), CONVERSION)
    book.add(decisions[::-1])
    by_revenue = book.close()
    assert by_revenue.taught is not None
    assert not np.array_equal(by_revenue.log.rewards, by_revenue.taught)
    assert np.array_equal(target_of(Thompson(), by_revenue, spec, FOLDS), by_conversions)


def test_without_a_bandit_nothing_is_invented() -> None:
    """Asked where weights divide the traffic, or where nobody read its rewards."""
    _, found = judged(Uniform())
    with pytest.raises(CannotJudge, match="weights divide the traffic") as caught:
        target_of(Thompson(), found, SPEC, FOLDS)
    assert caught.value.reason == "no_bandit"
    with pytest.raises(CannotJudge, match="no rewards were read"):
        target_of(Thompson(), replace(found, taught=None), with_bandit(), FOLDS)
