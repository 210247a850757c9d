"""Events as a gateway writes them, and a spool to write them to."""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import Any

from app.events.spool import Spool, SpoolError
from app.events.types import ArmAnswer, DecisionEvent, Event, OutcomeEvent, ShadowEvent
from routing.claims import Claims
from routing.types import Reason

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
OLD, NEW, SHADOW = 1, 2, 3


def claims(nonce: int, arm_id: int = NEW, **changes: Any) -> Claims:
    """What the token of a decision says: by default drawn at noon, each request its own unit."""
    plain: dict[str, Any] = {
        "route_id": 1,
        "arm_id": arm_id,
        "unit_hash": nonce,
        "has_unit": False,
        "reason": Reason.SPLIT,
        "propensity_bp": 5_000,
        "epoch": 1,
        "snapshot": 1,
        "at_ms": NOON_MS,
        "nonce": nonce,
    }
    return Claims(**{**plain, **changes})


def made(decision: Claims, served_arm_id: int | None = None, **changes: Any) -> DecisionEvent:
    """A decision whose assigned arm answered well, unless told otherwise."""
    ended: dict[str, Any] = {
        "served_arm_id": served_arm_id or decision.arm_id,
        "status": 200,
        "error": False,
        "latency_ms": 8.0,
    }
    return DecisionEvent(decision=decision, **{**ended, **changes})


def told(
    decision: Claims,
    metric: str,
    value: float,
    key: str = "",
    at_ms: int = 1_000,
    received_at_ms: int = 2_000,
) -> OutcomeEvent:
    """An outcome; its times are counted from the decision."""
    return OutcomeEvent(
        decision=decision,
        metric=metric,
        value=value,
        at_ms=decision.at_ms + at_ms,
        received_at_ms=decision.at_ms + received_at_ms,
        key=key,
    )


def answered(arm_id: int, **changes: Any) -> ArmAnswer:
    """What an arm answered: all is well, unless told otherwise."""
    plain: dict[str, Any] = {
        "arm_id": arm_id,
        "status": 200,
        "failure": None,
        "latency_ms": 8.0,
        "body_hash": "0" * 32,
        "body_bytes": 2,
        "predictions": {},
    }
    return ArmAnswer(**{**plain, **changes})


def copied(
    decision: Claims, shadow: ArmAnswer | None = None, primary: ArmAnswer | None = None, at_ms: int = 1_000
) -> ShadowEvent:
    """A copy of a request, by default answered as its primary was; its time is counted from the decision."""
    return ShadowEvent(
        decision=decision,
        at_ms=decision.at_ms + at_ms,
        shadow=shadow or answered(SHADOW),
        primary=primary or answered(decision.arm_id),
    )


def write(path: Path, *events: Event) -> None:
    """Writes events to a spool, in this order."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    for event in events:
        if isinstance(event, OutcomeEvent):
            spool.commit([event], answers.put)
            assert answers.get(timeout=10) is None
        else:
            spool.append(event)
    spool.close()
    assert spool.dropped == 0
