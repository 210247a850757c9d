"""The gateway's own endpoints: decide, outcomes, health, metrics."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from app.events.spool import SpoolError
from app.events.types import DecisionEvent
from app.gateway.counters import OPENMETRICS_TYPE, TEXT_TYPE, is_openmetrics, render
from app.gateway.outcomes import BodyRefused, TooMany, Verdict, judge, parse
from app.gateway.replies import JSON, PROBLEM, problem
from routing.types import TOTAL_BP

if TYPE_CHECKING:
    from app.gateway.handlers import Handler
    from app.gateway.http1 import ClientConnection
    from app.gateway.requests import Request
    from app.gateway.snapshots import Routing
    from app.gateway.worker import Worker
    from routing.snapshot import RouteTable

DECIDE_BYTES = 1024 * 1024
OUTCOMES_BYTES = 8 * 1024 * 1024
_SLICE = 200
_RETRY = b"Retry-After: 1\r\n"


class DecideBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be sent to decide. `context` is for routes that declare features of it; weights need none."""

    unit: str | None = None
    context: dict[str, Any] = {}


class Refusal:
    """A request that is answered with a problem, whatever its body."""

    def __init__(self, client: ClientConnection, status: int, detail: str, lines: bytes = b"") -> None:
        self._client = client
        self._status = status
        self._detail = detail
        self._lines = lines

    def start(self) -> None:
        self._client.answer(self._status, problem(self._status, self._detail), PROBLEM, self._lines)

    def on_body(self) -> None:
        pass

    def abandon(self, status: int | None = None) -> None:
        pass

    def pause_answer(self) -> None:
        pass

    def resume_answer(self) -> None:
        pass


