"""Rollups only ever add up, and what decides is what the split assigned, in time, in the period asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

from app.db import rollups
from app.db.errors import DatabaseError
from app.db.rollups import RollupKey, evidence_cells
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.tables import DECISIONS
from app.events.recorder import Recorder
from app.events.spool import Spool, mark_path
from app.events.types import DecisionEvent
from policies.days import Day
from policies.rollups import ArmCounts, Cell, Sums
from routing.claims import Claims
from routing.types import Reason
from tests.app.db.stage import START_MS, put_route

DAYS = tuple(Day(number * 10, number * 10 + 10, f"day {number}") for number in range(4))
ARMS = {1: "old", 2: "new"}
KEY = RollupKey(7, DAYS[1], 3, 1, "conversion", 0, True, False)


async def add(database: Database, deltas: dict[RollupKey, Sums]) -> None:
    """Add in a transaction of its own."""
    async with database.transaction() as connection:
        await rollups.add(connection, deltas)


async def cells(
    database: Database, *, metric: str = "conversion", since_epoch: int = 0, through_ms: int = 1_000
) -> list[Cell]:
    """The cells that may decide, sorted."""
    async with database.read() as connection:
        found = await evidence_cells(connection, KEY.route_id, metric, ARMS, since_epoch, through_ms)
    return sorted(found, key=lambda cell: (cell.day, cell.epoch, cell.arm, cell.bucket))


async def test_sums_add_up(database: Database) -> None:
    """What is not there starts at nothing; what is there grows, and may shrink by a correction."""
    other = KEY._replace(bucket=5)
    await add(database, {})
    await add(database, {KEY: Sums(2, 1.5, 1.25)})
    await add(database, {KEY: Sums(1, 0.5, 0.25), other: Sums(1, 1.0, 1.0)})
    await add(database, {KEY: Sums(0, -1.0, -0.5)})
    assert await cells(database) == [
        Cell(DAYS[1], 3, "old", 0, Sums(3, 1.0, 1.0)),
        Cell(DAYS[1], 3, "old", 5, Sums(1, 1.0, 1.0)),
    ]


async def test_adding_is_not_idempotent_by_itself(database: Database) -> None:
    """The same differences added twice count twice: only the spools' marks keep events from repeating."""
    await add(database, {KEY: Sums(1, 1.0, 1.0)})
    await add(database, {KEY: Sums(1, 1.0, 1.0)})
    assert [cell.sums for cell in await cells(database)] == [Sums(2, 2.0, 2.0)]


async def test_nothing_is_lost_when_many_add_at_once(database: Database) -> None:
    """Ten transactions that add to the same two sums at the same time all count."""
    deltas = {KEY: Sums(1, 0.5, 0.25), KEY._replace(arm_id=2): Sums(2, 1.0, 0.5)}
    await asyncio.gather(*(add(database, deltas) for _ in range(10)))
    assert [cell.sums for cell in await cells(database)] == [Sums(20, 10.0, 5.0), Sums(10, 5.0, 2.5)]


async def test_sums_hold_large_numbers(database: Database) -> None:
    """Counts beyond 32 bits and sums as large as a double are kept as they are."""
    large = Sums(5_000_000_000, -1e200, 1e300)
    await add(database, {KEY: large})
    assert [cell.sums for cell in await cells(database)] == [large]


async def test_what_is_no_evidence_is_left_out(database: Database) -> None:
    """Traffic that the split did not assign, outcomes that came too late, and what is of another route, arm
    or metric do not decide."""
    strange = (
        KEY._replace(deciding=False),
        KEY._replace(late=True),
        KEY._replace(route_id=8),
        KEY._replace(arm_id=3),
        KEY._replace(metric="cost"),
    )
    for key in strange:
        await add(database, {key: Sums(9, 9.0, 9.0)})
        assert await cells(database) == []
    await add(database, {KEY: Sums(1, 1.0, 1.0)})
    assert [cell.sums for cell in await cells(database)] == [Sums(1, 1.0, 1.0)]


async def test_evidence_begins_with_an_epoch_and_ends_with_a_day(database: Database) -> None:
    """The epoch asked for is included, earlier ones are not; a day counts once it has ended."""
    every = [KEY._replace(day=day, epoch=epoch) for day in DAYS for epoch in (1, 2, 3)]
    await add(database, {key: Sums(1, 1.0, 1.0) for key in every})
    for since_epoch in (1, 2, 3, 4):
        for through_ms in (9, 10, 19, 20, 40, 1_000):
            found = await cells(database, since_epoch=since_epoch, through_ms=through_ms)
            wanted = [
                (key.day, key.epoch)
                for key in every
                if key.epoch >= since_epoch and key.day.end_ms <= through_ms
            ]
            assert [(cell.day, cell.epoch) for cell in found] == wanted


