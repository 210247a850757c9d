"""What value does a decision have for a metric, given the outcomes reported for it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from policies.types import Aggregate, Better, Kind, Missing

ERROR = "error"
LATENCY = "latency_ms"
GATEWAY_METRICS = (ERROR, LATENCY)
"""Metrics that the gateway supplies for every arm, measured on the assigned arm's own attempt."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A declared metric of a route. `window_ms`: how long after its decision an outcome counts."""

    name: str
    kind: Kind
    better: Better = Better.HIGHER
    window_ms: int = 86_400_000
    aggregate: Aggregate = Aggregate.FIRST
    missing: Missing = Missing.SKIP


@dataclass(frozen=True, slots=True)
class Outcome:
    """One reported value: when it happened, when it was received (Unix ms), its event's place in the log."""

    value: float
    at_ms: int
    received_at_ms: int
    event: str


def combine(aggregate: Aggregate, outcomes: Sequence[Outcome]) -> float | None:
    """The decision's value, or None without outcomes.

    `first` is the one received first, then the smallest event; `last` the greatest (at, event).
    """
    if not outcomes:
        return None
    match aggregate:
        case Aggregate.FIRST:
            return min(outcomes, key=lambda outcome: (outcome.received_at_ms, outcome.event)).value
        case Aggregate.LAST:
            return max(outcomes, key=lambda outcome: (outcome.at_ms, outcome.event)).value
        case Aggregate.SUM:
            return sum(outcome.value for outcome in outcomes)
        case Aggregate.MAX:
            return max(outcome.value for outcome in outcomes)
        case _:
            assert_never(aggregate)
