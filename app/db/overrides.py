"""Which overrides pin a route's traffic, until they are removed or expire, and how much has each pinned?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.errors import NotFound, Unreadable
from app.db.session import upsert
from app.db.tables import arms, override_matches, overrides, routes
from routing.rules import TOTAL_SHARE_BP, Condition, Override

HOUR_MS = 3_600_000
_DAY_MS = 24 * HOUR_MS


class _Spec(msgspec.Struct, frozen=True):
    """What is stored of an override beside its columns."""

    when: tuple[Condition, ...]
    share_bp: int = TOTAL_SHARE_BP
    priority: int = 100


@dataclass(frozen=True, slots=True)
class StoredOverride:
    """One override, with the arm's name and who made it, when and why. Times are Unix ms."""

    id: int
    arm: str
    arm_id: int
    when: tuple[Condition, ...]
    share_bp: int
    priority: int
    expires_at_ms: int | None
    author: str
    reason: str
    created_at_ms: int

    def is_expired(self, at_ms: int) -> bool:
        """Whether it has no effect any more."""
        return self.expires_at_ms is not None and self.expires_at_ms <= at_ms

    @property
    def rule(self) -> Override:
        """What gateways go by."""
        return Override(
            id=self.id,
            arm_id=self.arm_id,
            when=self.when,
            share_bp=self.share_bp,
            priority=self.priority,
            expires_at_ms=self.expires_at_ms,
        )


class Room(NamedTuple):
    """How many overrides a route has, and how many characters their conditions take together."""

    overrides: int
    characters: int


class Matched(NamedTuple):
    """How many decisions an override has pinned in the hours that the last hour, or day, has touched.

    `last_at_ms` is when it pinned the last one; None: it never has.
    """

    last_hour: int
    last_day: int
    last_at_ms: int | None


async def insert_override(
    connection: AsyncConnection, route_id: int, override: StoredOverride
) -> StoredOverride:
    """Write a new override; gives it with its id."""
    row = insert(overrides).values(
        route_id=route_id,
        arm_id=override.arm_id,
        spec=spec_text(override),
        author=override.author,
        reason=override.reason,
        created_at_ms=override.created_at_ms,
        expires_at_ms=override.expires_at_ms,
    )
    override_id = (await connection.execute(row.returning(overrides.c.id))).scalar_one()
    return replace(override, id=int(override_id))


def spec_text(override: StoredOverride) -> str:
    """What is stored of its conditions, share and priority."""
    spec = _Spec(override.when, override.share_bp, override.priority)
    return msgspec.json.encode(spec).decode()


async def live_overrides(connection: AsyncConnection, route_id: int) -> list[StoredOverride]:
    """A route's overrides that have not ended, in their order of precedence.

    One that has expired is among them until that is on the timeline.
    """
    found = await _load(connection, _stored().where(overrides.c.route_id == route_id, _is_live()))
    return sorted(found, key=lambda override: (-override.priority, override.id))


async def find_override(connection: AsyncConnection, route_id: int, override_id: int) -> StoredOverride:
    """A route's override with this id.

    Raises:
        NotFound: there is none, or it has ended.
    """
    mine = (overrides.c.route_id == route_id, overrides.c.id == override_id, _is_live())
    found = await _load(connection, _stored().where(*mine))
    if not found:
        raise NotFound(f"the route has no override with the id {override_id}")
    return found[0]


async def room(connection: AsyncConnection, route_id: int) -> Room:
    """How much of a route's room for overrides is taken."""
    characters = func.coalesce(func.sum(func.length(overrides.c.spec)), 0)
    query = select(func.count(), characters).where(overrides.c.route_id == route_id, _is_live())
    row = (await connection.execute(query)).one()
    return Room(int(row[0]), int(row[1]))


async def end_overrides(connection: AsyncConnection, ids: Collection[int], now_ms: int) -> None:
    """Note that these are no more. Their ids are never used again."""
    ended = update(overrides).where(overrides.c.id.in_(ids), _is_live())
    await connection.execute(ended.values(ended_at_ms=now_ms))


async def end_all_overrides(connection: AsyncConnection, route_id: int, now_ms: int) -> None:
    """Note that a route has none any more."""
    ended = update(overrides).where(overrides.c.route_id == route_id, _is_live())
    await connection.execute(ended.values(ended_at_ms=now_ms))


async def load_rules(connection: AsyncConnection, now_ms: int) -> dict[int, tuple[Override, ...]]:
    """What gateways go by, of every route (by its id): overrides that neither have ended nor expired."""
    unexpired = overrides.c.expires_at_ms.is_(None) | (overrides.c.expires_at_ms > now_ms)
    query = _stored().where(_is_live(), unexpired).order_by(overrides.c.id)
    rules: dict[int, list[Override]] = defaultdict(list)
    for row in (await connection.execute(query)).all():
        rules[row.route_id].append(_override(row).rule)
    return {route_id: tuple(found) for route_id, found in rules.items()}