async def test_counts_are_totals_over_the_same_period(database: Database) -> None:
    """Decisions, those served by their own arm and those with a value are summed over days, epochs and
    buckets that may decide; an arm without any has zeros."""
    deltas: dict[RollupKey, Sums] = {}
    for day, epoch, bucket in ((DAYS[0], 2, 0), (DAYS[1], 2, 1), (DAYS[1], 3, 1)):
        made = KEY._replace(day=day, epoch=epoch, bucket=bucket, metric=DECISIONS)
        deltas[made] = Sums(100, 99.0, 99.0)
        deltas[made._replace(metric="conversion")] = Sums(40, 7.0, 7.0)
        deltas[made._replace(late=True)] = Sums(1_000, 0.0, 0.0)
    await add(database, deltas)
    async with database.read() as connection:
        counts = await rollups.arm_counts(connection, KEY.route_id, "conversion", ARMS, 2, 20)
        later = await rollups.arm_counts(connection, KEY.route_id, "conversion", ARMS, 3, 20)
    assert counts == {"old": ArmCounts(300, 297, 120), "new": ArmCounts()}
    assert later == {"old": ArmCounts(100, 99, 40), "new": ArmCounts()}


async def test_guardrails_see_one_epoch_of_all_days(database: Database) -> None:
    """The sums of an epoch are over days and buckets, the day that is not over included; others are not."""
    await add(
        database,
        {
            KEY._replace(day=DAYS[0]): Sums(1, 1.0, 1.0),
            KEY._replace(day=DAYS[3], bucket=9): Sums(2, 1.5, 1.25),
            KEY._replace(epoch=2): Sums(50, 50.0, 50.0),
            KEY._replace(epoch=4): Sums(50, 50.0, 50.0),
            KEY._replace(deciding=False): Sums(50, 50.0, 50.0),
            KEY._replace(late=True): Sums(50, 50.0, 50.0),
        },
    )
    async with database.read() as connection:
        sums = await rollups.sums_since(connection, KEY.route_id, "conversion", ARMS, 3)
    assert sums[3] == {"old": Sums(3, 2.5, 2.25), "new": Sums()}
    assert sums.keys() == {3, 4}


async def test_any_additions_give_their_sum(database: Database) -> None:
    """Whatever is added in whatever batches, each cell holds the sum of what was added to it."""
    draws = Random(4)
    expected: dict[RollupKey, Sums] = {}
    for _ in range(40):
        batch: dict[RollupKey, Sums] = {}
        for _ in range(draws.randrange(6)):
            key = KEY._replace(
                day=draws.choice(DAYS), epoch=draws.randrange(2), arm_id=draws.choice(list(ARMS))
            )
            value = draws.randrange(-8, 8) / 4
            batch[key] = Sums(1, value, value * value)
        for key, sums in batch.items():
            expected[key] = expected.get(key, Sums()) + sums
        await add(database, batch)
    found = {(cell.day, cell.epoch, cell.arm): cell.sums for cell in await cells(database)}
    assert found == {(key.day, key.epoch, ARMS[key.arm_id]): sums for key, sums in expected.items()}


def claims(route: StoredRoute, number: int) -> Claims:
    """What the token of a decision of the challenger says."""
    return Claims(
        route.id, route.arm_ids["new"], 0, False, Reason.SPLIT, 1_000, 1, 1, START_MS + number, number
    )


def spool_of(path: Path, route: StoredRoute, numbers: range) -> None:
    """A worker's spool with a decision for each number."""
    spool = Spool(path)
    for number in numbers:
        spool.append(
            DecisionEvent(
                decision=claims(route, number),
                served_arm_id=route.arm_ids["new"],
                status=200,
                error=False,
                latency_ms=1.0,
            )
        )
    spool.close()


async def made(database: Database, route: StoredRoute) -> int:
    """How many decisions the rollups count."""
    async with database.read() as connection:
        sums = await rollups.sums_since(
            connection, route.id, DECISIONS, {route.arm_ids["new"]: "new"}, route.rollout.epoch
        )
    return sums[route.rollout.epoch]["new"].n if sums else 0


async def test_the_mark_makes_adding_idempotent(database: Database, tmp_path: Path) -> None:
    """A spool that is read again, its own note of what was read lost, adds only what is new."""
    route = await put_route(database)
    recorder = Recorder(database, tmp_path / "spools")
    spool_of(tmp_path / "spools" / "w.db", route, range(5))
    assert await recorder.drain() == 5
    mark_path(tmp_path / "spools" / "w.db").unlink()
    assert await recorder.drain() == 0
    spool_of(tmp_path / "spools" / "w.db", route, range(5, 7))
    assert await recorder.drain() == 2
    assert await made(database, route) == 7


async def test_two_recorders_at_once_count_each_event_once(database: Database, tmp_path: Path) -> None:
    """A second recorder that believes the first is dead adds nothing twice; at worst it is refused."""
    route = await put_route(database)
    spool_of(tmp_path / "spools" / "w.db", route, range(20))
    recorders = [Recorder(database, tmp_path / "spools") for _ in range(3)]
    results = await asyncio.gather(*(one.drain() for one in recorders), return_exceptions=True)
    assert all(isinstance(result, int | DatabaseError | OSError) for result in results), results
    assert await made(database, route) == 20
