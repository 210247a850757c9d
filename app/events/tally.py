"""What do new events add to the daily rollups? Differences of sums, so that each event is looked at once.

A decision counts on its day, epoch and assigned arm; only what the split assigned may decide. What comes
after its day was judged is kept apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from app.clock import days_of
from app.db.rollups import RollupKey
from app.db.routes import StoredRoute
from app.db.tables import DECISIONS
from app.events.types import CALLER_LEFT, DecisionEvent
from policies.metrics import ERROR, LATENCY, Metric, Outcome, combine
from policies.rollups import Sums
from policies.types import Missing
from routing.bucketing import unit_bucket
from routing.claims import Claims
from routing.types import DRAWN


class Tally:
    """Collects differences; `deltas` is what is to be added to the rollups."""

    def __init__(self) -> None:
        self.deltas: dict[RollupKey, Sums] = defaultdict(Sums)

    def decided(self, route: StoredRoute, claims: Claims) -> None:
        """A decision is new. Until more is known, its assigned arm counts as having served it."""
        self._add(route, claims, DECISIONS, Sums(1, 1.0, 1.0))
        for metric in route.spec.metrics:
            if metric.missing is Missing.ZERO:
                self._add(route, claims, metric.name, Sums(1, 0.0, 0.0))

    def observed(self, route: StoredRoute, event: DecisionEvent) -> None:
        """How a decision ended has become known."""
        decide_only = event.status is None and event.error is None
        unserved = event.served_arm_id != event.decision.arm_id and event.status != CALLER_LEFT
        if unserved and not decide_only:
            self._add(route, event.decision, DECISIONS, Sums(0, -1.0, -1.0))
        if event.error is not None:
            self._add(route, event.decision, ERROR, _one(float(event.error)))
        if event.latency_ms is not None:
            self._add(route, event.decision, LATENCY, _one(event.latency_ms))

    def outcome(
        self,
        route: StoredRoute,
        claims: Claims,
        metric: Metric,
        before: Sequence[Outcome],
        after: Sequence[Outcome],
    ) -> None:
        """The outcomes of a metric that a decision has are no longer those before, but those after."""
        change = _sums(metric, combine(metric.aggregate, after))
        self._add(route, claims, metric.name, change - _sums(metric, combine(metric.aggregate, before)))

    def _add(self, route: StoredRoute, claims: Claims, metric: str, change: Sums) -> None:
        day = days_of(route.spec.policy).day_of(claims.at_ms)
        key = RollupKey(
            route_id=route.id,
            day=day,
            epoch=claims.epoch,
            arm_id=claims.arm_id,
            metric=metric,
            bucket=unit_bucket(claims.unit_hash) if claims.has_unit or route.spec.unit is not None else 0,
            deciding=claims.reason in DRAWN,
            late=day.end_ms <= route.frozen_through_ms,
        )
        self.deltas[key] = self.deltas[key] + change


def _sums(metric: Metric, value: float | None) -> Sums:
    if value is None:
        return _one(0.0) if metric.missing is Missing.ZERO else Sums()
    return _one(value)


def _one(value: float) -> Sums:
    return Sums(1, value, value * value)
