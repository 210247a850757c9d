"""The jobs learn from what they have recorded, route by route, hold up nothing else, and tell gateways."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from sqlalchemy import update

from app.clock import now_ms
from app.db import recorders, signing, tables
from app.db.session import Database
from app.db.timeline import Kind
from app.gateway.snapshots import FILE_NAME, read_snapshot
from app.jobs.learn import REPAIR_MS, Learner
from app.jobs.schedule import TURN_BATCHES, Jobs
from app.publisher import Publisher
from policies.lessons import GRACE_MS, SETTLE_MS
from tests.app.db.stage import HOUR_MS, get_route, put_route, timeline_of
from tests.app.events.facts import told, write
from tests.app.jobs.school import bandit_spec, chosen, decided, log, rewards


async def nobody() -> None:
    """Gateways that are not there."""


def jobs_of(database: Database, folder: Path) -> Jobs:
    """The jobs of a data folder."""
    return Jobs(database, folder, nobody)


async def test_a_turn_learns_from_what_it_has_recorded(sqlite: Database, tmp_path: Path) -> None:
    """What a spool brings that is mature by now is known in the same turn."""
    route = await put_route(sqlite, bandit_spec())
    one = chosen(route, at_ms=now_ms() - 2 * HOUR_MS)
    (tmp_path / "spools").mkdir()
    write(tmp_path / "spools" / "a.db", decided(route, one), told(one, "profit", 2.0))
    jobs = jobs_of(sqlite, tmp_path)
    await jobs.turn()
    assert await rewards(sqlite, route) == {"new": (1, 2.0)}
    assert set(jobs.status.failures.values()) == {0}


async def test_nothing_is_learnt_while_a_spool_cannot_be_read(sqlite: Database, tmp_path: Path) -> None:
    """The outcomes that it holds may be of decisions that are mature."""
    route = await put_route(sqlite, bandit_spec())
    await log(sqlite, decided(route, chosen(route, at_ms=now_ms() - 2 * HOUR_MS)))
    (tmp_path / "spools").mkdir()
    broken = tmp_path / "spools" / "b.db"
    broken.write_bytes(b"this is no database file" * 50)
    jobs = jobs_of(sqlite, tmp_path)
    await jobs.turn()
    assert await rewards(sqlite, route) == {}
    broken.unlink()
    jobs.status.evaluated_at_ms = 0
    await jobs.turn()
    assert await rewards(sqlite, route) == {"new": (1, 0.0)}


async def test_the_spools_of_other_folders_are_waited_for(database: Database, tmp_path: Path) -> None:
    """An outcome may have been told to any gateway: what another recorder has not come to is not mature."""
    route = await put_route(database, bandit_spec())
    made_ms = now_ms() - 3 * HOUR_MS
    await log(database, decided(route, chosen(route, at_ms=made_ms)))
    jobs = jobs_of(database, tmp_path)
    mature_ms = made_ms + HOUR_MS + GRACE_MS + SETTLE_MS
    for through_ms, learnt in ((mature_ms - 1, {}), (mature_ms, {"new": (1, 0.0)})):
        async with database.transaction() as connection:
            await recorders.note(connection, "b" * 32, now_ms(), through_ms)
        jobs.status.evaluated_at_ms = 0
        await jobs.turn()
        assert await rewards(database, route) == learnt
    assert set(jobs.status.failures.values()) == {0}


async def test_routes_learn_in_turn_and_not_all_at_once(sqlite: Database, tmp_path: Path) -> None:
    """Of a long log every turn takes a part, from all routes alike, until all is learnt."""
    routes = [await put_route(sqlite, bandit_spec(name)) for name in ("a", "b")]
    for route in routes:
        await log(sqlite, *(decided(route, chosen(route, at_ms=now_ms() - 2 * HOUR_MS)) for _ in range(9)))
    jobs = jobs_of(sqlite, tmp_path)
    jobs._learner = Learner(sqlite, batch=1)
    learnt = []
    for _ in range(3):
        await jobs.learn(now_ms())
        learnt.append([(await rewards(sqlite, route)).get("new", (0, 0))[0] for route in routes])
    half = TURN_BATCHES // 2
    assert learnt == [[half - 1, half - 1], [9, 9], [9, 9]]
    assert jobs.status.failures["learn"] == 0


async def test_who_has_waited_longest_is_first(sqlite: Database) -> None:
    """A turn may be over before everybody had one: the next begins after the route that was taught last."""
    for name in ("a", "b", "c"):
        await put_route(sqlite, bandit_spec(name))
    learner, order = Learner(sqlite), []
    for _ in range(4):
        first, *_ = await learner.routes()
        await learner.learn(first, now_ms(), now_ms())
        order.append(first.name)
    assert order == ["a", "b", "c", "a"]


async def test_one_routes_damage_does_not_stop_the_others(
    sqlite: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged with the route's name; the turn after it has learnt its log anew."""
    routes = [await put_route(sqlite, bandit_spec(name)) for name in ("a", "b", "c")]
    jobs = jobs_of(sqlite, tmp_path)
    await jobs.learn(now_ms())
    for route in routes:
        await log(sqlite, decided(route, chosen(route, at_ms=now_ms() - 2 * HOUR_MS)))
    long_ago = now_ms() - REPAIR_MS
    async with sqlite.transaction() as connection:
        await connection.execute(update(tables.bandits).values(begun_at_ms=long_ago))
        mine = tables.bandits.c.route_id == routes[1].id
        await connection.execute(update(tables.bandits).where(mine).values(apprentice="nonsense"))
    with caplog.at_level(logging.ERROR):
        await jobs.learn(now_ms())
    assert [await rewards(sqlite, route) for route in routes] == [{"new": (1, 0.0)}, {}, {"new": (1, 0.0)}]
    (record,) = caplog.records
    assert (record.message, record.__dict__["fields"]["route"]) == ("job_failed", "b")
    assert jobs.status.failures["learn"] == 1
    await jobs.learn(now_ms())
    assert await rewards(sqlite, await get_route(sqlite, "b")) == {"new": (1, 0.0)}
    assert (await timeline_of(sqlite, routes[1]))[-1].kind is Kind.BANDIT_REBUILT
    assert jobs.status.failures["learn"] == 1


async def test_what_was_learnt_reaches_the_snapshot_file(sqlite: Database, tmp_path: Path) -> None:
    """Declared, learnt and published in one turn: a gateway need not wait for ten seconds. Later it must."""
    async with sqlite.transaction() as connection:
        await signing.ensure_key(connection, now_ms())
    route = await put_route(sqlite, bandit_spec())
    jobs = Jobs(sqlite, tmp_path, Publisher(sqlite, tmp_path).publish)
    for was_published_ms, count in ((0, 1), (now_ms(), 1), (0, 3)):
        await log(sqlite, decided(route, chosen(route, at_ms=now_ms() - 2 * HOUR_MS)))
        async with sqlite.transaction() as connection:
            await connection.execute(update(tables.bandits).values(published_at_ms=was_published_ms))
        jobs.status.evaluated_at_ms = 0
        await jobs.turn()
        (found,) = read_snapshot(tmp_path / FILE_NAME).routes
        assert found.bandit is not None
        assert found.bandit.learned is not None
        assert [arm.rewards for arm in found.bandit.learned.arms] == [count]
