"""What became of the copies of one request, beside the answer that its caller got?

An event is written per copy, once both its own answer and the caller's are known.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from app.events.types import ArmAnswer, ShadowEvent
from app.gateway.answers import Answer
from app.gateway.predictions import Reading
from app.gateway.upstream import Attempt, Failure, UpstreamConnection
from routing.types import Arm, Prediction, Route

if TYPE_CHECKING:
    from app.gateway.mirror import Mirror
    from app.gateway.shadows import Shadow
    from routing.claims import Claims

TOO_LONG = "too_long"
"""The failure of an answer that was cut off because it was longer than is ever read."""


class Copies:
    """The copies of one request, and its primary: the answer that its caller gets.

    Mutable state: the primary's body as it is read, its answer once known, and what waits for that.
    """

    __slots__ = ("_claims", "_is_known", "_primary", "_reading", "_waiting", "mirror", "route")

    def __init__(self, mirror: Mirror, route: Route, claims: Claims) -> None:
        self.mirror = mirror
        self.route = route
        self._claims = claims
        self._reading = Reading()
        self._is_known = False
        self._primary: ArmAnswer | None = None
        self._waiting: list[ArmAnswer] = []

    def tee(self, pieces: Iterable[bytes]) -> None:
        """Reads along what the caller is sent of the primary's body."""
        self._reading.add(pieces)

    def primary(self, arm: Arm, status: int, latency_ms: float, pieces: Iterable[bytes] = ()) -> None:
        """The caller has its whole answer, from this arm; `pieces` are what was not read along."""
        if not self._is_known:
            self._reading.add(pieces)
            declared = self.route.predictions
            self._settle(answer_of(arm, status, None, latency_ms, self._reading, declared))

    def primary_failed(self) -> None:
        """The caller has no whole answer of an arm. Of no effect once it had one."""
        if not self._is_known:
            self._settle(None)

    def on_copy(self, answer: ArmAnswer) -> None:
        """A copy has ended."""
        if self._is_known:
            self._record(answer)
        else:
            self._waiting.append(answer)

    def _settle(self, primary: ArmAnswer | None) -> None:
        self._is_known, self._primary = True, primary
        self._reading = Reading()
        waiting, self._waiting = self._waiting, []
        for answer in waiting:
            self._record(answer)

    def _record(self, answer: ArmAnswer) -> None:
        at_ms = time.time_ns() // 1_000_000
        event = ShadowEvent(decision=self._claims, at_ms=at_ms, shadow=answer, primary=self._primary)
        self.mirror.record(event)


class Copy:
    """One copy on its way: an attempt on its shadow arm, with one deadline for all of it.

    `admitted_at` is when the arm's health let it through. Mutable state: the attempt, the request until it is
    sent for good, and the answer as it is read.
    """

    __slots__ = (
        "_attempt",
        "_copies",
        "_data",
        "_deadline",
        "_may_repeat",
        "_reading",
        "_status",
        "admitted_at",
        "method",
        "shadow",
    )

    def __init__(
        self,
        copies: Copies,
        shadow: Shadow,
        method: bytes,
        data: bytes,
        *,
        may_repeat: bool,
        admitted_at: float,
        deadline: float,
    ) -> None:
        self.method = method
        self.shadow = shadow
        self.admitted_at = admitted_at
        self._copies = copies
        self._data = data
        self._may_repeat = may_repeat
        self._deadline = deadline
        self._reading = Reading()
        self._status: int | None = None
        self._attempt: Attempt | None = None

    def ask(self) -> None:
        """Asks the arm."""
        attempt = self._copies.mirror.attempt(self, self._deadline)
        self._attempt = attempt
        attempt.pool.acquire(attempt)

    def cancel(self) -> None:
        """Gives up; nothing is recorded."""
        if self._attempt is not None:
            self._attempt.cancel()

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        """The arm is there: it gets the whole request."""
        data = self._data
        if not self._may_repeat:
            self._data = b""
        connection.send(data, last=True)

    def on_answer(self, attempt: Attempt, answer: Answer) -> None:
        """There is more of the answer, or all of it, or too much of it."""
        self._status = answer.status
        self._reading.add(answer.take_body())
        if self._reading.is_too_long:
            attempt.cancel()
            self._end(TOO_LONG)
        elif answer.complete:
            self._end(None)
        elif monotonic() >= self._deadline:
            attempt.cancel()
            self._end(Failure.TIMEOUT)
        else:
            attempt.deadline = self._deadline

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        """The arm has no answer, or not all of it. That it had closed a kept connection is no failure."""
        if failure is Failure.CUT_OFF and attempt.is_stale and self._may_repeat:
            self._may_repeat = False
            attempt.pool.close_idle()
            self.ask()
        else:
            self._end(failure)

    def pause_request(self) -> None:
        """Nothing: the request is short, and has been handed over."""

    def resume_request(self) -> None:
        """Nothing: as above."""

    def is_sending(self) -> bool:
        """Never: the whole request is here."""
        return False

    def _end(self, failure: str | None) -> None:
        copies, arm = self._copies, self.shadow.arm
        latency_ms = (monotonic() - self.admitted_at) * 1000
        answer = answer_of(arm, self._status, failure, latency_ms, self._reading, copies.route.predictions)
        copies.mirror.on_end(self, answer)
        copies.on_copy(answer)


def answer_of(
    arm: Arm,
    status: int | None,
    failure: str | None,
    latency_ms: float,
    reading: Reading,
    declared: Sequence[Prediction],
) -> ArmAnswer:
    """What an arm answered, as it is written down: only a whole body has a hash, and predicts something."""
    return ArmAnswer(
        arm_id=arm.id,
        status=status,
        failure=str(failure) if failure is not None else None,
        latency_ms=latency_ms,
        body_hash=reading.digest() if failure is None else None,
        body_bytes=reading.length,
        predictions=reading.predictions(declared) if failure is None else {},
    )
