"""Each event takes effect once, however often it arrives and whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import String, inspect

from app.db import tables
from app.db.decisions import SpoolMark
from app.db.errors import DatabaseUnavailable
from app.db.session import Connection, Database
from app.db.tables import DECISIONS
from app.events import recorder
from app.events.recorder import BATCH_EVENTS, Recorder
from app.events.spool import SpoolError, mark_path, read_mark
from app.events.spool_reader import spool_id
from app.gateway.outcomes import KEY_CHARACTERS
from policies.metrics import ERROR, LATENCY
from policies.rollups import Sums
from routing.claims import decision_id
from routing.types import Reason
from tests.app.events.books import Account, Books, values
from tests.app.events.facts import DAY_MS, NEW, NOON_MS, OLD, claims, made, told

FIRST, SECOND = claims(1), claims(2, OLD)


async def outcome_values(books: Books) -> list[tuple[str, str, float]]:
    """Metric, key and value of every outcome that stands."""
    return [(row["metric"], row["key"], row["value"]) for row in await books.rows(tables.outcomes)]


async def test_what_a_spool_holds_reaches_the_database(books: Books) -> None:
    """Decisions, outcomes and their sums are there, the spool is told so, and a second run finds nothing."""
    path = books.write("w0", made(FIRST), made(SECOND), told(FIRST, "conversion", 1.0))
    assert await books.recorder.drain() == 3
    assert [row["id"] for row in await books.rows(tables.decisions)] == [
        decision_id(FIRST),
        decision_id(SECOND),
    ]
    assert await outcome_values(books) == [("conversion", "", 1.0)]
    assert await books.accounts() == {
        Account(NEW, DECISIONS): values(1),
        Account(OLD, DECISIONS): values(1),
        Account(NEW, ERROR): values(0),
        Account(OLD, ERROR): values(0),
        Account(NEW, LATENCY): values(8),
        Account(OLD, LATENCY): values(8),
        Account(NEW, "profit"): values(0),
        Account(OLD, "profit"): values(0),
        Account(NEW, "conversion"): values(1),
    }
    assert read_mark(path, spool_id(path)) == (await books.mark("w0")).seq == 3
    assert await books.recorder.drain() == 0


async def test_a_decision_is_kept_as_its_token_says(books: Books) -> None:
    """Numbers of 64 bits, reason, propensity, epoch and snapshot come through the spool unchanged."""
    decision = claims(
        2**64 - 1, unit_hash=2**64 - 2, has_unit=True, propensity_bp=1, epoch=9, snapshot=2**53 + 1
    )
    books.write("w0", made(decision, status=503, error=True, latency_ms=1.5, override_id=2**62))
    await books.recorder.drain()
    assert await books.rows(tables.decisions) == [
        {
            "id": decision_id(decision),
            "route_id": 1,
            "assigned_arm_id": NEW,
            "served_arm_id": NEW,
            "epoch": 9,
            "snapshot": 2**53 + 1,
            "reason": "SPLIT",
            "propensity_bp": 1,
            "unit_hash": "fffffffffffffffe",
            "at_ms": NOON_MS,
            "status": 503,
            "error": True,
            "latency_ms": 1.5,
            "complete": True,
            "override_id": 2**62,
            "considered_bp": None,
            "first_at_ms": None,
        }
    ]


async def test_repeats_count_once(books: Books) -> None:
    """Within a batch, over batches, and from another worker; they are no conflicts."""
    repeat = told(FIRST, "conversion", 1.0)
    for name in ("w0", "w0", "w1"):
        books.write(name, repeat, told(FIRST, "profit", 5.0, key="order-1"), repeat)
        await books.recorder.drain()
    accounts = await books.accounts()
    assert accounts[Account(NEW, "conversion")] == values(1)
    assert accounts[Account(NEW, "profit")] == values(5)
    assert accounts[Account(NEW, DECISIONS)] == values(1)
    assert (await books.mark("w0")).conflicts == (await books.mark("w1")).conflicts == 0


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_repeat_with_another_value_keeps_the_first_and_is_counted(
    books: Books, at_once: bool
) -> None:
    """In one batch or in two, the value received first stands; the others are conflicts of their spool."""
    events = [
        told(FIRST, "conversion", value, received_at_ms=ms) for value, ms in ((1.0, 1), (0.0, 2), (0.0, 2))
    ]
    for group in [events] if at_once else [events[:1], events[1:]]:
        books.write("w0", *group)
        await books.recorder.drain()
    assert await outcome_values(books) == [("conversion", "", 1.0)]
    assert (await books.accounts())[Account(NEW, "conversion")] == values(1)
    assert (await books.mark("w0")).conflicts == 2


async def test_no_decision_has_outcomes_without_end(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a thousand of one metric (here three) they have no effect, and are counted."""
    monkeypatch.setattr(recorder, "MOST_OUTCOMES", 3)
    events = [told(FIRST, "conversion", 1.0, key=str(number)) for number in (*range(5), 0)]
    books.write("w0", *events)
    await books.recorder.drain()
    assert [key for _, key, _ in await outcome_values(books)] == ["0", "1", "2"]
    assert ((await books.mark("w0")).unreadable, (await books.mark("w0")).conflicts) == (2, 0)


