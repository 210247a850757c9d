"""Which reported outcomes can be believed? Each is judged alone; the token says what it belongs to."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from app.events.types import OutcomeEvent
from routing.claims import Claims
from routing.errors import BadToken
from routing.snapshot import RouteTable
from routing.tokens import verify
from routing.types import MetricRule

FUTURE_MS = 60_000
"""How far a reporter's clock may be ahead."""

MAGNITUDE = 1e15
KEY_CHARACTERS = 256


MOST_ENTRIES = 10_000
"""How many outcomes may come at once."""


class BodyRefused(ValueError):
    """The body holds no outcomes at all."""


class TooMany(BodyRefused):
    """The body holds more outcomes than are taken at once."""


class Code(StrEnum):
    """Why an outcome is refused."""

    BAD_OUTCOME = "bad_outcome"
    BAD_DECISION = "bad_decision"
    UNKNOWN_ROUTE = "unknown_route"
    UNKNOWN_METRIC = "unknown_metric"
    BAD_VALUE = "bad_value"
    TOO_LATE = "too_late"
    FROM_FUTURE = "from_future"


class Rejected(Exception):
    """One outcome is refused."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome on the wire."""

    decision: str
    metric: str
    value: bool | int | float
    at: datetime | None = None
    id: str = ""


class Rejection(msgspec.Struct, frozen=True):
    """Why the outcome at `index` was refused."""

    index: int
    code: Code
    message: str


@dataclass(slots=True)
class Verdict:
    """What to write down, and what to say about the rest."""

    accepted: list[OutcomeEvent] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)

    def document(self) -> bytes:
        """The answer's body."""
        return msgspec.json.encode({"accepted": len(self.accepted), "rejected": self.rejected})


def parse(body: bytes, content_type: bytes) -> list[object]:
    """The outcomes of a body: one object, `{"outcomes": […]}`, or one object a line.

    An NDJSON line that is not JSON becomes an entry of its own, which `judge` refuses.

    Raises:
        BodyRefused: the body is none of these.
        TooMany: it holds more than MOST_ENTRIES.
    """
    entries = _entries(body, content_type)
    if len(entries) > MOST_ENTRIES:
        raise _too_many(len(entries))
    return entries


def _entries(body: bytes, content_type: bytes) -> list[object]:
    if content_type.partition(b";")[0].strip().lower() == b"application/x-ndjson":
        return _lines(body)
    try:
        document = _decode(body)
    except (ValueError, RecursionError) as error:
        lines = _lines(body)
        if len(lines) > 1 and isinstance(lines[0], dict):
            return lines
        raise BodyRefused(f"body must be JSON or NDJSON: {error}") from error
    if isinstance(document, dict) and "outcomes" in document:
        outcomes = document["outcomes"]
        if len(document) > 1 or not isinstance(outcomes, list):
            raise BodyRefused("outcomes must be a list, and the only field")
        return list(outcomes)
    return [document]


def judge(
    entries: Sequence[object], table: RouteTable, now_ms: int, verdict: Verdict | None = None, first: int = 0
) -> Verdict:
    """What to accept of the entries, against the routes and keys of a snapshot, at a moment in Unix ms.

    A part of many is added to the `verdict` of those before it; `first` is the index of its first entry.
    """
    verdict = Verdict() if verdict is None else verdict
    for index, entry in enumerate(entries, first):
        try:
            verdict.accepted.append(_event(entry, table, now_ms))
        except Rejected as rejected:
            verdict.rejected.append(Rejection(index, rejected.code, str(rejected)))
    return verdict


def _lines(body: bytes) -> list[object]:
    if (lines := body.count(b"\n")) > 2 * MOST_ENTRIES:
        raise _too_many(lines)
    return [_entry(line) for line in body.split(b"\n") if line.strip()]


def _too_many(count: int) -> TooMany:
    return TooMany(f"outcomes must be at most {MOST_ENTRIES} at once, got {count}")


