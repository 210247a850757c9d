"""Which decisions were put to use? One that only a bulk answer told of counts once somebody confirms it."""

from __future__ import annotations

import msgspec

from app.events.types import DecisionEvent
from app.gateway.entries import FUTURE_MS, Code, Rejected, attributed
from routing.snapshot import RouteTable


class Exposure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exposure on the wire: the decision whose arm was used."""

    decision: str


def event_of(entry: object, table: RouteTable, now_ms: int) -> DecisionEvent:
    """What to write down of an entry, against the routes and keys of a snapshot, at a moment in Unix ms.

    Raises:
        Rejected: it cannot be.
    """
    try:
        exposure = msgspec.convert(entry, Exposure)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise Rejected(Code.BAD_EXPOSURE, f"exposure has the wrong shape: {error}") from error
    claims, _ = attributed(exposure.decision, table)
    ahead_ms = claims.at_ms - now_ms
    if ahead_ms > FUTURE_MS:
        raise Rejected(
            Code.FROM_FUTURE, f"decision must be at most {FUTURE_MS} ms from now, got {ahead_ms} ms"
        )
    return DecisionEvent(decision=claims, served_arm_id=None, status=None, error=None, latency_ms=None)
