"""One exchange: assign, forward, fall back, respond, record."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from app.events.types import CALLER_LEFT, DecisionEvent
from app.gateway.answers import PROBLEM, Answer, Framing, chunked, problem
from app.gateway.decisions import Decision
from app.gateway.targets import request_head
from app.gateway.units import JSON_BYTES, unit_of
from app.gateway.upstream import Attempt, Failure, UpstreamConnection
from routing.types import Arm, Reason, Role, Route, UnitKind

if TYPE_CHECKING:
    from app.gateway.http1 import ClientConnection
    from app.gateway.requests import Request
    from app.gateway.snapshots import Routing
    from app.gateway.worker import Worker

REPLAY_BYTES = 1024 * 1024
"""The longest request body that is kept for a second arm."""

HELD_BYTES = 64 * 1024
"""The longest answer of a challenger that is held until it is whole, so that the champion still can."""

_STATUS = {
    Failure.UNREACHABLE: 502,
    Failure.MALFORMED: 502,
    Failure.CUT_OFF: 502,
    Failure.STATUS: 502,
    Failure.BUSY: 503,
    Failure.TIMEOUT: 504,
}
_DETAIL = {
    Failure.UNREACHABLE: "the arm cannot be reached",
    Failure.MALFORMED: "the arm's answer is not well-formed HTTP/1.1",
    Failure.CUT_OFF: "the arm closed the connection before it had answered",
    Failure.STATUS: "the arm failed",
    Failure.BUSY: "no connection to the arm was free in time",
    Failure.TIMEOUT: "the arm did not answer in time",
}


class Exchange:
    """A request on its way: which arm was assigned, which one is asked, and what became of it."""

    def __init__(
        self, worker: Worker, client: ClientConnection, request: Request, routing: Routing, route: Route
    ):
        self.method = request.method
        self._worker = worker
        self._client = client
        self._request = request
        self._routing = routing
        self._route = route
        self._decision: Decision | None = None
        self._token = b""
        self._reason = Reason.DEFAULT
        self._assigned: Arm = route.champion
        self._attempt: Attempt | None = None
        self._kept: list[bytes] | None = None
        self._kept_bytes = 0
        self._asked_at = 0.0
        self._allowed_seconds = 0.0
        self._repeated = False
        self._framing: Framing | None = None
        self._status = CALLER_LEFT
        self._measured: tuple[bool, float] | None = None
        self._recorded = False

    def start(self) -> None:
        """Decides at once, unless the unit is in a body that is still to come."""
        source = self._route.unit
        if source is not None and source.kind is UnitKind.JSON and not self._request.complete:
            self._request.hold_bytes = JSON_BYTES
        else:
            self._decide()

    def on_body(self) -> None:
        """There is more of the request, or all of it."""
        request, attempt = self._request, self._attempt
        if self._decision is None:
            if request.complete or request.pending > JSON_BYTES:
                self._decide()
        elif attempt is not None and attempt.connection is not None:
            self._forward(attempt.connection, attempt, b"", [])

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """An arm is there: it gets the head, what was kept of the body, and what has come since."""
        head = request_head(self._request, self._route, attempt.target, self._token, self._client.peer)
        self._forward(connection, attempt, head, self._kept or [])
        if not self._request.complete:
            self._client.proceed()

    def on_answer(self, attempt: Attempt, answer: Answer) -> None:
        """There is more of the answer, or all of it."""
        if self._framing is None and self._can_fall_back(attempt):
            if answer.status >= 500:
                attempt.cancel()
                self._fall_back(attempt, Failure.STATUS)
                return
            if _is_held(answer):
                attempt.deadline = self._asked_at + self._allowed_seconds
                return
        self._send_answer(attempt, answer)
        if answer.complete:
            self._measure(attempt, answer.status >= 500)
            self._end(attempt.target.arm)

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        """The arm has no answer, or not all of it: again, or the champion, or a problem."""
        self._attempt = None
        if self._framing is not None:
            self._count_failure(attempt, failure)
            self._record(attempt.target.arm)
            self._client.abort()
        elif failure is Failure.CUT_OFF and self._may_repeat(attempt):
            self._repeated = True
            self._worker.counters.add("kingmaker_upstream_retries_total")
            attempt.pool.close_idle()
            self._try(attempt.target.arm, self._allowed_seconds)
        elif self._can_fall_back(attempt):
            self._fall_back(attempt, failure)
        else:
            self._give_up(attempt, failure)

    def abandon(self) -> None:
        """The caller has left. An arm that was asked and had not begun to answer has failed the caller."""
        attempt, self._attempt = self._attempt, None
        serving = None
        if attempt is not None:
            attempt.cancel()
            if self._framing is not None:
                serving = attempt.target.arm
            elif self._request.complete:
                self._measure(attempt, failed=True)
        if self._decision is not None:
            self._record(serving)

    def pause_answer(self) -> None:
        """The caller does not keep up: neither does the arm's answer."""
        if self._attempt is not None and self._attempt.connection is not None:
            self._attempt.connection.pause()

    def resume_answer(self) -> None:
        """The caller has caught up."""
        if self._attempt is not None and self._attempt.connection is not None:
            self._attempt.connection.resume()

    def pause_request(self) -> None:
        """The arm does not keep up with the request."""
        self._client.set_arm_full(True)

    def resume_request(self) -> None:
        """The arm has caught up."""
        self._client.set_arm_full(False)

    def is_sending(self) -> bool:
        """Whether the caller still has to send some of the request."""
        return not self._request.complete

    def _decide(self) -> None:
        route = self._route
        self._decision = self._worker.decide(self._routing, route, self._unit(), self._request.forced)
        self._token = self._decision.token.encode()
        self._assigned, self._reason = self._decision.assignment.arm, self._decision.assignment.reason
        has_fallback = self._assigned.role is Role.CHALLENGER and route.upstream.fallback
        self._kept = [] if has_fallback or self._request.idempotent else None
        self._asked_at = monotonic()
        allowed_seconds = route.upstream.timeout_ms / (2000 if has_fallback else 1000)
        self._try(self._assigned, allowed_seconds)

    def _unit(self) -> str | None:
        source = self._route.unit
        if source is None:
            return None
        unit = unit_of(source, self._request)
        if unit is None:
            self._worker.counters.add("kingmaker_missing_units_total", "route", self._route.name)
        return unit

    def _try(self, arm: Arm, allowed_seconds: float) -> None:
        """Asks an arm, which has this long from the last byte of the request."""
        self._allowed_seconds = allowed_seconds
        deadline = self._asked_at + allowed_seconds
        self._client.on_new_arm()
        self._attempt = attempt = self._worker.attempt(self, self._routing.targets[arm.id], deadline)
        attempt.pool.acquire(attempt)

    def _forward(
        self, connection: UpstreamConnection, attempt: Attempt, head: bytes, kept: list[bytes]
    ) -> None:
        request = self._request
        pieces = request.take_body()
        if connection.request_sent or not (head or pieces or request.complete):
            return
        body = [*kept, *pieces]
        if pieces:
            self._keep(pieces)
        if not head:
            self._restart_clock(attempt)
        data = chunked(body, request.complete) if request.chunked else b"".join(body)
        connection.send(head + data, request.complete)

    def _restart_clock(self, attempt: Attempt) -> None:
        """The arm's time begins with the last byte of the request: a slow caller is not its fault."""
        self._asked_at = monotonic()
        attempt.deadline = self._asked_at + self._allowed_seconds

    def _keep(self, pieces: list[bytes]) -> None:
        if self._kept is None:
            return
        self._kept += pieces
        self._kept_bytes += sum(map(len, pieces))
        if self._kept_bytes > REPLAY_BYTES:
            self._kept = None

    def _may_repeat(self, attempt: Attempt) -> bool:
        return attempt.is_stale and self._request.idempotent and self._kept is not None and not self._repeated

    def _can_fall_back(self, attempt: Attempt) -> bool:
        arm = attempt.target.arm
        return self._route.upstream.fallback and arm.role is Role.CHALLENGER and self._kept is not None

    def _fall_back(self, attempt: Attempt, failure: Failure) -> None:
        self._count_failure(attempt, failure)
        self._worker.counters.add(
            "kingmaker_fallbacks_total", "route", self._route.name, "arm", self._assigned.name
        )
        self._reason = Reason.FALLBACK
        self._repeated = False
        self._try(self._route.champion, self._route.upstream.timeout_ms / 1000)

    def _give_up(self, attempt: Attempt, failure: Failure) -> None:
        self._count_failure(attempt, failure)
        self._status = _STATUS[failure]
        self._record(None)
        lines = self._decision_lines(None)
        if failure is Failure.BUSY:
            lines += b"Retry-After: 1\r\n"
        self._client.answer(self._status, problem(self._status, _DETAIL[failure]), PROBLEM, lines)

    def _send_answer(self, attempt: Attempt, answer: Answer) -> None:
        if self._framing is not None:
            self._client.write(self._framing.frame(answer))
            return
        self._status = answer.status
        framing = Framing(self._request, answer, self._client.may_keep_alive(self._request))
        self._framing = framing
        head = framing.head(answer, self._decision_lines(attempt.target.arm))
        self._client.write(head + framing.frame(answer))

    def _decision_lines(self, serving: Arm | None) -> bytes:
        lines = b"Kingmaker-Decision: %b\r\nKingmaker-Reason: %b\r\n" % (self._token, self._reason.encode())
        if serving is not None:
            lines += b"Kingmaker-Arm: %b\r\n" % serving.name.encode()
        if serving is not self._assigned:
            lines += b"Kingmaker-Assigned-Arm: %b\r\n" % self._assigned.name.encode()
        return lines

    def _end(self, serving: Arm) -> None:
        self._attempt = None
        self._record(serving)
        self._client.finish(self._framing is not None and self._framing.keep_alive)

    def _measure(self, attempt: Attempt, failed: bool) -> None:
        """Notes what the assigned arm's own attempt came to; the champion's in its place does not count."""
        if attempt.target.arm is self._assigned and self._measured is None:
            self._measured = failed, (monotonic() - self._asked_at) * 1000

    def _count_failure(self, attempt: Attempt, failure: Failure) -> None:
        labels = ("route", self._route.name, "arm", attempt.target.arm.name, "kind", failure.value)
        self._worker.counters.add("kingmaker_upstream_errors_total", *labels)
        self._measure(attempt, failed=True)

    def _record(self, serving: Arm | None) -> None:
        if self._decision is None or self._recorded:
            return
        self._recorded = True
        error, latency_ms = self._measured if self._measured is not None else (None, None)
        event = DecisionEvent(
            decision=self._decision.claims,
            served_arm_id=serving.id if serving is not None else None,
            status=self._status,
            error=error,
            latency_ms=latency_ms,
        )
        seconds = monotonic() - self._asked_at
        name = serving.name if serving is not None else "none"
        self._worker.spool.append(event)
        self._worker.counters.exchange(self._route.name, name, self._reason, self._status, seconds)


def _is_held(answer: Answer) -> bool:
    """Whether more of a challenger's answer is awaited first: all of it where it is short, else some."""
    if answer.complete:
        return False
    return not answer.pieces or (answer.length is not None and answer.length <= HELD_BYTES)
