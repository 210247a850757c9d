"""Up to when everything is recorded is what all recorders say that are still there; on both databases."""

from __future__ import annotations

from app.db.recorders import GONE_MS, note, recorded_through
from app.db.session import Database
from tests.app.db.stage import START_MS

HERE, THERE = "a" * 32, "b" * 32


async def say(database: Database, recorder: str, now_ms: int, through_ms: int | None = None) -> int:
    """A recorder says how far it is; gives what is so known of all."""
    async with database.transaction() as connection:
        await note(connection, recorder, now_ms, through_ms)
        return await recorded_through(connection)


async def test_nothing_is_known_of_who_has_said_nothing(database: Database) -> None:
    """Neither before there is a recorder, nor of one that has only just begun."""
    async with database.read() as connection:
        assert await recorded_through(connection) == 0
    assert await say(database, HERE, START_MS) == 0
    assert await say(database, HERE, START_MS + 1, START_MS + 1) == START_MS + 1
    assert await say(database, THERE, START_MS + 2) == 0


async def test_the_one_that_is_furthest_behind_holds(database: Database) -> None:
    """Whoever it is, and though the others go on."""
    await say(database, HERE, START_MS + 5, START_MS + 5)
    assert await say(database, THERE, START_MS + 6, START_MS + 6) == START_MS + 5
    assert await say(database, THERE, START_MS + 9, START_MS + 9) == START_MS + 5
    assert await say(database, HERE, START_MS + 10, START_MS + 10) == START_MS + 9


async def test_one_that_cannot_go_on_stays_where_it_was(database: Database) -> None:
    """As long as it is heard of. A clock that was set back is believed."""
    await say(database, HERE, START_MS + 5, START_MS + 5)
    for days in (1, 2, 3):
        now_ms = START_MS + days * GONE_MS
        assert await say(database, HERE, now_ms) == START_MS + 5
        assert await say(database, THERE, now_ms, now_ms) == START_MS + 5
    assert await say(database, HERE, START_MS + 3, START_MS + 3) == START_MS + 3


async def test_one_that_is_gone_for_a_day_holds_nothing_back(database: Database) -> None:
    """When it comes back it does, until it has caught up."""
    await say(database, THERE, START_MS, START_MS)
    for later_ms, known_ms in ((GONE_MS, START_MS), (GONE_MS + 1, START_MS + GONE_MS + 1)):
        now_ms = START_MS + later_ms
        assert await say(database, HERE, now_ms, now_ms) == known_ms
    assert await say(database, THERE, START_MS + GONE_MS + 2) == 0
    back_ms = START_MS + GONE_MS + 3
    assert await say(database, THERE, back_ms, back_ms) == START_MS + GONE_MS + 1


async def test_when_all_were_gone_the_last_word_stands(database: Database) -> None:
    """An installation that is started again after a week knows up to when it had recorded everything."""
    await say(database, HERE, START_MS, START_MS)
    async with database.read() as connection:
        assert await recorded_through(connection) == START_MS
    assert await say(database, HERE, START_MS + 7 * GONE_MS) == START_MS
