"""A folder of spools is recorded up to the moment at which somebody began to read it to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.db.errors import DatabaseUnavailable
from app.db.recorders import GONE_MS, recorded_through
from app.db.session import Connection, Database
from app.events import recorder
from app.events.recorder import NOTE_MS, Recorder
from app.events.spool import Spool, SpoolError
from tests.app.db.stage import START_MS, put_route
from tests.app.events.facts import claims, made, told, write


class Clock:
    """The time, which stands still until somebody sets it."""

    now_ms = START_MS

    def __call__(self) -> int:
        """Unix milliseconds."""
        return self.now_ms

    def tick(self, by_ms: int = NOTE_MS) -> int:
        """A while later."""
        self.now_ms += by_ms
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    """A clock of its own for each test."""
    return Clock()


def folder(tmp_path: Path, name: str = "spools") -> Path:
    """A folder for spools."""
    path = tmp_path / name
    path.mkdir(exist_ok=True)
    return path


async def through(database: Database) -> int:
    """Up to when everything is known to be recorded."""
    async with database.read() as connection:
        return await recorded_through(connection)


async def test_without_traffic_everything_is_recorded(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    """In a folder without spools, one with an idle spool, and one whose worker has died: up to now."""
    spools = folder(tmp_path)
    reading = Recorder(database, spools, clock)
    await reading.drain()
    assert await through(database) == START_MS
    idle = Spool(spools / "idle.db")
    write(spools / "dead.db", made(claims(1)))
    assert await reading.drain() == 1
    assert await through(database) == START_MS, "it is noted once a second"
    later_ms = clock.tick()
    assert await reading.drain() == 0
    assert await through(database) == later_ms
    idle.close()


async def test_a_folder_counts_before_anything_of_it_is_recorded(
    database: Database, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else others would take its decisions, of which the outcomes are still in its spools, for mature."""
    await Recorder(database, folder(tmp_path, "here"), clock).drain()
    there = folder(tmp_path, "there")
    route = await put_route(database)
    one = claims(1, route.arm_ids["new"], route_id=route.id)
    write(there / "w0.db", made(one), told(one, "conversion", 1.0))
    seen: list[int] = []

    async def look(connection: Connection, *_: object) -> None:
        seen.append(await recorded_through(connection))
        raise DatabaseUnavailable("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(recorder, "_record_once", look)
        with pytest.raises(DatabaseUnavailable):
            await Recorder(database, there, clock).drain()
    assert (seen, await through(database)) == ([0], 0)
    await Recorder(database, there, clock).drain()
    assert await through(database) == START_MS


async def test_what_cannot_be_read_holds_it_back(database: Database, tmp_path: Path, clock: Clock) -> None:
    """For as long as it is there, even if that is days; a recorder that starts anew knows how far it was."""
    spools = folder(tmp_path)
    await Recorder(database, spools, clock).drain()
    broken = spools / "b.db"
    broken.write_bytes(b"this is no database file" * 50)
    other = Recorder(database, folder(tmp_path, "other"), clock)
    reading = Recorder(database, spools, clock)
    for _ in range(4):
        clock.tick(GONE_MS // 2 + 1)
        with pytest.raises(SpoolError):
            await reading.drain()
        await other.drain()
        assert await through(database) == START_MS
    broken.unlink()
    await Recorder(database, spools, clock).drain()
    assert await through(database) == clock.now_ms


async def test_what_came_while_it_was_read_is_not_promised(
    database: Database, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time is that of the beginning."""
    spools = folder(tmp_path)
    write(spools / "w0.db", made(claims(1)))
    reading = Recorder(database, spools, clock)
    draining = Recorder.drain_spool

    async def slowly(self: Recorder, path: Path) -> int:
        copied = await draining(self, path)
        clock.tick()
        write(path, made(claims(2)))
        return copied

    monkeypatch.setattr(Recorder, "drain_spool", slowly)
    assert await reading.drain() == 1
    assert await through(database) == START_MS


async def test_a_folder_is_told_apart_by_its_id(database: Database, tmp_path: Path, clock: Clock) -> None:
    """Which it keeps, and gets anew where it is torn. Where it cannot be had, nothing is recorded."""
    spools = folder(tmp_path)
    for _ in range(2):
        await Recorder(database, spools, clock).drain()
    identity = spools / "recorder.id"
    known = identity.read_text()
    assert len(known) == 32
    identity.write_text("")
    await Recorder(database, spools, clock).drain()
    assert len(identity.read_text()) == 32
    assert identity.read_text() != known
    identity.unlink()
    identity.mkdir()
    write(spools / "w0.db", made(claims(1)))
    with pytest.raises(SpoolError, match="cannot tell which folder"):
        await Recorder(database, spools, clock).drain()


async def test_a_clock_that_was_set_back_is_followed(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    """What it said before may have been of a time that is still to come."""
    reading = Recorder(database, folder(tmp_path), clock)
    await reading.drain()
    earlier_ms = clock.tick(-9 * NOTE_MS)
    await reading.drain()
    assert await through(database) == earlier_ms


async def test_a_folder_that_is_left_for_good_holds_nobody_up(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    """What it still held is recorded first; if somebody writes there again, it is waited for again."""
    leaving = Recorder(database, folder(tmp_path, "one"), clock)
    staying = Recorder(database, folder(tmp_path, "two"), clock)
    await leaving.drain()
    await staying.drain()
    write(tmp_path / "one" / "dead.db", made(claims(1)))
    await leaving.leave()
    later_ms = clock.tick()
    assert await staying.drain() == 0
    assert await through(database) == later_ms
    assert await Recorder(database, folder(tmp_path, "one"), clock).drain() == 0, "all of it was recorded"
    clock.tick()
    await staying.drain()
    assert await through(database) == later_ms


async def test_a_folder_that_cannot_be_read_is_not_left(
    database: Database, tmp_path: Path, clock: Clock
) -> None:
    """It is waited for, as what it holds may still come."""
    leaving = Recorder(database, folder(tmp_path, "one"), clock)
    await leaving.drain()
    (tmp_path / "one" / "broken.db").write_bytes(b"no spool" * 500)
    clock.tick()
    with pytest.raises(SpoolError):
        await leaving.leave()
    clock.tick()
    await Recorder(database, folder(tmp_path, "two"), clock).drain()
    assert await through(database) == START_MS
