"""Every evaluation is written once, and is read as it was written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.db import evaluations
from app.db.errors import Conflict
from app.db.evaluations import Evaluation, EvaluationKind
from app.db.session import Database
from policies.comparison import Interval
from policies.guardrails import GuardrailReading
from policies.promotion import ArmEstimate, Judgement, Streak
from policies.types import Action, Verdict
from tests.app.db.stage import DAY_MS, START_MS, evaluations_of, put_route, route_spec

FULL = Evaluation(
    at_ms=START_MS + DAY_MS,
    day="2025-01-06",
    day_start_ms=START_MS,
    challenger="new",
    champion="old",
    verdict=Verdict.WIN,
    reason="P(better) 0.9912 > 0.9750 — ünïcode",
    action=Action.PROMOTE,
    streak=Streak(winning=3, losing=0, frozen=1),
    judgement=Judgement(
        verdict=Verdict.WIN,
        reason="",
        days=9,
        threshold=0.975,
        chance_to_beat=1 / 3,
        chance_worse=1e-300,
        expected_loss=0.1 + 0.2,
        allowed_loss=5e-324,
        lift=Interval(0.1, -0.05, 1e300),
        champion=ArmEstimate(5_000_000_000, 0.05, 0.0, 1.0),
        challenger=ArmEstimate(1, -1.5, -2.5, 0.0),
    ),
    guardrails=(
        GuardrailReading(
            "error", 1e299, 100.0, breached=True, enough=True, champion_rate=0.0, challenger_rate=1.0
        ),
        GuardrailReading(
            "cost", 0.5, 100.0, breached=False, enough=False, champion_rate=None, challenger_rate=None
        ),
    ),
    weights={"old": 5_000, "new": 5_000},
    version=12,
    trial_started_at_ms=START_MS - 5,
)


async def write(database: Database, route_id: int, *written: Evaluation) -> list[int]:
    """Write evaluations in one transaction; gives their ids."""
    async with database.transaction() as connection:
        return [await evaluations.insert_evaluation(connection, route_id, one) for one in written]


@pytest.mark.parametrize(
    "evaluation",
    [
        FULL,
        replace(
            FULL, judgement=None, guardrails=(), weights={}, streak=Streak(), kind=EvaluationKind.GUARDRAIL
        ),
        replace(FULL, judgement=Judgement(Verdict.INSUFFICIENT_DATA, "no data", 0, 0.975)),
    ],
    ids=["everything", "nothing", "no numbers"],
)
async def test_an_evaluation_is_read_as_it_was_written(database: Database, evaluation: Evaluation) -> None:
    """Every field of the frozen record is there again, floats to the last bit, absences as absences."""
    route = await put_route(database)
    await write(database, route.id, evaluation)
    assert await evaluations_of(database, route) == [evaluation]


async def test_every_verdict_and_action_fits(database: Database) -> None:
    """No verdict, action or kind is too long for its column, nor unknown when it is read."""
    route = await put_route(database)
    written = [
        replace(FULL, verdict=verdict, action=action, day_start_ms=number)
        for number, (verdict, action) in enumerate(
            (verdict, action) for verdict in Verdict for action in Action
        )
    ]
    await write(database, route.id, *written)
    assert await evaluations_of(database, route) == written


async def test_a_day_of_a_trial_is_judged_once(database: Database) -> None:
    """A second evaluation of a day of the same trial is a Conflict, whatever else it says."""
    route = await put_route(database)
    await write(database, route.id, FULL)
    again = replace(FULL, at_ms=1, verdict=Verdict.LOSE, action=Action.ROLLBACK, version=99, champion="third")
    with pytest.raises(Conflict):
        await write(database, route.id, again)
    assert await evaluations_of(database, route) == [FULL]


async def test_another_trial_day_challenger_kind_or_route_is_judged_for_itself(database: Database) -> None:
    """Only the same day of the same trial is the same: a later trial of the arm may judge that day again."""
    route, other = await put_route(database), await put_route(database, route_spec("other"))
    different = [
        FULL,
        replace(FULL, trial_started_at_ms=FULL.trial_started_at_ms + 1),
        replace(FULL, day_start_ms=FULL.day_start_ms + DAY_MS),
        replace(FULL, challenger="third"),
        replace(FULL, kind=EvaluationKind.GUARDRAIL),
    ]
    await write(database, route.id, *different)
    await write(database, other.id, *different)
    assert await evaluations_of(database, route) == await evaluations_of(database, other) == different


async def test_of_two_who_judge_a_day_at_once_one_is_refused(database: Database) -> None:
    """Two evaluators that write the same day at the same time: one succeeds, the other is told Conflict."""
    route = await put_route(database)
    pair = (FULL, replace(FULL, version=13))
    results = await asyncio.gather(*(write(database, route.id, one) for one in pair), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "list"]
    assert len(await evaluations_of(database, route)) == 1


async def test_the_newest_come_first_page_by_page(database: Database) -> None:
    """Pages before an id give each evaluation once, with its id; a name leaves out other challengers'."""
    route = await put_route(database)
    days = [
        replace(FULL, day_start_ms=START_MS + number * DAY_MS, challenger=name)
        for number in range(4)
        for name in ("new", "third")
    ]
    newest_first = list(zip(await write(database, route.id, *days), days, strict=True))[::-1]
    async with database.read() as connection:
        assert await evaluations.latest_evaluations(connection, route.id, 3) == newest_first[:3]
        before = newest_first[2][0]
        assert await evaluations.latest_evaluations(connection, route.id, 99, before) == newest_first[3:]
        mine = await evaluations.latest_evaluations(connection, route.id, 2, before, "third")
        assert mine == [pair for pair in newest_first[3:] if pair[1].challenger == "third"][:2]
        assert await evaluations.latest_evaluations(connection, route.id + 1, 99) == []
