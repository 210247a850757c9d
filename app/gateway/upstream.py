"""The model endpoint's side of an exchange: one connection, and one attempt to get an answer over it."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Protocol, cast

from app.gateway.answers import ANSWER_HEAD_BYTES, Answer
from app.gateway.heads import END, BadMessage, is_hopeless

if TYPE_CHECKING:
    from app.gateway.pool import Pool
    from app.gateway.targets import Target


_MOST_INTERIMS = 16
_END_SECONDS = 5.0


class Failure(StrEnum):
    """Why an attempt brought no answer, or not all of it."""

    EJECTED = "ejected"
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


class Tunnel(Protocol):
    """What takes a connection over once it speaks another protocol."""

    def on_arm_data(self, data: bytes) -> None: ...
    def on_arm_end(self) -> None: ...
    def pause_caller(self) -> None: ...
    def resume_caller(self) -> None: ...


class Attempt:
    """One try to get an answer from one arm. `connection` is None until there is one, and again once over.

    `wants_new`: one that has served before will not do. Each kind takes what becomes of it by itself.
    """

    __slots__ = (
        "answered",
        "connection",
        "deadline",
        "method",
        "pool",
        "reused",
        "target",
        "waiting",
        "waits_until",
        "wants_new",
        "wants_tunnel",
    )

    def __init__(self, method: bytes, target: Target, pool: Pool, deadline: float) -> None:
        self.connection: UpstreamConnection | None = None
        self.answered = False
        self.reused = False
        self.waiting = False
        self.waits_until = inf
        self.wants_new = False
        self.wants_tunnel = False
        self.method = method
        self.target = target
        self.pool = pool
        self.deadline = deadline

    @property
    def over(self) -> bool:
        """Whether it neither waits for a connection nor has one."""
        return self.connection is None and not self.waiting

    @property
    def is_stale(self) -> bool:
        """Whether its connection may have been closed by the arm before the request arrived."""
        return self.reused and not self.answered

    @property
    def idle_seconds(self) -> float:
        """How long the arm may be silent once it has begun to answer."""
        return self.target.limits.timeout_ms / 1000

    def on_connected(self, connection: UpstreamConnection) -> None:
        """There is a connection, which waits for the request."""
        raise NotImplementedError

    def on_answer(self, answer: Answer) -> None:
        """There is more of the answer, or all of it."""
        raise NotImplementedError

    def on_failure(self, failure: Failure) -> None:
        """There is no answer, or not all of it."""
        raise NotImplementedError

    def on_interim(self, answer: Answer) -> None:
        """There is an informational answer, of which most want to know nothing."""

    def on_switch(self, answer: Answer, rest: bytes) -> bool:
        """The arm changes the protocol, and `rest` is in the new one; False: nobody has asked for that."""
        return False

    def pause_request(self) -> None:
        """The arm does not keep up with the request."""

    def resume_request(self) -> None:
        """The arm has caught up."""

    def is_sending(self) -> bool:
        """Whether some of the request is still to be sent."""
        return False

    def expire(self, now: float) -> None:
        """Ends the attempt when its arm has been silent for too long; the caller's silence does not count."""
        limit = min(self.deadline, self.waits_until) if self.waiting else self.deadline
        if now < limit or self.over:
            return
        connection = self.connection
        if connection is not None and connection.is_waiting_for_caller:
            self.deadline = now + self.idle_seconds
        else:
            is_busy = self.waiting and self.pool.is_full
            self.cancel()
            self.on_failure(Failure.BUSY if is_busy else Failure.TIMEOUT)

    def cancel(self) -> None:
        """Gives up: whatever the arm still says is not heard. Safe to call twice."""
        connection, self.connection = self.connection, None
        self.waiting = False
        if connection is not None:
            connection.close()


class CalledAttempt(Attempt):
    """An attempt whose caller is told what becomes of it."""

    __slots__ = ("caller",)

    def __init__(self, caller: Caller, target: Target, pool: Pool, deadline: float) -> None:
        super().__init__(caller.method, target, pool, deadline)
        self.caller = caller

    def on_connected(self, connection: UpstreamConnection) -> None:
        self.caller.on_connected(self, connection)

    def on_answer(self, answer: Answer) -> None:
        self.caller.on_answer(self, answer)

    def on_failure(self, failure: Failure) -> None:
        self.caller.on_failure(self, failure)

    def pause_request(self) -> None:
        self.caller.pause_request()

    def resume_request(self) -> None:
        self.caller.resume_request()

    def is_sending(self) -> bool:
        return self.caller.is_sending()


