"""One exchange: assign, ask, fall back, answer, record."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from app.events.types import CALLER_LEFT
from app.gateway.answers import Answer
from app.gateway.asking import Ask
from app.gateway.forwarding import request_head
from app.gateway.health import is_kept_waiting, may_be_asked
from app.gateway.replies import PROBLEM, Framing, interim_head, problem, switching_head
from app.gateway.tunnel import Tunnel, switches
from app.gateway.units import JSON_BYTES
from app.gateway.upstream import Failure
from routing.types import Arm, Reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.gateway.copies import Copies
    from app.gateway.courses import Course
    from app.gateway.decisions import Decision
    from app.gateway.http1 import ClientConnection
    from app.gateway.lanes import Lane
    from app.gateway.requests import Request
    from app.gateway.targets import Target
    from app.gateway.tracing import AttemptSpan, Trace
    from app.gateway.worker import Worker

HELD_BYTES: Final = 64 * 1024
"""The longest answer of a challenger that is held until it is whole, so that the champion still can."""

_REFUSALS = {
    Failure.UNREACHABLE: (503, "the arm cannot be reached"),
    Failure.BUSY: (503, "no connection to the arm was free in time"),
    Failure.MALFORMED: (502, "the arm's answer is not well-formed HTTP/1.1"),
    Failure.CUT_OFF: (502, "the arm closed the connection before it had answered"),
    Failure.STATUS: (502, "the arm failed"),
    Failure.TIMEOUT: (504, "the arm did not answer in time"),
}
_REASON_LINES: Final = {reason: f"Kingmaker-Reason: {reason}\r\n".encode() for reason in Reason}


class Exchange:
    """A request on its way: which arm was assigned, which one is asked, and what became of it.

    Times are monotonic seconds. `error` and `latency_ms` are of the assigned arm's own attempt, once known.
    """

    __slots__ = (
        "_ask",
        "_copies",
        "_course",
        "_framing",
        "_is_watched",
        "_recorded",
        "_span",
        "_worker",
        "asked_at",
        "assigned",
        "client",
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
        self._ask: Ask | None = None
        self._framing: Framing | None = None
        self._copies: Copies | None = None
        self._span: AttemptSpan | None = None
        self._recorded = False
        self.client = client
        self.request = request
        self.route = course.route
        self._worker = worker
        self._course = course
        self._is_watched = course.is_watched

    def start(self) -> None:
        """Decides at once, unless the body is still to come, and the unit is in it or the arms are busy."""
        request, course = self.request, self._course
        if course.unit_is_in_body:
            request.hold_bytes = JSON_BYTES
        if self._has_enough() or not (course.unit_is_in_body or course.is_crowded):
            self._decide()

    def on_body(self) -> None:
        """There is more of the request, or all of it."""
        if self._ask is not None:
            self.asked_at = monotonic()
            self._ask.on_body()
        elif not self.token and self._has_enough():
            self._decide()

    def _has_enough(self) -> bool:
        """Whether there is all of the body, or as much of it as is held."""
        return self.request.complete or self.request.pending > self.request.hold_bytes

    def _decide(self) -> None:
        worker, request, course = self._worker, self.request, self._course
        self.asked_at = now = monotonic()
        unit = None if course.unit_of is None else self._unit(course.unit_of)
        self.decision = decision = worker.decide(course.routing, course.route, unit, request.forced)
        self.token = decision.token.encode()
        self.assigned = arm = decision.assignment.arm
        self.reason = decision.assignment.reason
        course.budget.note_request(now)
        if worker.journal.traces:
            worker.journal.begin(self)
        lane = course.lane(arm)
        if lane.has_fallback or self._is_watched or request.idempotent:
            request.keep()
        seconds = self._timeout_seconds()
        self._ask_or_divert(lane, now, seconds / 2 if lane.has_fallback else seconds)

    def _ask_or_divert(self, lane: Lane, now: float, seconds: float) -> None:
        """Asks the assigned arm; where it is known to fail, the champion, which counts as the arm's error."""
        if lane.health.barred and not may_be_asked(lane.target.arm, lane.health, now):
            self.error, self.failure = True, Failure.EJECTED
            self._fall_back(now)
        else:
            self._start(Ask(self, self.request, lane, now, seconds))

    def _fall_back(self, now: float) -> None:
        self.reason = Reason.FALLBACK
        lane = self._course.lane(self.route.champion)
        lane.health.admit(now)  # it is asked in any case; this is its turn to show itself well
        labels = ("route", self.route.name, "arm", self.assigned.name)
        self._worker.counters.add("kingmaker_fallbacks_total", *labels)
        seconds = self._timeout_seconds()
        self._start(Ask(self, self.request, lane, now, seconds - min(now - self.asked_at, seconds / 2)))

    def _start(self, ask: Ask) -> None:
        self._ask = ask
        self.client.on_new_arm()
        ask.start(self._worker)

    def on_answer(self, ask: Ask, answer: Answer) -> None:
        """There is more of the answer, or all of it. Of a challenger's failure the caller hears nothing."""
        if self._framing is None and self._can_fall_back(ask):
            if answer.status >= 500:
                now = monotonic()
                ask.cancel()
                self._fail(ask, Failure.STATUS, now)
                self._fall_back(now)
                return
            if _is_held(answer):
                ask.wait()
                return
        if self._copies is not None:
            self._copies.tee(answer.pieces)
        self._send(ask, answer)
        if answer.complete:
            self._end(ask, answer)

    def on_failure(self, ask: Ask, failure: Failure) -> None:
        """The arm has no answer, or not all of it: the champion, or a problem."""
        now = monotonic()
        self._fail(ask, failure, now)
        if self._framing is not None:
            self._ask = None
            self._record(ask, now)
            self.client.abort()
        elif self._can_fall_back(ask):
            self._fall_back(now)
        else:
            self._give_up(failure, now)

    def abandon(self, status: int | None = None) -> None:
        """The caller has left, maybe because the arm let it wait; or it was refused for its body's sake."""
        ask, self._ask = self._ask, None
        if ask is None:
            return
        now = monotonic()
        self.status = status or self.status
        ask.cancel()
        is_unanswered = self._framing is None and self.request.complete
        if is_unanswered:
            self._measure(ask, now, failed=True)
        waited = now - ask.asked_at - self.client.gone_seconds
        if is_unanswered and is_kept_waiting(waited, self._course.timeout_seconds):
            ask.failed(now)
        else:
            ask.abandoned()
        self._record(ask if self._framing is not None else None, now)

    def on_switch(self, ask: Ask, answer: Answer, rest: bytes) -> bool:
        """The arm changes the protocol. If the caller asked for just that, bytes are relayed from here on."""
        connection = ask.connection
        if connection is None or not switches(self.request, answer):
            return False
        now = monotonic()
        self.status = answer.status
        self._measure(ask, now, failed=False)
        ask.succeeded(now)
        self._ask = None
        self._record(ask, now)
        self.client.write(switching_head(answer, self._decision_lines(ask.lane)))
        Tunnel(self.client, connection).start(rest)
        return True

    def on_interim(self, answer: Answer) -> None:
        self.client.interim(interim_head(answer))

    def on_connected(self) -> None:
        self.client.proceed()

    def on_sent(self) -> None:
        if self._is_watched and self._framing is None:
            self._copy()

    def head_for(self, target: Target, left_ms: int) -> bytes:
        """The head of the request as this arm gets it."""
        if self.trace is None:
            return self._copy_head(target, left_ms)
        self._span = span = self.trace.attempt(target.arm)
        return self._copy_head(target, left_ms, span.lines)

    def _copy_head(self, target: Target, left_ms: int, trace_lines: bytes = b"") -> bytes:
        request = self.request
        lines = b"%b%bKingmaker-Decision: %b\r\nKingmaker-Timeout-Ms: %d\r\n" % (
            self._worker.forwarding_lines(request, self.client),
            trace_lines,
            self.token,
            left_ms,
        )
        return request_head(request, request.path[self._course.prefix_length :], target, lines)

    def may_try_again(self, ask: Ask, why: str) -> bool:
        """Whether one more attempt on the same arm is worth its while, and within the route's budget."""
        if self._can_fall_back(ask) or not self._course.budget.take(monotonic()):
            return False
        ask.lane.series.add("kingmaker_retries_total", "why", why)
        return True

    def pause_answer(self) -> None:
        """The caller does not keep up: neither does the arm's answer."""
        if self._ask is not None and self._ask.connection is not None:
            self._ask.connection.pause()

    def resume_answer(self) -> None:
        """The caller has caught up."""
        if self._ask is not None and self._ask.connection is not None:
            self._ask.connection.resume()

    def pause_request(self) -> None:
        """The arm does not keep up with the request."""
        self.client.set_arm_full(True)

    def resume_request(self) -> None:
        """The arm has caught up."""
        self.client.set_arm_full(False)

    def _give_up(self, failure: Failure, now: float) -> None:
        self._ask = None
        self.status, detail = _REFUSALS[failure]
        self._record(None, now)
        lines = self._decision_lines(None)
        if self.status == 503:
            lines += b"Retry-After: 1\r\n"
        self.client.answer(self.status, problem(self.status, detail), PROBLEM, lines)

    def _send(self, ask: Ask, answer: Answer) -> None:
        framing = self._framing
        head = b""
        if framing is None:
            self.status = answer.status
            self._framing = framing = Framing(self.request, answer, self.client.may_keep_alive(self.request))
            head = framing.head(answer, self._decision_lines(ask.lane))
        body = framing.frame(answer)
        self.sent_bytes += len(body)
        self.client.write(head + body)

    def _end(self, ask: Ask, answer: Answer) -> None:
        now = monotonic()
        failed = answer.status >= 500
        self._measure(ask, now, failed)
        if failed:
            ask.failed(now)
        else:
            ask.succeeded(now)
        if self._copies is not None:
            self._copies.primary(ask.arm, self.status, 1000 * (now - ask.asked_at))
        self._ask = None
        self._record(ask, now)
        self.client.finish(self._framing is not None and self._framing.keep_alive)

    def _fail(self, ask: Ask, failure: Failure, now: float) -> None:
        """The arm has failed, or had no connection free. A caller that left it little time proves nothing."""
        self.failure = failure
        if self._span is not None:
            self._span.end(None, failure.value)
        if failure is Failure.TIMEOUT and self._is_hurried:
            ask.abandoned()
            return
        self._measure(ask, now, failed=True)
        if failure is Failure.BUSY:
            ask.shed()
        else:
            ask.failed(now)
        ask.lane.series.add("kingmaker_upstream_errors_total", "kind", failure.value)

    def _measure(self, ask: Ask, now: float, failed: bool) -> None:
        """Notes what the assigned arm's own attempt came to; the champion's in its place does not count."""
        if self.error is None and ask.arm is self.assigned:
            self.error, self.latency_ms = failed, 1000 * (now - ask.asked_at)

    def _record(self, serving: Ask | None, now: float) -> None:
        if self._recorded or not self.token:
            return
        self._recorded = True
        self._worker.journal.record(self, serving, now)
        if self._copies is not None:
            self._copies.primary_failed()

    def _copy(self) -> None:
        """Sends copies to shadow arms once the request has gone to the arm that answers."""
        self._is_watched = False
        request = self.request
        body = request.kept if request.can_replay else None
        self._copies = self._worker.mirror.begin(
            self._course.routing, self.route, request, self.decision.claims, body, self._copy_head
        )

    def _unit(self, unit_of: Callable[[Request], str | None]) -> str | None:
        unit = unit_of(self.request)
        if unit is None:
            self._worker.counters.add("kingmaker_missing_units_total", "route", self.route.name)
        return unit

    def _timeout_seconds(self) -> float:
        """The whole deadline: the route's, or what the caller has left of its own if that is less."""
        seconds, asked_ms = self._course.timeout_seconds, self.request.timeout_ms
        return seconds if asked_ms is None else min(seconds, max(1, asked_ms) / 1000)

    @property
    def _is_hurried(self) -> bool:
        """Whether the caller gave less time than the route."""
        return self._timeout_seconds() < self._course.timeout_seconds

    def _can_fall_back(self, ask: Ask) -> bool:
        return ask.lane.has_fallback and self.request.can_replay

    def _decision_lines(self, serving: Lane | None) -> bytes:
        served = b"" if serving is None else serving.lines
        lines = b"Kingmaker-Decision: %b\r\n%b%b" % (self.token, _REASON_LINES[self.reason], served)
        if serving is not None and serving.target.arm is self.assigned:
            return lines
        return lines + b"Kingmaker-Assigned-Arm: %b\r\n" % self.assigned.name.encode()


def _is_held(answer: Answer) -> bool:
    """Whether more of a challenger's answer is awaited first: all of it where it is short, else some."""
    if answer.complete:
        return False
    return not answer.pieces or (answer.length is not None and answer.length <= HELD_BYTES)
