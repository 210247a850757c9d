"""What is known of one exchange so far, and what its arm, its caller and the records are told of it?"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from app.events.types import CALLER_LEFT
from app.gateway.first_arms import Waiter, Waiting
from app.gateway.forwarding import request_head
from app.gateway.upstream import Failure
from routing.types import Arm, Reason

if TYPE_CHECKING:
    from app.gateway.asking import Ask
    from app.gateway.contexts import Values
    from app.gateway.courses import Course
    from app.gateway.decisions import Decision
    from app.gateway.http1 import ClientConnection
    from app.gateway.lanes import Lane
    from app.gateway.requests import Request
    from app.gateway.targets import Target
    from app.gateway.tracing import AttemptSpan, Trace
    from app.gateway.worker import Worker

_log = logging.getLogger(__name__)
_REASON_LINES: Final = {reason: f"Kingmaker-Reason: {reason}\r\n".encode() for reason in Reason}


class Facts:
    """The decision of one exchange, and what came of it.

    Times are monotonic seconds; `now` is always the present. `error` and `latency_ms` are of the assigned
    arm's own attempt, once known; `failure` is the last thing that was wrong with an arm.
    """

    __slots__ = (
        "_is_recorded",
        "_span",
        "_waiting",
        "asked_at",
        "assigned",
        "client",
        "course",
        "decision",
        "error",
        "failure",
        "latency_ms",
        "reason",
        "request",
        "route",
        "sent_bytes",
        "status",
        "token",
        "trace",
        "worker",
    )

    decision: Decision
    assigned: Arm
    reason: Reason

    def __init__(self, worker: Worker, client: ClientConnection, request: Request, course: Course) -> None:
        self.token = b""
        self.status = CALLER_LEFT
        self.error: bool | None = None
        self.latency_ms: float | None = None
        self.failure: Failure | None = None
        self.trace: Trace | None = None
        self.asked_at = 0.0
        self.sent_bytes = 0
        self._span: AttemptSpan | None = None
        self._is_recorded = False
        self._waiting: Waiting | None = None
        self.client = client
        self.request = request
        self.course = course
        self.route = course.route
        self.worker = worker

    @property
    def timeout_seconds(self) -> float:
        """The whole deadline: the route's, or what the caller has left of its own if that is less."""
        seconds, asked_ms = self.course.timeout_seconds, self.request.timeout_ms
        return seconds if asked_ms is None else min(seconds, max(1, asked_ms) / 1000)

    @property
    def is_hurried(self) -> bool:
        """Whether the caller gave less time than the route."""
        return self.timeout_seconds < self.course.timeout_seconds

    def can_fall_back(self, ask: Ask) -> bool:
        """Whether the champion can answer in place of the arm that is asked."""
        return ask.lane.has_fallback and self.request.can_replay

    def decide(self, now: float) -> bool:
        """Which arm the request is for, by its unit, context and whatever overrides look at.

        False where the unit may keep another arm, and the store is asked for it: `on_decided` will be told.
        """
        worker, request, course = self.worker, self.request, self.course
        unit = None
        if course.unit_of is not None:
            unit = course.unit_of(request)
            if unit is None:
                worker.counters.add("kingmaker_missing_units_total", "route", self.route.name)
        self.asked_at = now
        if course.plan.is_plain:
            decision = worker.decide(course.routing, course.plan, unit, request.forced)
        else:
            context = self._context()
            subject = course.asked(request, unit, context)
            waiter = Waiter(self.on_decided, self.client.abort, self.timeout_seconds / 2)
            settled = worker.settle(
                course.routing, course.plan, unit, request.forced, context, subject, waiter
            )
            if isinstance(settled, Waiting):
                self._waiting = settled
                return False
            decision = settled
        self.adopt(decision, now)
        return True

    def on_decided(self, decision: Decision) -> None:
        """The store has said what the unit keeps, or has not said it in time."""
        raise NotImplementedError

    def adopt(self, decision: Decision, now: float) -> None:
        """It is decided."""
        request, course, worker = self.request, self.course, self.worker
        self.decision = decision
        request.forget()
        self.token = decision.token.encode()
        self.assigned = decision.assignment.arm
        self.reason = decision.assignment.reason
        course.budget.note_request(now)
        if worker.journal.traces:
            worker.journal.begin(self)

    def _context(self) -> Values | None:
        """What the request says of the declared features; nothing, if reading it goes wrong."""
        try:
            return self.course.context(self.request)
        except Exception:  # noqa: BLE001  # nothing that an experiment reads may reach a caller
            _log.exception("context was not read", extra={"fields": {"route": self.route.name}})
            return None

    def head_for(self, target: Target, left_ms: int) -> bytes:
        """The head of the request as this arm gets it, in a span of its own where there is a trace."""
        if self.trace is None:
            return self.copied_head(target, left_ms)
        self._span = span = self.trace.attempt(target.arm)
        return self.copied_head(target, left_ms, span.lines)

    def copied_head(self, target: Target, left_ms: int, trace_lines: bytes = b"") -> bytes:
        """The head of the request as an arm gets it that has so long to answer."""
        request = self.request
        lines = b"%b%bKingmaker-Decision: %b\r\nKingmaker-Timeout-Ms: %d\r\n" % (
            self.worker.forwarding_lines(request, self.client),
            trace_lines,
            self.token,
            left_ms,
        )
        return request_head(request, request.path[self.course.prefix_length :], target, lines)

    def decision_lines(self, serving: Lane | None) -> bytes:
        """What the caller is told of the decision, and of who has answered."""
        served = b"" if serving is None else serving.lines
        lines = b"Kingmaker-Decision: %b\r\n%b%b" % (self.token, _REASON_LINES[self.reason], served)
        if serving is not None and serving.target.arm is self.assigned:
            return lines
        return lines + b"Kingmaker-Assigned-Arm: %b\r\n" % self.assigned.name.encode()

    def measure(self, ask: Ask, now: float, *, failed: bool) -> None:
        """Notes what the assigned arm's own attempt came to; the champion's in its place does not count."""
        if self.error is None and ask.arm is self.assigned:
            self.error, self.latency_ms = failed, 1000 * (now - ask.asked_at)

    def blame(self, ask: Ask, failure: Failure, now: float) -> None:
        """The arm has failed, or had no connection free. A caller that left it little time proves nothing."""
        self.failure = failure
        if self._span is not None:
            self._span.end(None, failure.value)
        if failure is Failure.TIMEOUT and self.is_hurried:
            ask.abandoned()
            return
        self.measure(ask, now, failed=True)
        if failure is Failure.BUSY:
            ask.shed()
        else:
            ask.failed(now)
        ask.lane.series.add("kingmaker_upstream_errors_total", "kind", failure.value)

    def record(self, serving: Ask | None, now: float) -> None:
        """The exchange is over; `serving` is what the caller's answer came from. Written down once."""
        if self.token and not self._is_recorded:
            self._is_recorded = True
            self.worker.journal.record(self, serving, now)
