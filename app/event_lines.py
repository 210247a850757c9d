"""What happened, line by line? Decisions and outcomes as NDJSON, in any order, or which lines cannot be read.

Nothing is repaired, and nothing is left out: a file is taken whole, or refused with the lines that are bad.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from sys import intern
from typing import IO, Any

import msgspec

from policies.errors import PolicyError
from policies.metrics import Metric, Outcome
from policies.spec import NAME
from policies.types import Kind
from routing.types import Reason

MOST_ERRORS = 20
"""How many bad lines are named; the others are counted."""

MOST_LINE_BYTES = 1024 * 1024
ID_CHARACTERS = 256
SMALLEST_PROPENSITY = 1e-9
MAGNITUDE = 1e15

FUTURE_MS = 60_000
"""How far the clock of whoever reports a decision may be ahead of that of whoever reports what follows."""

_LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""

_SHOWN_CHARACTERS = 80
_TOLD_EVERY = 2_000


class BadEvents(PolicyError):
    """Lines that cannot be: `errors` names some of them, and there are `total`."""

    def __init__(self, source: str, errors: Sequence[LineError], total: int) -> None:
        lines = [f"{source}: {total} {'lines' if total > 1 else 'line'} cannot be read", *map(str, errors)]
        if total > len(errors):
            lines.append(f"and {total - len(errors)} more")
        super().__init__("\n  ".join(lines))
        self.errors = tuple(errors)
        self.total = total


@dataclass(frozen=True, slots=True)
class LineError:
    """What is wrong with a line, and with which of its fields; none: with the line itself."""

    line: int
    field: str
    message: str

    def __str__(self) -> str:
        return " ".join(filter(None, (f"line {self.line}:", self.field, self.message)))


class Decision(msgspec.Struct, frozen=True, gc=False):
    """A logged decision. Unit, context and reason are None where its line has none.

    `first_at_ms`: when its unit was given the arm that it keeps; None: the arm was drawn now.
    """

    id: str
    arm: str
    propensity: float
    at_ms: int
    unit: str | None = None
    context: dict[str, Any] | None = None
    reason: Reason | None = None
    first_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Events:
    """Decisions, oldest first, and by decision and metric the outcomes that stand.

    Of outcomes with one decision, metric and id the one received first stands; `conflicts` counts repeats
    with another value. `last_ms` is the latest moment that a line names.
    """

    decisions: tuple[Decision, ...]
    outcomes: Mapping[str, Mapping[str, Sequence[Outcome]]]
    conflicts: int
    last_ms: int


def read_events(
    stream: IO[bytes], source: str, metrics: Sequence[Metric], advance: Callable[[int], None] = lambda _: None
) -> Events:
    """The events of a route with these metrics. `source` names the stream in errors.

    `advance` is told now and then how many more bytes have been read.

    Raises:
        BadEvents: lines that are no events, decisions that contradict one another, outcomes of no decision.
    """
    reader = _Reader(metrics)
    untold = 0
    for number, line in enumerate(_lines(stream), 1):
        reader.read(number, line)
        untold += len(line)
        if number % _TOLD_EVERY == 0:
            advance(untold)
            untold = 0
    advance(untold)
    return reader.finish(source)


class _Wrong(Exception):
    """A field that cannot be, with its bound and its value."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message


class _Told(msgspec.Struct, frozen=True, gc=False):
    """An outcome as its line has it."""

    decision: str
    metric: str
    key: str
    value: float
    at_ms: int
    received_at_ms: int
    line: int

    @property
    def received(self) -> tuple[int, int]:
        """Of repeats, the smallest stands."""
        return self.received_at_ms, self.line


