"""How is one arm asked? Over one connection; where that is safe over another one, after it or beside it."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from app.gateway.answers import Answer
from app.gateway.bodies import chunked
from app.gateway.lanes import Lane
from app.gateway.requests import Request
from app.gateway.upstream import Attempt, Failure, UpstreamConnection

if TYPE_CHECKING:
    from app.gateway.proxy import Exchange
    from app.gateway.worker import Worker


class Ask(Attempt):
    """An arm is asked for an exchange, and has so long from the last byte of the request.

    `begun` is when it was let in (monotonic seconds), which is how its health knows this ask again. Mutable
    state besides an attempt's own: the same request once more beside it, and how often it was repeated.
    """

    __slots__ = (
        "_beside",
        "_exchange",
        "_hedge",
        "_repeated",
        "_request",
        "_retried",
        "allowed_seconds",
        "arm",
        "asked_at",
        "begun",
        "lane",
    )

    def __init__(
        self, exchange: Exchange, request: Request, lane: Lane, begun: float, allowed_seconds: float
    ) -> None:
        super().__init__(request.method, lane.target, lane.pool, begun + allowed_seconds)
        self._beside: Beside | None = None
        self._hedge: asyncio.TimerHandle | None = None
        self._repeated = False
        self._retried = False
        self.wants_tunnel = request.upgrade is not None
        self.arm = lane.target.arm
        self.lane = lane
        self.begun = self.asked_at = begun
        self.allowed_seconds = allowed_seconds
        self._exchange = exchange
        self._request = request

    @property
    def over(self) -> bool:
        """Whether neither it nor the one beside it is under way."""
        return self._beside is None and super().over

    def start(self, worker: Worker) -> None:
        """Asks, and once more beside it after a while without an answer, where the route says so."""
        hedge_ms = self.target.limits.hedge_ms
        if hedge_ms is not None and self._request.idempotent:
            self._hedge = worker.loop.call_later(hedge_ms / 1000, self._ask_beside, worker)
        self.lane.series.in_flight += 1
        worker.watch(self)
        self.pool.acquire(self)

    def succeeded(self, now: float) -> None:
        """The arm has given its whole answer."""
        self.lane.series.in_flight -= 1
        self.lane.series.observe_upstream(now - self.asked_at)
        self.lane.health.succeeded(self.begun, now)

    def failed(self, now: float) -> None:
        """The arm has given no answer, or one that says that it failed."""
        self.lane.series.in_flight -= 1
        if self.lane.health.failed(self.begun, now):
            self.lane.series.add("kingmaker_ejections_total")

    def shed(self) -> None:
        """No connection to the arm was free in time, which says nothing about the arm."""
        self.abandoned()
        self.lane.series.add("kingmaker_shed_requests_total", "reason", "no_connection")

    def abandoned(self) -> None:
        """What the arm would have answered is not known."""
        self.lane.series.in_flight -= 1
        self.lane.health.abandoned(self.begun)

    def cancel(self) -> None:
        """Gives up: whatever the arm still says is not heard."""
        super().cancel()
        self._stop_hedging()

    def wait(self) -> None:
        """The answer is held until it is whole, within the time that the arm has for it."""
        self.deadline = self.asked_at + self.allowed_seconds

    def on_body(self) -> None:
        """There is more of the request, or all of it."""
        connection = self.connection
        if connection is not None and not connection.request_sent:
            self.asked_at = monotonic()
            self.wait()
            self._send(connection, b"", [])

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.send_request(connection)
        if not self._request.complete:
            self._exchange.on_connected()

    def on_answer(self, answer: Answer) -> None:
        if self._hedge is not None:
            self._stop_hedging()
        self._exchange.on_answer(self, answer)

    def on_failure(self, failure: Failure) -> None:
        if self._beside is not None:
            return  # that one may answer still; if it does not, it says so
        if not self.answered and self._may_repeat(failure):
            self._exchange.resume_request()  # that the last connection took no more is moot
            self.pool.acquire(self)
        else:
            self._stop_hedging()
            self._exchange.on_failure(self, failure)

    def on_interim(self, answer: Answer) -> None:
        self._exchange.on_interim(answer)

    def on_switch(self, answer: Answer, rest: bytes) -> bool:
        return self._exchange.on_switch(self, answer, rest)

    def pause_request(self) -> None:
        self._exchange.pause_request()

    def resume_request(self) -> None:
        self._exchange.resume_request()

    def is_sending(self) -> bool:
        return not self._request.complete

    def send_request(self, connection: UpstreamConnection) -> None:
        """Sends the head, what was kept of the body, and what has come since."""
        left_ms = int(1000 * (self.deadline - monotonic()))
        kept = self._request.kept
        self._send(connection, self._exchange.head_for(self.target, max(1, left_ms)), kept[:] if kept else [])

    def on_answer_beside(self, answer: Answer, connection: UpstreamConnection | None) -> None:
        """The attempt beside this one has answered first: its connection is this one's from now on."""
        self._beside = None
        super().cancel()
        self.answered, self.deadline = True, monotonic() + self.idle_seconds
        if connection is not None:
            self.connection, connection.attempt = connection, self
        self.on_answer(answer)

    def on_failure_beside(self, failure: Failure) -> None:
        """The attempt beside this one has failed: nothing is lost as long as this one is under way."""
        self._beside = None
        if self.over:
            self.on_failure(failure)

    def _send(self, connection: UpstreamConnection, head: bytes, kept: list[bytes]) -> None:
        request = self._request
        body = kept + request.take_body()
        if request.chunked:
            data = head + chunked(body, request.complete)
        else:
            data = head + b"".join(body) if body else head
        connection.send(data, request.complete)
        if request.complete:
            self._exchange.on_sent()

    def _may_repeat(self, failure: Failure) -> bool:
        """Whether the same arm may be asked again: nothing is executed twice that must not be.

        That the arm had closed a kept connection is no failure of the arm: a new one is tried.
        """
        request = self._request
        if not request.can_replay:
            return False
        if failure is Failure.CUT_OFF and self.reused and request.idempotent and not self._repeated:
            self._repeated = self.wants_new = True
            self.pool.close_idle()
            return True
        harmless = failure is Failure.UNREACHABLE or (failure is Failure.CUT_OFF and request.idempotent)
        if not harmless or self._retried or not self._exchange.may_try_again(self, failure.value):
            return False
        self._retried = True
        return True

    def _ask_beside(self, worker: Worker) -> None:
        request = self._request
        is_whole = request.complete and request.can_replay and request.upgrade is None
        is_asked = self.connection is not None and not self.answered
        if is_whole and is_asked and self._exchange.may_try_again(self, "hedge"):
            self._beside = beside = Beside(self)
            worker.watch(beside)
            beside.pool.acquire(beside)

    def _stop_hedging(self) -> None:
        hedge, self._hedge = self._hedge, None
        beside, self._beside = self._beside, None
        if hedge is not None:
            hedge.cancel()
        if beside is not None:
            beside.cancel()


class Beside(Attempt):
    """The same request once more, on another connection. Whichever answers first is the one that counts."""

    __slots__ = ("_first",)

    def __init__(self, first: Ask) -> None:
        super().__init__(first.method, first.target, first.pool, first.deadline)
        self._first = first

    def on_connected(self, connection: UpstreamConnection) -> None:
        self._first.send_request(connection)

    def on_answer(self, answer: Answer) -> None:
        connection, self.connection = self.connection, None
        self._first.on_answer_beside(answer, connection)

    def on_failure(self, failure: Failure) -> None:
        self._first.on_failure_beside(failure)
