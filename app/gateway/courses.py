"""What do all exchanges of one route share? Worked out once per snapshot and worker, read by each request."""

from __future__ import annotations

from collections.abc import Callable

from app.gateway.budget import RetryBudget
from app.gateway.contexts import ContextReader, RequestSubject, Values
from app.gateway.lanes import Lane
from app.gateway.requests import Request
from app.gateway.shadows import Shadow
from app.gateway.snapshots import Routing
from app.gateway.targets import Target
from app.gateway.units import body_of, reader_of
from routing.assignment import Plan
from routing.features import SourceKind
from routing.types import SERVING, Arm, Route


class Course:
    """A route as this worker serves it, by one snapshot. `shadows`: the arms that are sent copies.

    `reads_body`: what decides on the arm is in the body.
    """

    __slots__ = (
        "_context",
        "_lanes",
        "budget",
        "plan",
        "prefix_length",
        "reads_body",
        "route",
        "routing",
        "shadows",
        "timeout_seconds",
        "unit_of",
    )

    def __init__(
        self,
        routing: Routing,
        plan: Plan,
        budget: RetryBudget,
        new_lane: Callable[[Route, Target], Lane],
        shadows: tuple[Shadow, ...] = (),
    ) -> None:
        self.routing = routing
        route = plan.route
        encoder = plan.encoder
        self.plan = plan
        self.route = route
        self.budget = budget
        self.shadows = shadows
        self.prefix_length = len((route.match.path_prefix or "").rstrip("/"))
        self.timeout_seconds = route.upstream.timeout_ms / 1000
        sources = [feature.source for feature in route.context]
        body = body_of(sources if route.unit is None else [route.unit, *sources])
        self.unit_of = None if route.unit is None else reader_of(route.unit, body)
        self._context = None if encoder is None else ContextReader(encoder, body)
        unit_is_in_body = route.unit is not None and route.unit.kind is SourceKind.JSON
        self.reads_body = unit_is_in_body or (self._context is not None and self._context.reads_body)
        serving = [arm for arm in route.arms if arm.role in SERVING]
        self._lanes = {arm.id: new_lane(route, routing.targets[arm.id]) for arm in serving}

    def context(self, request: Request) -> Values | None:
        """What a request says of the declared features; None where the route declares none."""
        return None if self._context is None else self._context.read(request)

    def asked(self, request: Request, unit: str | None, context: Values | None) -> RequestSubject | None:
        """The request as overrides look at it; None where the route has none."""
        return None if self.plan.rules is None else RequestSubject(request, unit, context)

    def lane(self, arm: Arm) -> Lane:
        """How an arm that may serve is reached from here."""
        return self._lanes[arm.id]

    @property
    def is_crowded(self) -> bool:
        """Whether the connections that are left are for callers who have sent all of their request."""
        return any(lane.pool.is_half_busy for lane in self._lanes.values())