class _Reader:
    """Mutable state: decisions and their lines, the outcomes that stand so far, and what was wrong."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = {metric.name: metric for metric in metrics}
        self._decisions: dict[str, tuple[Decision, int]] = {}
        self._told: dict[tuple[str, str, str], _Told] = {}
        self._errors: list[LineError] = []
        self._wrong = 0
        self._conflicts = 0

    def read(self, number: int, line: bytes) -> None:
        """Take a line, or note what is wrong with it."""
        try:
            kind, fields = _fields(line)
            if kind == _DECISION:
                self._decide(_decision(fields), number)
            else:
                self._tell(_told(fields, self._metrics, number))
        except _Wrong as wrong:
            self._note(number, wrong)

    def finish(self, source: str) -> Events:
        """Everything, or what was wrong. Only when all lines are known does an outcome miss its decision."""
        if not self._wrong:
            self._check_places()
        if self._wrong:
            raise BadEvents(source, self._errors, self._wrong)
        told = self._told.values()
        found = [decision for decision, _ in self._decisions.values()]
        moments = [*(one.at_ms for one in found), *(max(one.at_ms, one.received_at_ms) for one in told)]
        return Events(
            decisions=tuple(sorted(found, key=lambda decision: (decision.at_ms, decision.id))),
            outcomes=_by_decision(told),
            conflicts=self._conflicts,
            last_ms=max(moments, default=0),
        )

    def _decide(self, decision: Decision, number: int) -> None:
        first, line = self._decisions.setdefault(decision.id, (decision, number))
        if first != decision:
            raise _Wrong("id", f"must be new or repeat line {line} in all, got {_shown(decision.id)}")

    def _tell(self, told: _Told) -> None:
        identity = (told.decision, told.metric, told.key)
        first = self._told.setdefault(identity, told)
        self._conflicts += first.value != told.value
        if told.received < first.received:
            self._told[identity] = told

    def _check_places(self) -> None:
        for told in self._told.values():
            known = self._decisions.get(told.decision)
            if known is None:
                wrong = _Wrong("decision", f"must be one of the file, got {_shown(told.decision)}")
                self._note(told.line, wrong)
            elif (early_ms := known[0].at_ms - told.at_ms) > FUTURE_MS:
                bound = f"must not be before its decision in line {known[1]}"
                self._note(told.line, _Wrong("at", f"{bound}, got {early_ms} ms before"))

    def _note(self, number: int, wrong: _Wrong) -> None:
        self._wrong += 1
        if len(self._errors) < MOST_ERRORS:
            self._errors.append(LineError(number, wrong.field, wrong.message))


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines. Of one that is too long, its beginning, which is already too long."""
    while line := stream.readline(MOST_LINE_BYTES + 1):
        yield line
        while len(line) > MOST_LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(MOST_LINE_BYTES + 1)


_DECISION, _OUTCOME = "decision", "outcome"
_KNOWN: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    _DECISION: (
        frozenset({"id", "arm", "propensity", "at"}),
        frozenset({"unit", "context", "reason", "first_at"}),
    ),
    _OUTCOME: (frozenset({"decision", "metric", "value", "at"}), frozenset({"id", "received_at"})),
}
"""The fields that a line of each type must have, and those that it may have."""

_REASONS: Mapping[str, Reason] = {reason.value: reason for reason in Reason}


