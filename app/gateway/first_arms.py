"""Which arm did this unit get first? The store is asked for as long as a request can wait, not longer.

Where the store does not say, the arm is by the unit's hash, or the bandit's draw, as if nothing were kept.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

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

FRESH_SECONDS = 600.0
"""How long what is remembered is not asked for again. Then what the store has lost it gets back."""

MOST_CLAIMS = 100
"""How many units are asked about at once: to say so takes a millisecond, in which nobody has a turn."""

_ASKED = "kingmaker_first_arms_total"
_UP = "kingmaker_first_arm_store_up"
_NEVER = float("-inf")
_TOLD_EVERY = 60

Decide = Callable[[FirstArm | None], Decision]
"""Decides for one request, with the arm that its unit got first, if that is known."""

_log = logging.getLogger(__name__)


class Waiter(NamedTuple):
    """Who waits for a decision: is told of it, or that there will be none. It has so many seconds."""

    done: Callable[[Decision], None]
    fail: Callable[[], None]
    seconds: float


class Waiting:
    """A request that waits for the store, or a claim that nobody waits for.

    `attempts`: how often the store was asked for it. Mutable state besides: what is decided if nothing is
    kept, and when it waits no longer.
    """

    __slots__ = ("_decide", "_decision", "_timer", "_waiter", "attempts", "claim", "plan")

    def __init__(self, plan: Plan, claim: Claim, decision: Decision, decide: Decide) -> None:
        self.plan = plan
        self.claim = claim
        self.attempts = 0
        self._decision = decision
        self._decide = decide
        self._waiter: Waiter | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a request waits for it."""
        return self._waiter is not None

    def await_for(self, waiter: Waiter, loop: asyncio.AbstractEventLoop, on_late: Callable[[], None]) -> None:
        """A request waits for it, and is late after its time."""
        self._waiter = waiter
        self._timer = loop.call_later(waiter.seconds, on_late)

    def decide_again(self, lapsed: FirstArm | None, held: bytes) -> bool:
        """Another draw, of a unit that does not keep what is `held`; False if none is to be kept."""
        self._decision = decision = self._decide(lapsed)
        first = self.plan.first_of(decision.assignment, decision.claims.at_ms)
        if first is None:
            return False
        self.claim = self.claim._replace(value=encode(first), lapsed=held)
        return True

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._waiter = None
        if self._timer is not None:
            self._timer.cancel()

    def end(self, first: FirstArm | None) -> None:
        """The request goes on, with what the unit had before, or with what was decided. Once."""
        waiter = self._waiter
        self.cancel()
        if waiter is None:
            return
        try:
            waiter.done(self._decision if first is None else self._decide(first))
        except Exception:  # noqa: BLE001  # a request that is not answered would wait for ever
            _log.exception("a request that waited for its first arm has failed")
            waiter.fail()


