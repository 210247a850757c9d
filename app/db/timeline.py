"""The append-only list of everything that changed a route, with actor, reason and evidence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Row, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import versions
from app.db.tables import timeline
from policies.lifecycle import Rollout


class Kind(StrEnum):
    """What happened."""

    ROUTE_CREATED = "route_created"
    ROUTE_CHANGED = "route_changed"
    ROUTE_DELETED = "route_deleted"
    ARM_ADDED = "arm_added"
    ARM_CHANGED = "arm_changed"
    ARM_RETIRED = "arm_retired"
    SPLIT_CHANGED = "split_changed"
    ROLLOUT_STARTED = "rollout_started"
    STEPPED = "stepped"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    PAUSED = "paused"
    RESUMED = "resumed"
    KILL_SWITCH_ON = "kill_switch_on"
    KILL_SWITCH_OFF = "kill_switch_off"
    OVERRIDE_ADDED = "override_added"
    OVERRIDE_REMOVED = "override_removed"
    OVERRIDE_EXPIRED = "override_expired"
    BANDIT_REBUILT = "bandit_rebuilt"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written beside a change: what, who, why, about which challenger, on what evidence."""

    kind: Kind
    actor: str
    reason: str
    challenger: str | None = None
    evaluation_id: int | None = None
    evidence: Any = None


@dataclass(frozen=True, slots=True)
class Written:
    """One row of the timeline. `weights` and `champion` are those after the change."""

    id: int
    at_ms: int
    kind: Kind
    actor: str
    reason: str
    champion: str
    challenger: str | None
    weights: dict[str, int]
    epoch: int
    version: int
    evaluation_id: int | None
    evidence: Any


@dataclass(frozen=True, slots=True)
class Reign:
    """Who was champion, from when until when (None: still), and the row of the timeline that made it so."""

    champion: str
    since_ms: int
    until_ms: int | None
    crowned: Written


async def append(
    connection: AsyncConnection, route_id: int, rollout: Rollout, version: int, entry: Entry, now_ms: int
) -> int:
    """Write one row and ask for a new snapshot; gives the row's id. `rollout` is that after the change."""
    await versions.bump(connection)
    row = insert(timeline).values(
        route_id=route_id,
        at_ms=now_ms,
        kind=entry.kind.value,
        actor=entry.actor,
        reason=entry.reason,
        champion=rollout.champion,
        challenger=entry.challenger,
        weights=msgspec.json.encode(rollout.weights).decode(),
        epoch=rollout.epoch,
        version=version,
        evaluation_id=entry.evaluation_id,
        evidence=None if entry.evidence is None else msgspec.json.encode(entry.evidence).decode(),
    )
    return int((await connection.execute(row.returning(timeline.c.id))).scalar_one())


async def latest(
    connection: AsyncConnection, route_id: int, limit: int, before: int | None = None
) -> list[Written]:
    """The newest rows, newest first; with `before`, those with a smaller id."""
    query = select(timeline).where(timeline.c.route_id == route_id).order_by(timeline.c.id.desc())
    if before is not None:
        query = query.where(timeline.c.id < before)
    return [_written(row) for row in (await connection.execute(query.limit(limit))).all()]


async def champion_at(connection: AsyncConnection, route_id: int, at_ms: int) -> Reign | None:
    """Who was champion at a moment; None before the route existed or after it was deleted."""
    mine = select(timeline).where(timeline.c.route_id == route_id)
    upto = mine.where(timeline.c.at_ms <= at_ms).order_by(timeline.c.id.desc())
    then = (await connection.execute(upto.limit(1))).first()
    if then is None or then.kind == Kind.ROUTE_DELETED:
        return None
    others = (timeline.c.champion != then.champion, timeline.c.id < then.id)
    last_other = await connection.scalar(
        select(func.max(timeline.c.id)).where(timeline.c.route_id == route_id, *others)
    )
    reigns = mine.where(timeline.c.id > (last_other or 0)).order_by(timeline.c.id)
    crowned = (await connection.execute(reigns.limit(1))).one()
    ends = mine.where(
        timeline.c.id > then.id,
        (timeline.c.champion != then.champion) | (timeline.c.kind == Kind.ROUTE_DELETED.value),
    )
    end = (await connection.execute(ends.order_by(timeline.c.id).limit(1))).first()
    return Reign(then.champion, crowned.at_ms, end.at_ms if end else None, _written(crowned))


def _written(row: Row[Any]) -> Written:
    return Written(
        id=row.id,
        at_ms=row.at_ms,
        kind=Kind(row.kind),
        actor=row.actor,
        reason=row.reason,
        champion=row.champion,
        challenger=row.challenger,
        weights=msgspec.json.decode(row.weights),
        epoch=row.epoch,
        version=row.version,
        evaluation_id=row.evaluation_id,
        evidence=None if row.evidence is None else msgspec.json.decode(row.evidence),
    )
