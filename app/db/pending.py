"""Which decisions does a bandit still have to learn from, when, and what is in the log about them?

A decision waits here from the transaction in which it was recorded to the one in which it was learnt from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
from sqlalchemy import Select, delete, func, or_, select
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

STEP_DECISIONS = 5_000
"""How many are laid out, or forgotten, in one transaction."""

LATEST_DECISIONS = 10_000
"""In how many decisions of a route, the newest, contexts are looked for."""


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


class Refill(msgspec.Struct, frozen=True, array_like=True):
    """How far a route's log is laid out to be learnt anew, the newest decisions first.

    `since_ms`: those from then on are. `left`: so many more at most. `before`: time and id of the last one;
    None: there is none yet, for what waited before is still being forgotten.
    """

    since_ms: int
    left: int
    before: tuple[int, str] | None = None


def refill_from(now_ms: int) -> Refill:
    """The beginning: the last 90 days, of which the newest 500,000 decisions."""
    return Refill(now_ms - REFILL_MS, REFILL_DECISIONS)


async def add(connection: AsyncConnection, awaited: Sequence[Awaited]) -> None:
    """Let the rewards of decisions be waited for, as those of some may be already."""
    if awaited:
        statement = upsert(connection, bandit_pending).on_conflict_do_nothing(index_elements=["decision_id"])
        await connection.execute(statement, [asdict(one) for one in awaited])


async def refill(connection: AsyncConnection, route_id: int, wait_ms: int, at: Refill) -> Refill | None:
    """Lay out one more part of a route's log; gives how far it is then, and None when that is all.

    Until then nothing may be learnt: what is laid out twice waits once, but what was learnt would wait again.
    What is recorded meanwhile waits by itself.
    """
    room = STEP_DECISIONS
    if at.before is None:
        room -= await clear(connection, route_id, STEP_DECISIONS)
        if room == 0:
            return at
    part = _newest(route_id, at).limit(min(room, at.left))
    rows = (await connection.execute(part)).all()
    await add(connection, [Awaited(row.id, route_id, row.at_ms + wait_ms) for row in rows])
    left = at.left - len(rows)
    if not left or len(rows) < room:
        return None
    return Refill(at.since_ms, left, (rows[-1].at_ms, rows[-1].id))


async def clear(connection: AsyncConnection, route_id: int, most: int) -> int:
    """Wait no more for so many decisions of a route at most; gives how many it were."""
    some = select(bandit_pending.c.decision_id).where(bandit_pending.c.route_id == route_id).limit(most)
    gone = delete(bandit_pending).where(bandit_pending.c.decision_id.in_(some))
    return (await connection.execute(gone)).rowcount


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
    """The contexts of a route's newest decisions, of so many of those that have one, the newest first.

    They are looked for in its newest 10,000 decisions.
    """
    latest = (
        select(decisions.c.id, decisions.c.at_ms)
        .where(decisions.c.route_id == route_id)
        .order_by(decisions.c.at_ms.desc())
        .limit(LATEST_DECISIONS)
        .subquery()
    )
    query = (
        select(contexts.c.features)
        .join(latest, latest.c.id == contexts.c.decision_id)
        .order_by(latest.c.at_ms.desc())
        .limit(limit)
    )
    found = [_features(text) for text in (await connection.scalars(query)).all()]
    return [features for features in found if features is not None]


def _newest(route_id: int, at: Refill) -> Select[Any]:
    """What of a route's log is still to be laid out, the newest first."""
    query = (
        select(decisions.c.id, decisions.c.at_ms)
        .where(decisions.c.route_id == route_id, decisions.c.at_ms >= at.since_ms)
        .where(decisions.c.reason.in_([reason.value for reason in TEACHING]))
        .order_by(decisions.c.at_ms.desc(), decisions.c.id.desc())
    )
    if at.before is None:
        return query
    at_ms, decision_id = at.before
    is_older = or_(decisions.c.at_ms < at_ms, decisions.c.id < decision_id)
    return query.where(decisions.c.at_ms <= at_ms, is_older)


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
