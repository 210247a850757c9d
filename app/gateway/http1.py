"""The caller's side of an exchange: one connection, its requests in order, its limits and deadlines."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final, cast

from app.gateway.handlers import Front, Handler, Tunnel
from app.gateway.heads import END, BadMessage, is_hopeless
from app.gateway.replies import JSON, PROBLEM, own_answer, problem
from app.gateway.requests import HOLD_BYTES, SMALL_BYTES, Request, too_long
from app.gateway.resets import reset
from app.gateway.settings import GatewaySettings

LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
DRAIN_SECONDS = 1.0
"""How long an idle connection stays open when the worker drains, for a request that is on its way."""

_EMPTY_LINES: Final = 2
_NEVER: Final = float("inf")


class ClientConnection:
    """One connection of a caller. A request is read when the one before it has been answered.

    Mutable state: `_current`, the request being answered, with its `_handler`; `_rest`, bytes not read yet;
    the deadline; and whether enough was read (`_deaf`). An `asyncio.Protocol` by its methods (ADR 0017).
    """

    __slots__ = (
        "_advancing",
        "_answering",
        "_arm_full",
        "_body_began",
        "_current",
        "_deadline",
        "_deaf",
        "_empty_lines",
        "_front",
        "_half_closed_at",
        "_handler",
        "_held",
        "_lingered",
        "_looked_at",
        "_reading",
        "_rest",
        "_settings",
        "_stuck_deadline",
        "_transport",
        "_tunnel",
        "_write_deadline",
        "peer",
        "trusted",
    )

    def __init__(self, front: Front) -> None:
        self.peer = b""
        self.trusted = False
        self._current: Request | None = None
        self._handler: Handler | None = None
        self._tunnel: Tunnel | None = None
        self._rest = b""
        self._empty_lines = 0
        self._looked_at = 0
        self._deaf = False
        self._half_closed_at = _NEVER
        self._advancing = False
        self._answering = False
        self._arm_full = False
        self._reading = True
        self._lingered = 0
        self._held = 0
        self._body_began = 0.0
        self._deadline = _NEVER
        self._write_deadline = _NEVER
        self._stuck_deadline = _NEVER
        self._front = front
        self._settings = front.settings

    def __repr__(self) -> str:
        state = "idle" if self._current is None else "busy"
        return f"<ClientConnection {self.peer!r} {state}, unread {len(self._rest)}>"

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read or answered."""
        return self._current is None and not self._rest and not self._deaf

    @property
    def is_reading(self) -> bool:
        """Whether the caller is listened to; paused when an arm or an earlier request is behind."""
        return self._reading

    @property
    def gone_seconds(self) -> float:
        """How long ago the caller closed its side; 0 if it has not."""
        return max(0.0, monotonic() - self._half_closed_at)

    def write(self, data: bytes) -> None:
        """Sends a part of the current answer."""
        self._answering = True
        self._transport.write(data)

    def interim(self, data: bytes) -> None:
        """Sends an informational answer, which is not the answer."""
        if self._current is not None and not self._current.http10:
            self._transport.write(data)

    def answer(self, status: int, body: bytes, content_type: bytes = JSON, lines: bytes = b"") -> None:
        """Answers the current request with an answer of the gateway's own, and ends the exchange."""
        request = self._current
        if request is None:
            return
        keep_alive = self.may_keep_alive(request)
        self.write(own_answer(request, status, body, content_type, lines, keep_alive))
        self.finish(keep_alive)

    def may_keep_alive(self, request: Request) -> bool:
        """Whether the connection can outlive the answer that begins now."""
        is_last = self._front.parting or (self._half_closed_at != _NEVER and not self._rest)
        return request.keep_alive and request.complete and not is_last

    def finish(self, keep_alive: bool) -> None:
        """Ends the current exchange: the next request, or the end of the connection."""
        request, self._current, self._handler = self._current, None, None
        self._answering = self._arm_full = False
        if self._held:
            self._forget_held()
        is_last = self._half_closed_at != _NEVER and not self._rest
        if is_last or not keep_alive:
            self._say_goodbye(request is not None and request.complete)
            return
        settings = self._settings
        self._deadline = monotonic() + (settings.head_seconds if self._rest else settings.idle_seconds)
        if self._front.draining:
            self.drain()
        if self._rest or not self._reading:
            self.proceed()

    def _forget_held(self) -> None:
        self._front.held -= self._held
        self._held = 0

    def tunnel(self, tunnel: Tunnel) -> None:
        """From now on the caller speaks to somebody else, in another protocol."""
        self._tunnel, self._deadline = tunnel, _NEVER
        rest, self._rest = self._rest, b""
        self._balance()
        if rest:
            tunnel.on_caller_data(rest)
        if self._half_closed_at != _NEVER:
            self.close()

    def pause_caller(self) -> None:
        """Told by a tunnel: the other side does not keep up, which must not last for ever."""
        self._stuck_deadline = monotonic() + self._settings.write_seconds
        self._transport.pause_reading()

    def resume_caller(self) -> None:
        """Told by a tunnel: the other side has caught up."""
        self._stuck_deadline = _NEVER
        self._transport.resume_reading()

    def close(self) -> None:
        """Ends the connection once everything has been sent."""
        self._deaf = True
        self._deadline = monotonic() + self._settings.write_seconds
        self._transport.close()

    def abort(self) -> None:
        """Ends the connection at once, so that nobody takes what was sent for the whole of it."""
        reset(self._transport)

    def on_new_arm(self) -> None:
        """Told by the exchange: another arm gets the request, and what the last one did not take is moot."""
        self._arm_full = False

    def set_arm_full(self, full: bool) -> None:
        """Told by the exchange: whether the arm takes no more of the request for now."""
        self._arm_full = full
        self.proceed()

    def expire(self, now: float) -> None:
        """Ends the connection when the caller has been silent, or slow, for too long."""
        current = self._current
        if now >= min(self._write_deadline, self._stuck_deadline) or self._is_left(now):
            self.abort()
        elif now < self._deadline or (self._tunnel is not None and not self._deaf):
            return
        elif self._deaf:
            self.abort()
        elif current is not None and not current.complete:
            self._expire_body(current, now)
        elif current is not None:
            self._deadline = _NEVER
        elif not self._rest:
            self.close()
        else:
            self._refuse(Request(), BadMessage(408, "the request's head was not sent in time"))

    def _is_left(self, now: float) -> bool:
        """Whether nobody seems to be there: a caller that closed its side, or a tunnel without a word."""
        settings, tunnel = self._settings, self._tunnel
        if tunnel is not None:
            return now >= tunnel.used_at + settings.tunnel_idle_seconds
        return not self._answering and now >= self._half_closed_at + settings.half_closed_seconds

    def drain(self) -> None:
        """Ends the connection if it stays idle for a moment longer; a request that comes now is the last."""
        if self.is_idle:
            self._deadline = min(self._deadline, monotonic() + DRAIN_SECONDS)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        address = str(peer[0]) if peer else "unknown"
        self.peer, self.trusted = address.encode(), self._front.is_trusted(address)
        self._deadline = monotonic() + self._settings.head_seconds
        if self._front.draining:
            self.drain()
        if not self._front.on_connected(self):
            self._refuse(Request(), BadMessage(503, "the gateway has as many callers as it takes"))

    def connection_lost(self, error: Exception | None) -> None:
        self._front.on_lost(self)
        self._forget_held()
        handler, self._handler, self._current = self._handler, None, None
        tunnel, self._tunnel = self._tunnel, None
        self._rest, self._deaf = b"", True
        if tunnel is not None:
            tunnel.on_caller_end()
        elif handler is not None:
            handler.abandon()

    def eof_received(self) -> bool:
        """Lets an answer that is due be sent still: the caller may only have said all that it wanted to."""
        request = self._current
        if self._tunnel is not None or self._deaf or request is None or not request.complete:
            return False
        self._half_closed_at = monotonic()
        return True

    def pause_writing(self) -> None:
        self._write_deadline = monotonic() + self._settings.write_seconds
        if self._tunnel is not None:
            self._tunnel.pause_arm()
        elif self._handler is not None:
            self._handler.pause_answer()

    def resume_writing(self) -> None:
        self._write_deadline = _NEVER
        if self._tunnel is not None:
            self._tunnel.resume_arm()
            return
        if self._handler is not None:
            self._handler.resume_answer()
        self.proceed()

    def data_received(self, data: bytes) -> None:
        current = self._current
        if self._tunnel is not None:
            self._tunnel.on_caller_data(data)
        elif self._deaf:
            self._linger(len(data))
        elif current is None:
            self._rest = self._rest + data if self._rest else data
            self.proceed()
        elif current.complete or self._rest:
            self._rest += data
            self._balance()
        else:
            self._read_body(current, data)
            self.proceed()

    def proceed(self) -> None:
        """Reads what can be read: the rest of a body that was held back, the next request's head."""
        if self._advancing:
            return
        self._advancing = True
        try:
            self._read_on()
        finally:
            self._advancing = False
        if self._half_closed_at != _NEVER:
            self._end_unfinished()
        self._balance()

    def _end_unfinished(self) -> None:
        """Ends the connection of a caller that has stopped in the middle of a request."""
        current = self._current
        if self._write_deadline != _NEVER or self._deaf:
            return
        if current is None:
            self.close()
        elif not (current.complete or self._rest):
            self.abort()

    def _read_on(self) -> None:
        while self._rest and not self._deaf and self._tunnel is None and not self._transport.is_closing():
            current = self._current
            if current is None:
                if self._write_deadline != _NEVER or not self._read_head():
                    break
            elif current.complete or not self._has_room(current):
                break
            else:
                data, self._rest = self._rest, b""
                self._read_body(current, data)

    def _has_room(self, current: Request) -> bool:
        return not self._arm_full and current.pending <= current.hold_bytes

    def _read_head(self) -> bool:
        """Begins the next request; False when its head is not all there."""
        data, settings = self._rest, self._settings
        if data.startswith(b"\r\n") and self._empty_lines < _EMPTY_LINES:
            self._empty_lines += 1
            self._looked_at = 0
            self._rest = data[2:]
            return True
        end = data.find(END, 0, settings.head_bytes)
        if end < 0:
            self._check_part(data, settings)
            return False
        self._empty_lines = self._looked_at = 0
        self._rest = data[end + 4 :]
        request = Request()
        try:
            request.read_head(data[:end], settings)
            if self._rest and not request.complete:
                self._rest = request.read_body(self._rest, settings.body_bytes)
        except BadMessage as bad:
            self._refuse(request, bad)
            return False
        self._begin(request)
        return True

    def _check_part(self, part: bytes, settings: GatewaySettings) -> None:
        """Refuses a head that is too long already, or that can no longer become a good one."""
        if len(part) >= settings.head_bytes:
            self._refuse(Request(), too_long(part, settings))
        elif is_hopeless(part, self._looked_at):
            self._refuse(Request(), BadMessage(400, "the request is not well-formed HTTP/1.1"))
        else:
            self._looked_at = len(part)
            self._deadline = min(self._deadline, monotonic() + settings.head_seconds)

    def _begin(self, request: Request) -> None:
        self._current = request
        if self._half_closed_at != _NEVER:
            self._half_closed_at = monotonic()
        self._deadline = _NEVER
        if not request.complete:
            self._body_began = monotonic()
            self._deadline = self._body_began + self._settings.body_seconds
        self._handler = handler = self._front.open(self, request)
        handler.start()
        if request.received > SMALL_BYTES and self._current is request:
            self._count_held(request)
        if request.expects_continue and not request.complete and self._current is request:
            self._ask_for_body(request)

    def _ask_for_body(self, request: Request) -> None:
        if not (request.http10 or request.received or self._answering):
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, request: Request, data: bytes) -> None:
        try:
            rest = request.read_body(data, self._settings.body_bytes)
        except BadMessage as bad:
            self._refuse(request, bad)
            return
        if request.complete:
            self._rest, self._deadline = rest, _NEVER
        if self._handler is not None:
            self._handler.on_body()
        if self._current is request:
            self._count_held(request)

    def _count_held(self, request: Request) -> None:
        """Bodies in memory are bounded over all callers: who holds much when there is too much has to go."""
        before, self._held = self._held, request.held
        self._front.held += self._held - before
        is_too_much = self._front.held > self._settings.held_bytes
        if is_too_much and self._held > HOLD_BYTES and not request.complete:
            self._refuse(request, BadMessage(503, "the gateway holds as many bodies as it can"))

    def _expire_body(self, request: Request, now: float) -> None:
        """A body has its time, and more for what has come of it; none passes while the gateway is behind."""
        if not self._reading:
            self._body_began = now - request.received / self._settings.body_rate
        allowed = self._body_began + self._settings.body_seconds + request.received / self._settings.body_rate
        if now < allowed:
            self._deadline = allowed
        elif self._answering:
            self.abort()
        else:
            self._refuse(request, BadMessage(408, "the request's body was not sent in time"))

    def _refuse(self, request: Request, bad: BadMessage) -> None:
        handler, self._handler, self._current = self._handler, None, None
        self._forget_held()
        if handler is not None:
            handler.abandon(bad.status)
        if self._answering:
            self.abort()
            return
        self._front.on_refused(bad.status)
        body = problem(bad.status, bad.detail)
        lines = b"Retry-After: 1\r\n" if bad.status == 503 else b""
        self.write(own_answer(request, bad.status, body, PROBLEM, lines, keep_alive=False))
        self._say_goodbye(False)

    def _say_goodbye(self, whole: bool) -> None:
        """Closes; what the caller still sends of an unread request is ignored, so that it sees the answer."""
        if (whole and not self._rest) or self._half_closed_at != _NEVER:
            self._rest = b""
            self.close()
            return
        self._deaf, self._rest = True, b""
        self._deadline = monotonic() + LINGER_SECONDS
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._balance()

    def _linger(self, size: int) -> None:
        self._lingered += size
        if self._lingered > LINGER_BYTES:
            self.abort()

    def _balance(self) -> None:
        """Listens to the caller exactly when there is room for what it says."""
        current = self._current
        if self._tunnel is not None or self._deaf:
            wanted = True
        elif current is None:
            wanted = self._write_deadline == _NEVER
        elif current.complete:
            wanted = len(self._rest) < HOLD_BYTES  # who is not listened to can leave unnoticed
        else:
            wanted = not self._rest and self._has_room(current)
        if wanted is self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
