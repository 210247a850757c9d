"""May this request be sent once more? Retries and hedges add a bounded share to a route's load, not more."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf

from routing.types import Route

WINDOW_SECONDS = 10

FLOOR = 3
"""How many retries per window even a quiet route may make, unless its share is 0 %."""


class RetryBudget:
    """What one route may send again, on one worker: at every retry, over the 10 s up to it,
    retries ≤ `percent` % of the requests + FLOOR.

    Kept in whole seconds: requests of 9 seconds and the present one, retries of 10 and the present one, so
    that it errs on the side of fewer. `refusals` counts what was asked for in vain.
    """

    __slots__ = (
        "_past",
        "_past_requests",
        "_past_retries",
        "_requests",
        "_retries",
        "_second",
        "_second_ends",
        "percent",
        "refusals",
    )

    def __init__(self, percent: int) -> None:
        self.percent = percent
        self.refusals = 0
        self._past: deque[tuple[int, int]] = deque(maxlen=WINDOW_SECONDS)
        self._past_requests = self._past_retries = 0
        self._requests = self._retries = 0
        self._second = 0
        self._second_ends = -inf

    def __repr__(self) -> str:
        retries, requests = self._past_retries + self._retries, self._past_requests + self._requests
        spent = f"{retries} retries of {requests} requests"
        return f"<RetryBudget {self.percent} %, {spent}, {self.refusals} refused>"

    def note_request(self, now: float) -> None:
        """A request has come."""
        if now >= self._second_ends:
            self._turn(now)
        self._requests += 1

    def take(self, now: float) -> bool:
        """Whether one more attempt may be made; if so, it is counted."""
        if now >= self._second_ends:
            self._turn(now)
        over = self._past_retries + self._retries + 1 - FLOOR
        requests = self._past_requests + self._requests
        if self.percent <= 0 or over * 100 > self.percent * requests:
            self.refusals += 1
            return False
        self._retries += 1
        return True

    def _turn(self, now: float) -> None:
        second = int(now)
        passed = min(second - self._second, WINDOW_SECONDS + 1)
        self._past.append((self._requests, self._retries))
        self._past.extend([(0, 0)] * (passed - 1))
        self._requests = self._retries = 0
        past = list(self._past)
        self._past_retries = sum(retries for _, retries in past)
        self._past_requests = sum(requests for requests, _ in past[-(WINDOW_SECONDS - 1) :])
        self._second, self._second_ends = second, second + 1.0


class Budgets:
    """The budget of every route of a worker; it stays the route's own from snapshot to snapshot."""

    def __init__(self) -> None:
        self._known: dict[int, RetryBudget] = {}

    def adopt(self, routes: Iterable[Route]) -> None:
        """Takes over the routes of another snapshot, with the shares they now have."""
        before, self._known = self._known, {}
        for route in routes:
            percent = route.upstream.retry_percent
            self._known[route.id] = budget = before.get(route.id) or RetryBudget(percent)
            budget.percent = percent

    def of(self, route_id: int) -> RetryBudget:
        """A route's budget; a route that is in no snapshot any more has nothing to spend."""
        return self._known.get(route_id) or RetryBudget(0)
