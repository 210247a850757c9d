"""Overrides come and end, gateways get those that pin, and what each pins is counted; on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from app.db import overrides
from app.db.errors import NotFound, Unreadable
from app.db.overrides import HOUR_MS, Matched, Room, StoredOverride, spec_text
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.db.tables import arms, override_matches, routes
from app.db.tables import overrides as table
from routing.overrides import Rules
from routing.rules import Condition, Op, Override
from tests.app.db.stage import START_MS, put_route, route_spec

HOUR = START_MS + 10 * 24 * HOUR_MS
WHEN = (
    Condition(attribute="unit", op=Op.IN, values=("u1", "\0\U0001f451")),
    Condition(attribute="context.hour", op=Op.LT, values=(3.5,)),
    Condition(attribute="header.X", op=Op.EXISTS, values=(False,)),
)


def wanted(route: StoredRoute, **changes: object) -> StoredOverride:
    """An override of the challenger, not stored yet."""
    plain = StoredOverride(
        id=0,
        arm="new",
        arm_id=route.arm_ids["new"],
        when=WHEN,
        share_bp=5_000,
        priority=100,
        expires_at_ms=None,
        author="ann",
        reason="because",
        created_at_ms=START_MS,
    )
    return replace(plain, **changes)  # type: ignore[arg-type] # each test names fields of their types


async def put(database: Database, route: StoredRoute, **changes: object) -> StoredOverride:
    """Stores one in a transaction of its own."""
    async with database.transaction() as connection:
        return await overrides.insert_override(connection, route.id, wanted(route, **changes))


async def live(database: Database, route: StoredRoute) -> list[StoredOverride]:
    """The route's overrides that have not ended."""
    async with database.read() as connection:
        return await overrides.live_overrides(connection, route.id)


async def end(database: Database, *ids: int) -> None:
    """Ends them."""
    async with database.transaction() as connection:
        await overrides.end_overrides(connection, ids, START_MS)


async def test_an_override_comes_back_as_it_was_stored(database: Database) -> None:
    """Texts, numbers and truth values, conditions in order, times to the millisecond; and by its id."""
    route = await put_route(database)
    stored = await put(database, route, expires_at_ms=2**52)
    assert stored == wanted(route, id=stored.id, expires_at_ms=2**52)
    assert await live(database, route) == [stored]
    async with database.read() as connection:
        assert await overrides.find_override(connection, route.id, stored.id) == stored
    rule = Override(
        id=stored.id,
        arm_id=stored.arm_id,
        when=WHEN,
        share_bp=5_000,
        priority=100,
        expires_at_ms=2**52,
    )
    assert stored.rule == rule
    assert Rules([rule]).attributes == {"unit", "context.hour", "header.x"}


async def test_they_come_in_their_order_of_precedence(database: Database) -> None:
    """The highest priority first, of equals the oldest; other routes' are not among them."""
    route, other = await put_route(database), await put_route(database, route_spec("other"))
    ids = [(await put(database, route, priority=priority)).id for priority in (5, 9, 5)]
    await put(database, other)
    assert [each.id for each in await live(database, route)] == [ids[1], ids[0], ids[2]]


async def test_what_has_ended_is_not_found_and_takes_no_room(database: Database) -> None:
    """Once, and for good: no id is used again."""
    route = await put_route(database)
    first, second = await put(database, route), await put(database, route)
    size = len(spec_text(first))
    async with database.read() as connection:
        assert await overrides.room(connection, route.id) == Room(2, 2 * size)
    await end(database, second.id)
    async with database.read() as connection:
        assert await overrides.room(connection, route.id) == Room(1, size)
        with pytest.raises(NotFound, match=f"no override with the id {second.id}"):
            await overrides.find_override(connection, route.id, second.id)
        with pytest.raises(NotFound):
            await overrides.find_override(connection, route.id + 1, first.id)
    assert (await put(database, route)).id > second.id
    async with database.transaction() as connection:
        await overrides.end_all_overrides(connection, route.id, START_MS)
        assert await overrides.room(connection, route.id) == Room(0, 0)


async def test_gateways_get_those_that_pin(database: Database) -> None:
    """Neither what has ended nor what has expired; of every route its own."""
    route, other = await put_route(database), await put_route(database, route_spec("other"))
    kept = await put(database, route, expires_at_ms=HOUR + 1)
    await put(database, route, expires_at_ms=HOUR)
    await end(database, (await put(database, route)).id)
    theirs = await put(database, other)
    async with database.read() as connection:
        rules = await overrides.load_rules(connection, HOUR)
    assert rules == {route.id: (kept.rule,), other.id: (theirs.rule,)}


