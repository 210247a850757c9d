"""A question is checked against its route before anything is read, and its answer speaks of arms by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app import off_policy
from app.candidates import Always, Candidate, Thompson, Uniform
from app.decision_logs import Evidence
from app.off_policy import Question, usual_reward
from policies.errors import BadSpec, CannotJudge
from policies.lessons import GRACE_MS, SETTLE_MS
from policies.metrics import Metric
from policies.off_policy import Method, Terms
from policies.rewards import Reward
from policies.spec import RouteSpec
from policies.types import Kind
from tests.app.db.stage import DAY_MS, HOUR_MS
from tests.app.logged_world import EVEN, SPEC, value, visits
from tests.app.test_targets import logged, with_bandit

CONVERSION = Reward("conversion")
ARMS = {"old": 0, "new": 1}


def question(
    candidate: Candidate | None = None, spec: RouteSpec = SPEC, reward: Reward = CONVERSION, **terms: Any
) -> Question:
    """A question about one candidate."""
    return Question(spec, (candidate or Uniform(),), reward, Terms(**terms))


def evidence(asked: Question, share: dict[str, int] | None = None, n: int = 1_000) -> Evidence:
    """What a log says that was drawn by these shares."""
    book = asked.book()
    book.add([logged(visit) for visit in visits(ARMS, n, share=share or EVEN)][::-1])
    return book.close()


def refusal(asked: Question, found: Evidence) -> CannotJudge:
    """Why the candidate cannot be judged."""
    with pytest.raises(CannotJudge) as caught:
        asked.judge(asked.candidates[0], found)
    return caught.value


def test_the_usual_reward_is_the_bandits_else_the_goal() -> None:
    """Without either it must be named."""
    earned = Reward("revenue - cost", 1.0)
    assert usual_reward(with_bandit(reward=earned)) == earned
    assert usual_reward(SPEC) == CONVERSION
    assert usual_reward(replace(SPEC, policy=replace(SPEC.policy, goal="revenue"))) == Reward("revenue")
    with pytest.raises(BadSpec, match="reward must be named: route 'ads' declares no metric"):
        usual_reward(replace(SPEC, metrics=()))


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (
            Reward("clicks"),
            "reward must name metrics of route 'ads' (conversion, revenue, cost), got 'clicks'",
        ),
        (Reward("1 + 2"), "reward must name metrics of route 'ads' (conversion, revenue, cost), got 'none'"),
        (Reward("revenue -"), "reward must go on with a metric, a number or (, got 'its end'"),
        (Reward("cost", 1e51), "reward.default must be in [-1e+50, 1e+50], got 1e+51"),
        (Reward("cost", float("nan")), "reward.default must be in [-1e+50, 1e+50], got nan"),
    ],
)
def test_a_reward_must_be_one_of_the_route(reward: Reward, said: str) -> None:
    """Of its metrics, with a default that can be squared."""
    with pytest.raises(BadSpec) as caught:
        question(reward=reward)
    assert str(caught.value) == said


def test_every_candidate_is_checked() -> None:
    """Before anything is read."""
    with pytest.raises(BadSpec, match=r"policy\.arm"):
        Question(SPEC, (Uniform(), Always("next")), CONVERSION, Terms())


def test_models_of_many_folds_must_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven columns and two arms take 98 cells a fold."""
    monkeypatch.setattr(off_policy, "MOST_CELLS", 98 * 5)
    question(folds=5)
    with pytest.raises(BadSpec, match="folds must be at most 5 with 2 arms and 7 columns of context, got 6"):
        question(folds=6)
    question(spec=replace(SPEC, context=()), folds=100)


def test_it_waits_for_all_rewards_to_be_mature() -> None:
    """The one that is judged, and the one that a bandit learns from."""
    late = Metric("returned", Kind.BINARY, window_ms=7 * DAY_MS)
    spec = with_bandit(replace(SPEC, metrics=(*SPEC.metrics, late)), reward=Reward("returned"))
    assert question(spec=spec).wait_ms == HOUR_MS + GRACE_MS + SETTLE_MS
    assert question(Thompson(), spec).wait_ms == 7 * DAY_MS + GRACE_MS + SETTLE_MS
    assert question(Thompson(), spec).taught == Reward("returned")
    assert question(Uniform(), spec).taught is None


def test_the_answer_is_near_the_truth() -> None:
    """By each method, of a candidate that the log never followed."""
    asked = question(Always("new"))
    found = asked.judge(Always("new"), evidence(asked))
    truth = value({"DE": 1.0, "FR": 1.0})
    for method in Method:
        if method is not Method.LOGGED:
            one = found.estimates[method]
            assert abs(one.value - truth) < 4 * one.standard_error


def test_arms_have_their_names_in_refusals() -> None:
    """And the reason stays the stable word that it is."""
    asked = question(Always("new"))
    found = refusal(asked, evidence(asked, {"DE": 0, "FR": 0}))
    assert found.reason == "no_support"
    assert str(found) == "100.00% of the target's choices are of arm new, never logged"


def test_arms_have_their_names_in_warnings() -> None:
    """As where an arm came late."""
    asked = question(Always("old"))
    book = asked.book()
    for share, first in ((EVEN, 1_000), ({"DE": 0, "FR": 0}, 0)):
        book.add([logged(visit) for visit in visits(ARMS, 1_000, share=share, first=first)][::-1])
    (warning,) = asked.judge(Always("old"), book.close()).warnings
    assert warning.startswith("arm new could be chosen at 49.60% of decisions")


def test_no_data_says_what_was_left_out() -> None:
    """So that nobody looks for decisions that are there."""
    asked = question()
    book = asked.book()
    assert str(refusal(asked, book.close())) == (
        "2 independent units are needed, got 0 in 0 decisions; left out: none"
    )
    book.leave_out({"immature": 5})
    found = refusal(asked, book.close())
    assert found.reason == "no_data"
    assert str(found).endswith("; left out: 5 immature")
