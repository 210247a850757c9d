"""The record of each run of the policy: evidence, verdict, action. Written once, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import evaluations
from policies.guardrails import GuardrailReading
from policies.promotion import Judgement, Streak
from policies.types import Action, Verdict


class EvaluationKind(StrEnum):
    """What was judged: a mature day, or a guardrail that was breached in between."""

    DAY = "day"
    GUARDRAIL = "guardrail"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run for one challenger. `version` is the rollout's that the run has read. Times in Unix ms."""

    at_ms: int
    day: str
    day_start_ms: int
    challenger: str
    champion: str
    verdict: Verdict
    reason: str
    action: Action
    streak: Streak
    judgement: Judgement | None
    guardrails: tuple[GuardrailReading, ...]
    weights: dict[str, int]
    version: int
    trial_started_at_ms: int
    kind: EvaluationKind = EvaluationKind.DAY


async def insert_evaluation(connection: AsyncConnection, route_id: int, evaluation: Evaluation) -> int:
    """Write an evaluation; gives its id.

    Raises:
        Conflict: this day of this trial has been judged already.
    """
    row = insert(evaluations).values(
        route_id=route_id,
        at_ms=evaluation.at_ms,
        day=evaluation.day,
        day_start_ms=evaluation.day_start_ms,
        challenger=evaluation.challenger,
        champion=evaluation.champion,
        verdict=evaluation.verdict.value,
        action=evaluation.action.value,
        version=evaluation.version,
        trial_started_at_ms=evaluation.trial_started_at_ms,
        kind=evaluation.kind.value,
        record=msgspec.json.encode(evaluation).decode(),
    )
    return int((await connection.execute(row.returning(evaluations.c.id))).scalar_one())


async def latest_evaluations(
    connection: AsyncConnection,
    route_id: int,
    limit: int,
    before: int | None = None,
    challenger: str | None = None,
) -> list[tuple[int, Evaluation]]:
    """The newest evaluations with their ids, newest first; with `before`, those with a smaller id."""
    query = select(evaluations).where(evaluations.c.route_id == route_id).order_by(evaluations.c.id.desc())
    if before is not None:
        query = query.where(evaluations.c.id < before)
    if challenger is not None:
        query = query.where(evaluations.c.challenger == challenger)
    rows = (await connection.execute(query.limit(limit))).all()
    return [(row.id, _read(row.record)) for row in rows]


def _read(record: str) -> Evaluation:
    evaluation: Evaluation = msgspec.json.decode(record, type=Evaluation)
    return evaluation
