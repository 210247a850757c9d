"""What tests of copies stand on: a route with a shadow arm, and a mirror that copies what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from app.events.types import ShadowEvent
from app.gateway.copies import Copies
from app.gateway.counters import Counters
from app.gateway.health import Fleet
from app.gateway.mirror import Mirror
from app.gateway.pool import Pool
from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings
from app.gateway.snapshots import Routing
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Caller
from routing.types import Arm, Prediction, Role, Route
from tests.app.events.facts import claims
from tests.app.gateway.stage import (
    ArmServer,
    Stage,
    until,
)

PREDICTIONS = (
    Prediction(name="score", pointer="/score", numeric=True),
    Prediction(name="label", pointer="/label", numeric=False),
)
SHADOW = 3


@dataclass
class Shadowed:
    """A route with a shadow arm, and a mirror on a worker: its host, whose spool is a list."""

    stage: Stage
    shadow: ArmServer
    events: list[ShadowEvent] = field(default_factory=list)
    draining: bool = False
    pressed: bool = False
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counters = Counters("w0")
        self.fleet = Fleet()
        self.arm = Arm(id=SHADOW, name="next", url=self.url, role=Role.SHADOW)
        self.mirror = Mirror(self, self.counters, 4, self.fleet.of, lambda: self.pressed)
        self.adopt()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.shadow.port}/v3"

    @property
    def spool(self) -> Shadowed:
        return self

    def append(self, event: ShadowEvent) -> None:
        self.events.append(event)

    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt:
        attempt = self.stage.worker.attempt(caller, target, deadline)
        self.attempts.append(attempt)
        return attempt

    @property
    def routing(self) -> Routing:
        routing = self.stage.worker.routing
        assert routing is not None
        return routing

    @property
    def pool(self) -> Pool:
        """The shadow arm's connections."""
        return self.attempts[0].pool

    def adopt(self, *arms: Arm, **changes: Any) -> None:
        """Routes with these shadow arms from now on."""
        settings = {"arms": (*self.stage.arms(), *(arms or (self.arm,))), "predictions": PREDICTIONS}
        self.route: Route = self.stage.route(**{**settings, **changes})
        self.fleet.adopt([self.route])
        self.mirror.adopt(self.routing)
        self.shadows = self.mirror.shadows(self.routing, self.route)

    def copy(
        self,
        body: Sequence[bytes] | None = (b"ping",),
        nonce: int = 1,
        head: bytes = b"POST /r/bid/x?y=1 HTTP/1.1\r\nHost: h\r\nX-Kept: yes\r\nContent-Length: 4",
        arm_id: int = 2,
    ) -> Copies | None:
        """Forwards a request: the copies that are made of it."""
        request = Request()
        request.read_head(head, GatewaySettings())
        request.kept = None if body is None else list(body)

        def head_for(target: Target, left_ms: int) -> bytes:
            line = b"%b %b HTTP/1.1\r\n" % (request.method, target.request_target(b"/x", b"y=1"))
            framing = b"Transfer-Encoding: chunked\r\n" if request.chunked else b"Content-Length: %d\r\n"
            own = b"Kingmaker-Decision: token-%d\r\nKingmaker-Timeout-Ms: %d\r\n" % (nonce, left_ms)
            framed = framing if request.chunked else framing % (request.length or 0)
            return b"".join([line, target.fixed_lines, *request.lines, framed, own, b"\r\n"])

        decision, assigned = claims(nonce, arm_id), next(arm for arm in self.route.arms if arm.id == arm_id)
        wanted = self.mirror.wanted(self.shadows, assigned, decision, monotonic())
        return None if wanted is None else self.mirror.begin(wanted, decision, request, head_for)

    def made(self, **changes: Any) -> Copies:
        """As `copy`, where there must be one."""
        copies = self.copy(**changes)
        assert copies is not None
        return copies

    async def ended(self) -> None:
        """Until no copy is under way, and nothing of one is left."""
        await until(lambda: self.mirror.under_way == 0)
        assert all(attempt.over for attempt in self.attempts)
        assert not any(attempt.waiting for attempt in self.pool.waiting)
        await until(lambda: self.pool.open == len(self.pool.idle))

    async def compared(self, copies: Copies, body: bytes = b"ok") -> ShadowEvent:
        """The one event of a request with one copy, whose caller got this body."""
        await self.ended()
        copies.primary(self.stage.arms()[0], 200, 5.0, [body])
        (event,) = self.events
        return event

    def counted(self, name: str) -> dict[str, float]:
        """The values of a counter by its last label before the worker."""
        values = self.counters.dump().values
        found = {series: value for series, value in values.items() if series.startswith(name + "{")}
        return {series.split('"')[5]: value for series, value in found.items()}

    @property
    def drops(self) -> dict[str, float]:
        return self.counted("kingmaker_shadow_drops_total")

    @property
    def codes(self) -> dict[str, float]:
        return self.counted("kingmaker_shadow_requests_total")


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    """A whole answer with this body."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
