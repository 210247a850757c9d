"""What does a spool hold that the database does not? The recorder's read-only view of one spool file."""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.events.spool import MAX_ROW_EVENTS, SpoolError, identity, mark_path, read_mark
from app.events.types import DecisionEvent, Event, OutcomeEvent, decode, encode
from routing.claims import Claims

_decode_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_EARLIER: dict[str, type[DecisionEvent | OutcomeEvent]] = {"decision": DecisionEvent, "outcome": OutcomeEvent}
_NEXT = "SELECT seq, CAST(body AS BLOB) FROM events WHERE seq > ? ORDER BY seq"


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
    """About `limit` contiguous events with a sequence number above `after`: rows are read whole.

    Raises:
        SpoolError: the file cannot be read.
    """
    try:
        with closing(_open_read_only(path)) as connection:
            rows = connection.execute(_NEXT, (after,))
            first, events = _contiguous(rows, after, limit)
            newest = connection.execute("SELECT max(seq) FROM events").fetchone()[0]
            spool_id = identity(connection)
    except sqlite3.Error as error:
        raise SpoolError(f"cannot read spool {path}: {error}") from error
    return Batch(spool_id, first, newest or after, tuple(events))


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
    fresh = mark_path(path).with_suffix(f".{uuid.uuid4().hex}.new")  # two may be at it
    try:
        fresh.write_text(f"{spool_id} {seq}")
        os.replace(fresh, mark_path(path))
    except OSError as error:
        raise SpoolError(f"cannot write the mark of spool {path}: {error}") from error


def _open_read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


def _contiguous(rows: Iterable[tuple[int, bytes]], after: int, limit: int) -> tuple[int, list[Event | None]]:
    """The first sequence number, and the events from there to the first gap."""
    first, last = after + 1, after
    events: list[Event | None] = []
    for seq, body in rows:
        if len(events) >= limit:
            break
        found = _events(body, min(seq - last, MAX_ROW_EVENTS))
        begin = seq - len(found) + 1
        if begin > last + 1:
            if events:
                break
            first = begin
        events += found[max(0, last + 1 - begin) :]
        last = seq
    return first, events


def _events(body: bytes, size: int) -> list[Event | None]:
    """The events of a row; `size` is how many there are if the row cannot tell."""
    try:
        if body.startswith(b"{"):
            return [_earlier(body)]
        return [_event(part) for part in _decode_parts(body)]
    except ValueError:
        return [None] * size


def _earlier(body: bytes) -> Event | None:
    """An event as the first version wrote it: alone in its row, every struct an object."""
    try:
        fields = msgspec.json.decode(body)
        kind = _EARLIER[fields.pop("type")]
        return _event(encode(kind(**{**fields, "decision": Claims(**fields["decision"])})))
    except (ValueError, TypeError, KeyError):
        return None


def _event(body: bytes | msgspec.Raw) -> Event | None:
    try:
        event: Event = decode(body)
    except ValueError:
        return None
    return event
