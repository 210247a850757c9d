"""Which connection does an attempt get? The one idle most recently, a new one, or a place in the queue.

All mutable state is in the fields of `Pool`: the connections there are (`idle` are those that wait), how many
are `connecting`, who is `waiting`, the counts `connects` and `refusals`, and when a refusal was last logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from math import inf
from time import monotonic
from typing import Final, cast

from app.gateway.dialer import Dialer
from app.gateway.own import Listeners
from app.gateway.patience import Patience
from app.gateway.resolver import Resolver
from app.gateway.targets import Target
from app.gateway.upstream import Attempt, Failure, UpstreamConnection
from routing.addresses import DEFAULT, AddressRules

IDLE_SECONDS: Final = 4.0
"""How long an idle connection is trusted: less than the 5 s after which common servers close theirs."""

LOG_SECONDS = 10.0
"""An arm that cannot be reached is logged at most so often."""

_log = logging.getLogger(__name__)


class Pool:
    """The connections to one arm: at most `limits.max_connections`, reused last in, first out.

    `connects` counts the connections that were made, `refusals` those that could not be. `own` is where the
    Kingmaker itself listens. A resolver may be shared, so that pools of one host look it up once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        *,
        rules: AddressRules = DEFAULT,
        own: Listeners = frozenset(),
        resolver: Resolver | None = None,
    ) -> None:
        self.target = target
        self.retired = False
        self.idle: list[UpstreamConnection] = []
        self.waiting: deque[Attempt] = deque()
        self.connecting = 0
        self.connects = 0
        self.refusals = 0
        self.patience = Patience(target.limits.timeout_ms)
        self.tunnels: set[UpstreamConnection] = set()
        self._connections: set[UpstreamConnection] = set()
        self._logged_at = -inf
        self._shed = 0
        self._loop = loop
        self._dialer = Dialer(loop, resolver or Resolver(loop), rules, own)
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Pool {self.address} open {self.open}, idle {len(self.idle)}, waiting {len(self.waiting)}>"

    @property
    def address(self) -> str:
        """Host and port, or the path of a socket, for people."""
        target = self.target
        return target.unix_path or f"{target.host}:{target.port}"

    @property
    def open(self) -> int:
        """How many connections there are, with those that are being made."""
        return len(self._connections) + self.connecting

    @property
    def is_full(self) -> bool:
        """Whether no further connection may be opened."""
        return self.open >= self.target.limits.max_connections

    @property
    def is_half_busy(self) -> bool:
        """Whether half of the connections that may be opened serve somebody."""
        return 2 * (self.open - len(self.idle)) >= self.target.limits.max_connections

    def adopt(self, target: Target) -> None:
        """The arm is described anew; it is where it was."""
        if target.limits.timeout_ms != self.target.limits.timeout_ms:
            self.patience = Patience(target.limits.timeout_ms)
        self.target = target

    def acquire(self, attempt: Attempt) -> None:
        """Begins the attempt on an idle connection, now, or on the next one that is free or new.

        Where too many wait already it fails, now: its caller hears `BUSY` before this returns.
        """
        oldest = monotonic() - IDLE_SECONDS
        while self.idle and not attempt.wants_new:
            connection = self.idle.pop()
            if connection.closed:
                continue
            if connection.idle_since >= oldest:
                connection.begin(attempt)
                return
            connection.close()
        has_tunnels = attempt.wants_tunnel and len(self.tunnels) >= self.target.limits.max_connections
        if has_tunnels or (self.is_full and self._is_queue_full()):
            attempt.on_failure(Failure.BUSY)
            return
        attempt.waiting = True
        attempt.waits_until = self.patience.until(monotonic())
        self.waiting.append(attempt)
        self._connect_for_waiting()

    def release(self, connection: UpstreamConnection) -> None:
        """Takes a connection that can serve again; it begins the attempt that has waited longest for one."""
        attempt = self._next_waiting(connection.served == 0 or self.is_full) if self.waiting else None
        if attempt is not None:
            connection.begin(attempt)
        elif self.retired:
            connection.close()
        else:
            connection.idle_since = monotonic()
            self.idle.append(connection)

    def on_tunnel(self, connection: UpstreamConnection) -> None:
        """Counts a connection apart: one that speaks another protocol takes no place of a request's."""
        self._connections.discard(connection)
        self.tunnels.add(connection)
        self._connect_for_waiting()

    def on_lost(self, connection: UpstreamConnection) -> None:
        """Forgets a connection that is gone, and opens another one if somebody waits for it."""
        self._connections.discard(connection)
        self.tunnels.discard(connection)
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

    def _next_waiting(self, is_new: bool = True) -> Attempt | None:
        """Who waits longest; some wait for a new connection, where there may be one."""
        passed_over: list[Attempt] = []
        found = None
        while self.waiting and found is None:
            attempt = self.waiting.popleft()
            if attempt.waiting and (is_new or not attempt.wants_new):
                found = attempt
            elif attempt.waiting:
                passed_over.append(attempt)
        self.waiting.extendleft(reversed(passed_over))
        if not self.waiting:
            self.patience.on_empty()
        return found

    def _is_queue_full(self) -> bool:
        """Whether as many wait as may, besides those for whom a connection is being made.

        Who has given up still stands in the queue. Of these it is freed only once so many have been shed as
        are a sixteenth of it: under overload, to look through all of it each time costs more than to answer.
        """
        most = self.target.limits.max_waiting
        if len(self.waiting) - self.connecting < most:
            return False
        self._shed += 1
        if self._shed > len(self.waiting) // 16:
            self._shed = 0
            self.waiting = deque(attempt for attempt in self.waiting if attempt.waiting)
        return len(self.waiting) - self.connecting >= most

    def _connect_for_waiting(self) -> None:
        while self.waiting and not self.waiting[0].waiting:
            self.waiting.popleft()
        if not self.waiting:
            self.patience.on_empty()
        while len(self.waiting) > self.connecting and not self.is_full:
            self.connecting += 1
            task = self._loop.create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        """Makes a connection for who waits. One that was lost while it was being made was never there."""
        connection: UpstreamConnection | None = None
        try:
            connection = cast(UpstreamConnection, await self._dialer.dial(self.target, self._new_connection))
            if connection.closed:
                raise ConnectionResetError(f"{self.address} closed the connection at once")
        except OSError as error:
            connection = None
            self._on_refused(error)
        finally:
            self.connecting -= 1
        if connection is not None:
            self.connects += 1
            self._connections.add(connection)
            self.release(connection)
        elif (attempt := self._next_waiting()) is not None:
            attempt.waiting = False
            attempt.on_failure(Failure.UNREACHABLE)
        self._connect_for_waiting()

    def _on_refused(self, error: OSError) -> None:
        self.refusals += 1
        now = monotonic()
        if now >= self._logged_at + LOG_SECONDS:
            self._logged_at = now
            fields = {"arm": self.target.arm.name, "address": self.address, "error": str(error)}
            _log.warning("arm cannot be reached", extra={"fields": fields})

    def _new_connection(self) -> asyncio.Protocol:
        return cast(asyncio.Protocol, UpstreamConnection(self))
