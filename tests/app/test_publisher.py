"""The file that gateways watch follows the database: it only rises, and whoever publishes next heals it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.db import signing, versions
from app.db.migrate import migrate_database
from app.db.routes import load_route
from app.db.session import Database
from app.db.timeline import Kind
from app.gateway.snapshots import FILE_NAME, read_snapshot
from app.publisher import Publisher
from policies.lifecycle import promote
from routing.errors import BadSnapshot
from routing.snapshot import Snapshot
from tests.app.db.stage import START_MS, put_route, save


@pytest.fixture
async def filled(sqlite_url: str) -> AsyncIterator[Database]:
    """A database with a signing key and a route."""
    await migrate_database(sqlite_url)
    database = Database(sqlite_url)
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    await put_route(database)
    yield database
    await database.close()


def _on_disk(folder: Path) -> Snapshot:
    return read_snapshot(folder / FILE_NAME)


async def _change(database: Database) -> int:
    async with database.transaction() as connection:
        await versions.bump(connection)
        return await versions.current(connection)


async def test_the_file_is_the_state_of_the_database(filled: Database, tmp_path: Path) -> None:
    """Routes, keys and version, in a file that is this user's alone, with no draft beside it."""
    version = await Publisher(filled, tmp_path).publish()
    snapshot = _on_disk(tmp_path)
    assert snapshot.version == version == 2
    assert [route.name for route in snapshot.routes] == ["ads"]
    assert len(snapshot.keys) == 1
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert [name for name in os.listdir(tmp_path) if name.endswith(".draft")] == []


async def test_its_mode_does_not_depend_on_the_umask_or_on_what_was_there(
    filled: Database, tmp_path: Path
) -> None:
    """It holds signing keys: readable by nobody else, even after a file that was."""
    path = tmp_path / FILE_NAME
    path.write_text("{}")
    path.chmod(0o666)
    before = os.umask(0)
    try:
        await Publisher(filled, tmp_path).publish()
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


async def test_nothing_to_do_writes_nothing(filled: Database, tmp_path: Path) -> None:
    """The file that is there stays, to the inode."""
    publisher = Publisher(filled, tmp_path)
    version = await publisher.publish()
    before = (tmp_path / FILE_NAME).stat()
    assert await publisher.publish() == version
    after = (tmp_path / FILE_NAME).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_deleted_file_comes_back(filled: Database, tmp_path: Path) -> None:
    """At the next publication, though the version is the same."""
    publisher = Publisher(filled, tmp_path)
    version = await publisher.publish()
    (tmp_path / FILE_NAME).unlink()
    assert await publisher.publish() == version
    assert _on_disk(tmp_path).version == version


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"version": "x"}'])
async def test_a_broken_file_is_written_anew(filled: Database, tmp_path: Path, content: bytes) -> None:
    """Whatever is in it, a process that starts replaces it."""
    (tmp_path / FILE_NAME).write_bytes(content)
    version = await Publisher(filled, tmp_path).publish()
    assert _on_disk(tmp_path).version == version


async def test_a_crash_between_commit_and_file_heals_at_the_next_publication(
    filled: Database, tmp_path: Path
) -> None:
    """The writer died after its commit, in the middle of its draft: another brings the change to the file."""
    other = Publisher(filled, tmp_path)
    await other.publish()
    async with filled.read() as connection:
        route = await load_route(connection, "ads")
    await save(filled, route, promote(route.rollout, None, START_MS), Kind.PROMOTED)
    (tmp_path / FILE_NAME).with_suffix(".1.draft").write_bytes(b'{"blake2b": "9')
    assert _on_disk(tmp_path).routes[0].champion.name == "old"
    await other.publish()
    assert _on_disk(tmp_path).routes[0].champion.name == "new"


async def test_a_state_that_contradicts_itself_leaves_the_file_as_it_was(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Without a signing key there is nothing to route by: refused, and no file is written."""
    await migrate_database(sqlite_url)
    database = Database(sqlite_url)
    (tmp_path / FILE_NAME).write_bytes(b"as it was")
    await _change(database)
    with pytest.raises(BadSnapshot, match="at least one signing key"):
        await Publisher(database, tmp_path).publish()
    assert (tmp_path / FILE_NAME).read_bytes() == b"as it was"
    await database.close()


async def test_many_callers_need_no_more_threads_than_there_are(filled: Database, tmp_path: Path) -> None:
    """However few threads the loop has, callers in parallel all come back with the newest version."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    publisher, other = Publisher(filled, tmp_path), Publisher(filled, tmp_path)

    async def change_and_publish(number: int) -> bool:
        version = await _change(filled)
        return await (publisher if number % 8 else other).publish() >= version

    async with asyncio.timeout(30):
        assert all(await asyncio.gather(*(change_and_publish(number) for number in range(30))))
    assert _on_disk(tmp_path).version == 32


def _race(url: str, folder: Path, times: int) -> None:
    async def run() -> None:
        database = Database(url)
        publisher = Publisher(database, folder)
        for _ in range(times):
            version = await _change(database)
            assert await publisher.publish() >= version
        await database.close()

    asyncio.run(run())


async def test_racing_publishers_never_put_an_older_snapshot_over_a_newer_one(
    filled: Database, sqlite_url: str, tmp_path: Path
) -> None:
    """Two processes change and publish as fast as they can: on disk versions only rise, to the last."""
    await Publisher(filled, tmp_path).publish()
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(_on_disk(tmp_path).version)
            done.wait(0.001)
        seen.append(_on_disk(tmp_path).version)

    watcher = threading.Thread(target=watch)
    watcher.start()
    spawn = multiprocessing.get_context("spawn")
    racers = [spawn.Process(target=_race, args=(sqlite_url, tmp_path, 25)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        await asyncio.to_thread(racer.join, 60)
    done.set()
    await asyncio.to_thread(watcher.join)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert seen == sorted(seen)
    assert len(set(seen)) > 2, "the watcher saw the race"
    assert seen[-1] == 52
