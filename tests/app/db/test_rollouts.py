"""A route's rollout is written by compare-and-set: of writers who have read one version, exactly one wins."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select

from app.db import rollouts
from app.db.errors import Conflict
from app.db.migrate import migrate_database
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.tables import allocations
from app.db.timeline import Entry, Kind
from policies.lifecycle import Rollout, pause, promote, resume, set_split
from routing.types import TOTAL_BP, Share, probabilities
from tests.app.db.stage import START_MS, get_route, put_route, route_spec, row_counts, save, timeline_of

NOW_MS = START_MS + 1_000


def split(route: StoredRoute, share_bp: int) -> Rollout:
    """The rollout with this share for the challenger."""
    return set_split(route.rollout, {"old": TOTAL_BP - share_bp, "new": share_bp}, NOW_MS)


async def write(database: Database, route: StoredRoute, share_bp: int, ready: asyncio.Barrier) -> StoredRoute:
    """Save a split from the state as read, as soon as all writers are ready, on a connection of its own."""
    await ready.wait()
    return await save(database, route, split(route, share_bp), Kind.SPLIT_CHANGED, NOW_MS)


async def race(database: Database, route: StoredRoute, shares: Sequence[int]) -> list[StoredRoute]:
    """Who wins when writers set these shares at the same time, all having read the same state."""
    ready = asyncio.Barrier(len(shares))
    results = await asyncio.gather(
        *(write(database, route, share, ready) for share in shares), return_exceptions=True
    )
    assert all(isinstance(result, StoredRoute | Conflict) for result in results), results
    return [result for result in results if isinstance(result, StoredRoute)]


async def test_exactly_one_of_two_writers_wins(database: Database) -> None:
    """Two writers race from the same version, ten times: each time one wins and the other is told Conflict,
    and what is stored is the winner's split, version, allocation and entry, and nothing of the other's."""
    route = await put_route(database)
    for number in range(10):
        (winner,) = await race(database, route, (2_000 + number, 3_000 + number))
        now = await get_route(database)
        assert now == winner
        assert now.version == route.version + 1
        assert now.rollout.epoch == route.rollout.epoch + 1
        route = now
    assert [entry.version for entry in await timeline_of(database, route)] == list(range(1, 12))
    async with database.read() as connection:
        assert (await row_counts(connection))["allocations"] == 11


async def test_exactly_one_of_many_writers_wins(database: Database) -> None:
    """So it is with eight of them."""
    route = await put_route(database)
    (winner,) = await race(database, route, range(1_000, 9_000, 1_000))
    assert await get_route(database) == winner


async def test_a_writer_waits_for_one_that_has_not_committed(postgres_url: str) -> None:
    """On PostgreSQL two transactions write at once: the second waits until the first has ended, and then
    is refused if that one was committed, and wins if it was not."""
    await migrate_database(postgres_url)
    database = Database(postgres_url)
    route = await put_route(database)
    for undone in (True, False):
        first = database.engine.connect()
        async with first as connection:
            entry = Entry(Kind.SPLIT_CHANGED, "ann", "first")
            await rollouts.save(connection, route, split(route, 2_000), entry, NOW_MS)
            second = asyncio.create_task(
                save(database, route, split(route, 3_000), Kind.SPLIT_CHANGED, NOW_MS)
            )
            await asyncio.sleep(0.1)
            assert not second.done()
            await (connection.rollback() if undone else connection.commit())
        if undone:
            route = await second
            assert route.rollout.share("new") == 3_000
        else:
            with pytest.raises(Conflict, match="'ads' has changed since version 2 was read"):
                await second
            assert (await get_route(database)).rollout.share("new") == 2_000
    await database.close()


async def test_the_stale_writer_of_a_state_without_traffic_loses_too(database: Database) -> None:
    """A pause moves no traffic, but who has read the state before it may not save: the version has risen."""
    route = await put_route(database)
    await save(database, route, pause(route.rollout), Kind.PAUSED)
    with pytest.raises(Conflict, match="since version 1 was read"):
        await save(database, route, split(route, 2_000), Kind.SPLIT_CHANGED)
    now = await get_route(database)
    assert (now.rollout.suspended, now.rollout.weights, now.version) == (True, route.rollout.weights, 2)


async def test_a_refused_save_leaves_nothing(database: Database) -> None:
    """The loser's allocation, entry and everything else of its transaction are not there."""
    route = await put_route(database)
    await save(database, route, split(route, 2_000), Kind.SPLIT_CHANGED)
    async with database.read() as connection:
        before = await row_counts(connection)
    with pytest.raises(Conflict):
        await save(database, route, split(route, 3_000), Kind.SPLIT_CHANGED)
    async with database.read() as connection:
        assert await row_counts(connection) == before


