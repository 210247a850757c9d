"""Which decisions were put to use? One that only a bulk answer told of counts once somebody confirms it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from app.events.types import DecisionEvent
from app.gateway.entries import FUTURE_MS, Code, Rejected, Verdict, attributed
from routing.snapshot import RouteTable


class Exposure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exposure on the wire: the decision whose arm was used."""

    decision: str


def judge(
    entries: Sequence[object],
    table: RouteTable,
    now_ms: int,
    verdict: Verdict[DecisionEvent] | None = None,
    first: int = 0,
) -> Verdict[DecisionEvent]:
    """What to record of the entries, against the routes and keys of a snapshot, at a moment in Unix ms.

    A part of many is added to the `verdict` of those before it; `first` is the index of its first entry.
    """
    verdict = Verdict() if verdict is None else verdict
    verdict.judge(entries, first, partial(_event, table=table, now_ms=now_ms))
    return verdict


def _event(entry: object, table: RouteTable, now_ms: int) -> DecisionEvent:
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
