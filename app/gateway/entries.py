"""What does a body report? One entry, a list of them, or one a line; each is judged alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from routing.claims import Claims
from routing.errors import BadToken
from routing.snapshot import RouteTable
from routing.tokens import verify
from routing.types import Route

FUTURE_MS = 60_000
"""How far another's clock may be ahead."""

MOST_ENTRIES = 10_000
"""How many entries may come at once."""

Event = TypeVar("Event")


class BodyRefused(ValueError):
    """The body holds no entries at all."""


class TooMany(BodyRefused):
    """The body holds more entries than are taken at once."""


class Code(StrEnum):
    """Why an entry is refused."""

    BAD_OUTCOME = "bad_outcome"
    BAD_EXPOSURE = "bad_exposure"
    BAD_DECISION = "bad_decision"
    UNKNOWN_ROUTE = "unknown_route"
    UNKNOWN_METRIC = "unknown_metric"
    BAD_VALUE = "bad_value"
    TOO_LATE = "too_late"
    FROM_FUTURE = "from_future"


class Rejected(Exception):
    """One entry is refused."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Rejection(msgspec.Struct, frozen=True):
    """Why the entry at `index` was refused."""

    index: int
    code: Code
    message: str


@dataclass(slots=True)
class Verdict(Generic[Event]):
    """What to write down, and what to say about the rest."""

    accepted: list[Event] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def judge(self, entries: Sequence[object], first: int, event_of: Callable[[object], Event]) -> None:
        """Adds entries, the first of which has this index; `event_of` raises Rejected for what cannot be."""
        for index, entry in enumerate(entries, first):
            try:
                self.accepted.append(event_of(entry))
            except Rejected as rejected:
                self.rejected.append(Rejection(index, rejected.code, str(rejected)))

    def document(self) -> bytes:
        """The answer's body."""
        return msgspec.json.encode({"accepted": len(self.accepted), "rejected": self.rejected})


def parse(body: bytes, content_type: bytes, name: str) -> list[object]:
    """The entries of a body: one object, `{name: […]}`, or one object a line.

    An NDJSON line that is not JSON becomes an entry of its own, which is refused when it is judged.

    Raises:
        BodyRefused: the body is none of these.
        TooMany: it holds more than MOST_ENTRIES.
    """
    entries = _entries(body, content_type, name)
    if len(entries) > MOST_ENTRIES:
        raise _too_many(len(entries), name)
    return entries


def attributed(token: str, table: RouteTable) -> tuple[Claims, Route]:
    """What a decision's token says, and the route that it is of.

    Raises:
        Rejected: it is not ours, or of a route that is no more.
    """
    try:
        claims = verify(token, table.keys)
    except (BadToken, UnicodeError) as error:
        raise Rejected(Code.BAD_DECISION, str(error)) from error
    route = table.by_id(claims.route_id)
    if route is None:
        raise Rejected(Code.UNKNOWN_ROUTE, "decision must be of a route that exists, got one of none")
    return claims, route


def _entries(body: bytes, content_type: bytes, name: str) -> list[object]:
    if content_type.partition(b";")[0].strip().lower() == b"application/x-ndjson":
        return _lines(body, name)
    try:
        document = _decode(body)
    except (ValueError, RecursionError) as error:
        lines = _lines(body, name)
        if len(lines) > 1 and isinstance(lines[0], dict):
            return lines
        raise BodyRefused(f"body must be JSON or NDJSON: {error}") from error
    if isinstance(document, dict) and name in document:
        entries = document[name]
        if len(document) > 1 or not isinstance(entries, list):
            raise BodyRefused(f"{name} must be a list, and the only field")
        return list(entries)
    return [document]


def _lines(body: bytes, name: str) -> list[object]:
    if (lines := body.count(b"\n")) > 2 * MOST_ENTRIES:
        raise _too_many(lines, name)
    return [_entry(line) for line in body.split(b"\n") if line.strip()]


def _too_many(count: int, name: str) -> TooMany:
    return TooMany(f"{name} must be at most {MOST_ENTRIES} at once, got {count}")


def _entry(line: bytes) -> object:
    try:
        return _decode(line)
    except (ValueError, RecursionError):
        return None


def _decode(data: bytes) -> Any:
    """JSON, and what common encoders make of NaN and infinity: a judge says which value is wrong."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(data)
