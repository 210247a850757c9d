"""One exchange: assign, ask, fall back, answer, record."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from app.gateway.answers import Answer
from app.gateway.asking import Ask
from app.gateway.facts import Facts
from app.gateway.health import is_kept_waiting, may_be_asked
from app.gateway.replies import PROBLEM, Framing, interim_head, problem, switching_head
from app.gateway.tunnel import Tunnel, switches
from app.gateway.units import JSON_BYTES
from app.gateway.upstream import Failure
from routing.types import Reason

if TYPE_CHECKING:
    from app.gateway.copies import Copies
    from app.gateway.courses import Course
    from app.gateway.decisions import Decision
    from app.gateway.http1 import ClientConnection
    from app.gateway.lanes import Lane
    from app.gateway.requests import Request
    from app.gateway.shadows import Shadow
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


class Exchange(Facts):
    """A request on its way: which arm is asked, and what becomes of it.

    Mutable state besides the facts: the arm's `_ask`, None before and after; the answer's `_framing`, once it
    has begun; the `_shadows` that want a copy, and the `_copies` they were sent.
    """

    __slots__ = ("_ask", "_copies", "_framing", "_shadows")

    def __init__(self, worker: Worker, client: ClientConnection, request: Request, course: Course) -> None:
        super().__init__(worker, client, request, course)
        self._ask: Ask | None = None
        self._framing: Framing | None = None
        self._copies: Copies | None = None
        self._shadows: list[Shadow] | None = None

    def start(self) -> None:
        """Decides at once, unless the body is still to come, and is read for it, or the arms are busy."""
        if self.course.reads_body:
            self.request.hold_bytes = JSON_BYTES
        if self._has_enough() or not (self.course.reads_body or self.course.is_crowded):
            self._begin()

    def on_body(self) -> None:
        """There is more of the request, or all of it."""
        if self._ask is not None:
            self.asked_at = monotonic()
            self._ask.on_body()
        elif not self.token and self._waiting is None and self._has_enough():
            self._begin()

    def _has_enough(self) -> bool:
        """Whether there is all of the body, or as much of it as is held."""
        return self.request.complete or self.request.pending > self.request.hold_bytes

    def _begin(self) -> None:
        now = monotonic()
        if self.decide(now):
            self._go_on(now)

    def on_decided(self, decision: Decision) -> None:
        self._waiting = None
        now = monotonic()
        self.adopt(decision, now)
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Asks the assigned arm; where it is known to fail, the champion, which counts as the arm's error."""
        course = self.course
        lane = course.lane(self.assigned)
        if course.shadows:
            claims = self.decision.claims
            self._shadows = self.worker.mirror.wanted(course.shadows, self.assigned, claims, now)
        if lane.has_fallback or self._shadows is not None or self.request.idempotent:
            self.request.keep()
        if lane.health.barred and not may_be_asked(lane.target.arm, lane.health, now):
            self.error, self.failure = True, Failure.EJECTED
            self._fall_back(now)
        else:
            seconds = self.timeout_seconds - (now - self.asked_at)
            self._start(lane, now, seconds / (2 if lane.has_fallback else 1))

    def _fall_back(self, now: float) -> None:
        self.reason = Reason.FALLBACK
        lane = self.course.lane(self.route.champion)
        lane.health.admit(now)  # it is asked in any case; this is its turn to show itself well
        labels = ("route", self.route.name, "arm", self.assigned.name)
        self.worker.counters.add("kingmaker_fallbacks_total", *labels)
        seconds = self.timeout_seconds
        self._start(lane, now, seconds - min(now - self.asked_at, seconds / 2))

    def _start(self, lane: Lane, now: float, seconds: float) -> None:
        self._ask = ask = Ask(self, self.request, lane, now, seconds)
        self.client.on_new_arm()
        ask.start(self.worker)

    def on_answer(self, ask: Ask, answer: Answer) -> None:
        """There is more of the answer, or all of it. Of a challenger's failure the caller hears nothing."""
        if self._framing is None and self.can_fall_back(ask):
            if answer.status >= 500:
                ask.cancel()
                self.on_failure(ask, Failure.STATUS)
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
        self.blame(ask, failure, now)
        if self._framing is not None:
            self._close(ask, now)
            self.client.abort()
        elif self.can_fall_back(ask):
            self._fall_back(now)
        else:
            self._refuse(failure, now)

    def abandon(self, status: int | None = None) -> None:
        """The caller has left, maybe because the arm let it wait; or it was refused for its body's sake."""
        ask, now = self._ask, monotonic()
        if self._waiting is not None:
            self._waiting.cancel()
        if ask is None:
            return
        self.status = status or self.status
        ask.cancel()
        is_unanswered = self._framing is None and self.request.complete
        if is_unanswered:
            self.measure(ask, now, failed=True)
        waited = now - ask.asked_at - self.client.gone_seconds
        if is_unanswered and is_kept_waiting(waited, self.course.timeout_seconds):
            ask.failed(now)
        else:
            ask.abandoned()
        self._close(ask if self._framing is not None else None, now)

    def _send(self, ask: Ask, answer: Answer) -> None:
        framing = self._framing
        head = b""
        if framing is None:
            self.status = answer.status
            self._framing = framing = Framing(self.request, answer, self.client.may_keep_alive(self.request))
            head = framing.head(answer, self.decision_lines(ask.lane))
        body = framing.frame(answer)
        self.sent_bytes += len(body)
        self.client.write(head + body)

    def _end(self, ask: Ask, answer: Answer) -> None:
        now = monotonic()
        failed = answer.status >= 500
        self.measure(ask, now, failed=failed)
        if failed:
            ask.failed(now)
        else:
            ask.succeeded(now)
        if self._copies is not None:
            self._copies.primary(ask.arm, self.status, 1000 * (now - ask.asked_at))
        self._close(ask, now)
        self.client.finish(self._framing is not None and self._framing.keep_alive)

    def _refuse(self, failure: Failure, now: float) -> None:
        self.status, detail = _REFUSALS[failure]
        self._close(None, now)
        lines = self.decision_lines(None)
        if self.status == 503:
            lines += b"Retry-After: 1\r\n"
        self.client.answer(self.status, problem(self.status, detail), PROBLEM, lines)

    def _close(self, serving: Ask | None, now: float) -> None:
        """No arm is asked any more; `serving` is where the answer came from, if there is one."""
        self._ask = None
        self.record(serving, now)
        if self._copies is not None:
            self._copies.primary_failed()

    def on_sent(self) -> None:
        """The arm has been sent the whole request: now shadow arms are sent copies."""
        shadows, self._shadows = self._shadows, None
        if shadows is not None and self._framing is None:
            mirror, claims = self.worker.mirror, self.decision.claims
            self._copies = mirror.begin(shadows, claims, self.request, self.copied_head)

    def on_connected(self) -> None:
        """There is a connection to the arm, for which more of the body was waiting."""
        self.client.proceed()

    def on_interim(self, answer: Answer) -> None:
        """The arm has something to say before its answer."""
        self.client.interim(interim_head(answer))

    def on_switch(self, ask: Ask, answer: Answer, rest: bytes) -> bool:
        """The arm changes the protocol. If the caller asked for just that, bytes are relayed from here on."""
        connection = ask.connection
        if connection is None or not switches(self.request, answer):
            return False
        now = monotonic()
        self.status = answer.status
        self.measure(ask, now, failed=False)
        ask.succeeded(now)
        self._close(ask, now)
        self.client.write(switching_head(answer, self.decision_lines(ask.lane)))
        Tunnel(self.client, connection).start(rest)
        return True

    def may_try_again(self, ask: Ask, why: str) -> bool:
        """Whether one more attempt on the same arm is worth its while, and within the route's budget."""
        if self.can_fall_back(ask) or not self.course.budget.take(monotonic()):
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


def _is_held(answer: Answer) -> bool:
    """Whether more of a challenger's answer is awaited first: all of it where it is short, else some."""
    if answer.complete:
        return False
    return not answer.pieces or (answer.length is not None and answer.length <= HELD_BYTES)