@pytest.mark.parametrize("first", ["w0", "w1"])
async def test_of_conflicting_repeats_the_one_received_first_stands(books: Books, first: str) -> None:
    """Whichever worker's spool is read first: receipt decides, and sums and outcome follow it."""
    books.write("w0", told(FIRST, "profit", 7.0, received_at_ms=20))
    books.write("w1", told(FIRST, "profit", 3.0, received_at_ms=10))
    for name in (first, "w0", "w1"):
        await books.recorder.drain_spool(books.spools / f"{name}.db")
    assert await outcome_values(books) == [("profit", "", 3.0)]
    assert (await books.accounts())[Account(NEW, "profit")] == values(3)
    assert (await books.mark("w0")).conflicts + (await books.mark("w1")).conflicts == 1


@pytest.mark.parametrize("first", ["w0", "w1"])
async def test_of_repeats_received_at_once_the_smallest_event_stands(books: Books, first: str) -> None:
    """Where receipt does not tell them apart, their places in the log do."""
    books.write("w0", told(FIRST, "profit", 7.0))
    books.write("w1", told(FIRST, "profit", 3.0))
    ids = {spool_id(books.spools / f"{name}.db"): value for name, value in (("w0", 7.0), ("w1", 3.0))}
    for name in (first, "w0", "w1"):
        await books.recorder.drain_spool(books.spools / f"{name}.db")
    assert await outcome_values(books) == [("profit", "", ids[min(ids)])]
    assert (await books.accounts())[Account(NEW, "profit")] == values(ids[min(ids)])


async def test_an_outcome_creates_its_missing_decision(books: Books) -> None:
    """What its token says is written down and counted; what happened is not known."""
    books.write("w0", told(FIRST, "conversion", 1.0))
    await books.recorder.drain()
    (row,) = await books.rows(tables.decisions)
    assert (row["id"], row["assigned_arm_id"], row["reason"]) == (decision_id(FIRST), NEW, "SPLIT")
    unknown = ("served_arm_id", "status", "error", "latency_ms")
    assert [row[name] for name in unknown] == [None] * 4
    assert not row["complete"]
    assert await books.accounts() == {
        Account(NEW, DECISIONS): values(1),
        Account(NEW, "profit"): values(0),
        Account(NEW, "conversion"): values(1),
    }


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_decision_that_comes_later_completes_itself(books: Books, at_once: bool) -> None:
    """It adds what was observed and is not counted again, although a fallback corrects who served it."""
    books.write("w0", told(FIRST, "conversion", 1.0))
    if not at_once:
        await books.recorder.drain()
    books.write("w0", made(FIRST, served_arm_id=OLD, error=True, latency_ms=2.0))
    await books.recorder.drain()
    (row,) = await books.rows(tables.decisions)
    assert (row["complete"], row["served_arm_id"], row["error"], row["latency_ms"]) == (True, OLD, True, 2.0)
    assert await books.accounts() == {
        Account(NEW, DECISIONS): Sums(1, 0.0, 0.0),
        Account(NEW, ERROR): values(1),
        Account(NEW, LATENCY): values(2),
        Account(NEW, "profit"): values(0),
        Account(NEW, "conversion"): values(1),
    }


class Mortal(Database):
    """A database whose recorder dies at the end of a transaction: just before it is kept, or just after.

    Not of the first one, in which it says that it is there.
    """

    def __init__(self, url: str, *, kept: bool) -> None:
        super().__init__(url)
        self._kept = kept
        self._spared = 1

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with super().transaction() as connection:
            yield connection
            if not self._spared and not self._kept:
                raise DatabaseUnavailable("power cut")
        if not self._spared:
            raise DatabaseUnavailable("power cut")
        self._spared -= 1


