"""Which reported outcomes can be believed? Each is judged alone; the token says what it belongs to."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec

from app.events.types import OutcomeEvent
from app.gateway.entries import FUTURE_MS, Code, Rejected, attributed
from routing.claims import Claims
from routing.snapshot import RouteTable
from routing.types import MetricRule

MAGNITUDE = 1e15
KEY_CHARACTERS = 256


class Outcome(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One outcome on the wire."""

    decision: str
    metric: str
    value: bool | int | float
    at: datetime | None = None
    id: str = ""


def event_of(entry: object, table: RouteTable, now_ms: int) -> OutcomeEvent:
    """What to write down of an entry, against the routes and keys of a snapshot, at a moment in Unix ms.

    Raises:
        Rejected: it cannot be.
    """
    outcome = _outcome(entry)
    claims, route = attributed(outcome.decision, table)
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
