"""Who answers a request, and with what? Everything that the exchanges of one worker process share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from app.events.spool import SpoolError
from app.events.types import DecisionEvent, OutcomeEvent
from app.gateway.counters import Counters, Dump
from app.gateway.decisions import Decision, decide
from app.gateway.http1 import ClientConnection, Handler
from app.gateway.intake import Refusal, endpoint
from app.gateway.pool import Pool
from app.gateway.proxy import Exchange
from app.gateway.requests import Request
from app.gateway.snapshots import Routing
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Caller
from routing.types import Reason, Route

TICK_SECONDS = 0.05
_SLOW_TICKS = 20
_NONCE_MASK = (1 << 64) - 1


class Events(Protocol):
    """What a worker needs of its spool."""

    dropped: int

    @property
    def waiting(self) -> int: ...
    def append(self, event: DecisionEvent) -> None: ...
    def commit(self, events: Sequence[OutcomeEvent], done: Callable[[SpoolError | None], None]) -> None: ...


class Worker:
    """What the exchanges share: routing, pools, spool, counters, draws.

    Mutable state: `routing` (swapped whole), `draining`, `quiet` (set while no caller is connected), the
    pools, and the connections and attempts that the tick sweeps for deadlines. `others` reads what the other
    workers have counted.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spool: Events,
        counters: Counters,
        draws: Random,
        others: Callable[[], list[Dump]],
    ) -> None:
        self.loop = loop
        self.spool = spool
        self.counters = counters
        self.routing: Routing | None = None
        self.draining = False
        self.quiet = asyncio.Event()
        self.quiet.set()
        self._draws = draws
        self._others = others
        self._pools: dict[int, Pool] = {}
        self._connections: set[ClientConnection] = set()
        self._attempts: list[Attempt] = []
        self._ticks = 0

    def open(self, connection: ClientConnection, request: Request) -> Handler:
        """What answers this request."""
        handler = endpoint(self, connection, request)
        if handler is not None:
            return handler
        routing = self.routing
        if routing is None:
            return Refusal(connection, 503, "no snapshot has been loaded yet", b"Retry-After: 1\r\n")
        route = routing.table.find((request.host or b"").decode("latin-1"), request.path)
        if route is None:
            self.counters.add("kingmaker_unrouted_requests_total")
            return Refusal(connection, 404, "no route matches this host and path")
        return Exchange(self, connection, request, routing, route)

    def decide(self, routing: Routing, route: Route, unit: str | None, forced: bytes | None) -> Decision:
        """A new decision, with a draw and a nonce of its own."""
        bits = self._draws.getrandbits(128)
        name = forced.decode("latin-1") if forced is not None else None
        at_ms = time.time_ns() // 1_000_000
        decision = decide(
            routing, route, unit, name, at_ms=at_ms, entropy=bits >> 64, nonce=bits & _NONCE_MASK
        )
        if decision.assignment.reason is Reason.DEFAULT:
            self.counters.add("kingmaker_assignment_failures_total", "route", route.name)
        return decision

    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt:
        """A new attempt on an arm, watched for its deadline (monotonic seconds)."""
        pool = self._pools.get(target.arm.id)
        if pool is None or pool.target is not target:
            pool = self._pool(target)
        attempt = Attempt(caller, target, pool, deadline)
        self._attempts.append(attempt)
        return attempt

    def adopt(self, routing: Routing) -> None:
        """Routes by another snapshot from now on; exchanges under way end with the one they began with."""
        self.routing = routing
        self.counters.set("kingmaker_snapshot_version", routing.version)
        for arm_id in [arm_id for arm_id in self._pools if arm_id not in routing.targets]:
            self._pools.pop(arm_id).retire()

    def tick(self) -> None:
        """Ends what has passed its deadline: attempts at every tick, connections once a second."""
        now = time.monotonic()
        live = [attempt for attempt in self._attempts if not attempt.over]
        self._attempts = []
        for attempt in live:
            attempt.expire(now)
        self._attempts += [attempt for attempt in live if not attempt.over]
        self._ticks += 1
        if self._ticks % _SLOW_TICKS == 0:
            for connection in list(self._connections):
                connection.expire(now)
            for pool in self._pools.values():
                pool.expire_idle(now)

    def drain(self) -> None:
        """Lets exchanges end, and nothing new begin."""
        self.draining = True
        for connection in list(self._connections):
            connection.drain()

    def close(self) -> None:
        """Ends every connection at once."""
        for connection in list(self._connections):
            connection.abort()
        for pool in self._pools.values():
            pool.retire()

    def figures(self) -> list[Dump]:
        """The figures of all workers of this gateway."""
        return [self.dump(), *self._others()]

    def dump(self) -> Dump:
        """The figures of this worker now."""
        self.counters.set("kingmaker_connections", len(self._connections))
        self.counters.set("kingmaker_spool_waiting", self.spool.waiting)
        self.counters.set("kingmaker_spool_dropped_total", self.spool.dropped)
        return self.counters.dump()

    def on_connected(self, connection: ClientConnection) -> None:
        self._connections.add(connection)
        self.quiet.clear()

    def on_lost(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self.quiet.set()

    def on_refused(self, status: int) -> None:
        self.counters.add("kingmaker_refused_requests_total", "code", str(status))

    def _pool(self, target: Target) -> Pool:
        """The pool of a target that is new here: the arm's own, unless the arm has moved."""
        known = self._pools.get(target.arm.id)
        if known is not None and (known.target.host, known.target.port) == (target.host, target.port):
            known.target = target
            return known
        if known is not None:
            known.retire()
        self._pools[target.arm.id] = pool = Pool(self.loop, target)
        return pool
