"""The timeline is only ever added to, and knows who was champion at any moment, and since which entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.db import routes, timeline
from app.db.errors import Conflict
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.timeline import Entry, Kind, Reign, Written
from policies.lifecycle import Rollout, pause, promote, resume, roll_back, set_split, start
from tests.app.db.stage import START_MS, get_route, put_route, route_spec, save, timeline_of


async def reign_at(database: Database, route: StoredRoute, at_ms: int) -> Reign | None:
    """Who was champion then."""
    async with database.read() as connection:
        return await timeline.champion_at(connection, route.id, at_ms)


async def champion(database: Database, route: StoredRoute, at_ms: int) -> str | None:
    """The champion's name then."""
    reign = await reign_at(database, route, at_ms)
    return reign.champion if reign is not None else None


async def delete(database: Database, route: StoredRoute, now_ms: int) -> None:
    """Delete a route as the control plane does, with an entry."""
    await save(database, route, route.rollout, Kind.ROUTE_DELETED, now_ms)
    async with database.transaction() as connection:
        await routes.delete_route(connection, route.id, now_ms)


async def eventful(database: Database) -> StoredRoute:
    """A route made at 1,000 that is promoted, changed, rolled back, promoted again and deleted at 9,000.

    Changes come at even thousands; `new` reigns from 3,000 and from 6,000, `old` before and between.
    """
    route = await put_route(database, route_spec(weights={"old": 9_000, "new": 1_000, "third": 0}), 1_000)

    async def change(after: Rollout, kind: Kind, now_ms: int) -> StoredRoute:
        return await save(database, route, after, kind, now_ms)

    route = await change(pause(route.rollout), Kind.PAUSED, 2_000)
    route = await change(promote(route.rollout, "new", 3_000), Kind.PROMOTED, 3_000)
    route = await change(start(route.rollout, "third", 500, 4_000), Kind.ROLLOUT_STARTED, 4_000)
    route = await change(roll_back(route.rollout, "third", 5_000), Kind.ROLLED_BACK, 5_000)
    route = await change(roll_back(route.rollout, route.rollout.champion, 5_500), Kind.ROLLED_BACK, 5_500)
    route = await change(
        set_split(route.rollout, {"old": 0, "new": 10_000}, 6_000, champion="new"), Kind.SPLIT_CHANGED, 6_000
    )
    await delete(database, route, 9_000)
    return route


async def test_the_entry_says_what_is_after_the_change(database: Database) -> None:
    """Kind, actor, reason and challenger as given, weights, champion, epoch and version after the change, and
    evidence of any shape as it was."""
    route = await put_route(database)
    after = promote(route.rollout, "new", 5)
    evidence = {"by": ["ann", 1, 2.5, None], "why": "“better” — ünïcode"}
    entry = Entry(Kind.PROMOTED, "key:ci", "it was time", "new", None, evidence)
    async with database.transaction() as connection:
        entry_id = await timeline.append(connection, route.id, after, 17, entry, 5)
    assert (await timeline_of(database, route))[-1] == Written(
        id=entry_id,
        at_ms=5,
        kind=Kind.PROMOTED,
        actor="key:ci",
        reason="it was time",
        champion="new",
        challenger="new",
        weights={"old": 0, "new": 10_000},
        epoch=2,
        version=17,
        evaluation_id=None,
        evidence=evidence,
    )


async def test_every_kind_can_be_written_and_read(database: Database) -> None:
    """No kind is too long for its column, nor unknown when it is read."""
    route = await put_route(database)
    for kind in Kind:
        route = await save(database, route, route.rollout, kind)
    assert [entry.kind for entry in await timeline_of(database, route)][1:] == list(Kind)


async def test_the_timeline_is_append_only(database: Database) -> None:
    """Whatever happens to a route, up to its deletion, every entry stays as it was written."""
    route = await put_route(database)
    written = await timeline_of(database, route)
    steps = (
        lambda rollout: set_split(rollout, {"old": 5_000, "new": 5_000}, 10),
        resume,
        lambda rollout: promote(rollout, "new", 20),
        lambda rollout: roll_back(rollout, None, 30),
    )
    for step in steps:
        route = await save(database, route, step(route.rollout), Kind.ROUTE_CHANGED)
        now = await timeline_of(database, route)
        assert now[:-1] == written
        written = now
    await delete(database, route, START_MS)
    assert (await timeline_of(database, route))[:-1] == written


async def test_the_newest_entries_come_first_page_by_page(database: Database) -> None:
    """Pages of any size, each before the last id of the one before, give every entry of the route once."""
    route, other = await put_route(database), await put_route(database, route_spec("other"))
    for _ in range(6):
        route = await save(database, route, route.rollout, Kind.ROUTE_CHANGED)
        other = await save(database, other, other.rollout, Kind.ROUTE_CHANGED)
    everything = (await timeline_of(database, route))[::-1]
    assert len(everything) == 7
    for size in (1, 2, 3, 7):
        found: list[Written] = []
        async with database.read() as connection:
            while page := await timeline.latest(connection, route.id, size, found[-1].id if found else None):
                assert len(page) <= size
                found += page
        assert found == everything


