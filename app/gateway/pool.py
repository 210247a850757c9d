"""Which connection does an attempt get? The one idle most recently, a new one, or a place in the queue.

All mutable state is in four fields of `Pool`: `idle`, `waiting`, `open`, `connecting`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from socket import SOCK_STREAM
from time import monotonic

from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Failure, UpstreamConnection

IDLE_SECONDS = 4.0
"""How long an idle connection is trusted: less than the 5 s after which common servers close theirs."""

RESOLVED_SECONDS = 10.0
"""How long the addresses of a name are used before it is looked up again."""

_FORBIDDEN = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"), IPv6Network("fd00:ec2::254/128"))


class Pool:
    """The connections to one arm: at most `limits.max_connections`, reused last in, first out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Target) -> None:
        self.target = target
        self.retired = False
        self.idle: list[UpstreamConnection] = []
        self.waiting: deque[Attempt] = deque()
        self.open = 0
        self.connecting = 0
        self._loop = loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._addresses: list[str] = []
        self._resolved_at = -RESOLVED_SECONDS
        self._lookup: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.address} open {self.open}, idle {len(self.idle)}, waiting {len(self.waiting)}>"

    @property
    def address(self) -> str:
        """Host and port, for people."""
        return f"{self.target.host}:{self.target.port}"

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be opened."""
        return self.open >= self.target.limits.max_connections

    def acquire(self, attempt: Attempt) -> None:
        """Begins the attempt on an idle connection, now, or on the next one that is free or new."""
        oldest = monotonic() - IDLE_SECONDS
        while self.idle:
            connection = self.idle.pop()
            if connection.closed:
                continue
            if connection.idle_since >= oldest:
                connection.begin(attempt)
                return
            connection.close()
        attempt.waiting = True
        self.waiting.append(attempt)
        self._connect_for_waiting()

    def release(self, connection: UpstreamConnection) -> None:
        """Takes a connection that can serve again; it begins the attempt that waits longest."""
        if (attempt := self._next_waiting()) is not None:
            connection.begin(attempt)
        elif self.retired:
            connection.close()
        else:
            connection.idle_since = monotonic()
            self.idle.append(connection)

    def on_lost(self, connection: UpstreamConnection) -> None:
        """Forgets a connection that is gone, and opens another one if somebody waits for it."""
        self.open -= 1
        if connection in self.idle:
            self.idle.remove(connection)
        self._connect_for_waiting()

    def expire_idle(self, now: float) -> None:
        """Closes connections that have been idle for too long."""
        while self.idle and self.idle[0].idle_since < now - IDLE_SECONDS:
            self.idle.pop(0).close()

    def close_idle(self) -> None:
        """Closes every idle connection: the arm has restarted."""
        while self.idle:
            self.idle.pop().close()

    def retire(self) -> None:
        """The arm is no longer called: what is idle closes now, what is busy once it has answered."""
        self.retired = True
        self.close_idle()

    def _next_waiting(self) -> Attempt | None:
        while self.waiting:
            attempt = self.waiting.popleft()
            if attempt.waiting:
                return attempt
        return None

    def _connect_for_waiting(self) -> None:
        while self.waiting and not self.waiting[0].waiting:
            self.waiting.popleft()
        while len(self.waiting) > self.connecting and not self.is_full:
            self.open += 1
            self.connecting += 1
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        connection: UpstreamConnection | None = None
        try:
            async with asyncio.timeout(self.target.limits.connect_timeout_ms / 1000):
                connection = await self._open_connection()
        except (
            OSError,
            UnicodeError,
        ):  # refused, unknown, forbidden or too slow; or a name that cannot be asked for
            self.open -= 1
        finally:
            self.connecting -= 1
        if connection is not None:
            self.release(connection)
        elif (attempt := self._next_waiting()) is not None:
            attempt.waiting = False
            attempt.caller.on_failure(attempt, Failure.UNREACHABLE)
        self._connect_for_waiting()

    async def _open_connection(self) -> UpstreamConnection:
        """Resolves, and connects to the first address that accepts: to the very address that was checked."""
        target = self.target
        refusal: OSError = OSError(f"{self.address} has no address")
        for address in await self._resolved():
            try:
                if is_forbidden(address):
                    raise OSError(f"{self.address} is link-local or a metadata service, got {address}")
                _, connection = await self._loop.create_connection(self._new_connection, address, target.port)
            except OSError as error:
                refusal = error
            else:
                return connection
        raise refusal

    async def _resolved(self) -> list[str]:
        """The addresses as last looked up.

        One look-up runs at a time, however many connections wait for it: a name that hangs holds one thread
        of the resolver. What was known before serves meanwhile.
        """
        if self._lookup is None and monotonic() - self._resolved_at >= RESOLVED_SECONDS:
            self._lookup = self._loop.create_task(self._look_up())
        if not self._addresses and self._lookup is not None:
            await asyncio.shield(self._lookup)
        return self._addresses

    async def _look_up(self) -> None:
        target = self.target
        try:
            found = await self._loop.getaddrinfo(target.host, target.port, type=SOCK_STREAM)
            self._addresses = [str(sockaddr[0]) for *_, sockaddr in found]
            self._resolved_at = monotonic()
        except (OSError, UnicodeError):
            pass  # the next connection asks again; until then what was known stands
        finally:
            self._lookup = None

    def _new_connection(self) -> UpstreamConnection:
        return UpstreamConnection(self)


def is_forbidden(address: str) -> bool:
    """Whether an IP address is link-local or a cloud's metadata service, which no arm may be."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip in network for network in _FORBIDDEN)