def _fields(line: bytes) -> tuple[str, dict[str, Any]]:
    """A line's type and its other fields, all of them known and none missing."""
    if len(line) > MOST_LINE_BYTES:
        raise _Wrong("", f"must be at most {MOST_LINE_BYTES} bytes long, got more")
    try:
        fields = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Wrong("", f"must be a JSON object, and is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _Wrong("", f"must be a JSON object, got {_shown(fields)}")
    kind = fields.pop("type", None)
    if not isinstance(kind, str) or kind not in _KNOWN:
        raise _Wrong("type", f"must be {_DECISION} or {_OUTCOME}, got {_shown(kind)}")
    needed, optional = _KNOWN[kind]
    if missing := needed - fields.keys():
        raise _Wrong(min(missing), "is required")
    if unknown := fields.keys() - needed - optional:
        raise _Wrong(_shown(min(unknown)), f"is not a known field ({', '.join(sorted(needed | optional))})")
    return kind, fields


def _decision(fields: Mapping[str, Any]) -> Decision:
    arm, unit, context = fields["arm"], fields.get("unit"), fields.get("context")
    if not isinstance(arm, str) or not NAME.fullmatch(arm):
        raise _Wrong("arm", f"must match {NAME.pattern}, got {_shown(arm)}")
    if context is not None and not isinstance(context, dict):
        raise _Wrong("context", f"must be a JSON object, got {_shown(context)}")
    at_ms = _moment("at", fields["at"])
    return Decision(
        id=_text("id", fields["id"], 1),
        arm=intern(arm),
        propensity=_number("propensity", fields["propensity"], SMALLEST_PROPENSITY, 1),
        at_ms=at_ms,
        unit=None if unit is None else _text("unit", unit, 1, MOST_LINE_BYTES),
        context=context,
        reason=_reason(fields.get("reason")),
        first_at_ms=_first_at(fields.get("first_at"), at_ms),
    )


def _told(fields: Mapping[str, Any], metrics: Mapping[str, Metric], number: int) -> _Told:
    name = fields["metric"]
    metric = metrics.get(name) if isinstance(name, str) else None
    if metric is None:
        known = ", ".join(metrics) or "none"
        raise _Wrong("metric", f"must be one that the route declares ({known}), got {_shown(name)}")
    at_ms = _moment("at", fields["at"])
    received = fields.get("received_at")
    return _Told(
        decision=_text("decision", fields["decision"], 1),
        metric=metric.name,
        key=_text("id", fields.get("id", ""), 0),
        value=_value(metric, fields["value"]),
        at_ms=at_ms,
        received_at_ms=at_ms if received is None else _moment("received_at", received),
        line=number,
    )


def _value(metric: Metric, value: object) -> float:
    if metric.kind is Kind.BINARY:
        if not isinstance(value, int | float) or value not in (0, 1):
            raise _Wrong("value", f"must be 0, 1, true or false for {metric.name}, got {_shown(value)}")
        return float(value)
    return _number("value", value, -MAGNITUDE, MAGNITUDE)


def _text(field: str, value: object, least: int, most: int = ID_CHARACTERS) -> str:
    if not isinstance(value, str):
        raise _Wrong(field, f"must be text, got {_shown(value)}")
    if not least <= len(value) <= most:
        raise _Wrong(field, f"must be {least} to {most} characters long, got {len(value)}")
    return value


def _number(field: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(field, f"must be a number, got {_shown(value)}")
    if not low <= value <= high or not isfinite(value):
        raise _Wrong(field, f"must be in [{low:g}, {high:g}], got {_shown(value)}")
    return float(value)


def _moment(field: str, value: object) -> int:
    """Unix milliseconds of an RFC 3339 time."""
    try:
        at = datetime.fromisoformat(value if isinstance(value, str) else "")
    except ValueError:
        raise _Wrong(field, f"must be a time such as 2026-01-31T12:00:00Z, got {_shown(value)}") from None
    if at.tzinfo is None:
        raise _Wrong(field, f"must carry its time zone, as in {at.isoformat()}Z, got {_shown(value)}")
    at_ms = round(at.timestamp() * 1000)
    if not 0 <= at_ms <= _LAST_MS:
        raise _Wrong(field, f"must be from 1970 to 9999, got {_shown(value)}")
    return at_ms


def _first_at(value: object, at_ms: int) -> int | None:
    if value is None:
        return None
    first_at_ms = _moment("first_at", value)
    if first_at_ms > at_ms + FUTURE_MS:
        raise _Wrong("first_at", f"must not be after at, got {_shown(value)}")
    return first_at_ms


def _reason(value: object) -> Reason | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in _REASONS:
        raise _Wrong("reason", f"must be one of {', '.join(_REASONS)}, got {_shown(value)}")
    return _REASONS[value]


def _by_decision(told: Iterable[_Told]) -> Mapping[str, Mapping[str, Sequence[Outcome]]]:
    found: dict[str, dict[str, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for one in told:
        outcome = Outcome(one.value, one.at_ms, one.received_at_ms, f"{one.line:012d}")
        found[one.decision][one.metric].append(outcome)
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
