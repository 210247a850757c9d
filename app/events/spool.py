"""Where a worker's events are safe: one SQLite file per worker, written by one thread with group commit.

Every event has a contiguous sequence number. A row holds what was written together, as a JSON array, under
the number of its last event: so many rows would cost more than the events. The recorder copies events to the
database and then moves the mark; the spool deletes only up to that mark, so an event exists here until it
exists there.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate, islice
from pathlib import Path

import msgspec

from app.events.types import DecisionEvent, Event, ShadowEvent, encode

MAX_WAITING = 200_000
"""Events that may wait for the disk before decisions are dropped (and counted) and outcomes refused."""

MAX_ROW_EVENTS = 500
"""Events in a row; more that wait at the same time go into several."""

_GROUP_SECONDS = 0.02
"""How long decisions gather before they are written; an outcome's caller waits, so it is written at once."""

_SWEEP_SECONDS = 1.0
_SWEEP_EVENTS = 1_000_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
"""
_DELETE_RECORDED = "DELETE FROM events WHERE seq <= min(?, (SELECT min(seq) FROM events) + ?)"

Done = Callable[["SpoolError | None"], None]


class SpoolError(Exception):
    """The spool's file cannot be used, or refused an event."""


class Spool:
    """A worker's spool. Its methods may be called from any thread; only `close` waits for the disk.

    Two may write to one file for a while, as when a worker takes over from one that is still draining.

    Mutable state: `_events` and `_commits` (what waits for the disk), `dropped`.

    Raises:
        SpoolError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped = 0
        self._events: deque[Event] = deque()
        self._commits: deque[tuple[Sequence[Event], Done]] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._connection = _open(path)
        self.id = identity(self._connection)
        self._swept_at = time.monotonic()
        self._writer = threading.Thread(target=self._run, name=f"spool-{path.stem}", daemon=True)
        self._writer.start()

    @property
    def waiting(self) -> int:
        """Appends and commits that the disk has not taken yet."""
        return len(self._events) + len(self._commits)

    def append(self, event: DecisionEvent | ShadowEvent) -> None:
        """Write an event down soon; never waits, never raises.

        One that cannot be written, as when too many wait or the spool is closed, is counted as dropped.
        """
        if self._closing or len(self._events) >= MAX_WAITING:
            self.dropped += 1
            return
        self._events.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def commit(self, events: Sequence[Event], done: Done) -> None:
        """Write events down now. `done` runs in the writer thread: None once durable, else the error."""
        if self._closing or self.waiting >= MAX_WAITING:
            done(SpoolError("the spool takes no more events now"))
            return
        self._commits.append((events, done))
        self._hurry.set()
        self._wake.set()

    def close(self) -> None:
        """Write what waits, then stop the writer thread."""
        self._closing = True
        self._hurry.set()
        self._wake.set()
        self._writer.join()

    def _run(self) -> None:
        while not (self._closing and not self.waiting):
            self._wake.wait(_SWEEP_SECONDS)
            self._hurry.wait(_GROUP_SECONDS)
            self._wake.clear()
            if not self._closing:
                self._hurry.clear()
            if self.waiting:
                self._write_waiting()
            if time.monotonic() - self._swept_at >= _SWEEP_SECONDS:
                self._sweep()
        self._connection.close()

    def _write_waiting(self) -> None:
        commits = [self._commits.popleft() for _ in range(len(self._commits))]
        events = [self._events.popleft() for _ in range(len(self._events))]
        error = self._write([*events, *(event for told, _ in commits for event in told)])
        if error is not None:
            self.dropped += len(events)
        for _, done in commits:
            done(error)

    def _write(self, events: Sequence[Event]) -> SpoolError | None:
        try:
            groups = [
                events[start : start + MAX_ROW_EVENTS] for start in range(0, len(events), MAX_ROW_EVENTS)
            ]
            bodies = [encode(group) for group in groups]
            with self._connection:
                self._connection.execute("BEGIN IMMEDIATE")
                ends = accumulate(map(len, groups), initial=_last_sequence(self._connection))
                rows = zip(islice(ends, 1, None), bodies, strict=True)
                self._connection.executemany("INSERT INTO events (seq, body) VALUES (?, ?)", rows)
        except (sqlite3.Error, OSError, ValueError, TypeError, msgspec.MsgspecError) as error:
            return SpoolError(f"{self.path.name} could not take {len(events)} events: {error}")
        return None

    def _sweep(self) -> None:
        self._swept_at = time.monotonic()
        mark = read_mark(self.path, self.id)
        try:
            with self._connection:
                self._connection.execute(_DELETE_RECORDED, (mark, _SWEEP_EVENTS))
        except sqlite3.Error:
            return  # nothing is lost by keeping rows: the next sweep tries again


def mark_path(spool: Path) -> Path:
    """The file that says up to which sequence number a spool's events are in the database."""
    return spool.with_suffix(".mark")


def read_mark(spool: Path, spool_id: str) -> int:
    """The highest sequence number of a spool that the database holds; 0 when none is known.

    A mark that an earlier spool left under the same name says nothing about this one.
    """
    try:
        owner, seq = mark_path(spool).read_text().split()
        return int(seq) if owner == spool_id else 0
    except (OSError, ValueError):
        return 0


def identity(connection: sqlite3.Connection) -> str:
    """The id that a spool got when it was made.

    Raises:
        SpoolError: it has none yet.
    """
    row = connection.execute("SELECT id FROM meta").fetchone()
    if row is None:
        raise SpoolError("the spool has no id yet")
    return str(row[0])


def _open(path: Path) -> sqlite3.Connection:
    """The spool's file, which appears whole: a recorder may look at any moment."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            draft = path.with_suffix(".new")
            _connect(draft).close()
            draft.replace(path)
        return _connect(path)
    except (sqlite3.Error, OSError) as error:
        raise SpoolError(f"cannot open spool {path}: {error}") from error


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=5)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(_SCHEMA)
    with connection:
        if connection.execute("SELECT id FROM meta").fetchone() is None:
            connection.execute("INSERT INTO meta (id) VALUES (?)", (uuid.uuid4().hex,))
    return connection


def _last_sequence(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    return int(row[0]) if row else 0