async def test_expiries_are_found_until_they_are_noted(database: Database) -> None:
    """By route, those that expired first first, some at a time; those of a deleted route belong to nobody."""
    route, other = await put_route(database), await put_route(database, route_spec("other"))
    late, soon = [await put(database, route, expires_at_ms=HOUR - ago) for ago in (0, 5)]
    for each in (route, other):
        await put(database, each, expires_at_ms=HOUR + 1)
        await put(database, each)
    async with database.transaction() as connection:
        assert await overrides.routes_with_expired(connection, HOUR) == ["ads"]
        assert await overrides.routes_with_expired(connection, HOUR + 1) == ["ads", "other"]
        found = await overrides.expired_overrides(connection, route.id, HOUR, 9)
        assert [each.id for each in found] == [soon.id, late.id]
        assert await overrides.expired_overrides(connection, route.id, HOUR, 1) == [soon]
        await overrides.end_overrides(connection, [soon.id, late.id], HOUR)
        assert await overrides.routes_with_expired(connection, HOUR) == []
        await connection.execute(update(routes).values(deleted_at_ms=HOUR))
        assert await overrides.routes_with_expired(connection, HOUR + 1) == []


async def test_matches_add_up_by_hour(database: Database) -> None:
    """From batch to batch, in whatever order; the last time is the latest."""
    route = await put_route(database)
    one, none = await put(database, route), await put(database, route)
    async with database.transaction() as connection:
        await overrides.note_matches(connection, [])
        await overrides.note_matches(connection, [(one.id, HOUR + 7), (one.id, HOUR + 3)])
        await overrides.note_matches(connection, [(one.id, HOUR + 5), (one.id, HOUR - 1)])
        await overrides.note_matches(connection, [(one.id, HOUR - 23 * HOUR_MS - 1), (one.id, START_MS)])
    async with database.read() as connection:
        assert await overrides.matches(connection, route.id, HOUR + 10) == {
            one.id: Matched(4, 5, HOUR + 7),
            none.id: Matched(0, 0, None),
        }
        an_hour_later = await overrides.matches(connection, route.id, HOUR + HOUR_MS)
        assert an_hour_later[one.id] == Matched(3, 4, HOUR + 7)
        much_later = await overrides.matches(connection, route.id, HOUR + 26 * HOUR_MS)
        assert much_later[one.id] == Matched(0, 0, HOUR + 7)


async def hours(database: Database) -> list[tuple[int, int]]:
    """What is kept of matches: the override, and how many hours after `HOUR`."""
    known = override_matches.c
    query = select(known.override_id, known.hour_start_ms).order_by(known.override_id, known.hour_start_ms)
    async with database.read() as connection:
        return [(row[0], (row[1] - HOUR) // HOUR_MS) for row in (await connection.execute(query)).all()]


async def test_hours_that_no_listing_shows_are_forgotten(database: Database) -> None:
    """In parts. Of a live override the last one stays, so that it is told when it matched; of others none.
    What is listed is the same before and after, then and later."""
    route = await put_route(database)
    busy, quiet, gone = [await put(database, route) for _ in range(3)]
    pinned = [(busy.id, hour) for hour in range(-30, 1)] + [(quiet.id, -90), (quiet.id, -50)]
    pinned += [(gone.id, -26), (gone.id, -25), (gone.id, -24)]
    async with database.transaction() as connection:
        times = [(override_id, HOUR + hour * HOUR_MS + 9) for override_id, hour in pinned]
        await overrides.note_matches(connection, times)
    await end(database, gone.id)
    moments = [HOUR + 10, HOUR + HOUR_MS - 1, HOUR + HOUR_MS, HOUR + 30 * HOUR_MS]
    async with database.read() as connection:
        before = [await overrides.matches(connection, route.id, at_ms) for at_ms in moments]
    forgotten = []
    for _ in range(4):
        async with database.transaction() as connection:
            forgotten.append(await overrides.forget_matches(connection, moments[0], 4))
    assert forgotten == [4, 4, 1, 0]
    kept = [(busy.id, hour) for hour in range(-24, 1)] + [(quiet.id, -50), (gone.id, -24)]
    assert await hours(database) == kept
    async with database.read() as connection:
        assert [await overrides.matches(connection, route.id, at_ms) for at_ms in moments] == before
    async with database.transaction() as connection:
        await overrides.forget_matches(connection, HOUR + 90 * HOUR_MS, 99)
    assert await hours(database) == [(busy.id, 0), (quiet.id, -50)]


async def test_an_arm_that_is_gone_keeps_its_name(database: Database) -> None:
    """What pins to it is still told by name, but no gateway gets it."""
    route = await put_route(database, route_spec(weights={"old": 10_000, "new": 0}))
    stored = await put(database, route)
    async with database.transaction() as connection:
        await connection.execute(update(arms).where(arms.c.name == "new").values(retired_at_ms=1))
    assert await live(database, route) == [stored]


async def test_what_another_version_wrote_is_not_guessed_at(database: Database) -> None:
    """It is refused by its id, and no snapshot is made of it."""
    route = await put_route(database)
    stored = await put(database, route)
    async with database.transaction() as connection:
        newer = '{"when": [{"attribute": "moon", "op": "waxes"}]}'
        await connection.execute(update(table).values(spec=newer))
    with pytest.raises(Unreadable, match=f"override {stored.id} was not written by this version"):
        await live(database, route)
    async with database.read() as connection:
        with pytest.raises(Unreadable):
            await load_snapshot(connection, START_MS)
