"""Which requests are sent to shadow arms too? Some, as long as nobody who waits for an answer needs anything.

A copy is made once its request has gone to the arm that answers. It is the first thing to be dropped, nobody
waits for it, and its caller never hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from hashlib import blake2b
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from app.events.types import ArmAnswer, ShadowEvent
from app.gateway.bodies import chunked
from app.gateway.copies import TOO_LONG, Copies, Copy
from app.gateway.health import Admission, ArmHealth
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Caller, Failure
from routing.bucketing import bucket
from routing.types import TOTAL_BP, Arm, Role, Route

if TYPE_CHECKING:
    from app.gateway.pool import Pool
    from app.gateway.requests import Request
    from app.gateway.snapshots import Routing
    from routing.claims import Claims

BODY_BYTES = 64 * 1024
"""The longest request body that is copied."""

PRESSURE_SECONDS = 0.01
"""How long a look at the pools is believed: there may be thousands of them."""

_SHADOW_LINE = b"Kingmaker-Shadow: true\r\n"
_log = logging.getLogger(__name__)

HeadFor = Callable[[Target, int], bytes]
"""Writes the head of a request for an arm that has so many milliseconds, with the empty line at its end."""


class Drop(StrEnum):
    """Why a copy that was drawn is not made, or not ended."""

    DRAINING = "draining"
    UPGRADE = "upgrade"
    TOO_LONG = "too_long"
    IN_FLIGHT = "in_flight"
    PRESSURE = "pressure"
    EJECTED = "ejected"
    CLOSED = "closed"


class Counting(Protocol):
    """What a mirror needs of its worker's counters."""

    def add(self, name: str, *labels: str) -> None: ...


class Log(Protocol):
    """What a mirror needs of its worker's spool."""

    def append(self, event: ShadowEvent) -> None: ...


class Host(Protocol):
    """What a mirror needs of its worker."""

    @property
    def draining(self) -> bool: ...
    @property
    def counters(self) -> Counting: ...
    @property
    def spool(self) -> Log: ...
    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt: ...


