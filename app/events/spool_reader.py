"""What does a spool hold that the database does not? The recorder's read-only view of one spool file."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from app.events.spool import SpoolError, identity, mark_path, read_mark
from app.events.types import Event, decode


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive events of a spool, from `first_seq` on. A body that cannot be read is None.

    `newest_seq`: the sequence number of the newest event in the file, of this batch or later.
    """

    spool_id: str
    first_seq: int
    newest_seq: int
    events: tuple[Event | None, ...]

    @property
    def last_seq(self) -> int:
        """The sequence number of the last event."""
        return self.first_seq + len(self.events) - 1


def read_batch(path: Path, after: int, limit: int) -> Batch:
    """At most `limit` contiguous events with a sequence number above `after`.

    Raises:
        SpoolError: the file cannot be read.
    """
    try:
        with closing(_open_read_only(path)) as connection:
            rows = connection.execute(
                "SELECT seq, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
            ).fetchall()
            newest = connection.execute("SELECT max(seq) FROM events").fetchone()[0]
            spool_id = identity(connection)
    except sqlite3.Error as error:
        raise SpoolError(f"cannot read spool {path}: {error}") from error
    first = rows[0][0] if rows else after + 1
    contiguous = [row for index, row in enumerate(rows) if row[0] == first + index]
    return Batch(spool_id, first, newest or after, tuple(_event(body) for _, body in contiguous))


def spool_id(path: Path) -> str:
    """The id a spool got when it was made.

    Raises:
        SpoolError: the file cannot be read, or has no id yet.
    """
    return read_batch(path, 0, 0).spool_id


def acknowledge(path: Path, spool_id: str, seq: int) -> None:
    """Tell a spool that the database holds its events up to `seq`; survives a crash between any two steps.

    Raises:
        SpoolError: the mark cannot be written; the spool keeps its events.
    """
    if read_mark(path, spool_id) == seq:
        return
    fresh = mark_path(path).with_suffix(".mark.new")
    try:
        fresh.write_text(f"{spool_id} {seq}")
        os.replace(fresh, mark_path(path))
    except OSError as error:
        raise SpoolError(f"cannot write the mark of spool {path}: {error}") from error


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


def _event(body: bytes) -> Event | None:
    try:
        event: Event = decode(body)
    except ValueError:
        return None
    return event
