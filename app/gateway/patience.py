"""How long may a request wait for an arm that has no connection free?"""

from __future__ import annotations

from math import inf

_LONG = 2
_BRIEF = 20


class Patience:
    """How long an attempt may wait for a connection to one arm, on one worker.

    Half of the route's timeout, which takes in a burst. But once the queue has not been empty for that long,
    it is no burst: more comes than the arm can bear, everybody would wait until it is too late, and only the
    excess must go. Then a twentieth, so that whoever gets a connection has nearly all of the time left.
    After CoDel (RFC 8289) as servers use it (Maurer, Fail at Scale, ACM Queue 13(8), 2015).
    """

    __slots__ = ("_brief", "_long", "standing_since")

    def __init__(self, timeout_ms: int) -> None:
        self.standing_since = inf
        self._long = timeout_ms / 1000 / _LONG
        self._brief = timeout_ms / 1000 / _BRIEF

    def __repr__(self) -> str:
        state = "empty" if self.standing_since == inf else f"standing since {self.standing_since:.3f}"
        return f"<Patience {state}, {self._long:g} s or {self._brief:g} s>"

    def until(self, now: float) -> float:
        """An attempt begins to wait: when it has waited long enough (monotonic seconds)."""
        self.standing_since = min(self.standing_since, now)
        is_burst = now - self.standing_since < self._long
        return now + (self._long if is_burst else self._brief)

    def on_empty(self) -> None:
        """Nobody waits any more."""
        self.standing_since = inf
