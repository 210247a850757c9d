"""Which requests are sent to shadow arms too? Some, as long as nobody who waits for an answer needs anything.

A copy is made once its request has gone to the arm that answers. It is the first thing to be dropped, nobody
waits for it, and its caller never hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from app.events.types import ArmAnswer, ShadowEvent
from app.gateway.bodies import chunked
from app.gateway.copies import TOO_LONG, Copies, Copy
from app.gateway.counters import Counters
from app.gateway.health import ArmHealth
from app.gateway.shadows import Drop, Shadow
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Caller, Failure
from routing.types import Arm, Role, Route

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


class Log(Protocol):
    """What a mirror needs of its worker's spool."""

    def append(self, event: ShadowEvent) -> None: ...


class Host(Protocol):
    """What a mirror needs of its worker."""

    @property
    def draining(self) -> bool: ...
    @property
    def spool(self) -> Log: ...
    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt: ...


class Mirror:
    """A worker's copies. Mutable state: those under way per arm, and what was last seen of the pools.

    `health_of` gives the health of an arm by its id; `is_pressed` says whether callers wait for connections.
    """

    def __init__(
        self,
        host: Host,
        counters: Counters,
        most_in_flight: int,
        health_of: Callable[[int], ArmHealth],
        is_pressed: Callable[[], bool],
    ) -> None:
        self._host = host
        self._counters = counters
        self._most_in_flight = most_in_flight
        self._health_of = health_of
        self._is_pressed = is_pressed
        self._pressed = False
        self._looked_at = -PRESSURE_SECONDS
        self._under_way: dict[int, set[Copy]] = {}

    def __repr__(self) -> str:
        return f"<Mirror with {self.under_way} copies under way>"

    @property
    def under_way(self) -> int:
        """Copies that have not ended."""
        return sum(map(len, self._under_way.values()))

    def shadows(self, routing: Routing, route: Route) -> tuple[Shadow, ...]:
        """The arms that are sent copies of a route's requests."""
        arms = [arm for arm in route.arms if arm.role is Role.SHADOW and arm.sample_bp > 0]
        return tuple(self._shadow(route, routing.targets[arm.id]) for arm in arms)

    def adopt(self, routing: Routing) -> None:
        """Forgets the arms that are gone, once no copy is under way to them."""
        gone = [arm for arm, copies in self._under_way.items() if not copies and arm not in routing.targets]
        for arm_id in gone:
            del self._under_way[arm_id]

    def wanted(
        self, shadows: tuple[Shadow, ...], assigned: Arm, claims: Claims, now: float
    ) -> list[Shadow] | None:
        """Those that are to be sent a copy of a decision for another arm, as it looks now; None for none."""
        wanted: list[Shadow] | None = None
        for shadow in shadows:
            if shadow.wants(assigned, claims, now):
                wanted = [shadow] if wanted is None else [*wanted, shadow]
        return wanted

    def begin(
        self, wanted: list[Shadow], claims: Claims, request: Request, head_for: HeadFor
    ) -> Copies | None:
        """Copies a request that was wholly forwarded, and kept; None when no copy was made. Never raises."""
        try:
            return self._copy(wanted, claims, request, head_for)
        except Exception:  # noqa: BLE001  # no fault in a copy may reach a caller
            _log.exception("a request was not copied", extra={"fields": {"route": wanted[0].route.name}})
            return None

    def attempt(self, copy: Copy, deadline: float) -> Attempt:
        """A new attempt for a copy."""
        return self._host.attempt(copy, copy.shadow.target, deadline)

    def on_end(self, copy: Copy, answer: ArmAnswer) -> None:
        """A copy has ended with an answer, or with what there is of one."""
        copy.shadow.copies.discard(copy)
        code = answer.failure or f"{(answer.status or 0) // 100}xx"
        copy.shadow.count("kingmaker_shadow_requests_total", "code", code)
        _judge(copy, answer)

    def record(self, event: ShadowEvent) -> None:
        """Writes down what a copy and its primary came to."""
        self._host.spool.append(event)

    def close(self) -> None:
        """Drops every copy under way."""
        for copy in [copy for copies in self._under_way.values() for copy in copies]:
            copy.cancel()
            copy.shadow.copies.discard(copy)
            copy.shadow.health.abandoned(copy.admitted_at)
            copy.shadow.drop(Drop.CLOSED)

    def _shadow(self, route: Route, target: Target) -> Shadow:
        arm_id = target.arm.id
        copies = self._under_way.setdefault(arm_id, set())
        return Shadow(route, target, copies, self._most_in_flight, self._health_of(arm_id), self._counters)

    def _copy(
        self, wanted: list[Shadow], claims: Claims, request: Request, head_for: HeadFor
    ) -> Copies | None:
        now = monotonic()
        body = request.kept
        allowed: list[Shadow] = []
        for shadow in wanted:
            reason = self._reason_to_drop(shadow, request, body, now)
            if reason is None:
                allowed.append(shadow)
            else:
                shadow.drop(reason)
        if not allowed:
            return None
        copies = Copies(self, allowed[0].route, claims)
        pieces = [*(body or ())]
        framed = chunked(pieces, True) if request.chunked else b"".join(pieces)
        for shadow in allowed:
            limit_ms = shadow.target.limits.timeout_ms
            data = b"%b%b\r\n%b" % (head_for(shadow.target, limit_ms)[:-2], _SHADOW_LINE, framed)
            self._start(
                Copy(
                    copies,
                    shadow,
                    request.method,
                    data,
                    may_repeat=request.idempotent,
                    admitted_at=now,
                    deadline=now + limit_ms / 1000,
                )
            )
        return copies

    def _start(self, copy: Copy) -> None:
        shadow = copy.shadow
        self._under_way[shadow.arm.id] = shadow.copies  # again, should its arm have gone since
        shadow.copies.add(copy)
        copy.ask()

    def _reason_to_drop(
        self, shadow: Shadow, request: Request, body: Sequence[bytes] | None, now: float
    ) -> Drop | None:
        """None when the copy may be made. The health is told last: it may count on what it lets through."""
        if self._host.draining:
            return Drop.DRAINING
        if request.upgrade is not None:
            return Drop.UPGRADE
        if body is None or sum(map(len, body)) > BODY_BYTES:
            return Drop.TOO_LONG
        if self._sees_pressure(now):
            return Drop.PRESSURE
        reason = shadow.reason_to_drop(now)
        if reason is None:
            shadow.health.admit(now)
        return reason

    def _sees_pressure(self, now: float) -> bool:
        if now - self._looked_at >= PRESSURE_SECONDS:
            self._pressed, self._looked_at = self._is_pressed(), now
        return self._pressed


def is_pressed(pools: Iterable[Pool]) -> bool:
    """Whether a caller waits for an arm to which no connection is on its way."""
    return any(
        len(pool.waiting) > pool.connecting for pool in pools if pool.target.arm.role is not Role.SHADOW
    )


def _judge(copy: Copy, answer: ArmAnswer) -> None:
    """Tells the arm's health how a copy ended. An answer that is too long for us is an answer."""
    shadow, now = copy.shadow, monotonic()
    if answer.failure == Failure.BUSY:
        shadow.health.abandoned(copy.admitted_at)
    elif answer.failure not in (None, TOO_LONG) or (answer.status or 0) >= 500:
        if shadow.health.failed(copy.admitted_at, now):
            shadow.count("kingmaker_ejections_total")
    else:
        shadow.health.succeeded(copy.admitted_at, now)
