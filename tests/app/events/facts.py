"""Events as a gateway writes them, and a spool to write them to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from app.events.spool import Spool, SpoolError
from app.events.types import DecisionEvent, Event, OutcomeEvent
from routing.tokens import Claims
from routing.types import Reason

DAY_MS = 86_400_000
NOON_MS = 20_000 * DAY_MS + DAY_MS // 2
OLD, NEW = 1, 2


def claims(nonce: int, arm_id: int = NEW, **changes: Any) -> Claims:
    """What the token of a decision says: by default drawn at noon, each request its own unit."""
    plain = Claims(
        route_id=1,
        arm_id=arm_id,
        unit_hash=nonce,
        has_unit=False,
        reason=Reason.SPLIT,
        propensity_bp=5_000,
        epoch=1,
        snapshot=1,
        at_ms=NOON_MS,
        nonce=nonce,
    )
    return replace(plain, **changes)


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


def write(path: Path, *events: Event) -> None:
    """Writes events to a spool, in this order."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    for event in events:
        if isinstance(event, DecisionEvent):
            spool.append(event)
        else:
            spool.commit([event], answers.put)
            assert answers.get(timeout=10) is None
    spool.close()
    assert spool.dropped == 0