class Options(Refusal):
    """`OPTIONS` of the gateway itself: what it passes on, and takes."""

    def __init__(self, client: ClientConnection) -> None:
        super().__init__(client, 200, "")

    def start(self) -> None:
        self._client.answer(200, b"", lines=b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n")


class Endpoint:
    """A request to the gateway itself: answered once its whole body is there."""

    def __init__(self, worker: Worker, client: ClientConnection, request: Request, limit_bytes: int) -> None:
        self.worker = worker
        self.request = request
        self._client: ClientConnection | None = client
        self._limit_bytes = limit_bytes
        self._begun = False
        request.hold_bytes = limit_bytes

    def start(self) -> None:
        self.on_body()

    def on_body(self) -> None:
        if self._begun:
            return
        if max(self.request.pending, self.request.length or 0) > self._limit_bytes:
            self._begun = True
            self.refuse(413, f"body must be at most {self._limit_bytes} bytes, got more")
        elif self.request.complete:
            self._begun = True
            self.respond(b"".join(self.request.take_body()))

    def abandon(self, status: int | None = None) -> None:
        self._client = None

    def pause_answer(self) -> None:
        pass

    def resume_answer(self) -> None:
        pass

    def respond(self, body: bytes) -> None:
        """Answers the whole request."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes, content_type: bytes = JSON, lines: bytes = b"") -> None:
        """Sends the answer, if the caller is still there."""
        client, self._client = self._client, None
        if client is not None:
            client.answer(status, body, content_type, lines)

    def refuse(self, status: int, detail: str, lines: bytes = b"") -> None:
        """Sends a problem."""
        self.answer(status, problem(status, detail), PROBLEM, lines)


class Health(Endpoint):
    """`GET /healthz`: the worker is alive."""

    def respond(self, body: bytes) -> None:
        self.answer(200, b'{"status":"ok"}')


class Readiness(Endpoint):
    """`GET /readyz`: the worker has a snapshot, and takes requests."""

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None or self.worker.parting:
            self.refuse(503, "draining" if routing is not None else "no snapshot has been loaded yet", _RETRY)
        else:
            self.answer(200, b'{"status":"ok","snapshot":%d}' % routing.version)


class Metrics(Endpoint):
    """`GET /metrics`: the figures of all workers."""

    def respond(self, body: bytes) -> None:
        openmetrics = is_openmetrics(self.request.field(b"accept") or b"")
        text = render(self.worker.figures(), openmetrics=openmetrics)
        self.answer(200, text.encode(), OPENMETRICS_TYPE if openmetrics else TEXT_TYPE)


class Decide(Endpoint):
    """`POST /v1/decide/{route}`: the assignment alone."""

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None:
            self.refuse(503, "no snapshot has been loaded yet", _RETRY)
            return
        try:
            wanted = msgspec.json.decode(body or b"{}", type=DecideBody)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            self.refuse(422, f"body is not a decide request: {error}")
            return
        self._decide(routing, wanted.unit or None)

    def _decide(self, routing: Routing, unit: str | None) -> None:
        name = self.request.path.removeprefix("/v1/decide/")
        route = routing.table.by_name(name)
        if route is None:
            self.refuse(404, f"route must be one of the gateway's, got {name!r}")
            return
        decision = self.worker.decide(routing, route, unit, self.request.forced)
        assignment = decision.assignment
        self.worker.spool.append(
            DecisionEvent(
                decision=decision.claims, served_arm_id=None, status=None, error=None, latency_ms=None
            )
        )
        names = {arm.id: arm.name for arm in route.arms}
        answer = {
            "decision": decision.token,
            "route": route.name,
            "arm": assignment.arm.name,
            "url": assignment.arm.url,
            "reason": assignment.reason,
            "propensity": assignment.propensity_bp / TOTAL_BP,
            "probabilities": {
                names[arm_id]: bp / TOTAL_BP for arm_id, bp in assignment.probabilities.items()
            },
            "snapshot": routing.version,
        }
        self.answer(200, msgspec.json.encode(answer))


class Outcomes(Endpoint):
    """`POST /v1/outcomes`: answered only once what it accepts is on disk."""

    def respond(self, body: bytes) -> None:
        routing = self.worker.routing
        if routing is None:
            self.refuse(503, "no snapshot has been loaded yet", _RETRY)
            return
        try:
            entries = parse(body, self.request.field(b"content-type") or b"")
        except BodyRefused as error:
            self.refuse(413 if isinstance(error, TooMany) else 422, str(error))
            return
        self._judge(entries, routing.table, time.time_ns() // 1_000_000, Verdict(), 0)

    def _judge(
        self, entries: list[object], table: RouteTable, now_ms: int, verdict: Verdict, first: int
    ) -> None:
        """Judges a slice, and the rest when the requests that wait have had their turn."""
        judge(entries[first : first + _SLICE], table, now_ms, verdict, first)
        if first + _SLICE < len(entries):
            self.worker.loop.call_soon(self._judge, entries, table, now_ms, verdict, first + _SLICE)
        else:
            self._commit(verdict)

    def _commit(self, verdict: Verdict) -> None:
        if not verdict.accepted:
            self._report(verdict, None)
            return
        self.worker.spool.commit(verdict.accepted, partial(self._on_committed, verdict))

    def _on_committed(self, verdict: Verdict, error: SpoolError | None) -> None:
        self.worker.loop.call_soon_threadsafe(self._report, verdict, error)

    def _report(self, verdict: Verdict, error: SpoolError | None) -> None:
        if error is not None:
            self.refuse(503, f"outcomes could not be made durable: {error}", _RETRY)
            return
        counters = self.worker.counters
        counters.add("kingmaker_outcomes_accepted_total", by=len(verdict.accepted))
        for rejection in verdict.rejected:
            counters.add("kingmaker_outcomes_rejected_total", "code", rejection.code)
        self.answer(202 if verdict.accepted or not verdict.rejected else 422, verdict.document())


def endpoint(worker: Worker, client: ClientConnection, request: Request) -> Handler | None:
    """The endpoint with a reserved path, or a refusal of its method; None where the path may be a route's."""
    path = request.path
    found = _ENDPOINTS.get("/v1/decide/" if path.startswith("/v1/decide/") else path)
    if found is None:
        return None
    methods, kind, limit_bytes = found
    if request.method not in methods:
        allowed = b", ".join(methods)
        detail = f"method must be {allowed.decode()}, got {request.method.decode()}"
        return Refusal(client, 405, detail, b"Allow: %b\r\n" % allowed)
    return kind(worker, client, request, limit_bytes)


_READ = (b"GET", b"HEAD")
_ENDPOINTS: dict[str, tuple[tuple[bytes, ...], type[Endpoint], int]] = {
    "/healthz": (_READ, Health, DECIDE_BYTES),
    "/readyz": (_READ, Readiness, DECIDE_BYTES),
    "/metrics": (_READ, Metrics, DECIDE_BYTES),
    "/v1/decide/": ((b"POST",), Decide, DECIDE_BYTES),
    "/v1/outcomes": ((b"POST",), Outcomes, OUTCOMES_BYTES),
}
