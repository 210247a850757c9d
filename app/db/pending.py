"""Which decisions does a bandit still have to learn from, when, and what is in the log about them?

A decision waits here from the transaction in which it was recorded to the one in which it was learnt from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.decisions import chunks, known_outcomes
from app.db.session import upsert
from app.db.tables import bandit_pending, contexts, decisions
from policies.days import CALENDAR_DAY_MS
from policies.lessons import TEACHING, Mature
from policies.metrics import Outcome

REFILL_MS = 90 * CALENDAR_DAY_MS
REFILL_DECISIONS = 500_000
"""How far back the log is read when all is learnt anew: so many days, and so many decisions at most."""


@dataclass(frozen=True, slots=True)
class Awaited:
    """A decision whose reward is waited for."""

    decision_id: str
    route_id: int
    due_at_ms: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many decisions of a route wait, and when the first of them is due; None: there are none."""

    decisions: int
    first_due_ms: int | None


async def add(connection: AsyncConnection, awaited: Sequence[Awaited]) -> None:
    """Let the rewards of new decisions be waited for."""
    rows = [
        {"decision_id": one.decision_id, "route_id": one.route_id, "due_at_ms": one.due_at_ms}
        for one in awaited
    ]
    if rows:
        await connection.execute(insert(bandit_pending), rows)


async def refill(connection: AsyncConnection, route_id: int, wait_ms: int, now_ms: int) -> None:
    """Let everything be learnt again that the log has of the last 90 days: its newest 500,000 decisions."""
    await clear(connection, route_id)
    logged = (
        select(decisions.c.id, decisions.c.route_id, decisions.c.at_ms + wait_ms)
        .where(decisions.c.route_id == route_id, decisions.c.at_ms >= now_ms - REFILL_MS)
        .where(decisions.c.reason.in_([reason.value for reason in TEACHING]))
        .order_by(decisions.c.at_ms.desc())
        .limit(REFILL_DECISIONS)
    )
    statement = upsert(connection, bandit_pending)
    copy = statement.from_select(["decision_id", "route_id", "due_at_ms"], logged)
    await connection.execute(copy.on_conflict_do_nothing(index_elements=["decision_id"]))


async def clear(connection: AsyncConnection, route_id: int) -> None:
    """Wait for nothing more of a route."""
    await connection.execute(delete(bandit_pending).where(bandit_pending.c.route_id == route_id))


async def due(connection: AsyncConnection, route_id: int, at_ms: int, limit: int) -> dict[str, Mature]:
    """The decisions of a route that are mature at a moment, by id, those that were due first."""
    query = (
        select(
            bandit_pending.c.decision_id,
            decisions.c.assigned_arm_id,
            decisions.c.at_ms,
            decisions.c.considered_bp,
            contexts.c.features,
        )
        .outerjoin(decisions, decisions.c.id == bandit_pending.c.decision_id)
        .outerjoin(contexts, contexts.c.decision_id == bandit_pending.c.decision_id)
        .where(bandit_pending.c.route_id == route_id, bandit_pending.c.due_at_ms <= at_ms)
        .order_by(bandit_pending.c.due_at_ms, bandit_pending.c.decision_id)
        .limit(limit)
    )
    rows = (await connection.execute(query)).all()
    known = await known_outcomes(connection, [row.decision_id for row in rows])
    outcomes: dict[str, dict[str, list[Outcome]]] = defaultdict(dict)
    for (decision, metric), standing in known.items():
        outcomes[decision][metric] = list(standing.values())
    return {row.decision_id: _mature(row, outcomes[row.decision_id]) for row in rows}


async def remove(connection: AsyncConnection, decision_ids: Sequence[str]) -> int:
    """Wait no more for these; gives how many of them were waited for."""
    removed = 0
    for some in chunks(decision_ids):
        gone = delete(bandit_pending).where(bandit_pending.c.decision_id.in_(some))
        removed += (await connection.execute(gone)).rowcount
    return removed


async def waiting(connection: AsyncConnection, route_id: int) -> Waiting:
    """How many decisions of a route wait."""
    query = select(func.count(), func.min(bandit_pending.c.due_at_ms))
    row = (await connection.execute(query.where(bandit_pending.c.route_id == route_id))).one()
    return Waiting(row[0], row[1])


async def latest_contexts(
    connection: AsyncConnection, route_id: int, limit: int
) -> list[Mapping[str, object]]:
    """The contexts of a route's newest decisions, of so many of those that have one."""
    query = (
        select(contexts.c.features)
        .join(decisions, decisions.c.id == contexts.c.decision_id)
        .where(decisions.c.route_id == route_id)
        .order_by(decisions.c.at_ms.desc())
        .limit(limit)
    )
    found = [_features(text) for text in (await connection.scalars(query)).all()]
    return [features for features in found if features is not None]


def _mature(row: Any, outcomes: Mapping[str, Sequence[Outcome]]) -> Mature:
    """What is gone from the log is of no arm."""
    return Mature(
        arm_id=row.assigned_arm_id or 0,
        at_ms=row.at_ms or 0,
        context=_features(row.features),
        considered_bp=row.considered_bp,
        outcomes=outcomes,
    )


def _features(text: str | None) -> Mapping[str, object] | None:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
