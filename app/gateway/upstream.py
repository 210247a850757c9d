"""The model endpoint's side of an exchange: one connection, and one attempt to get an answer over it."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from app.gateway.answers import ANSWER_HEAD_BYTES, Answer

if TYPE_CHECKING:
    from app.gateway.pool import Pool
    from app.gateway.targets import Target


class Failure(StrEnum):
    """Why an attempt brought no answer, or not all of it."""

    UNREACHABLE = "unreachable"
    BUSY = "busy"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    CUT_OFF = "cut_off"
    STATUS = "status"


class Caller(Protocol):
    """What an attempt needs of the exchange it is made for."""

    method: bytes

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None: ...
    def on_answer(self, attempt: Attempt, answer: Answer) -> None: ...
    def on_failure(self, attempt: Attempt, failure: Failure) -> None: ...
    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...
    def is_sending(self) -> bool: ...


class Attempt:
    """One try to get an answer from one arm. `connection` is None until there is one, and again once over."""

    __slots__ = (
        "answered",
        "caller",
        "connection",
        "deadline",
        "idle_seconds",
        "pool",
        "reused",
        "target",
        "waiting",
    )

    def __init__(self, caller: Caller, target: Target, pool: Pool, deadline: float) -> None:
        self.caller = caller
        self.target = target
        self.pool = pool
        self.deadline = deadline
        self.idle_seconds = target.limits.timeout_ms / 1000
        self.connection: UpstreamConnection | None = None
        self.answered = False
        self.reused = False
        self.waiting = False

    @property
    def over(self) -> bool:
        """Whether it neither waits for a connection nor has one."""
        return self.connection is None and not self.waiting

    @property
    def is_stale(self) -> bool:
        """Whether its connection may have been closed by the arm before the request arrived."""
        return self.reused and not self.answered

    def expire(self, now: float) -> None:
        """Ends the attempt when its arm has been silent for too long; the caller's silence does not count."""
        if now < self.deadline:
            return
        connection = self.connection
        if connection is not None and connection.is_waiting_for_caller:
            self.deadline = now + self.idle_seconds
        else:
            is_busy = connection is None and self.pool.is_full
            self.cancel()
            self.caller.on_failure(self, Failure.BUSY if is_busy else Failure.TIMEOUT)

    def cancel(self) -> None:
        """Gives up: whatever the arm still says is not heard. Safe to call twice."""
        connection, self.connection = self.connection, None
        self.waiting = False
        if connection is not None:
            connection.close()


class UpstreamConnection(asyncio.Protocol):
    """One keep-alive connection to an arm. Serves one attempt at a time; between attempts it is idle.

    Mutable state: the attempt being served, its answer, and whether either direction is paused.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.served = 0
        self.idle_since = 0.0
        self.attempt: Attempt | None = None
        self._answer = Answer()
        self._head_only = False
        self._unseen = 0
        self._reusable = True
        self.request_sent = False
        self._paused = False
        self._stuck = False
        self._parser = HttpResponseParser(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "busy" if self.attempt else "idle"
        return f"<UpstreamConnection {self.pool.address} {state}, served {self.served}>"

    @property
    def closed(self) -> bool:
        """Whether nothing more can be sent on it."""
        return self._transport.is_closing()

    @property
    def is_waiting_for_caller(self) -> bool:
        """Whether it is the caller's turn: to send more of the request, or to read more of the answer."""
        attempt = self.attempt
        return self._paused or (attempt is not None and not self._stuck and attempt.caller.is_sending())

    def begin(self, attempt: Attempt) -> None:
        """Starts to serve an attempt, which sends its request at once."""
        self.attempt, attempt.connection = attempt, self
        attempt.waiting, attempt.reused = False, self.served > 0
        self._answer = Answer()
        self._head_only = attempt.caller.method == b"HEAD"
        self.request_sent = False
        attempt.caller.on_connected(attempt, self)

    def send(self, data: bytes, last: bool) -> None:
        """Sends a part of the request; `last` when it is the end of it."""
        self.request_sent = last
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def pause(self) -> None:
        """Stops reading the answer: the caller does not keep up."""
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Reads the answer again."""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        """Ends the connection at once; its attempt hears nothing more."""
        self.attempt = None
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        attempt = self.attempt
        if attempt is None:
            self.close()
            return
        self._unseen += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._reusable = False
            self._answer.malformed = self._answer.malformed or not self._answer.complete
        self._deliver(attempt, self._answer)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.pool.on_lost(self)
        attempt, self.attempt = self.attempt, None
        if attempt is None:
            return
        attempt.connection = None
        answer = self._answer
        if error is None and answer.head_complete and answer.length is None and not answer.chunked:
            answer.complete = True
            attempt.caller.on_answer(attempt, answer)
        else:
            attempt.caller.on_failure(attempt, Failure.CUT_OFF)

    def pause_writing(self) -> None:
        self._stuck = True
        if self.attempt is not None:
            self.attempt.caller.pause_request()

    def resume_writing(self) -> None:
        self._stuck = False
        if self.attempt is not None:
            self.attempt.caller.resume_request()

    def on_message_begin(self) -> None:
        if self._answer.complete:
            self._reusable = False

    def on_status(self, reason: bytes) -> None:
        if not self._answer.complete:
            self._answer.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        answer = self._answer
        if not answer.head_complete:
            answer.add_header(name, value)

    def on_headers_complete(self) -> None:
        answer = self._answer
        if answer.complete:
            return
        status = self._parser.get_status_code()
        self._unseen = 0
        answer.end_head(status)
        if self._head_only and status >= 200:
            answer.complete = True
            self._reusable = answer.keeps_alive(self._parser.get_http_version())

    def on_body(self, piece: bytes) -> None:
        answer = self._answer
        self._unseen = 0
        if answer.complete:
            self._reusable = False
        else:
            answer.pieces.append(piece)

    def on_message_complete(self) -> None:
        answer = self._answer
        if 100 <= answer.status < 200 and answer.status != 101:
            self._answer = Answer()
        else:
            answer.complete = True
            self._reusable = self._reusable and self._parser.should_keep_alive()

    def _deliver(self, attempt: Attempt, answer: Answer) -> None:
        attempt.answered = True
        if answer.malformed or self._unseen > ANSWER_HEAD_BYTES:
            attempt.cancel()
            attempt.caller.on_failure(attempt, Failure.MALFORMED)
        elif answer.head_complete:
            attempt.deadline = monotonic() + attempt.idle_seconds
            if answer.complete:
                self._end(attempt)
            attempt.caller.on_answer(attempt, answer)

    def _end(self, attempt: Attempt) -> None:
        self.attempt = attempt.connection = None
        self.served += 1
        self.resume()
        if self._head_only:
            self._parser = HttpResponseParser(self)
        if self._reusable and self.request_sent and not self._stuck and not self.closed:
            self.pool.release(self)
        else:
            self.close()
