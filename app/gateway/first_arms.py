"""Which arm did this unit get first? The store is asked for as long as a request can wait, not longer.

Where the store does not say, the arm is by the unit's hash, or the bandit's draw, as if nothing were kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from app.gateway.counters import Counters
from app.gateway.decisions import Decision
from app.stores.first_arms import Claim, Store, key_of
from routing.assignment import Plan
from routing.bucketing import unit_hash
from routing.first_arm import FirstArm, decoded, encode
from routing.types import Route

RETRY_SECONDS = 1.0
"""How long a store that was away is left alone."""

PROBE_SECONDS = 5.0
"""How long it may take to say that it is back."""

KNOWN = 20_000
"""How many units' arms are remembered here; each takes about half a kilobyte."""

MOST_CLAIMS = 500
"""How many units are asked about at once."""

_ASKED = "kingmaker_first_arms_total"
_UP = "kingmaker_first_arm_store_up"

Decide = Callable[[FirstArm | None], Decision]
"""Decides for one request, with the arm that its unit got first, if that is known."""

_log = logging.getLogger(__name__)


class Waiting:
    """A request that waits for the store: what is decided if nothing is kept, and what to do then.

    `attempts`: how often the store was asked for it.
    """

    __slots__ = ("_decide", "_decision", "_done", "attempts", "claim", "plan")

    def __init__(
        self,
        plan: Plan,
        claim: Claim,
        decision: Decision,
        decide: Decide,
        done: Callable[[Decision], None],
    ) -> None:
        self.plan = plan
        self.claim = claim
        self.attempts = 0
        self._decision = decision
        self._decide = decide
        self._done: Callable[[Decision], None] | None = done

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._done = None

    def end(self, first: FirstArm | None) -> None:
        """It goes on, with what the unit had before, or with what was decided."""
        done, self._done = self._done, None
        if done is not None:
            done(self._decision if first is None else self._decide(first))


class FirstArms:
    """The first arms of units, as one worker knows them and the store that all share.

    Mutable state: `_known` (what was heard lately, the oldest first), `_queue` (who waits), `_is_up` (whether
    the store answers), and the tasks that ask it and that watch for its return.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: Store, counters: Counters, patience_seconds: float
    ) -> None:
        self._loop = loop
        self._store = store
        self._counters = counters
        self._patience_seconds = patience_seconds
        self._known: dict[str, FirstArm] = {}
        self._queue: list[Waiting] = []
        self._is_up = False
        self._asking: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None

    def adopt(self, routes: Sequence[Route]) -> None:
        """The routes of another snapshot: if any keeps first arms, the store is needed from now on."""
        if any(route.first_arm_ms is not None for route in routes):
            self._counters.set(_UP, self._is_up)
            if not self._is_up:
                self._await_return(0.0)

    async def ready(self, seconds: float) -> None:
        """Waits until the store answers, if it is needed, but no longer than that."""
        if self._returning is not None and not self._is_up:
            await asyncio.wait((self._returning,), timeout=seconds)

    def settle(
        self, plan: Plan, unit: str, decide: Decide, done: Callable[[Decision], None]
    ) -> Decision | Waiting:
        """The decision for a unit; or, if the store must be asked, who waits: `done` is told in the end."""
        route = plan.route
        key = key_of(route.id, unit_hash(route.salt, unit))
        known = self._remembered(key, route, plan)
        decision = decide(known)
        first = plan.first_of(decision.assignment, decision.claims.at_ms)
        if first is None or route.first_arm_ms is None:
            return decision
        if not self._is_up:
            self._count(route, "away")
            return decision
        claim = Claim(key, encode(first), b"", route.first_arm_ms)
        waiting = Waiting(plan, claim, decision, decide, done)
        self._ask(waiting)
        return waiting

    async def close(self) -> None:
        """Asks no more. To be called once no request waits."""
        for task in (self._asking, self._returning):
            if task is not None:
                task.cancel()
        await self._store.close()

    def _remembered(self, key: str, route: Route, plan: Plan) -> FirstArm | None:
        known = self._known.get(key)
        if known is None or route.first_arm_ms is None:
            return None
        is_over = known.at_ms + route.first_arm_ms <= time.time_ns() // 1_000_000
        return None if is_over or not plan.keeps(known) else known

    def _remember(self, key: str, first: FirstArm) -> None:
        self._known.pop(key, None)
        if len(self._known) >= KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = first

    def _ask(self, waiting: Waiting) -> None:
        waiting.attempts += 1
        self._queue.append(waiting)
        if self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._ask_store())

    async def _ask_store(self) -> None:
        """Asks for all who wait, and then for all who have come meanwhile."""
        while self._queue:
            batch, self._queue = self._queue[:MOST_CLAIMS], self._queue[MOST_CLAIMS:]
            try:
                async with asyncio.timeout(self._patience_seconds):
                    held = await self._store.claim([waiting.claim for waiting in batch])
                for waiting, value in zip(batch, held, strict=True):
                    self._hear(waiting, value)
            except Exception as error:  # noqa: BLE001  # whatever is wrong with it, requests are answered
                self._lose(error, batch)
                return

    def _hear(self, waiting: Waiting, value: bytes) -> None:
        """The store says what a unit has: what was claimed, what it had before, or what it must not keep."""
        plan, claim = waiting.plan, waiting.claim
        first = decoded(value)
        if value == claim.value and first is not None:
            self._remember(claim.key, first)
            self._end(waiting, "new")
        elif first is not None and plan.keeps(first):
            self._remember(claim.key, first)
            self._end(waiting, "kept", first)
        elif waiting.attempts == 1:
            waiting.claim = claim._replace(lapsed=value)
            self._ask(waiting)
        else:
            self._end(waiting, "away")

    def _lose(self, error: Exception, batch: Sequence[Waiting]) -> None:
        """The store does not answer: who waits for it is decided for without it, and it is left alone."""
        self._is_up = False
        self._counters.set(_UP, 0)
        _log.warning("first arms are not known", extra={"fields": {"error": repr(error)}})
        waiting, self._queue = [*batch, *self._queue], []
        for each in waiting:
            self._end(each, "away")
        self._await_return(RETRY_SECONDS)

    def _end(self, waiting: Waiting, result: str, first: FirstArm | None = None) -> None:
        """In a turn of the loop of its own: what goes wrong with one request is no other's matter."""
        self._count(waiting.plan.route, result)
        self._loop.call_soon(waiting.end, first)

    def _count(self, route: Route, result: str) -> None:
        self._counters.add(_ASKED, "route", route.name, "result", result)

    def _await_return(self, seconds: float) -> None:
        if self._returning is None or self._returning.done():
            self._returning = self._loop.create_task(self._return(seconds))

    async def _return(self, seconds: float) -> None:
        """Asks now and then whether the store is back."""
        while not self._is_up:
            await asyncio.sleep(seconds)
            seconds = RETRY_SECONDS
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._store.probe()
            except Exception as error:  # noqa: BLE001  # it is asked again
                _log.info("first arms are not known yet", extra={"fields": {"error": repr(error)}})
            else:
                self._is_up = True
                self._counters.set(_UP, 1)
