"""A model endpoint that misbehaves as told. It keeps all bytes that it gets, and reads them by the letter."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from tests.faults.strict import Broken, Whole, problems_of, read_request

NO_LINGER = struct.pack("ii", 1, 0)
_PIECE = bytes(64 * 1024)


class Then(StrEnum):
    """What becomes of a connection after an answer."""

    KEEP = "keep"
    CLOSE = "close"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered: pieces with pauses between them, and what then becomes of the connection."""

    pieces: Sequence[bytes]
    then: Then = Then.KEEP
    pause: float = 0.0


@dataclass(eq=False)
class Link:
    """One connection to the origin: its byte log, the whole requests in it, and what was sent on it."""

    received: bytearray = field(default_factory=bytearray)
    requests: list[Whole] = field(default_factory=list)
    sent: int = 0
    lost: bool = False
    unread: bytearray = field(default_factory=bytearray)
    transport: asyncio.Transport | None = None

    @property
    def is_between(self) -> bool:
        """Whether nothing of a further request has come."""
        return not self.unread

    @property
    def produced(self) -> int:
        """Bytes that the system has taken."""
        transport = self.transport
        waiting = 0 if transport is None or self.lost else transport.get_write_buffer_size()
        return self.sent - waiting

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.sent += len(data)
            self.transport.write(data)

    def end(self, then: Then) -> None:
        """Closes the connection, or resets it."""
        transport = self.transport
        if transport is None or then is Then.KEEP:
            return
        if then is Then.RESET:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
            transport.abort()
        else:
            transport.close()


Script = Callable[[Link, Whole], None]


class Origin:
    """Listens on a free port. `links` are all its connections, `seen` all whole requests, in order.

    `broken`: what came that was no clean request. `replies` by nonce are given before `script` is asked;
    without either, an answer names the nonce of its request. `is_deaf`: nothing is ever read.
    `is_behind_the_gateway` is off where something else stands between the two.
    """

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.seen: list[Whole] = []
        self.broken: list[str] = []
        self.replies: dict[bytes, Reply] = {}
        self.script: Script = echo
        self.is_deaf = False
        self.is_behind_the_gateway = True
        self.receive_bytes: int | None = None
        self.send_bytes: int | None = None
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """Connections that there are."""
        return sum(not link.lost for link in self.links)

    async def start(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        if self.receive_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        if self.send_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_bytes)
        self.port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Serving(self), sock=listener)

    async def stop(self) -> None:
        """Stops accepting, and drops every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        for link in self.links:
            if link.transport is not None and not link.lost:
                link.transport.abort()
        await asyncio.sleep(0.01)

    def nonces(self, since: int = 0) -> list[bytes]:
        """The nonces of the requests seen, in order."""
        return [request[b"x-nonce"] for request in self.seen[since:]]

    def take(self, link: Link, request: Whole) -> None:
        """A whole request has come."""
        self.seen.append(request)
        link.requests.append(request)
        if self.is_behind_the_gateway:
            self.broken += problems_of(request)
        reply = self.replies.get(request[b"x-nonce"])
        if reply is None:
            self.script(link, request)
        elif reply.pause == 0.0:
            for piece in reply.pieces:
                link.send(piece)
            link.end(reply.then)
        else:
            self._tasks.add(task := asyncio.get_running_loop().create_task(_give(link, reply)))
            task.add_done_callback(self._tasks.discard)


class _Serving(asyncio.Protocol):
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.link = Link()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link.transport = cast(asyncio.Transport, transport)
        self._origin.links.append(self.link)
        if self._origin.is_deaf:
            self.link.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        link = self.link
        link.received += data
        link.unread += data
        while link.unread and not link.lost:
            try:
                request = read_request(bytes(link.unread))
            except Broken as broken:
                self._origin.broken.append(str(broken))
                link.end(Then.RESET)
                return
            if request is None:
                return
            del link.unread[: request.size]
            self._origin.take(link, request)

    def connection_lost(self, error: Exception | None) -> None:
        self.link.lost = True


def answer_to(request: Whole) -> bytes:
    """An answer that names the nonce of its request, and how much body came with it."""
    nonce = request[b"x-nonce"]
    body = b"" if request.method == b"HEAD" else b"%b %d" % (nonce, len(request.body))
    head = b"HTTP/1.1 200 OK\r\nX-Nonce: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (nonce, len(body)) + body


def echo(link: Link, request: Whole) -> None:
    """The script that answers everything."""
    link.send(answer_to(request))


def hang(_: Link, __: Whole) -> None:
    """The script that never answers."""


def flood(total: int) -> Script:
    """A script that answers with so many bytes, as fast as they are taken."""

    def script(link: Link, _: Whole) -> None:
        link.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        loop = asyncio.get_running_loop()
        left = total

        def more() -> None:
            nonlocal left
            if link.lost or link.transport is None or left <= 0:
                return
            while left > 0 and link.transport.get_write_buffer_size() < len(_PIECE):
                link.send(_PIECE[:left])
                left -= min(left, len(_PIECE))
            loop.call_later(0.01, more)

        more()

    return script


async def _give(link: Link, reply: Reply) -> None:
    for number, piece in enumerate(reply.pieces):
        if number:
            await asyncio.sleep(reply.pause)
        link.send(piece)
    await asyncio.sleep(reply.pause)
    link.end(reply.then)