@pytest.mark.parametrize("kept", [False, True])
async def test_a_recorder_that_dies_at_its_commit_loses_and_repeats_nothing(books: Books, kept: bool) -> None:
    """Before it, nothing of the batch is there; after it, all is; the next one goes on from there."""
    path = books.write("w0", made(FIRST), told(FIRST, "conversion", 1.0), told(FIRST, "profit", 2.0))
    mortal = Mortal(str(books.database.engine.url), kept=kept)
    with pytest.raises(DatabaseUnavailable):
        await Recorder(mortal, books.spools).drain()
    await mortal.close()
    assert (await books.mark("w0")).seq == (3 if kept else 0)
    assert len(await books.rows(tables.outcomes)) == (2 if kept else 0)
    assert read_mark(path, spool_id(path)) == 0
    books.write("w0", told(FIRST, "profit", 3.0, key="b"))
    await books.recorder.drain()
    accounts = await books.accounts()
    assert accounts[Account(NEW, DECISIONS)] == accounts[Account(NEW, "conversion")] == values(1)
    assert accounts[Account(NEW, "profit")] == values(5)
    assert read_mark(path, spool_id(path)) == 4


def forget(path: Path) -> None:
    """Loses the mark's file."""
    mark_path(path).unlink()


def set_back(path: Path) -> None:
    """The mark as it was before the last batch."""
    mark_path(path).write_text(f"{spool_id(path)} 1")


def tear(path: Path) -> None:
    """A mark whose bytes did not reach the disk."""
    mark_path(path).write_bytes(b"\0" * 40)


@pytest.mark.parametrize("damage", [forget, set_back, tear])
async def test_a_stale_mark_repeats_nothing(books: Books, damage: Callable[[Path], None]) -> None:
    """The database says what it has; the mark's file is put right after it."""
    path = books.write("w0", made(FIRST), told(FIRST, "profit", 2.0))
    await books.recorder.drain()
    damage(path)
    assert await books.recorder.drain() == 0
    assert read_mark(path, spool_id(path)) == 2
    books.write("w0", told(FIRST, "profit", 3.0, key="b"))
    damage(path)
    assert await books.recorder.drain() == 1
    accounts = await books.accounts()
    assert accounts[Account(NEW, DECISIONS)] == values(1)
    assert accounts[Account(NEW, "profit")] == values(5)


async def test_a_mark_that_cannot_be_written_repeats_nothing(books: Books) -> None:
    """A full disk is said as a SpoolError; what was recorded stays recorded, once."""
    path = books.write("w0", made(FIRST), told(FIRST, "profit", 2.0))
    mark_path(path).mkdir()
    with pytest.raises(SpoolError, match="cannot write the mark"):
        await books.recorder.drain()
    mark_path(path).rmdir()
    assert await books.recorder.drain() == 0
    assert read_mark(path, spool_id(path)) == 2
    assert (await books.accounts())[Account(NEW, "profit")] == values(2)


class Abreast(Database):
    """A database whose readers wait for one another before they go on."""

    def __init__(self, url: str, barrier: asyncio.Barrier) -> None:
        super().__init__(url)
        self._barrier = barrier

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with super().read() as connection:
            yield connection
        await self._barrier.wait()


async def test_two_recorders_at_once_count_once(books: Books) -> None:
    """Both have seen the same mark and hold the same events: the second one passes over them."""
    events = [made(claims(number)) for number in range(20)]
    stray = made(claims(99, route_id=99))
    books.write("w0", *events, stray, told(FIRST, "profit", 1.0), told(FIRST, "profit", 2.0))
    url, barrier = str(books.database.engine.url), asyncio.Barrier(2)
    racers = [Abreast(url, barrier), Abreast(url, barrier)]
    await asyncio.gather(*(Recorder(racer, books.spools).drain() for racer in racers))
    for racer in racers:
        await racer.close()
    assert (await books.accounts())[Account(NEW, DECISIONS)] == values(*[1.0] * 20)
    assert await books.mark("w0") == SpoolMark(seq=23, conflicts=1, unreadable=1)


async def test_more_than_a_batch_is_copied_whole(books: Books) -> None:
    """A run goes on until the spool has no more, in several transactions."""
    count = BATCH_EVENTS + 500
    books.write("w0", *(made(claims(number)) for number in range(count)))
    assert await books.recorder.drain() == count
    assert len(await books.rows(tables.decisions)) == (await books.mark("w0")).seq == count