async def test_a_refused_change_leaves_no_entry(database: Database) -> None:
    """Who loses the race for a version leaves nothing in the timeline."""
    route = await put_route(database)
    await save(database, route, pause(route.rollout), Kind.PAUSED)
    with pytest.raises(Conflict):
        await save(database, route, promote(route.rollout, "new", 5), Kind.PROMOTED)
    assert [entry.kind for entry in await timeline_of(database, route)] == [Kind.ROUTE_CREATED, Kind.PAUSED]


async def test_who_was_champion_at_every_moment(database: Database) -> None:
    """Before the route there was none; a change counts from its moment on; after deletion there is none."""
    route = await eventful(database)
    expected = {
        None: (0, 999, 9_000, 9_001, 10**15),
        "old": (1_000, 1_001, 2_000, 2_999, 5_500, 5_999),
        "new": (3_000, 3_001, 4_500, 5_499, 6_000, 8_999),
    }
    for name, moments in expected.items():
        for at_ms in moments:
            assert await champion(database, route, at_ms) == name, at_ms


async def test_the_crowning_entry_is_the_one_that_made_it_so(database: Database) -> None:
    """A reign begins with the entry that changed the champion, whatever else has happened since, and ends
    with the next that changed it, or with the route; a second reign is one of its own."""
    route = await eventful(database)
    entries = await timeline_of(database, route)
    for at_ms, since_ms, until_ms, kind in (
        (1_500, 1_000, 3_000, Kind.ROUTE_CREATED),
        (2_500, 1_000, 3_000, Kind.ROUTE_CREATED),
        (3_000, 3_000, 5_500, Kind.PROMOTED),
        (5_200, 3_000, 5_500, Kind.PROMOTED),
        (5_700, 5_500, 6_000, Kind.ROLLED_BACK),
        (6_000, 6_000, 9_000, Kind.SPLIT_CHANGED),
        (8_999, 6_000, 9_000, Kind.SPLIT_CHANGED),
    ):
        reign = await reign_at(database, route, at_ms)
        assert reign is not None
        assert (reign.since_ms, reign.until_ms, reign.crowned.kind) == (since_ms, until_ms, kind)
        assert reign.crowned.champion == reign.champion
        assert reign.crowned in entries


async def test_a_reign_that_goes_on_has_no_end(database: Database) -> None:
    """The present champion reigns until further notice, even in a future that was asked for."""
    route = await put_route(database, now_ms=1_000)
    route = await save(database, route, promote(route.rollout, "new", 2_000), Kind.PROMOTED, 2_000)
    await save(database, route, start(route.rollout, "old", 100, 3_000), Kind.ROLLOUT_STARTED, 3_000)
    for at_ms in (2_000, 3_500, 10**15):
        reign = await reign_at(database, route, at_ms)
        assert reign is not None
        assert (reign.champion, reign.since_ms, reign.until_ms) == ("new", 2_000, None)


async def test_of_changes_at_one_moment_the_last_counts(database: Database) -> None:
    """Two promotions within one millisecond: who was crowned last is champion from then on."""
    route = await put_route(database, now_ms=1_000)
    route = await save(database, route, promote(route.rollout, "new", 2_000), Kind.PROMOTED, 2_000)
    await save(database, route, roll_back(route.rollout, None, 2_000), Kind.ROLLED_BACK, 2_000)
    reign = await reign_at(database, route, 2_000)
    assert reign is not None
    assert (reign.champion, reign.crowned.kind, reign.until_ms) == ("old", Kind.ROLLED_BACK, None)
    assert await champion(database, route, 1_999) == "old"


async def test_each_route_has_its_own_champions(database: Database) -> None:
    """Another route's promotions, and those of the route that had the name before, are not counted."""
    first = await put_route(database, now_ms=1_000)
    first = await save(database, first, promote(first.rollout, "new", 2_000), Kind.PROMOTED, 2_000)
    await delete(database, first, 3_000)
    second = await put_route(database, now_ms=4_000)
    other = await put_route(database, route_spec("other"), now_ms=1_500)
    await save(database, other, promote(other.rollout, "new", 5_000), Kind.PROMOTED, 5_000)
    assert await champion(database, first, 2_500) == "new"
    assert await champion(database, first, 4_500) is None
    assert await champion(database, second, 2_500) is None
    assert await champion(database, second, 6_000) == "old"


async def test_an_unchanged_state_can_be_told_again(database: Database) -> None:
    """Entries that change no champion, however many, leave the reign and its crowning entry as they are."""
    route = await put_route(database, now_ms=1_000)
    before = await reign_at(database, route, 5_000)
    for at_ms in (2_000, 3_000, 4_000):
        suspended = replace(route.rollout, suspended=not route.rollout.suspended)
        route = await save(database, route, suspended, Kind.ROUTE_CHANGED, at_ms)
    assert await reign_at(database, await get_route(database), 5_000) == before
