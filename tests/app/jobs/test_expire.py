"""An override that has expired ends by itself, once, and the timeline says so; on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import update

from app.db import overrides, signing
from app.db.errors import Unreadable
from app.db.overrides import StoredOverride
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.db.tables import overrides as table
from app.db.timeline import Kind
from app.jobs import expire as job
from app.jobs.expire import expire
from tests.app.db.stage import START_MS, get_route, put_route, route_spec, timeline_of


async def put(database: Database, route: StoredRoute, expiries: Sequence[int | None]) -> list[StoredOverride]:
    """Overrides that expire so long after the start."""
    async with database.transaction() as connection:
        return [
            await overrides.insert_override(
                connection,
                route.id,
                StoredOverride(
                    id=0,
                    arm="new",
                    arm_id=route.arm_ids["new"],
                    when=(),
                    share_bp=1,
                    priority=1,
                    expires_at_ms=None if after_ms is None else START_MS + after_ms,
                    author="ann",
                    reason="for a while",
                    created_at_ms=START_MS,
                ),
            )
            for after_ms in expiries
        ]


async def pinning(database: Database) -> list[int]:
    """The ids of the overrides that gateways get."""
    async with database.read() as connection:
        snapshot = await load_snapshot(connection, START_MS)
    return [override.id for route in snapshot.routes for override in route.overrides]


async def test_each_expiry_is_noted_once(database: Database) -> None:
    """With the whole override; the route's version and the snapshot's rise, so that gateways let go of it."""
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    route = await put_route(database)
    late, soon, later, lasting = await put(database, route, [5, 3, 9, None])
    for _ in range(2):
        await expire(database, START_MS + 5)
    created, *noted = await timeline_of(database, route)
    assert created.kind is Kind.ROUTE_CREATED
    assert [entry.kind for entry in noted] == [Kind.OVERRIDE_EXPIRED] * 2
    assert [entry.evidence["id"] for entry in noted] == [soon.id, late.id]
    first = noted[0]
    assert (first.actor, first.at_ms, first.challenger) == ("policy", START_MS + 5, "new")
    assert first.reason == "expired at 2025-01-06T00:00:00.003Z"
    assert (first.evidence["author"], first.evidence["reason"]) == ("ann", "for a while")
    after = await get_route(database)
    assert (after.version, after.rollout) == (route.version + 1, route.rollout)
    assert await pinning(database) == [later.id, lasting.id]


async def test_many_are_noted_in_several_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five hundred of a route at a time (here two)."""
    monkeypatch.setattr(job, "MOST_AT_ONCE", 2)
    route = await put_route(database)
    await put(database, route, [1, 1, 1])
    for noted in (2, 3, 3):
        await expire(database, START_MS + 1)
        assert len(await timeline_of(database, route)) == 1 + noted


async def test_two_workers_note_it_once(database: Database) -> None:
    """Of two that run at once one is too late, which is no failure."""
    route = await put_route(database)
    await put(database, route, [1])
    await asyncio.gather(*(expire(database, START_MS + 1) for _ in range(4)))
    assert len(await timeline_of(database, route)) == 2


async def test_one_routes_trouble_is_not_the_others(database: Database) -> None:
    """One that cannot be read is raised when the others are done."""
    bad, good = await put_route(database), await put_route(database, route_spec("good"))
    (broken,) = await put(database, bad, [1])
    await put(database, good, [1])
    async with database.transaction() as connection:
        await connection.execute(update(table).where(table.c.id == broken.id).values(spec="{}"))
    with pytest.raises(Unreadable):
        await expire(database, START_MS + 1)
    assert len(await timeline_of(database, good)) == 2


async def test_without_expiries_nothing_is_written(database: Database) -> None:
    """No version moves."""
    route = await put_route(database)
    await put(database, route, [5, None])
    await expire(database, START_MS + 4)
    assert await get_route(database) == route