class Mirror:
    """A worker's copies. Mutable state: the newest routing's shadow arms, and the copies under way per arm.

    `health_of` gives the health of an arm by its id; `is_pressed` says whether callers wait for connections.
    """

    def __init__(
        self,
        host: Host,
        most_in_flight: int,
        health_of: Callable[[int], ArmHealth],
        is_pressed: Callable[[], bool],
    ) -> None:
        self._host = host
        self._most_in_flight = most_in_flight
        self._health_of = health_of
        self._is_pressed = is_pressed
        self._pressed = False
        self._looked_at = -PRESSURE_SECONDS
        self._routing: Routing | None = None
        self._shadows: Mapping[int, Sequence[Target]] = {}
        self._under_way: dict[int, set[Copy]] = {}

    def __repr__(self) -> str:
        return f"<Mirror of {len(self._shadows)} routes, {self.under_way} copies under way>"

    @property
    def under_way(self) -> int:
        """Copies that have not ended."""
        return sum(map(len, self._under_way.values()))

    def adopt(self, routing: Routing) -> None:
        """Finds the shadow arms of a new routing, so that a request without any costs a look-up only."""
        found = ((route.id, _shadows_of(routing, route)) for route in routing.table.snapshot.routes)
        self._shadows = {route_id: targets for route_id, targets in found if targets}
        self._routing = routing

    def watches(self, routing: Routing, route: Route) -> bool:
        """Whether copies may be wanted of a route's requests, so that their bodies are to be kept."""
        return bool(self._targets(routing, route))

    def begin(
        self,
        routing: Routing,
        route: Route,
        request: Request,
        claims: Claims,
        body: Sequence[bytes] | None,
        head_for: HeadFor,
    ) -> Copies | None:
        """Copies a request that was wholly forwarded; None when no copy was made. Never raises.

        `body` is None when it was too long to be kept.
        """
        if not (targets := self._targets(routing, route)):
            return None
        try:
            return self._copy(targets, route, request, claims, body, head_for)
        except Exception:  # noqa: BLE001  # no fault in a copy may reach a caller
            _log.exception("a request was not copied", extra={"fields": {"route": route.name}})
            return None

    def attempt(self, copy: Copy, target: Target, deadline: float) -> Attempt:
        """A new attempt for a copy."""
        return self._host.attempt(copy, target, deadline)

    def on_end(self, copy: Copy, answer: ArmAnswer) -> None:
        """A copy has ended with an answer, or with what there is of one."""
        self._forget(copy)
        route, arm, status = copy.route, copy.target.arm, answer.status
        code = answer.failure or f"{(status or 0) // 100}xx"
        self._host.counters.add(
            "kingmaker_shadow_requests_total", "route", route.name, "arm", arm.name, "code", code
        )
        self._judge(copy, answer)

    def record(self, event: ShadowEvent) -> None:
        """Writes down what a copy and its primary came to."""
        self._host.spool.append(event)

    def close(self) -> None:
        """Drops every copy under way."""
        for copy in [copy for copies in self._under_way.values() for copy in copies]:
            copy.cancel()
            self._forget(copy)
            self._health_of(copy.target.arm.id).abandoned(copy.admitted_at)
            self._count_drop(copy.route, copy.target.arm, Drop.CLOSED)

    def _targets(self, routing: Routing, route: Route) -> Sequence[Target]:
        if routing is self._routing:
            return self._shadows.get(route.id, ())
        return _shadows_of(routing, route)

    def _copy(
        self,
        targets: Sequence[Target],
        route: Route,
        request: Request,
        claims: Claims,
        body: Sequence[bytes] | None,
        head_for: HeadFor,
    ) -> Copies | None:
        now = monotonic()
        allowed: list[Target] = []
        for target in targets:
            if _is_drawn(target.arm, route.salt, claims):
                reason = self._reason_to_drop(request, body, target.arm, now)
                if reason is None:
                    allowed.append(target)
                else:
                    self._count_drop(route, target.arm, reason)
        if not allowed:
            return None
        copies = Copies(self, route, claims)
        pieces = [*(body or ())]
        framed = chunked(pieces, True) if request.chunked else b"".join(pieces)
        for target in allowed:
            head = head_for(target, target.limits.timeout_ms)
            data = b"%b%b\r\n%b" % (head[:-2], _SHADOW_LINE, framed)
            self._start(
                Copy(
                    copies,
                    target,
                    request.method,
                    data,
                    may_repeat=request.idempotent,
                    admitted_at=now,
                    deadline=now + target.limits.timeout_ms / 1000,
                )
            )
        return copies

    def _start(self, copy: Copy) -> None:
        self._under_way.setdefault(copy.target.arm.id, set()).add(copy)
        copy.ask()

    def _forget(self, copy: Copy) -> None:
        arm_id = copy.target.arm.id
        copies = self._under_way[arm_id]
        copies.discard(copy)
        if not copies:
            del self._under_way[arm_id]

    def _reason_to_drop(
        self, request: Request, body: Sequence[bytes] | None, arm: Arm, now: float
    ) -> Drop | None:
        """None when the copy may be made. The health is asked last: it may count on what it lets through."""
        if self._host.draining:
            return Drop.DRAINING
        if len(self._under_way.get(arm.id, ())) >= self._most_in_flight:
            return Drop.IN_FLIGHT
        if request.upgrade is not None:
            return Drop.UPGRADE
        if body is None or sum(map(len, body)) > BODY_BYTES:
            return Drop.TOO_LONG
        if self._sees_pressure(now):
            return Drop.PRESSURE
        return Drop.EJECTED if self._health_of(arm.id).admit(now) is Admission.NO else None

    def _sees_pressure(self, now: float) -> bool:
        if now - self._looked_at >= PRESSURE_SECONDS:
            self._pressed, self._looked_at = self._is_pressed(), now
        return self._pressed

    def _count_drop(self, route: Route, arm: Arm, reason: Drop) -> None:
        self._host.counters.add(
            "kingmaker_shadow_drops_total", "route", route.name, "arm", arm.name, "reason", reason
        )

    def _judge(self, copy: Copy, answer: ArmAnswer) -> None:
        """Tells the arm's health how a copy ended. An answer that is too long for us is an answer."""
        route, arm, now = copy.route, copy.target.arm, monotonic()
        health = self._health_of(arm.id)
        if answer.failure == Failure.BUSY:
            health.abandoned(copy.admitted_at)
        elif answer.failure not in (None, TOO_LONG) or (answer.status or 0) >= 500:
            if health.failed(copy.admitted_at, now):
                self._host.counters.add("kingmaker_ejections_total", "route", route.name, "arm", arm.name)
        else:
            health.succeeded(copy.admitted_at, now)


def is_pressed(pools: Iterable[Pool]) -> bool:
    """Whether a caller waits for an arm to which no connection is on its way."""
    return any(
        len(pool.waiting) > pool.connecting for pool in pools if pool.target.arm.role is not Role.SHADOW
    )


def _shadows_of(routing: Routing, route: Route) -> Sequence[Target]:
    return tuple(
        routing.targets[arm.id] for arm in route.arms if arm.role is Role.SHADOW and arm.sample_bp > 0
    )


def _is_drawn(arm: Arm, salt: str, claims: Claims) -> bool:
    """Whether a decision is in a shadow arm's sample: by a hash of its nonce, for each arm anew."""
    if arm.id == claims.arm_id:
        return False
    if arm.sample_bp >= TOTAL_BP:
        return True
    drawn = blake2b(b"%016x%x" % (claims.nonce, arm.id), digest_size=8, key=salt.encode(), person=b"shadow")
    return bucket(int.from_bytes(drawn.digest(), "big")) < arm.sample_bp
