"""How do the bandits of the routes do that this worker serves? For its figures."""

from __future__ import annotations

from collections.abc import Sequence

from app.gateway.counters import Counters
from routing.assignment import Plan
from routing.types import Route

_FAULT = "kingmaker_bandit_fault"
_AGE = "kingmaker_bandit_learned_age_seconds"


class BanditFigures:
    """Tells which bandits cannot choose, and how long ago each has learnt.

    Mutable state: `_learned_at_ms`, by the name of each route that has a bandit; None: it has learnt nothing.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._learned_at_ms: dict[str, int | None] = {}

    def adopt(self, routes: Sequence[Route]) -> None:
        """The routes of another snapshot. One that is not asked has a fault if nothing was learnt."""
        before, self._learned_at_ms = self._learned_at_ms, {}
        for route in routes:
            if route.bandit is not None:
                learned = route.bandit.learned
                self._learned_at_ms[route.name] = None if learned is None else learned.at_ms
                self._counters.set(_FAULT, learned is None, "route", route.name)
        for name in before:
            if name not in self._learned_at_ms:
                self._counters.drop(_FAULT, "route", name)
            if self._learned_at_ms.get(name) is None:
                self._counters.drop(_AGE, "route", name)

    def note(self, route: Route, plan: Plan) -> None:
        """How a route assigns has been worked out: now it is known whether its bandit can choose."""
        if route.bandit is not None:
            self._counters.set(_FAULT, plan.bandit is None, "route", route.name)

    def show(self, now_ms: int) -> None:
        """Bring the ages up to date."""
        for name, learned_at_ms in self._learned_at_ms.items():
            if learned_at_ms is not None:
                self._counters.set(_AGE, max(0, now_ms - learned_at_ms) / 1000, "route", name)
