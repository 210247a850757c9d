"""Who answers a request, and with what? Everything that the exchanges of one worker process share."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from app.events.spool import SpoolError
from app.events.types import DecisionEvent, Event, ShadowEvent
from app.gateway.bandits import BanditFigures
from app.gateway.budget import Budgets
from app.gateway.checks import Checks
from app.gateway.contexts import Values
from app.gateway.counters import Counters
from app.gateway.courses import Course
from app.gateway.decisions import Decision, decide
from app.gateway.dumps import Dump
from app.gateway.first_arms import FirstArms, Waiter, Waiting
from app.gateway.handlers import Handler
from app.gateway.health import Condition, Fleet
from app.gateway.http1 import ClientConnection
from app.gateway.intake import Options, Refusal, endpoint
from app.gateway.journal import Journal
from app.gateway.lanes import Lane
from app.gateway.mirror import Mirror, is_pressed
from app.gateway.own import Listeners
from app.gateway.plans import planned
from app.gateway.pool import Pool
from app.gateway.proxy import Exchange
from app.gateway.requests import Request
from app.gateway.resolver import Resolver
from app.gateway.settings import GatewaySettings
from app.gateway.snapshots import Routing
from app.gateway.targets import Target
from app.gateway.trust import Trust
from app.gateway.upstream import Attempt, CalledAttempt, Caller
from routing.addresses import address_rules
from routing.assignment import Asked, Plan
from routing.conditions import Subject
from routing.first_arm import FirstArm
from routing.types import Reason, Role, Route

TICK_SECONDS = 0.05
_SLOW_TICKS = 20
_NONCE_MASK: Final = (1 << 64) - 1
_DEFAULT: Final = Reason.DEFAULT
_KNOWN_PLACES = 4_096
_TOLD = 256
"""Callers too many who are told so at a time; the others are cut off."""

_KNOWN_PATH_LENGTH = 256
_DEFAULTS = GatewaySettings()
_COUNTED_FROM_THE_START = (
    "kingmaker_unrouted_requests_total",
    "kingmaker_outcomes_accepted_total",
    "kingmaker_exposures_accepted_total",
)
_log = logging.getLogger(__name__)


class Events(Protocol):
    """What a worker needs of its spool."""

    dropped: int

    @property
    def waiting(self) -> int: ...
    def append(self, event: DecisionEvent | ShadowEvent) -> None: ...
    def commit(self, events: Sequence[Event], done: Callable[[SpoolError | None], None]) -> None: ...


class Draws(Protocol):
    """Where random bits come from."""

    def getrandbits(self, bits: int, /) -> int: ...


class Worker:
    """What the exchanges share: routing, lanes to the arms, spool, counters, draws.

    Mutable state: `routing` (swapped whole), `parting` and `draining`, `held` (body bytes in memory), `quiet`
    (set while no caller is connected), the pools and lanes, and the connections and attempts that the tick
    sweeps for deadlines. `others` reads what the other workers have counted; `own` is where Kingmaker itself
    listens, where no arm may be. Without `first_arms` no unit keeps its first arm.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spool: Events,
        counters: Counters,
        draws: Draws,
        others: Callable[[], list[Dump]],
        settings: GatewaySettings = _DEFAULTS,
        journal: Journal | None = None,
        own: Listeners = frozenset(),
        first_arms: FirstArms | None = None,
    ) -> None:
        self.loop = loop
        self.first_arms = first_arms
        self.spool = spool
        self.counters = counters
        self.settings = settings
        self.routing: Routing | None = None
        self.parting = False
        self.draining = False
        self.held = 0
        self.quiet = asyncio.Event()
        self.quiet.set()
        self.trust = Trust(settings)
        self.journal = journal or Journal(spool, counters, self.trust)
        self.fleet = Fleet()
        self.mirror = self._new_mirror()
        self._bandits = BanditFigures(counters)
        self._budgets = Budgets()
        self._checks = Checks(self, self.fleet, random.random)
        self._rules = address_rules(settings.private_arms, settings.allow_networks, settings.deny_networks)
        self._resolver = Resolver(loop)
        self._own = own
        self._draws = draws
        self._others = others
        self._pools: dict[int, Pool] = {}
        self._courses: dict[int, Course] = {}
        self._plans: dict[int, tuple[Route, Plan]] = {}
        self._found: dict[tuple[bytes | None, str], Course] = {}
        self._lanes: dict[int, Lane] = {}
        self._connections: set[ClientConnection] = set()
        self._unwelcome: set[ClientConnection] = set()
        self._attempts: list[Attempt] = []
        self._ticks = 0
        for name in _COUNTED_FROM_THE_START:
            counters.add(name, by=0)  # a rate needs the 0 before the first event

    def open(self, connection: ClientConnection, request: Request) -> Handler:
        """What answers this request."""
        if request.stops_here:
            return Options(connection)
        course = self._found.get((request.host, request.path))
        if course is None:
            return self._find(connection, request)
        if request.forwarded and self.trust.is_loop(request.forwarded):
            return self._refuse_loop(connection)
        return Exchange(self, connection, request, course)

    def _find(self, connection: ClientConnection, request: Request) -> Handler:
        """What answers a request to a place that nobody has asked for lately."""
        handler = endpoint(self, connection, request)
        if handler is not None:
            return handler
        routing = self.routing
        if routing is None:
            return Refusal(connection, 503, "no snapshot has been loaded yet", b"Retry-After: 1\r\n")
        route = routing.table.find((request.host or b"").decode(), request.path)
        if route is None and request.path == "*":
            return Options(connection)
        if route is None:
            self.counters.add("kingmaker_unrouted_requests_total")
            return Refusal(connection, 404, "no route matches this host and path")
        if request.forwarded and self.trust.is_loop(request.forwarded):
            return self._refuse_loop(connection)
        course = self.course(routing, route)
        if len(self._found) >= _KNOWN_PLACES:
            self._found.clear()
        if len(request.path) <= _KNOWN_PATH_LENGTH:
            self._found[request.host, request.path] = course
        return Exchange(self, connection, request, course)

    def _refuse_loop(self, connection: ClientConnection) -> Handler:
        self.counters.add("kingmaker_refused_requests_total", "code", "508")
        return Refusal(connection, 508, "the request has been here before")

    def decide(
        self,
        routing: Routing,
        plan: Plan,
        unit: str | None,
        forced: bytes | None,
        context: Values | None = None,
        subject: Subject | None = None,
        first: FirstArm | None = None,
    ) -> Decision:
        """A new decision, with a draw and a nonce of its own. `subject` is what overrides look at.

        `first` is the arm that the unit got first, where that is known.
        """
        bits = self._draws.getrandbits(128)
        name = forced.decode("latin-1") if forced is not None else None
        at_ms = time.time_ns() // 1_000_000
        asked = Asked(unit, bits >> 64, name, at_ms, bits & _NONCE_MASK, subject, context, first)
        decision = decide(routing, plan, asked)
        if decision.assignment.reason is _DEFAULT:
            self.counters.add("kingmaker_assignment_failures_total", "route", plan.route.name)
        return decision

    def settle(
        self,
        routing: Routing,
        plan: Plan,
        unit: str | None,
        forced: bytes | None,
        context: Values | None,
        subject: Subject | None,
        waiter: Waiter,
    ) -> Decision | Waiting:
        """A new decision; or, where the unit may keep an arm that is not known here, what waits for it.

        Then `waiter` is told, unless that is cancelled.
        """
        first_arms = self.first_arms
        if first_arms is None or unit is None or not plan.keepable:
            return self.decide(routing, plan, unit, forced, context, subject)
        decide = partial(self.decide, routing, plan, unit, forced, context, subject)
        return first_arms.settle(plan, unit, decide, waiter)

    def plan(self, routing: Routing, route: Route) -> Plan:
        """How a route of a snapshot assigns; the same object as long as the snapshot is the newest."""
        known, before = self._plans.get(route.id, (None, None))
        if before is not None and known is route:
            return before
        plan = self._made_plan(route, before)
        if routing is self.routing:
            self._plans[route.id] = route, plan
            self._bandits.note(route, plan)
        return plan

    def course(self, routing: Routing, route: Route) -> Course:
        """A route as it is served by a snapshot."""
        if routing is not self.routing:
            return self._made_course(routing, route)
        known = self._courses.get(route.id)
        if known is None:
            known = self._courses[route.id] = self._made_course(routing, route)
        return known

    def forwarding_lines(self, request: Request, client: ClientConnection) -> bytes:
        """The fields that tell an arm where a request has been."""
        return self.trust.forwarding_lines(
            request.forwarded, request.host or b"", client.peer, client.trusted, request.http10
        )

    def pool(self, target: Target) -> Pool:
        """The connections to a target: those of its arm, unless the arm has moved.

        A target of an earlier snapshot, which moved since, has connections that serve once.
        """
        known = self._pools.get(target.arm.id)
        if known is not None and known.target is target:
            return known
        is_current = self.routing is None or self.routing.targets.get(target.arm.id) is target
        if known is not None and known.target.place == target.place:
            if is_current:
                known.adopt(target)
            return known
        pool = Pool(self.loop, target, rules=self._rules, own=self._own, resolver=self._resolver)
        if not is_current:
            pool.retire()
            return pool
        if known is not None:
            known.retire()
        self._pools[target.arm.id] = pool
        return pool

    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt:
        """A new attempt on an arm, watched for its deadline (monotonic seconds)."""
        attempt = CalledAttempt(caller, target, self.pool(target), deadline)
        self._attempts.append(attempt)
        return attempt

    def watch(self, attempt: Attempt) -> None:
        """Ends an attempt when its deadline has passed."""
        self._attempts.append(attempt)

    def adopt(self, routing: Routing) -> None:
        """Routes by another snapshot from now on; exchanges under way end with the one they began with."""
        routes = routing.table.snapshot.routes
        self.fleet.adopt(routes)
        self._bandits.adopt(routes)
        if self.first_arms is not None:
            self.first_arms.adopt(routes)
        self._budgets.adopt(routes)
        self._checks.adopt(routing)
        self.mirror.adopt(routing)
        self.counters.keep(
            (route.name, name) for route in routes for name in (*(arm.name for arm in route.arms), "none")
        )
        self.counters.set("kingmaker_snapshot_version", routing.version)
        self.routing = routing
        self._plans = {route.id: self._plans[route.id] for route in routes if route.id in self._plans}
        self._courses, self._found = {}, {}
        for arm_id in [arm_id for arm_id in self._pools if arm_id not in routing.targets]:
            self._pools.pop(arm_id).retire()
            self._lanes.pop(arm_id, None)

    def tick(self) -> None:
        """Ends what has passed its deadline: attempts at every tick, connections once a second."""
        now = time.monotonic()
        self._attempts = live = [attempt for attempt in self._attempts if not attempt.over]
        for attempt in live[:]:
            attempt.expire(now)
        self._checks.tick(now)
        self._ticks += 1
        if self._ticks % _SLOW_TICKS == 0:
            for connection in list(self._connections):
                connection.expire(now)
            for pool in self._pools.values():
                pool.expire_idle(now)

    def part(self) -> None:
        """Goes on, but is not ready any more, and whoever is answered is to go elsewhere next."""
        self.parting = True

    def drain(self) -> None:
        """Lets exchanges end, and nothing new begin."""
        self.parting = self.draining = True
        for connection in list(self._connections):
            connection.drain()

    def close(self) -> None:
        """Ends every connection at once."""
        self.mirror.close()
        self._checks.close()
        for connection in list(self._connections):
            connection.abort()
        for pool in self._pools.values():
            pool.retire()

    def figures(self) -> list[Dump]:
        """The figures of all workers of this gateway."""
        return [self.dump(), *self._others()]

    def dump(self) -> Dump:
        """The figures of this worker now."""
        counters = self.counters
        counters.set("kingmaker_connections", len(self._connections))
        counters.set("kingmaker_spool_waiting", self.spool.waiting)
        counters.set("kingmaker_spool_dropped_total", self.spool.dropped)
        counters.set("kingmaker_access_log_dropped_total", self.journal.lines_dropped)
        counters.set("kingmaker_spans_dropped_total", self.journal.spans_dropped)
        self._bandits.show(time.time_ns() // 1_000_000)
        self._show_lanes()
        return counters.dump()

    def is_trusted(self, peer: str) -> bool:
        """Whether what a peer says of where a request has been is believed."""
        return self.trust.is_trusted(peer)

    def on_connected(self, connection: ClientConnection) -> bool:
        """Takes a caller in; False when there are as many as may be, who is then told so, and leaves."""
        is_welcome = len(self._connections) - len(self._unwelcome) < self.settings.connections
        if not is_welcome:
            self._unwelcome.add(connection)
        self._connections.add(connection)
        self.quiet.clear()
        if len(self._unwelcome) > _TOLD:
            connection.abort()
        return is_welcome

    def on_lost(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        self._unwelcome.discard(connection)
        if not self._connections:
            self.quiet.set()

    def on_refused(self, status: int) -> None:
        self.counters.add("kingmaker_refused_requests_total", "code", str(status))

    def _made_course(self, routing: Routing, route: Route) -> Course:
        shadows = self.mirror.shadows(routing, route)
        plan = self.plan(routing, route)
        return Course(routing, plan, self._budgets.of(route.id), self._new_lane, shadows)

    def _made_plan(self, route: Route, before: Plan | None) -> Plan:
        made = planned(route, before)
        if made.left_out is not None:
            self.counters.add("kingmaker_plan_failures_total", "route", route.name)
            fields = {"route": route.name, "left_out": made.left_out}
            _log.error("a route is not planned whole", exc_info=made.error, extra={"fields": fields})
        return made.plan

    def _new_mirror(self) -> Mirror:
        def pressed() -> bool:
            return is_pressed(self._pools.values())

        return Mirror(self, self.counters, self.settings.shadow_in_flight, self.fleet.of, pressed)

    def _new_lane(self, route: Route, target: Target) -> Lane:
        arm = target.arm
        series = self.counters.series(route.name, arm.name)
        if (before := self._lanes.get(arm.id)) is not None:
            before.count_connects()
        has_fallback = arm.role is Role.CHALLENGER and route.upstream.fallback
        lane = Lane(target, self.pool(target), self.fleet.of(arm.id), series, has_fallback=has_fallback)
        self._lanes[arm.id] = lane
        for name in ("kingmaker_ejections_total", "kingmaker_fallbacks_total") if has_fallback else ():
            series.add(name, by=0)
        return lane

    def _show_lanes(self) -> None:
        """How the arms do that this worker has asked; a champion is asked however it does."""
        now = time.monotonic()
        for lane in self._lanes.values():
            lane.count_connects()
            condition = lane.health.condition(now)
            is_out = condition in (Condition.EJECTED, Condition.PROBING)
            is_champion = lane.target.arm.role is Role.CHAMPION
            lane.series.set("kingmaker_arm_healthy", condition is Condition.WELL)
            lane.series.set("kingmaker_arm_ejected", is_out and not is_champion)