async def test_writers_of_different_routes_do_not_disturb_each_other(database: Database) -> None:
    """Versions are counted route by route: five routes are saved at once, and every save succeeds."""
    routes = [await put_route(database, route_spec(name)) for name in "abcde"]
    await asyncio.gather(
        *(save(database, route, split(route, 2_000), Kind.SPLIT_CHANGED) for route in routes)
    )
    assert [(await get_route(database, name)).version for name in "abcde"] == [2] * 5


async def test_what_is_saved_is_what_is_read(database: Database) -> None:
    """`save` gives the route exactly as it can be read afterwards, and can be saved from again."""
    route = await put_route(database)
    saved = await save(database, route, split(route, 2_000), Kind.SPLIT_CHANGED)
    assert await get_route(database) == saved
    again = await save(database, saved, promote(saved.rollout, "new", NOW_MS), Kind.PROMOTED)
    assert await get_route(database) == again
    assert again.version == 3


async def test_every_change_of_shares_is_an_allocation(database: Database) -> None:
    """Each epoch has its shares, champion and beginning on record, by the arms' ids."""
    route = await put_route(database)
    old, new = route.arm_ids["old"], route.arm_ids["new"]
    second = await save(database, route, split(route, 2_000), Kind.SPLIT_CHANGED)
    resumed = await save(database, second, resume(second.rollout), Kind.RESUMED)
    await save(database, resumed, promote(resumed.rollout, "new", NOW_MS + 1), Kind.PROMOTED)
    async with database.read() as connection:
        rows = (await connection.execute(select(allocations).order_by(allocations.c.epoch))).all()
    assert [tuple(row)[1:] for row in rows] == [
        (1, START_MS, old, f'{{"{old}":9000,"{new}":1000}}'),
        (2, NOW_MS, old, f'{{"{old}":8000,"{new}":2000}}'),
        (3, NOW_MS + 1, new, f'{{"{old}":0,"{new}":10000}}'),
    ]


def owner(shares: Sequence[Share], bucket: int) -> int:
    """The arm that answers a bucket."""
    return next(share.arm_id for share in shares if bucket < share.end_bp)


async def test_shares_are_laid_out_anew_with_the_fewest_moves(database: Database) -> None:
    """A challenger that grows keeps every bucket that it had; without a change of shares none moves."""
    route = await put_route(database)
    old, new = route.arm_ids["old"], route.arm_ids["new"]
    assert probabilities(route.shares) == {old: 9_000, new: 1_000}
    grown = await save(database, route, split(route, 5_000), Kind.SPLIT_CHANGED)
    assert probabilities(grown.shares) == {old: 5_000, new: 5_000}
    kept = [bucket for bucket in range(TOTAL_BP) if owner(route.shares, bucket) == new]
    assert {owner(grown.shares, bucket) for bucket in kept} == {new}
    resumed = await save(database, grown, resume(grown.rollout), Kind.RESUMED)
    assert resumed.shares == grown.shares


async def test_days_once_judged_stay_judged(database: Database) -> None:
    """The mark of judged days only rises, whatever a later save says."""
    route = await put_route(database)
    for frozen, expected in ((2_000, 2_000), (1_000, 2_000), (3_000, 3_000)):
        async with database.transaction() as connection:
            route = await rollouts.save(connection, route, route.rollout, None, NOW_MS, frozen)
        assert route.frozen_through_ms == expected
    assert (await get_route(database)).frozen_through_ms == 3_000


async def test_a_save_without_news_writes_no_entry(database: Database) -> None:
    """A state that moved nothing worth telling raises the version and leaves the timeline as it is."""
    route = await put_route(database)
    saved = await save(database, route, route.rollout, None)
    assert saved.version == 2
    assert len(await timeline_of(database, route)) == 1


async def test_who_wins_is_who_may_be_read_next(database: Database) -> None:
    """The loser of a race that reads again and decides again succeeds."""
    route = await put_route(database)
    await race(database, route, (2_000, 3_000))
    fresh = await get_route(database)
    saved = await save(database, fresh, split(fresh, 4_000), Kind.SPLIT_CHANGED)
    assert saved.rollout.weights == {"old": 6_000, "new": 4_000}
