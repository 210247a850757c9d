"""Which arm is it, and what does the decision's token say? Whatever goes wrong, the champion answers."""

from __future__ import annotations

import logging

import msgspec

from app.gateway.snapshots import Routing
from routing.assignment import Assignment, assign, default
from routing.claims import Claims
from routing.tokens import sign
from routing.types import Route

_log = logging.getLogger(__name__)


class Decision(msgspec.Struct, frozen=True, gc=False):
    """One assignment, what its token says, and the token."""

    assignment: Assignment
    claims: Claims
    token: str


def decide(
    routing: Routing,
    route: Route,
    unit: str | None,
    forced: str | None,
    *,
    at_ms: int,
    entropy: int,
    nonce: int,
) -> Decision:
    """Assigns a unit, or a request of its own, and signs. `entropy` and `nonce` are 64 random bits each."""
    try:
        assignment = assign(route, unit, entropy, forced)
    except Exception:  # noqa: BLE001  # no fault in assignment may reach a caller
        _log.exception("assignment failed", extra={"fields": {"route": route.name}})
        assignment = default(route, entropy)
    claims = Claims(
        route.id,
        assignment.arm.id,
        assignment.unit_hash,
        assignment.has_unit,
        assignment.reason,
        assignment.propensity_bp,
        route.epoch,
        routing.version,
        at_ms,
        nonce,
    )
    return Decision(assignment, claims, sign(claims, routing.key))
