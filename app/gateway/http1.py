"""The caller's side of an exchange: framing, limits, deadlines, order of pipelined requests."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from app.gateway.answers import JSON, PROBLEM, own_answer, problem
from app.gateway.requests import HEAD_BYTES, Request

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
IDLE_SECONDS = 75.0
WRITE_SECONDS = 60.0
LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024
_SLICE_BYTES = 64 * 1024
_NEVER = float("inf")


class Handler(Protocol):
    """What answers one request: an exchange with an arm, or one of the gateway's own endpoints."""

    def start(self) -> None: ...
    def on_body(self) -> None: ...
    def abandon(self) -> None: ...
    def pause_answer(self) -> None: ...
    def resume_answer(self) -> None: ...


class Front(Protocol):
    """What a connection needs of its worker."""

    draining: bool

    def open(self, connection: ClientConnection, request: Request) -> Handler: ...
    def on_connected(self, connection: ClientConnection) -> None: ...
    def on_lost(self, connection: ClientConnection) -> None: ...
    def on_refused(self, status: int) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One connection of a caller. Requests are parsed ahead, and answered one at a time, in order.

    Mutable state: the request being parsed, those that wait, the one being answered, unparsed bytes.
    """

    def __init__(self, front: Front) -> None:
        self.peer = b""
        self._front = front
        self._parser = HttpRequestParser(self)
        self._parsing: Request | None = None
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._handler: Handler | None = None
        self._rest = b""
        self._unseen = 0
        self._deaf = False
        self._muted = False
        self._advancing = False
        self._answering = False
        self._arm_full = False
        self._reading = True
        self._lingered = 0
        self._deadline = _NEVER
        self._write_deadline = _NEVER

    def __repr__(self) -> str:
        return (
            f"<ClientConnection {self.peer!r} current {self._current is not None}, queued {len(self._queue)}>"
        )

    @property
    def is_idle(self) -> bool:
        """Whether no request is being read, waiting or being answered."""
        return self._current is None and not self._queue and not self._rest and self._parsing is None

    @property
    def is_reading(self) -> bool:
        """Whether the caller is listened to; paused when an arm or an earlier request is behind."""
        return self._reading

    def write(self, data: bytes) -> None:
        """Sends a part of the current answer."""
        self._answering = True
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
        return request.keep_alive and request.complete and not self._front.draining

    def finish(self, keep_alive: bool) -> None:
        """Ends the current exchange: the next request, or the end of the connection."""
        request, self._current, self._handler = self._current, None, None
        self._answering = self._arm_full = False
        if not keep_alive:
            self._say_goodbye(request is not None and request.complete)
            return
        self._deadline = monotonic() + IDLE_SECONDS if self._parsing is None else self._deadline
        self.proceed()
        if self._front.draining:
            self.drain()

    def abort(self) -> None:
        """Ends the connection at once: the answer that was promised cannot be completed."""
        self._transport.abort()

    def _balance(self) -> None:
        """Listens to the caller exactly when there is room for what it says."""
        current = self._current
        behind = current is not None and current.pending > current.hold_bytes
        wanted = not (self._arm_full or behind or self._queue or self._rest) or self._deaf
        if wanted is self._reading or self._transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def on_new_arm(self) -> None:
        """Told by the exchange: another arm gets the request, and what the last one did not take is moot."""
        self._arm_full = False

    def set_arm_full(self, full: bool) -> None:
        """Told by the exchange: whether the arm takes no more of the request for now."""
        self._arm_full = full
        self.proceed()

    def expire(self, now: float) -> None:
        """Ends the connection when the caller has been silent for too long."""
        request, current = self._parsing, self._current
        if now >= self._write_deadline:
            self.abort()
        elif now < self._deadline:
            return
        elif self._queue or (current is not None and (request is not current or not self._reading)):
            self._deadline = now + BODY_SECONDS
        elif request is None or self._answering or self._deaf:
            self.abort()
        else:
            self._refuse(request, 408, "the request was not sent in time")

    def drain(self) -> None:
        """Ends the connection now when it is idle; otherwise its current answer says that it is the last."""
        if self.is_idle:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = str(peer[0]).encode() if peer else b"unknown"
        self._deadline = monotonic() + HEAD_SECONDS
        self._front.on_connected(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._front.on_lost(self)
        handler, self._handler, self._current = self._handler, None, None
        self._queue.clear()
        self._rest = b""
        self._deaf = True
        if handler is not None:
            handler.abandon()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._write_deadline = monotonic() + WRITE_SECONDS
        if self._handler is not None:
            self._handler.pause_answer()

    def resume_writing(self) -> None:
        self._write_deadline = _NEVER
        if self._handler is not None:
            self._handler.resume_answer()
        self.proceed()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._linger(len(data))
            return
        if self._rest or len(data) > _SLICE_BYTES:
            self._rest += data
            self.proceed()
            return
        self._feed(data)
        self.proceed()

    def on_message_begin(self) -> None:
        if not self._muted:
            self._parsing = Request()
            self._deadline = monotonic() + HEAD_SECONDS

    def on_url(self, piece: bytes) -> None:
        request = self._parsing
        if request is not None and not self._muted:
            request.target += piece
            request.head_bytes += len(piece)

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._parsing
        if request is not None and not request.method:
            request.add_header(name, value)

    def on_headers_complete(self) -> None:
        request, parser = self._parsing, self._parser
        if request is None or self._muted:
            return
        request.end_head(parser.get_method(), parser.get_http_version(), parser.should_keep_alive())
        self._unseen = 0
        self._queue.append(request)
        self._deaf = self._deaf or request.fault is not None

    def on_body(self, piece: bytes) -> None:
        self._unseen = 0
        if self._parsing is not None:
            self._parsing.add_body(piece)

    def on_message_complete(self) -> None:
        request = self._parsing
        if request is None or self._muted or (request.has_upgrade and self._parser.should_upgrade()):
            return
        request.complete = True
        self._parsing = None
        self._deadline = _NEVER

    def _feed(self, data: bytes) -> None:
        rest = data
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :] if self._ignore_upgrade() else b""
            except HttpParserError:
                self._on_malformed()
                break
        request = self._parsing
        if request is None or self._deaf:
            return
        if request.method:
            self._deadline = monotonic() + BODY_SECONDS
        self._unseen += len(data)
        if self._unseen > HEAD_BYTES + _SLICE_BYTES:
            self._fault(431, f"header and trailer fields must be at most {HEAD_BYTES} bytes, got more")

    def _ignore_upgrade(self) -> bool:
        """Goes on in HTTP/1.1 after a request that asked for another protocol; its body is still to come.

        False when the request is refused, and what follows it is not to be read.
        """
        request = self._parsing
        self._parser = HttpRequestParser(self)
        if request is None or request.fault is not None:
            return False
        framing = (
            b"Transfer-Encoding: chunked"
            if request.chunked
            else b"Content-Length: %d" % (request.length or 0)
        )
        self._muted = bool(request.chunked or request.length)
        self._parsing = request if self._muted else None
        request.complete = not self._muted
        if self._muted:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
            self._muted = False
        return True

    def _on_malformed(self) -> None:
        if not self._deaf:
            self._fault(400, "the request is not well-formed HTTP/1.1")

    def _fault(self, status: int, detail: str) -> None:
        request = self._parsing if self._parsing is not None else Request()
        self._deaf = True
        request.refuse(status, detail)
        if not request.method:
            self._queue.append(request)
        elif request is self._current:
            self._refuse(request, status, detail)

    def proceed(self) -> None:
        """Begins what can begin, parses what was held back, and tells the current exchange of more body."""
        if self._advancing:
            return
        self._advancing = True
        if self._handler is not None:
            self._handler.on_body()
        while not self._transport.is_closing():
            if self._current is None and self._queue and self._has_taken_answers():
                self._begin(self._queue.popleft())
            elif self._rest and not self._queue and not self._deaf and self._has_room():
                data, self._rest = self._rest[:_SLICE_BYTES], self._rest[_SLICE_BYTES:]
                self._feed(data)
                if self._handler is not None:
                    self._handler.on_body()
            else:
                break
        self._advancing = False
        self._balance()

    def _has_taken_answers(self) -> bool:
        """Whether the caller has read most of what it was sent; until then nothing more is asked for it."""
        return self._write_deadline == _NEVER

    def _has_room(self) -> bool:
        current = self._current
        return not self._arm_full and (current is None or current.pending <= current.hold_bytes)

    def _begin(self, request: Request) -> None:
        self._current = request
        if request.fault is not None:
            self._refuse(request, request.fault.status, request.fault.detail)
            return
        if request.complete:
            self._deadline = _NEVER
        elif request.expects_continue and not request.http10 and not request.pending:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._handler = self._front.open(self, request)
        self._handler.start()

    def _refuse(self, request: Request, status: int, detail: str) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.abandon()
        if self._answering:
            self.abort()
            return
        self._front.on_refused(status)
        self.write(own_answer(request, status, problem(status, detail), PROBLEM, b"", keep_alive=False))
        self._current = None
        self._say_goodbye(False)

    def _say_goodbye(self, whole: bool) -> None:
        """Closes; what the caller still sends of an unread request is ignored, so that it sees the answer."""
        self._deaf = True
        self._queue.clear()
        self._rest = b""
        if whole:
            self._deadline = monotonic() + WRITE_SECONDS
            self._transport.close()
            return
        self._deadline = monotonic() + LINGER_SECONDS
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._balance()

    def _linger(self, size: int) -> None:
        self._lingered += size
        if self._current is None and self._lingered > LINGER_BYTES:
            self.abort()
