"""What do all exchanges of one route share? Worked out once per snapshot and worker, read by each request."""

from __future__ import annotations

from collections.abc import Callable

from app.gateway.budget import RetryBudget
from app.gateway.lanes import Lane
from app.gateway.shadows import Shadow
from app.gateway.snapshots import Routing
from app.gateway.targets import Target
from app.gateway.units import reader_of
from routing.types import SERVING, Arm, Route, UnitKind


class Course:
    """A route as this worker serves it, by one snapshot. `shadows`: the arms that are sent copies."""

    __slots__ = (
        "_lanes",
        "budget",
        "prefix_length",
        "route",
        "routing",
        "shadows",
        "timeout_seconds",
        "unit_is_in_body",
        "unit_of",
    )

    def __init__(
        self,
        routing: Routing,
        route: Route,
        budget: RetryBudget,
        new_lane: Callable[[Route, Target], Lane],
        shadows: tuple[Shadow, ...] = (),
    ) -> None:
        self.routing = routing
        self.route = route
        self.budget = budget
        self.shadows = shadows
        self.prefix_length = len((route.match.path_prefix or "").rstrip("/"))
        self.timeout_seconds = route.upstream.timeout_ms / 1000
        self.unit_of = None if route.unit is None else reader_of(route.unit)
        self.unit_is_in_body = route.unit is not None and route.unit.kind is UnitKind.JSON
        serving = [arm for arm in route.arms if arm.role in SERVING]
        self._lanes = {arm.id: new_lane(route, routing.targets[arm.id]) for arm in serving}

    def lane(self, arm: Arm) -> Lane:
        """How an arm that may serve is reached from here."""
        return self._lanes[arm.id]

    @property
    def is_crowded(self) -> bool:
        """Whether the connections that are left are for callers who have sent all of their request."""
        return any(lane.pool.is_half_busy for lane in self._lanes.values())