class FirstArms:
    """The first arms of units, as one worker knows them and the store that all share.

    Mutable state: `_known` (what was heard, and when in monotonic seconds, the oldest first), `_epochs` of
    the routes for which it was, `_queue` (claims to be made), `_is_up` and `_is_needed` (the store), and the
    tasks that ask it and that watch for its return.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, store: Store, counters: Counters, patience_seconds: float
    ) -> None:
        self._loop = loop
        self._store = store
        self._counters = counters
        self._patience_seconds = patience_seconds
        self._known: dict[str, tuple[FirstArm, float]] = {}
        self._epochs: dict[int, int] = {}
        self._queue: list[Waiting] = []
        self._is_up = False
        self._is_needed = False
        self._asking: asyncio.Task[None] | None = None
        self._returning: asyncio.Task[None] | None = None

    def adopt(self, routes: Sequence[Route]) -> None:
        """The routes of another snapshot: if any keeps first arms, the store is needed from now on.

        Where shares have changed, what has lapsed elsewhere may be back here: all is asked for anew.
        """
        epochs = {route.id: route.epoch for route in routes if route.first_arm_ms is not None}
        if epochs != self._epochs:
            self._known.clear()
        self._epochs = epochs
        self._is_needed = bool(epochs)
        if not self._is_needed:
            self._counters.drop(_UP)
        elif self._is_up:
            self._counters.set(_UP, 1)
        else:
            self._counters.set(_UP, 0)
            self._await_return(0.0)

    async def ready(self, seconds: float) -> None:
        """Waits until the store answers, if it is needed, but no longer than that."""
        if self._returning is not None and not self._is_up:
            await asyncio.wait((self._returning,), timeout=seconds)

    def settle(self, plan: Plan, unit: str, decide: Decide, waiter: Waiter) -> Decision | Waiting:
        """The decision for a unit; or, if the store must be asked, what waits for it: `waiter` is told."""
        route = plan.route
        keep_ms = route.first_arm_ms
        key = key_of(route.id, unit_hash(route.salt, unit))
        known, is_fresh = self._remembered(key, route)
        decision = decide(known)
        if keep_ms is None:
            return decision
        if known is not None and decision.assignment.first is known:
            if not is_fresh and self._is_up:
                self._confirm(key, known, Waiting(plan, _claim(key, known, keep_ms), decision, decide))
            return decision
        first = plan.first_of(decision.assignment, decision.claims.at_ms)
        if first is None:
            return decision
        if not self._is_up:
            self._count(route, "away")
            return decision
        lapsed = b"" if known is None else encode(known)
        waiting = Waiting(plan, Claim(key, encode(first), lapsed, keep_ms), decision, decide)
        patience = min(self._patience_seconds, waiter.seconds)
        waiting.await_for(waiter._replace(seconds=patience), self._loop, partial(self._end, waiting, "away"))
        self._ask(waiting)
        return waiting

    async def close(self) -> None:
        """Asks no more. To be called once no request waits."""
        for task in (self._asking, self._returning):
            if task is not None:
                task.cancel()
        await self._store.close()

    def _remembered(self, key: str, route: Route) -> tuple[FirstArm | None, bool]:
        """What a unit got, and whether that was heard lately."""
        known, heard_at = self._known.get(key, (None, _NEVER))
        if known is None or _is_over(known, route):
            return None, False
        return known, self._loop.time() - heard_at < FRESH_SECONDS

    def _remember(self, key: str, first: FirstArm) -> None:
        self._known.pop(key, None)
        if len(self._known) >= KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = first, self._loop.time()

    def _confirm(self, key: str, known: FirstArm, claiming: Waiting) -> None:
        """Has the store say again what a unit has, or take it back. The request does not wait for that."""
        self._remember(key, known)
        self._ask(claiming)

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

    def _hear(self, waiting: Waiting, value: bytes | None) -> None:
        """The store says what a unit has: what was claimed, what it had before, or what it must not keep.

        None: it could not say of this one.
        """
        plan, claim = waiting.plan, waiting.claim
        first = None if value is None else decoded(value)
        is_kept = first is not None and plan.keeps(first) and not _is_over(first, plan.route)
        if first is not None and is_kept:
            self._remember(claim.key, first)
            is_new = value == claim.value
            self._end(waiting, "new" if is_new else "kept", None if is_new else first)
        elif value is not None and waiting.attempts == 1 and waiting.decide_again(first, value):
            self._known.pop(claim.key, None)
            self._ask(waiting)
        else:
            self._end(waiting, "away")

    def _lose(self, error: Exception, batch: Sequence[Waiting]) -> None:
        """The store does not answer: who waits for it is decided for without it, and it is left alone."""
        self._is_up = False
        if self._is_needed:
            self._counters.set(_UP, 0)
        _log.warning("first arms are not known", extra={"fields": {"error": repr(error)}})
        waiting, self._queue = [*batch, *self._queue], []
        for each in waiting:
            self._end(each, "away")
        self._await_return(RETRY_SECONDS)

    def _end(self, waiting: Waiting, result: str, first: FirstArm | None = None) -> None:
        """In a turn of the loop of its own: what goes wrong with one request is no other's matter."""
        if waiting.is_awaited:
            self._count(waiting.plan.route, result)
            self._loop.call_soon(waiting.end, first)

    def _count(self, route: Route, result: str) -> None:
        self._counters.add(_ASKED, "route", route.name, "result", result)

    def _await_return(self, seconds: float) -> None:
        if self._returning is None or self._returning.done():
            self._returning = self._loop.create_task(self._return(seconds))

    async def _return(self, seconds: float) -> None:
        """Asks now and then whether the store is back, as long as it is needed."""
        failures = 0
        while self._is_needed and not self._is_up:
            await asyncio.sleep(seconds)
            seconds = RETRY_SECONDS
            try:
                async with asyncio.timeout(PROBE_SECONDS):
                    await self._store.probe()
            except Exception as error:  # noqa: BLE001  # it is asked again
                failures += 1
                if failures % _TOLD_EVERY == 1:
                    _log.warning("first arms are not known yet", extra={"fields": {"error": repr(error)}})
            else:
                self._is_up = True
                self._counters.set(_UP, 1)
                self._known = {key: (first, _NEVER) for key, (first, _) in self._known.items()}


def _claim(key: str, first: FirstArm, keep_ms: int) -> Claim:
    """That a unit keeps for the rest of its time what it got."""
    return Claim(key, encode(first), b"", max(1, first.at_ms + keep_ms - _now_ms()))


def _is_over(first: FirstArm, route: Route) -> bool:
    return first.at_ms + (route.first_arm_ms or 0) <= _now_ms()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
