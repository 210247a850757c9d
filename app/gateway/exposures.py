"""Which decisions were put to use? One that only a bulk answer told of counts once somebody confirms it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from app.events.types import DecisionEvent
from app.gateway.entries import FUTURE_MS, Code, Rejected, attributed
from app.gateway.ofrep import KEPT_MS
from routing.claims import Claims
from routing.context import Encoder
from routing.snapshot import RouteTable
from routing.types import Route

EncoderOf = Callable[[Route], Encoder | None]
"""From a route to what reads its context; None: it declares none."""


class Exposure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One exposure on the wire: the decision whose arm was used, and the context in which it was made."""

    decision: str
    context: dict[str, Any] | None = None


def event_of(entry: object, table: RouteTable, now_ms: int, encoder_of: EncoderOf) -> DecisionEvent:
    """What to write down of an entry, against the routes and keys of a snapshot, at a moment in Unix ms.

    Raises:
        Rejected: it cannot be.
    """
    try:
        exposure = msgspec.convert(entry, Exposure)
    except (msgspec.ValidationError, UnicodeError) as error:
        raise Rejected(Code.BAD_EXPOSURE, f"exposure has the wrong shape: {error}") from error
    claims, route = attributed(exposure.decision, table)
    _require_timely(claims, route, now_ms)
    encoder = None if exposure.context is None else encoder_of(route)
    return DecisionEvent(
        decision=claims,
        served_arm_id=None,
        status=None,
        error=None,
        latency_ms=None,
        schema=0 if encoder is None else encoder.version,
        context=None if encoder is None else encoder.read(exposure.context or {}),
        confirmed=True,
    )


def _require_timely(claims: Claims, route: Route, now_ms: int) -> None:
    """Refuse what cannot have been decided yet, and what is so old that no outcome can count any more."""
    age_ms = now_ms - claims.at_ms
    if -age_ms > FUTURE_MS:
        raise Rejected(
            Code.FROM_FUTURE, f"decision must be at most {FUTURE_MS} ms from now, got {-age_ms} ms"
        )
    most_ms = KEPT_MS + max((metric.window_ms for metric in route.metrics), default=0)
    if age_ms > most_ms:
        bound = f"decision must be at most {most_ms} ms old for route {route.name}"
        raise Rejected(Code.TOO_LATE, f"{bound}, got {age_ms} ms")
