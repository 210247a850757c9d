"""Which decisions of a route were drawn, what was known before each, and what was reported after it?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.decisions import known_outcomes
from app.db.routes import StoredRoute, arm_names
from app.db.tables import contexts, decisions
from app.decision_logs import Logged
from policies.metrics import Outcome
from routing.types import DRAWN, TOTAL_BP

PAGE_DECISIONS = 2_000
"""How many are read at a time."""

_WAS_DRAWN = decisions.c.reason.in_([reason.value for reason in DRAWN])

_IS_NEW = decisions.c.first_at_ms.is_(None)
"""Whether the arm was drawn for this decision, so that the propensity is its own."""


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when, both included, in Unix ms; of the decisions between, the `most` newest."""

    from_ms: int
    to_ms: int
    most: int


async def newest(
    connection: AsyncConnection, route: StoredRoute, span: Span
) -> AsyncIterator[Sequence[Logged]]:
    """The decisions of a route in a span whose arm was drawn then, the newest first, page by page."""
    names = await _names(connection, route)
    last: Any = None
    left = span.most
    while left > 0:
        limit = min(left, PAGE_DECISIONS)
        rows = await _page(connection, route.id, span, limit, last)
        yield await _logged(connection, rows, names)
        if len(rows) < limit:
            return
        last, left = rows[-1], left - limit


async def count_kept(connection: AsyncConnection, route: StoredRoute, span: Span) -> int:
    """How many others of the span, all of them, kept the arm that was drawn for their unit's first one."""
    query = select(func.count()).where(*_of_draws(route.id, span.from_ms, span.to_ms), ~_IS_NEW)
    return int((await connection.execute(query)).scalar_one())


async def count_undrawn(connection: AsyncConnection, route: StoredRoute, span: Span) -> int:
    """How many more of the span, all of them, were not drawn: they say nothing of what others had earned."""
    query = select(func.count()).where(*_of_time(route.id, span.from_ms, span.to_ms), ~_WAS_DRAWN)
    return int((await connection.execute(query)).scalar_one())


async def _page(
    connection: AsyncConnection, route_id: int, span: Span, limit: int, last: Any
) -> Sequence[Any]:
    """Rows that come after the last one, if there is one: the newest first."""
    to_ms = span.to_ms if last is None else last.at_ms
    query = (
        select(
            decisions.c.id,
            decisions.c.assigned_arm_id,
            decisions.c.propensity_bp,
            decisions.c.unit_hash,
            decisions.c.at_ms,
            contexts.c.features,
        )
        .outerjoin(contexts, contexts.c.decision_id == decisions.c.id)
        .where(*_of_draws(route_id, span.from_ms, to_ms), _IS_NEW)
        .order_by(decisions.c.at_ms.desc(), decisions.c.id.desc())
        .limit(limit)
    )
    if last is not None:
        query = query.where(or_(decisions.c.at_ms < last.at_ms, decisions.c.id < last.id))
    return (await connection.execute(query)).all()


def _of_draws(route_id: int, from_ms: int, to_ms: int) -> tuple[ColumnElement[bool], ...]:
    """Decisions of a route and a time whose arm was drawn, then or for the first one of their unit."""
    return (*_of_time(route_id, from_ms, to_ms), _WAS_DRAWN)


def _of_time(route_id: int, from_ms: int, to_ms: int) -> tuple[ColumnElement[bool], ...]:
    return (
        decisions.c.route_id == route_id,
        decisions.c.at_ms >= from_ms,
        decisions.c.at_ms <= to_ms,
    )


async def _logged(connection: AsyncConnection, rows: Sequence[Any], names: Mapping[int, str]) -> list[Logged]:
    known = await known_outcomes(connection, [row.id for row in rows])
    outcomes: dict[str, dict[str, Sequence[Outcome]]] = defaultdict(dict)
    for (decision, metric), standing in known.items():
        outcomes[decision][metric] = tuple(standing.values())
    return [_decision(row, names, outcomes.get(row.id, {})) for row in rows]


def _decision(row: Any, names: Mapping[int, str], outcomes: Mapping[str, Sequence[Outcome]]) -> Logged:
    return Logged(
        id=row.id,
        arm=names.get(row.assigned_arm_id, f"#{row.assigned_arm_id}"),
        unit=row.unit_hash,
        propensity=row.propensity_bp / TOTAL_BP,
        at_ms=row.at_ms,
        context=_features(row.features),
        outcomes=outcomes,
    )


async def _names(connection: AsyncConnection, route: StoredRoute) -> dict[int, str]:
    """The names of all arms that there were. One that is gone may share its name with one that is not."""
    found = await arm_names(connection, route.id)
    return {
        arm_id: name if route.arm_ids.get(name, arm_id) == arm_id else f"{name} (retired)"
        for arm_id, name in found.items()
    }


def _features(text: str | None) -> Mapping[str, object] | None:
    """What cannot be read is not known."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError:
        return None
