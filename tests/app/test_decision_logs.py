"""A log becomes evidence as it was logged: rewards of outcomes in time, contexts as they are declared now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app import decision_logs
from app.decision_logs import Evidence, LogBook, Logged, Worth, room
from policies.errors import CannotJudge
from policies.lessons import GRACE_MS
from policies.metrics import Outcome
from policies.rewards import Reward
from policies.spec import RouteSpec
from routing.features import Value
from tests.app.db.stage import HOUR_MS, START_MS
from tests.app.logged_world import SPEC

CONVERSION = Reward("conversion")
PLAIN = replace(SPEC, context=())


def told(value: float, after_ms: int = 0, received_ms: int | None = None) -> Outcome:
    """An outcome; its times are counted from START_MS."""
    received = after_ms if received_ms is None else received_ms
    return Outcome(value, START_MS + after_ms, START_MS + received, "")


def logged(
    number: int = 0, outcomes: Mapping[str, Sequence[Outcome]] | None = None, **changes: Any
) -> Logged:
    """A decision for `old`, in no context."""
    plain: dict[str, Any] = {
        "id": f"d{number}",
        "arm": "old",
        "unit": None,
        "propensity": 0.5,
        "at_ms": START_MS + number,
        "context": {},
        "outcomes": outcomes or {},
    }
    return Logged(**{**plain, **changes})


def evidence(
    *decisions: Logged, spec: RouteSpec = PLAIN, reward: Reward = CONVERSION, taught: Reward | None = None
) -> Evidence:
    """What these come to, oldest first."""
    book = LogBook(spec, reward, taught)
    book.add(decisions[::-1])
    return book.close()


@pytest.mark.parametrize(
    ("expression", "outcomes", "reward"),
    [
        ("conversion", {"conversion": [told(1.0)]}, 1.0),
        ("conversion", {"revenue": [told(7.0)]}, -2.0),
        ("conversion", {}, -2.0),
        ("cost", {"cost": [told(3.0)]}, -3.0),
        ("revenue - 2 * cost", {"revenue": [told(7.0), told(1.0)], "cost": [told(3.0)]}, 2.0),
        ("conversion", {"conversion": [told(1.0, HOUR_MS, HOUR_MS + GRACE_MS)]}, 1.0),
        ("conversion", {"conversion": [told(1.0, HOUR_MS + 1)]}, -2.0),
        ("conversion", {"conversion": [told(1.0, 0, HOUR_MS + GRACE_MS + 1)]}, -2.0),
    ],
)
def test_a_decision_is_worth_its_outcomes_in_time(
    expression: str, outcomes: Mapping[str, Sequence[Outcome]], reward: float
) -> None:
    """Those within their windows, received before the reward was mature; without any, the default."""
    assert Worth(Reward(expression, -2.0), SPEC.metrics).of(logged(outcomes=outcomes)) == reward


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("revenue / cost", "division by zero"),
        ("revenue * revenue * revenue * revenue", r"must be in \[-1e\+50"),
    ],
)
def test_a_reward_without_a_value_is_not_left_out(expression: str, said: str) -> None:
    """To leave it out would depend on what was earned; but a bandit learns from all the others."""
    good, bad = logged(0, {"revenue": [told(8.0)], "cost": [told(2.0)]}), logged(1, {"revenue": [told(1e15)]})
    with pytest.raises(CannotJudge, match=said) as caught:
        evidence(good, bad, reward=Reward(expression))
    assert caught.value.reason == "no_reward"
    found = evidence(good, bad, taught=Reward(expression))
    assert found.taught is not None
    assert np.isnan(found.taught).tolist() == [False, True]


def test_a_bandit_learns_from_rewards_within_its_bounds() -> None:
    """They are judged all the same."""
    found = evidence(logged(0, {"revenue": [told(1e10)]}), reward=Reward("revenue"), taught=Reward("revenue"))
    assert found.log.rewards.tolist() == [1e10]
    assert found.taught is not None
    assert np.isnan(found.taught).all()


def test_everything_stands_in_its_column() -> None:
    """The oldest decision first, whatever the pages were; arms are numbered by their place."""
    book = LogBook(PLAIN, CONVERSION)
    book.add([logged(3, arm="gone", propensity=0.25), logged(2, arm="new", propensity=0.1)])
    book.add([])
    book.add([logged(1, {"conversion": [told(1.0)]})])
    found = book.close()
    assert (found.arms, found.answering) == (("old", "new", "gone"), 2)
    assert found.log.arms.tolist() == [0, 1, 2]
    assert found.log.rewards.tolist() == [1, 0, 0]
    assert found.log.propensities.tolist() == [0.5, 0.1, 0.25]
    assert (found.at_ms - START_MS).tolist() == [1, 2, 3]
    assert (found.log.n_arms, found.log.features, found.taught, found.left_out) == (3, None, None, {})


def test_nothing_is_evidence_of_nothing() -> None:
    """With and without a context there are no rows, but all arms."""
    for spec in (PLAIN, SPEC):
        found = evidence(spec=spec, taught=CONVERSION)
        assert (found.log.n, found.log.n_arms, found.at_ms.size) == (0, 2, 0)


def test_decisions_of_one_unit_hang_together() -> None:
    """Others are units of their own. Units are hashed, so that folds do not follow time."""
    decisions = [logged(number, unit=f"u{number % 3}") for number in range(30)]
    assert evidence(*decisions).log.n_units == 3
    alone = evidence(*(logged(number) for number in range(30))).log
    assert alone.n_units == 30
    assert sorted(alone.units) != list(alone.units)


def test_contexts_are_read_by_the_declaration_of_now() -> None:
    """Values that were stored under another one: a number as text, a value that is not declared, one more."""
    stored: list[Mapping[str, object]] = [
        {"country": "FR", "hour": "23"},
        {"country": "IT", "colour": "red"},
        {"hour": 99.0},
    ]
    found = evidence(*(logged(number, context=context) for number, context in enumerate(stored)), spec=SPEC)
    assert found.log.features is not None
    de, fr, other, missing, hour, no_hour = found.log.features.T
    assert de.tolist() == [0, 0, 0]
    assert fr.tolist() == [1, 0, 0]
    assert other.tolist() == [0, 1, 0]
    assert missing.tolist() == [0, 0, 1]
    assert hour.tolist() == pytest.approx([12**0.5 / 2, 0, 12**0.5 / 2])
    assert no_hour.tolist() == [0, 1, 0]


def test_without_a_context_where_one_is_declared_a_decision_is_left_out() -> None:
    """As a bandit leaves it; an empty one is known to be empty."""
    decisions = [logged(0, context=None), logged(1), logged(2, context=None)]
    found = evidence(*decisions, spec=SPEC)
    assert (found.log.n, found.left_out) == (1, {"without_context": 2})
    assert evidence(*decisions).log.n == 3


def test_the_room_depends_on_columns_and_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many numbers in all: seven columns and two arms, or an intercept and two arms."""
    monkeypatch.setattr(decision_logs, "MOST_NUMBERS", 90)
    assert (room(SPEC), room(PLAIN)) == (10, 30)


def test_values_are_stored_as_they_are_read() -> None:
    """A context that was read once reads the same again."""
    context: Mapping[str, Value] = {"country": "DE", "hour": 3.0}
    again = evidence(logged(context=context), logged(1, context={"country": "DE", "hour": "3"}), spec=SPEC)
    assert again.log.features is not None
    assert (again.log.features[0] == again.log.features[1]).all()