class UpstreamConnection:
    """One keep-alive connection to an arm. Serves one attempt at a time; between attempts it is idle.

    Mutable state: the attempt being served, its answer, and whether either direction is paused. An
    `asyncio.Protocol` by its methods (ADR 0017).
    """

    __slots__ = (
        "_answer",
        "_ended",
        "_interims",
        "_looked_at",
        "_method",
        "_paused",
        "_rest",
        "_stuck",
        "_transport",
        "_tunnel",
        "attempt",
        "idle_since",
        "pool",
        "request_sent",
        "served",
    )

    def __init__(self, pool: Pool) -> None:
        self.served = 0
        self.idle_since = 0.0
        self.attempt: Attempt | None = None
        self.request_sent = False
        self._tunnel: Tunnel | None = None
        self._method = b""
        self._rest = b""
        self._interims = 0
        self._looked_at = 0
        self._paused = False
        self._stuck = False
        self._ended = False
        self.pool = pool
        self._answer = Answer()

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
        return self._paused or (attempt is not None and not self._stuck and attempt.is_sending())

    def begin(self, attempt: Attempt) -> None:
        """Starts to serve an attempt, which sends its request at once."""
        self.attempt, attempt.connection = attempt, self
        attempt.waiting, attempt.reused = False, self.served > 0
        self._answer, self._method = Answer(), attempt.method
        self._interims = 0
        self.request_sent = False
        attempt.on_connected(self)

    def send(self, data: bytes, last: bool) -> None:
        """Sends a part of the request; `last` when it is the end of it."""
        self.request_sent = last
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def tunnel(self, tunnel: Tunnel) -> None:
        """From now on the arm speaks to somebody else, in another protocol; the pool never gets it back."""
        attempt, self.attempt, self._tunnel = self.attempt, None, tunnel
        self.pool.on_tunnel(self)
        if attempt is not None:
            attempt.connection = None

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

    def end(self) -> None:
        """Ends the connection once everything has been sent, or the arm has not taken it for long enough."""
        self._transport.close()
        asyncio.get_running_loop().call_later(_END_SECONDS, self._transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        attempt = self.attempt
        if attempt is None:
            if self._tunnel is not None:
                self._tunnel.on_arm_data(data)
            else:
                self.close()
            return
        attempt.answered = True
        try:
            is_more = self._read(attempt, data)
        except BadMessage:
            attempt.connection = None
            self.close()
            attempt.on_failure(Failure.MALFORMED)
            return
        if is_more:
            self._deliver(attempt, self._answer)

    def eof_received(self) -> bool:
        self._ended = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.pool.on_lost(self)
        attempt, self.attempt = self.attempt, None
        tunnel, self._tunnel = self._tunnel, None
        if tunnel is not None:
            tunnel.on_arm_end()
        if attempt is None:
            return
        attempt.connection = None
        # a TLS connection that is cut is lost without an error, but also without an end
        if error is None and self._ended and self._answer.end():
            attempt.on_answer(self._answer)
        else:
            attempt.on_failure(Failure.CUT_OFF)

    def pause_writing(self) -> None:
        self._stuck = True
        if self._tunnel is not None:
            self._tunnel.pause_caller()
        elif self.attempt is not None:
            self.attempt.pause_request()

    def resume_writing(self) -> None:
        self._stuck = False
        if self._tunnel is not None:
            self._tunnel.resume_caller()
        elif self.attempt is not None:
            self.attempt.resume_request()

    def _read(self, attempt: Attempt, data: bytes) -> bool:
        """Reads what has come; whether there is something of the answer to deliver."""
        if self._answer.head_complete:
            rest = data
        else:
            head_and_rest = self._rest + data if self._rest else data
            self._rest = b""
            found = self._read_heads(attempt, head_and_rest)
            if found is None:
                return False
            rest = found
        if rest and self._answer.read_body(rest):
            raise BadMessage(502, "an answer must end where it says, got more")
        return True

    def _read_heads(self, attempt: Attempt, data: bytes) -> bytes | None:
        """Reads heads up to the one of the final answer; gives what came after it, None: it is not there."""
        while True:
            end = data.find(END, 0, ANSWER_HEAD_BYTES)
            if end < 0:
                if len(data) >= ANSWER_HEAD_BYTES or is_hopeless(data, self._looked_at):
                    raise BadMessage(
                        502, f"an answer's head must be text of at most {ANSWER_HEAD_BYTES} bytes"
                    )
                self._rest, self._looked_at = data, len(data)
                return None
            self._looked_at = 0
            answer = self._answer
            answer.read_head(data[:end], self._method)
            data = data[end + len(END) :]
            if answer.status >= 200:
                return data
            if answer.status == 101:
                self._switch(attempt, answer, data)
                return None
            self._pass_interim(attempt, answer)

    def _switch(self, attempt: Attempt, answer: Answer, rest: bytes) -> None:
        if not attempt.on_switch(answer, rest):
            raise BadMessage(502, "the protocol must not change unasked")

    def _pass_interim(self, attempt: Attempt, answer: Answer) -> None:
        self._interims += 1
        if self._interims > _MOST_INTERIMS:
            raise BadMessage(502, f"informational answers must be at most {_MOST_INTERIMS}, got more")
        if answer.status != 100:
            attempt.on_interim(answer)
        self._answer = Answer()

    def _deliver(self, attempt: Attempt, answer: Answer) -> None:
        if answer.complete:
            self._end(attempt, answer)
        else:
            attempt.deadline = monotonic() + attempt.idle_seconds
        attempt.on_answer(answer)

    def _end(self, attempt: Attempt, answer: Answer) -> None:
        self.attempt = attempt.connection = None
        self.served += 1
        self.resume()
        if answer.keep_alive and self.request_sent and not self._stuck and not self.closed:
            self.pool.release(self)
        else:
            self.close()