async def test_what_cannot_be_read_or_attributed_is_counted(books: Books) -> None:
    """A body that is no event, and events of a route that is not there, stop nothing."""
    stray = claims(9, route_id=99)
    path = books.write("w0", made(FIRST), made(stray), told(stray, "conversion", 1.0))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events (body) VALUES (x'7b00')")
    books.write("w0", told(FIRST, "conversion", 1.0))
    assert await books.recorder.drain() == 5
    mark = await books.mark("w0")
    assert (mark.seq, mark.unreadable) == (5, 3)
    assert [row["id"] for row in await books.rows(tables.decisions)] == [decision_id(FIRST)]
    assert (await books.accounts())[Account(NEW, "conversion")] == values(1)


async def test_a_broken_spool_does_not_stop_the_others(books: Books) -> None:
    """It is said, after everything that can be read was recorded."""
    books.spools.joinpath("a.db").write_bytes(b"this is no database" * 100)
    books.write("b", made(FIRST))
    with pytest.raises(SpoolError, match=r"cannot read spool .*a\.db"):
        await books.recorder.drain()
    assert [row["id"] for row in await books.rows(tables.decisions)] == [decision_id(FIRST)]


async def test_both_arms_are_stored_and_sums_are_kept_by_the_assigned_one(books: Books) -> None:
    """A fallback is the assigned arm's error, its outcome is the assigned arm's, and it served nothing."""
    books.write(
        "w0", made(FIRST, served_arm_id=OLD, error=True, latency_ms=2.0), told(FIRST, "conversion", 1.0)
    )
    await books.recorder.drain()
    (row,) = await books.rows(tables.decisions)
    assert (row["assigned_arm_id"], row["served_arm_id"]) == (NEW, OLD)
    accounts = await books.accounts()
    assert {account.arm_id for account in accounts} == {NEW}
    assert accounts[Account(NEW, DECISIONS)] == Sums(1, 0.0, 0.0)
    assert accounts[Account(NEW, ERROR)] == accounts[Account(NEW, "conversion")] == values(1)


async def test_what_comes_after_its_day_was_judged_is_kept_apart(books: Books) -> None:
    """Sums that a judgement rested on never change; late ones are beside them."""
    books.write("w0", made(FIRST), told(FIRST, "profit", 2.0))
    await books.recorder.drain()
    before = await books.accounts()
    await books.freeze(NOON_MS + DAY_MS // 2)
    today = claims(5, at_ms=NOON_MS + DAY_MS)
    books.write("w0", told(FIRST, "profit", 3.0, key="b"), made(claims(3)), made(today))
    await books.recorder.drain()
    after = await books.accounts()
    assert len(await books.rows(tables.outcomes)) == 2
    late = {account: sums for account, sums in after.items() if account.late}
    assert late[Account(NEW, "profit", late=True)] == Sums(1, 3.0, 21.0)  # a zero, and 5² in place of 2²
    assert late[Account(NEW, DECISIONS, late=True)] == values(1)
    in_time = {account: sums for account, sums in after.items() if not account.late}
    assert in_time[Account(NEW, "profit")] == before[Account(NEW, "profit")] + values(0)
    assert in_time[Account(NEW, DECISIONS)] == values(1, 1)


async def test_only_what_the_split_assigned_decides(books: Books) -> None:
    """Forced, killed, failed and certain assignments are recorded, and kept out of the sums that decide."""
    for number, reason in enumerate(Reason):
        decision = claims(number, reason=reason)
        books.write(reason.value.lower(), made(decision), told(decision, "conversion", 1.0))
    await books.recorder.drain()
    accounts = await books.accounts()
    assert accounts[Account(NEW, DECISIONS)] == accounts[Account(NEW, "conversion")] == values(1, 1)
    apart = accounts[Account(NEW, "conversion", deciding=False)]
    assert apart == values(*[1.0] * (len(Reason) - 2))


async def test_the_longest_key_that_is_accepted_can_be_stored(books: Books) -> None:
    """The column is as wide as the gateway's bound, in the tables and in the migration."""
    async with books.database.engine.connect() as connection:
        columns = await connection.run_sync(lambda sync: inspect(sync).get_columns("outcomes"))
    migrated = {column["name"]: column["type"] for column in columns}["key"]
    declared = tables.outcomes.c.key.type
    assert isinstance(migrated, String)
    assert isinstance(declared, String)
    assert migrated.length == declared.length == KEY_CHARACTERS
