"""What the API says of shadow arms is what is stored of them, in shares."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from app.db.routes import load_route
from app.db.shadows import insert_answers
from app.events.types import ShadowEvent
from tests.app.control.stage import Stage, arm, document, faults
from tests.app.events.facts import answered, claims

NOW = datetime.now(UTC)


async def shadowed(stage: Stage, *, at: datetime, arm_name: str = "next") -> None:
    """Two copies that ended at a moment: one equal to the primary, one that failed."""
    async with stage.database.transaction() as connection:
        route = await load_route(connection, "ads")
        shadow, old = route.arm_ids[arm_name], route.arm_ids["old"]
        at_ms = int(at.timestamp() * 1000)
        said = {"score": 0.5, "label": "cat"}
        good = answered(shadow, predictions=said)
        bad = answered(shadow, status=None, failure="timeout", body_hash=None)
        decisions = [claims(at_ms + number, route_id=route.id) for number in (0, 1)]
        primary = answered(old, predictions=said)
        await insert_answers(
            connection,
            [
                ShadowEvent(decision=decision, at_ms=at_ms, shadow=answer, primary=primary)
                for decision, answer in zip(decisions, (good, bad), strict=True)
            ],
        )


async def test_the_last_day_is_reported(stage: Stage) -> None:
    """By arm: copies, shares of them, and how each declared field agrees; without copies, no arms."""
    await stage.put(document(arms=[arm("old", role="champion"), arm("new"), arm("next", role="shadow")]))
    assert (await stage.read("/routes/ads/shadow"))["arms"] == []
    await shadowed(stage, at=NOW - timedelta(hours=1))
    await shadowed(stage, at=NOW - timedelta(hours=25))
    report = await stage.read("/routes/ads/shadow")
    (found,) = report["arms"]
    assert report["route"] == "ads"
    assert found.pop("predictions") == {
        "label": {
            "n": 1,
            "missing": 0,
            "equal": 1.0,
            "mean_absolute_difference": None,
            "labels": [{"primary": "cat", "shadow": "cat", "n": 1}],
            "other_labels": 0,
        },
        "score": {
            "n": 1,
            "missing": 0,
            "equal": 1.0,
            "mean_absolute_difference": 0.0,
            "labels": [],
            "other_labels": 0,
        },
    }
    assert found == {
        "arm": "next",
        "copies": 2,
        "answered": 0.5,
        "paired": 1,
        "same_status": 1.0,
        "same_body": 1.0,
        "latency_ms": 8.0,
        "primary_latency_ms": 8.0,
        "compared": 1,
    }


async def test_a_span_of_time_may_be_asked_for(stage: Stage) -> None:
    """From and to, both included; shares of nothing are null, and an arm that is gone keeps its name."""
    await stage.put(document(arms=[arm("old", role="champion"), arm("new"), arm("next", role="shadow")]))
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    await shadowed(stage, at=at)
    await stage.put(document())
    for first, last, copies in (
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z", [2]),
        ("2026-01-31T14:00:00+02:00", "9999-12-31T23:59:59Z", [2]),
        ("0001-01-01T00:00:00Z", "2026-01-31T11:59:59.999Z", []),
        ("2026-01-31T12:00:00.001Z", "2026-02-01T00:00:00Z", []),
        ("2026-02-01T00:00:00Z", "2026-01-01T00:00:00Z", []),
        ("0001-01-01T00:00:00+14:00", "0001-01-01T00:00:00+14:00", []),
    ):
        report = await stage.read("/routes/ads/shadow", **{"from": first, "to": last})
        assert [(found["arm"], found["copies"]) for found in report["arms"]] == [("next", n) for n in copies]


async def test_what_is_no_time_or_route_is_refused(stage: Stage) -> None:
    """The field is named; a route that is not there is not found."""
    await stage.put()
    for field in ("from", "to"):
        for text in ("yesterday", "2026-01-31T12:00:00"):
            answer = await stage.ask("GET", "/routes/ads/shadow", **{field: text})
            assert (answer.status_code, list(faults(answer))) == (422, [field])
    assert (await stage.ask("GET", "/routes/none/shadow")).status_code == 404
