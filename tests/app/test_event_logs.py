"""Of a file, those decisions are judged that were drawn, are mature, and were asked for."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from app import decision_logs
from app.candidates import Uniform
from app.decision_logs import Evidence
from app.event_lines import Events, read_events
from app.event_logs import Extract, evidence_of
from app.off_policy import Question
from policies.lessons import GRACE_MS, SETTLE_MS
from policies.off_policy import Terms
from policies.rewards import Reward
from tests.app.db.stage import HOUR_MS, START_MS
from tests.app.logged_world import SPEC, time_of

ALL = Extract(most=1_000)
QUESTION = Question(SPEC, (Uniform(),), Reward("conversion"), Terms())
WAIT_MS = HOUR_MS + GRACE_MS + SETTLE_MS
LATER_MS = 10 * HOUR_MS


def decision(number: int, after_ms: int | None = None, **changes: object) -> dict[str, Any]:
    """A decision so long after START_MS, by default as many milliseconds as its number."""
    at = time_of(START_MS + (number if after_ms is None else after_ms))
    plain = {"type": "decision", "id": f"d{number}", "arm": "old", "propensity": 0.5, "at": at, "context": {}}
    return {**plain, **changes}


def outcome(number: int, value: int = 1, **changes: object) -> dict[str, Any]:
    """A conversion, long after START_MS."""
    plain = {"type": "outcome", "decision": f"d{number}", "metric": "conversion", "value": value}
    return {**plain, "at": time_of(START_MS + LATER_MS), **changes}


def events(*lines: dict[str, Any]) -> Events:
    """What these lines say."""
    data = "\n".join(json.dumps(line) for line in lines).encode()
    return read_events(io.BytesIO(data), "file", SPEC.metrics)


def evidence(*lines: dict[str, Any], extract: Extract = ALL) -> tuple[Evidence, tuple[str, ...]]:
    """What they come to."""
    return evidence_of(events(*lines), QUESTION, extract)


def judged(found: Evidence) -> list[int]:
    """Which decisions, by the milliseconds after START_MS."""
    return [int(at_ms) - START_MS for at_ms in found.at_ms]


def test_only_what_was_drawn_is_judged() -> None:
    """By its reason; without one, what was not certain."""
    lines = [decision(number, reason=reason) for number, reason in enumerate(("SPLIT", "BANDIT", "STATIC"))]
    lines += [decision(3, reason="OVERRIDE", propensity=1), decision(4, propensity=1), decision(5)]
    lines += [decision(6, reason="BANDIT", propensity=1), outcome(0)]
    found, notes = evidence(*lines)
    assert (judged(found), found.left_out, notes) == ([0, 1, 5, 6], {"not_drawn": 3}, ())


def test_a_decision_that_kept_an_earlier_arm_is_not_judged() -> None:
    """Its propensity is that of the first one, in another context. What nobody drew is not counted twice."""
    first = time_of(START_MS - HOUR_MS)
    lines = [decision(0), decision(1, first_at=first), decision(2, first_at=first, reason="BANDIT")]
    lines += [decision(3, first_at=first, reason="OVERRIDE"), decision(4, LATER_MS, first_at=first)]
    found, _ = evidence(*lines, decision(5), outcome(0))
    assert (judged(found), found.left_out) == ([0, 5], {"kept_arm": 3, "not_drawn": 1})


def test_only_what_is_mature_is_judged() -> None:
    """By the latest event of the file, or by when it is said to be complete."""
    lines = [decision(0), decision(1), decision(2, WAIT_MS + 1)]
    found, _ = evidence(*lines)
    assert (judged(found), found.left_out) == ([0, 1], {"immature": 1})
    found, _ = evidence(*lines, extract=Extract(9, complete_ms=START_MS + WAIT_MS))
    assert (judged(found), found.left_out) == ([0], {"immature": 2})
    found, _ = evidence(*lines, extract=Extract(9, complete_ms=START_MS + 9 * WAIT_MS))
    assert judged(found) == [0, 1, WAIT_MS + 1]


def test_a_span_and_the_newest_may_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ends are included, and what lies outside counts nowhere; that there was more is said."""
    lines = [*(decision(number) for number in range(6)), decision(9, propensity=1), outcome(0)]
    found, notes = evidence(*lines, extract=Extract(9, START_MS + 1, START_MS + 4))
    assert (judged(found), found.left_out, notes) == ([1, 2, 3, 4], {}, ())
    found, notes = evidence(*lines, extract=Extract(2))
    assert (judged(found), found.left_out) == ([4, 5], {"not_drawn": 1})
    assert notes == ("there are more decisions: of those asked for, the newest 2 were judged",)
    monkeypatch.setattr(decision_logs, "MOST_NUMBERS", 9 * 3)
    assert judged(evidence(*lines)[0]) == [3, 4, 5]


def test_outcomes_are_those_of_their_decision() -> None:
    """In time, and with all that is known of the decision."""
    soon = time_of(START_MS + HOUR_MS)
    found, notes = evidence(
        decision(0, arm="new", unit="u", propensity=0.1, context={"country": "DE"}),
        decision(1, unit="u", context={"country": "IT"}),
        decision(2, context=None),
        outcome(0, at=soon),
        outcome(0, 0, at=soon, id="again"),
        outcome(1),
    )
    log = found.log
    assert (log.arms.tolist(), log.rewards.tolist(), log.propensities.tolist()) == (
        [1, 0],
        [1, 0],
        [0.1, 0.5],
    )
    assert log.n_units == 1
    assert log.features is not None
    assert log.features[:, :3].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert (found.left_out, notes) == ({"without_context": 1}, ())


def test_what_is_odd_about_a_file_is_said() -> None:
    """Arms that the route does not declare, and outcomes that came again with another value."""
    found, notes = evidence(decision(0, arm="gone"), decision(1), outcome(1), outcome(1, 0))
    assert found.arms == ("old", "new", "gone")
    assert notes == (
        "arms that the route does not declare, and no candidate chooses: gone",
        "outcomes that came again with another value, and have no effect: 1",
    )
