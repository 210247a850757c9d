"""Brings the snapshot file that gateways watch to the state of the database, whole or not at all."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.clock import now_ms
from app.db import versions
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.gateway.snapshots import FILE_NAME, read_snapshot, write_snapshot
from routing.errors import RoutingError

_LOCK_NAME = "snapshot.lock"


class Publisher:
    """Writes the snapshot of a data folder. Several may run, in one process or many: they take turns.

    Mutable state: `_known`, the version that this one last saw on disk. `_turn` lets one call at a time wait
    for the file lock: each that waits holds a thread, and whoever has the lock needs one to go on.
    """

    def __init__(self, database: Database, data_dir: Path) -> None:
        self._database = database
        self._path = data_dir / FILE_NAME
        self._lock_path = data_dir / _LOCK_NAME
        self._known: int | None = None
        self._turn = asyncio.Lock()

    async def publish(self) -> int:
        """Write the file unless it is up to date; gives the version that it has now.

        The first time it is written in any case: a file of this version may be that of another database.

        Raises:
            DatabaseUnavailable: the database cannot be read.
            BadSnapshot: what the database holds contradicts itself; the file stays as it was.
            OSError: the file cannot be written.
        """
        async with self._database.read() as connection:
            version = await versions.current(connection)
        if version != self._known or not self._path.exists():
            async with self._turn, self._alone():
                self._known = await self._bring_up_to_date()
        return self._known

    async def _bring_up_to_date(self) -> int:
        on_disk = None if self._known is None else await asyncio.to_thread(_version_of, self._path)
        async with self._database.read() as connection:
            if on_disk == await versions.current(connection):
                return on_disk
            snapshot = await load_snapshot(connection, now_ms())
        await asyncio.to_thread(write_snapshot, self._path, snapshot)
        return snapshot.version

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One publisher at a time, so that an older snapshot never follows a newer one."""
        with self._lock_path.open("a") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            yield


def _version_of(path: Path) -> int | None:
    try:
        return read_snapshot(path).version
    except (OSError, RoutingError):
        return None