def _entry(line: bytes) -> object:
    try:
        return _decode(line)
    except (ValueError, RecursionError):
        return None


def _decode(data: bytes) -> Any:
    """JSON, and what common encoders make of NaN and infinity: `judge` says which value is wrong."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return json.loads(data)


def _event(entry: object, table: RouteTable, now_ms: int) -> OutcomeEvent:
    outcome = _outcome(entry)
    claims = _claims(outcome, table)
    route = table.by_id(claims.route_id)
    if route is None:
        raise Rejected(Code.UNKNOWN_ROUTE, "decision must be of a route that exists, got one of none")
    rule = route.metric(outcome.metric)
    if rule is None:
        names = ", ".join(metric.name for metric in route.metrics) or "none"
        bound = f"metric must be one that route {route.name} declares ({names})"
        raise Rejected(Code.UNKNOWN_METRIC, f"{bound}, got {outcome.metric!r}")
    return OutcomeEvent(
        decision=claims,
        metric=rule.name,
        value=_value(outcome, rule),
        at_ms=_at_ms(outcome, claims, rule, now_ms),
        received_at_ms=now_ms,
        key=outcome.id,
    )


def _outcome(entry: object) -> Outcome:
    if isinstance(entry, dict) and not _is_number(entry.get("value", 0)):
        raise Rejected(Code.BAD_VALUE, f"value must be a finite number, got {entry['value']!r}"[:200])
    try:
        outcome = msgspec.convert(entry, Outcome)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise Rejected(Code.BAD_OUTCOME, f"outcome has the wrong shape: {error}") from error
    if "\0" in outcome.id or any("\ud800" <= character <= "\udfff" for character in outcome.id):
        raise Rejected(Code.BAD_OUTCOME, f"id must be text, got {outcome.id!r}"[:200])
    if len(outcome.id) > KEY_CHARACTERS:
        raise Rejected(
            Code.BAD_OUTCOME, f"id must be at most {KEY_CHARACTERS} characters, got {len(outcome.id)}"
        )
    return outcome


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _claims(outcome: Outcome, table: RouteTable) -> Claims:
    try:
        return verify(outcome.decision, table.keys)
    except (BadToken, UnicodeError) as error:
        raise Rejected(Code.BAD_DECISION, str(error)) from error


def _value(outcome: Outcome, rule: MetricRule) -> float:
    value = outcome.value
    if rule.kind == "binary":
        if value not in (0, 1):
            raise Rejected(
                Code.BAD_VALUE, f"value must be 0, 1, true or false for {rule.name}, got {value!r}"[:200]
            )
        return float(value)
    if isinstance(value, bool) or not -MAGNITUDE <= value <= MAGNITUDE or not math.isfinite(value):
        bound = f"value must be a number in [-{MAGNITUDE:g}, {MAGNITUDE:g}] for {rule.name}"
        raise Rejected(Code.BAD_VALUE, f"{bound}, got {value!r}"[:200])
    return float(value)


def _at_ms(outcome: Outcome, claims: Claims, rule: MetricRule, now_ms: int) -> int:
    if outcome.at is not None and outcome.at.tzinfo is None:
        raise Rejected(Code.BAD_OUTCOME, f"at must carry its time zone, got {outcome.at.isoformat()!r}")
    at_ms = now_ms if outcome.at is None else round(outcome.at.timestamp() * 1000)
    if at_ms > now_ms + FUTURE_MS:
        raise Rejected(
            Code.FROM_FUTURE, f"at must be at most {FUTURE_MS} ms from now, got {at_ms - now_ms} ms"
        )
    late_ms = at_ms - claims.at_ms
    if late_ms < -FUTURE_MS:
        raise Rejected(Code.BAD_OUTCOME, f"at must not be before the decision, got {-late_ms} ms before")
    if late_ms > rule.window_ms:
        bound = f"at must be within {rule.window_ms} ms of the decision for {rule.name}"
        raise Rejected(Code.TOO_LATE, f"{bound}, got {late_ms} ms")
    return at_ms
