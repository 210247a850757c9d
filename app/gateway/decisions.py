"""Which arm is it, and what does the decision's token say? Whatever goes wrong, the champion answers."""

from __future__ import annotations

import logging

import msgspec

from app.events.types import DecisionEvent
from app.gateway.contexts import Values
from app.gateway.snapshots import Routing
from routing.assignment import Asked, Assignment, Plan, default
from routing.claims import Claims
from routing.tokens import sign

_log = logging.getLogger(__name__)


class Details(msgspec.Struct, frozen=True, gc=False):
    """What is written down of a decision where more than weights had a part in it. See `DecisionEvent`."""

    override_id: int | None
    schema: int
    context: Values | None
    considered_bp: int | None
    first_at_ms: int | None


class Decision(msgspec.Struct, frozen=True, gc=False):
    """One assignment, what its token says, the token, and the details, if there can be any."""

    assignment: Assignment
    claims: Claims
    token: str
    details: Details | None = None


def decide(routing: Routing, plan: Plan, asked: Asked) -> Decision:
    """Assigns a unit, or a request of its own, and signs.

    A unit that keeps its first arm is counted in the epoch in which it got it: there the shares are those by
    which it was drawn.
    """
    route = plan.route
    try:
        assignment = plan.assign(asked)
    except Exception:  # noqa: BLE001  # no fault in assignment may reach a caller
        _log.exception("assignment failed", extra={"fields": {"route": route.name}})
        assignment = default(route, asked)
    first = assignment.first
    claims = Claims(
        route.id,
        assignment.arm.id,
        assignment.unit_hash,
        assignment.has_unit,
        assignment.reason,
        assignment.propensity_bp,
        route.epoch if first is None else first.epoch,
        routing.version,
        asked.at_ms,
        asked.nonce,
        first is not None,
    )
    token = sign(claims, routing.key)
    if plan.is_plain:
        return Decision(assignment, claims, token)
    schema = 0 if plan.encoder is None else plan.encoder.version
    first_at_ms = None if first is None else first.at_ms
    details = Details(assignment.override_id, schema, asked.context, assignment.considered_bp, first_at_ms)
    return Decision(assignment, claims, token, details)


def event_of(
    decision: Decision,
    served_arm_id: int | None = None,
    status: int | None = None,
    error: bool | None = None,
    latency_ms: float | None = None,
) -> DecisionEvent:
    """What is written down of a decision; by default of one that only was asked for."""
    claims, details = decision.claims, decision.details
    if details is None:
        return DecisionEvent(
            decision=claims, served_arm_id=served_arm_id, status=status, error=error, latency_ms=latency_ms
        )
    return DecisionEvent(
        decision=claims,
        served_arm_id=served_arm_id,
        status=status,
        error=error,
        latency_ms=latency_ms,
        override_id=details.override_id,
        schema=details.schema,
        context=details.context,
        considered_bp=details.considered_bp,
        first_at_ms=details.first_at_ms,
    )