async def routes_with_expired(connection: AsyncConnection, now_ms: int) -> list[str]:
    """The names of the live routes on whose timeline an expiry is missing."""
    query = select(routes.c.name).join(overrides, overrides.c.route_id == routes.c.id)
    mine = query.where(routes.c.deleted_at_ms.is_(None), *_is_expired(now_ms))
    return list((await connection.scalars(mine.distinct().order_by(routes.c.name))).all())


async def expired_overrides(
    connection: AsyncConnection, route_id: int, now_ms: int, limit: int
) -> list[StoredOverride]:
    """Those of a route that have expired, which is not on the timeline yet: the first ones first."""
    query = _stored().where(overrides.c.route_id == route_id, *_is_expired(now_ms))
    return await _load(connection, query.order_by(overrides.c.expires_at_ms, overrides.c.id).limit(limit))


async def note_matches(connection: AsyncConnection, pinned: Iterable[tuple[int, int]]) -> None:
    """Count decisions by the override that pinned them: pairs of its id and the decision's time."""
    hours: dict[tuple[int, int], list[int]] = defaultdict(list)
    for override_id, at_ms in pinned:
        hours[override_id, _hour_of(at_ms)].append(at_ms)
    if not hours:
        return
    rows = [
        {"override_id": override_id, "hour_start_ms": start_ms, "n": len(times), "last_at_ms": max(times)}
        for (override_id, start_ms), times in sorted(hours.items())
    ]
    known, statement = override_matches.c, upsert(connection, override_matches)
    new = statement.excluded
    grown = {
        "n": known.n + new.n,
        "last_at_ms": case((new.last_at_ms > known.last_at_ms, new.last_at_ms), else_=known.last_at_ms),
    }
    identity = ["override_id", "hour_start_ms"]
    await connection.execute(statement.on_conflict_do_update(index_elements=identity, set_=grown), rows)


async def forget_matches(connection: AsyncConnection, now_ms: int, most: int) -> int:
    """Forget what was pinned in hours that `matches` shows no more, `most` of them; gives how many it were.

    The last hour of an override that has not ended is kept.
    """
    mine, later = override_matches.alias(), override_matches.alias()
    is_live = exists().where(overrides.c.id == mine.c.override_id, _is_live())
    is_last = ~exists().where(
        later.c.override_id == mine.c.override_id, later.c.hour_start_ms > mine.c.hour_start_ms
    )
    is_old = mine.c.hour_start_ms < _hour_of(now_ms - _DAY_MS)
    old = select(mine.c.override_id, mine.c.hour_start_ms).where(is_old, ~and_(is_live, is_last)).limit(most)
    hour = tuple_(override_matches.c.override_id, override_matches.c.hour_start_ms)
    gone = delete(override_matches).where(hour.in_(old.with_for_update(of=mine, skip_locked=True)))
    return (await connection.execute(gone)).rowcount


async def matches(connection: AsyncConnection, route_id: int, now_ms: int) -> dict[int, Matched]:
    """What each override of a route that has not ended has pinned lately."""
    known = override_matches.c
    mine = select(known.last_at_ms).where(known.override_id == overrides.c.id)
    last = mine.order_by(known.hour_start_ms.desc()).limit(1).scalar_subquery()
    hour, day = (_pinned_since(now_ms - span_ms) for span_ms in (HOUR_MS, _DAY_MS))
    query = select(overrides.c.id, hour, day, last).where(overrides.c.route_id == route_id, _is_live())
    rows = (await connection.execute(query)).all()
    return {row[0]: Matched(int(row[1]), int(row[2]), row[3]) for row in rows}


def _pinned_since(at_ms: int) -> ColumnElement[Any]:
    """How many an override has pinned from the beginning of that hour on."""
    known = override_matches.c
    query = select(func.coalesce(func.sum(known.n), 0)).where(
        known.override_id == overrides.c.id, known.hour_start_ms >= _hour_of(at_ms)
    )
    return query.scalar_subquery()


def _hour_of(at_ms: int) -> int:
    """When the hour of a moment began."""
    return at_ms // HOUR_MS * HOUR_MS


def _is_live() -> ColumnElement[bool]:
    return overrides.c.ended_at_ms.is_(None)


def _is_expired(now_ms: int) -> tuple[ColumnElement[bool], ...]:
    return _is_live(), overrides.c.expires_at_ms <= now_ms


def _stored() -> Select[Any]:
    named = select(overrides, arms.c.name.label("arm"))
    return named.join(arms, arms.c.id == overrides.c.arm_id)


async def _load(connection: AsyncConnection, query: Select[Any]) -> list[StoredOverride]:
    return [_override(row) for row in (await connection.execute(query)).all()]


def _override(row: Row[Any]) -> StoredOverride:
    spec = _spec(row)
    return StoredOverride(
        id=row.id,
        arm=row.arm,
        arm_id=row.arm_id,
        when=spec.when,
        share_bp=spec.share_bp,
        priority=spec.priority,
        expires_at_ms=row.expires_at_ms,
        author=row.author,
        reason=row.reason,
        created_at_ms=row.created_at_ms,
    )


def _spec(row: Row[Any]) -> _Spec:
    try:
        spec: _Spec = msgspec.json.decode(row.spec, type=_Spec)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"override {row.id} was not written by this version: {error}") from error
    return spec
