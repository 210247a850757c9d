"""First arms in an SQLite file of the data folder, which the workers of one machine share."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.stores.first_arms import Claim, StoreUnavailable

_BUSY_SECONDS = 1.0
_PRUNED = 2
"""How many rows that are over are deleted with each claim: so there are never many more than live."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS first_arms (key TEXT PRIMARY KEY, value BLOB NOT NULL, until_ms INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ix_first_arms_until_ms ON first_arms (until_ms);
"""
_CLAIM = """
INSERT INTO first_arms (key, value, until_ms) VALUES (:key, :value, :until_ms)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, until_ms = excluded.until_ms
    WHERE first_arms.until_ms <= :now_ms OR first_arms.value = :lapsed
"""
_FIND = "SELECT value FROM first_arms WHERE key = ? AND until_ms > ?"
_PRUNE = """
DELETE FROM first_arms WHERE key IN (SELECT key FROM first_arms WHERE until_ms <= ? ORDER BY until_ms LIMIT ?)
"""

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class FileStore:
    """First arms in a file, asked in a thread of its own.

    A crash of the process loses nothing; one of the machine may lose the last moments, whose units are then
    drawn for anew. Mutable state: the connection, opened when it is first needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="first-arms")

    async def claim(self, claims: Sequence[Claim]) -> list[bytes | None]:
        return await self._run(lambda connection: _claim(connection, claims))

    async def find(self, key: str) -> bytes | None:
        if not self._path.exists():
            raise StoreUnavailable(f"{self._path.name} is not there")
        return await self._run(lambda connection: _find(connection, key, _now_ms()))

    async def probe(self) -> None:
        await self._run(lambda connection: _find(connection, "", 0))

    async def close(self) -> None:
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            if self._connection is None:
                self._connection = _open(self._path)
            return work(self._connection)
        except (sqlite3.Error, OSError) as error:
            self._close()  # what is wrong may be the file: the next one to ask opens what is there then
            raise StoreUnavailable(f"{self._path.name} cannot be used: {error}") from error

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=_BUSY_SECONDS)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.executescript(_SCHEMA)
    return connection


def _claim(connection: sqlite3.Connection, claims: Sequence[Claim]) -> list[bytes | None]:
    now_ms = _now_ms()
    try:
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for claim in claims:
                row = {**claim._asdict(), "now_ms": now_ms, "until_ms": now_ms + claim.keep_ms}
                connection.execute(_CLAIM, row)
            connection.execute(_PRUNE, (now_ms, _PRUNED * len(claims)))
    except sqlite3.OperationalError as error:
        _log.warning("first arms are not kept", extra={"fields": {"error": str(error)}})
    return [_find(connection, claim.key, now_ms) for claim in claims]


def _find(connection: sqlite3.Connection, key: str, now_ms: int) -> bytes | None:
    row = connection.execute(_FIND, (key, now_ms)).fetchone()
    return None if row is None else bytes(row[0])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
