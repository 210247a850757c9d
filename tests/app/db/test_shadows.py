"""How a shadow arm agrees with its primary is counted as one would by hand, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import shadows
from app.db.session import Database
from app.db.shadows import Agreement, LabelPair, agreements, insert_answers
from app.events.types import ArmAnswer, ShadowEvent
from tests.app.events.facts import NEW, OLD, SHADOW, answered, claims

ROUTE = 1
ARMS = (OLD, NEW, SHADOW, SHADOW + 1)


def pair(
    number: int, shadow: ArmAnswer | None = None, primary: ArmAnswer | None = None, route: int = ROUTE
) -> ShadowEvent:
    """A copy that ended at millisecond `number`, of a decision of its own."""
    decision = claims(number, route_id=route)
    shadow = shadow or answered(SHADOW)
    return ShadowEvent(decision=decision, at_ms=number, shadow=shadow, primary=primary or answered(OLD))


def predicted(number: int, primary: dict[str, Any], shadow: dict[str, Any]) -> ShadowEvent:
    """A copy with these predictions on both sides."""
    return pair(number, answered(SHADOW, predictions=shadow), answered(OLD, predictions=primary))


async def found(
    database: Database, *events: ShadowEvent, from_ms: int = 0, to_ms: int = 10**9
) -> list[Agreement]:
    """What these copies come to."""
    async with database.transaction() as connection:
        await insert_answers(connection, events)
    async with database.read() as connection:
        return await agreements(connection, ROUTE, ARMS, from_ms, to_ms)


async def test_answers_are_counted_by_how_they_agree(database: Database) -> None:
    """Whole answers, and of pairs of them those with the same status and the same body."""
    failed = answered(SHADOW, status=None, failure="timeout", body_hash=None, latency_ms=900.0)
    unanswered = ShadowEvent(decision=claims(7), at_ms=7, shadow=answered(SHADOW), primary=None)
    (agreement,) = await found(
        database,
        pair(1, answered(SHADOW, latency_ms=10.0)),
        pair(2, answered(SHADOW, latency_ms=20.0, body_hash="1" * 32), answered(OLD, latency_ms=2.0)),
        pair(3, answered(SHADOW, latency_ms=30.0, status=500)),
        pair(4, answered(SHADOW, latency_ms=40.0, body_hash=None)),
        pair(5, failed),
        unanswered,
    )
    assert agreement == Agreement(
        arm_id=SHADOW,
        copies=6,
        answered=5,
        paired=4,
        same_status=3,
        hashed=3,
        same_body=2,
        latency_ms=25.0,
        primary_latency_ms=6.5,
        compared=4,
        predictions={},
    )


async def test_predictions_are_compared_by_kind(database: Database) -> None:
    """Numbers by their difference, labels pair by pair; where one side is silent, or another kind, none."""
    (agreement,) = await found(
        database,
        predicted(1, {"score": 0.5, "label": "cat"}, {"score": 0.5, "label": "cat"}),
        predicted(2, {"score": 0.5, "label": "cat"}, {"score": 0.75, "label": "dog"}),
        predicted(3, {"score": 1.0, "label": "cat"}, {"score": None, "label": "dog"}),
        predicted(4, {"score": -0.5, "label": 1.0}, {"score": 0.25, "label": "dog"}),
        predicted(5, {"score": 2.0}, {}),
    )
    score, label = agreement.predictions["score"], agreement.predictions["label"]
    assert (score.n, score.missing, score.equal) == (3, 2, 1)
    assert score.mean_absolute_difference == pytest.approx((0.25 + 0.75) / 3)
    assert (score.labels, score.other_labels) == ((), 0)
    assert (label.n, label.missing, label.equal) == (3, 1, 1)
    assert label.mean_absolute_difference is None
    assert label.labels == (LabelPair("cat", "dog", 2), LabelPair("cat", "cat", 1))


async def test_labels_are_told_apart_up_to_a_bound(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a hundred pairs (here two) the rarest are only counted."""
    monkeypatch.setattr(shadows, "MOST_LABEL_PAIRS", 2)
    said = ["a", "a", "a", "b", "b", "c"]
    (agreement,) = await found(
        database, *(predicted(index, {"label": text}, {"label": "a"}) for index, text in enumerate(said))
    )
    label = agreement.predictions["label"]
    assert label.labels == (LabelPair("a", "a", 3), LabelPair("b", "a", 2))
    assert (label.n, label.equal, label.other_labels) == (6, 3, 1)


async def test_the_newest_predictions_are_compared(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to ten thousand of an arm (here two); the counts are of all."""
    monkeypatch.setattr(shadows, "MOST_COMPARED", 2)
    events = [predicted(number, {"score": 0.0}, {"score": float(number)}) for number in (1, 2, 3)]
    (agreement,) = await found(database, *events)
    assert (agreement.copies, agreement.compared) == (3, 2)
    assert agreement.predictions["score"].mean_absolute_difference == 2.5


async def test_a_span_of_time_and_a_route_are_asked_for(database: Database) -> None:
    """Both ends are included; arms come by their ids, and other routes' copies are not seen."""
    events = [
        *(pair(number) for number in (1, 2, 3, 4)),
        pair(5, answered(SHADOW + 1)),
        pair(3, answered(SHADOW), route=2),
    ]
    first = await found(database, *events, from_ms=2, to_ms=5)
    assert [(agreement.arm_id, agreement.copies) for agreement in first] == [(SHADOW, 3), (4, 1)]
    assert await found(database, from_ms=6) == []
    async with database.read() as connection:
        assert await agreements(connection, ROUTE, (), 0, 10) == []


async def test_a_repeat_changes_nothing(database: Database) -> None:
    """Of a decision and an arm the first copy stands, at once and later."""
    (agreement,) = await found(database, pair(1), pair(1, answered(SHADOW, status=500)))
    assert (agreement.copies, agreement.same_status) == (1, 1)
    assert await found(database, pair(1, answered(SHADOW, status=500))) == [agreement]


async def test_long_ids_and_odd_labels_can_be_stored(database: Database) -> None:
    """The largest numbers of a token, and text that PostgreSQL has no character for."""
    decision = claims(2**64 - 1, route_id=2**32 - 1, at_ms=2**48 - 1)
    said = {"label": "\0\U0001f451" + "x" * 100}
    shadow = answered(2**32 - 1, failure="unreachable", body_bytes=2**40, predictions=said)
    event = ShadowEvent(decision=decision, at_ms=2**53, shadow=shadow, primary=answered(OLD))
    async with database.transaction() as connection:
        await insert_answers(connection, [event])
    async with database.read() as connection:
        (agreement,) = await agreements(connection, 2**32 - 1, [2**32 - 1], 0, 2**60)
    assert (agreement.copies, agreement.answered) == (1, 0)
