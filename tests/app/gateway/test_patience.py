"""Claims about waiting for an arm: who may, for how long, and what that is good for under overload."""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from random import Random

from app.gateway.patience import Patience


def test_a_burst_may_wait_for_half_of_the_time() -> None:
    """Until the queue has stood for that long."""
    patience = Patience(timeout_ms=2_000)
    assert [patience.until(now) for now in (5.0, 5.5, 5.75)] == [6.0, 6.5, 6.75]


def test_a_standing_queue_is_for_a_moment() -> None:
    """From then on a twentieth of the time, until nobody waits any more."""
    patience = Patience(timeout_ms=2_000)
    patience.until(5.0)
    assert patience.until(6.0) == 6.1
    assert repr(patience) == "<Patience standing since 5.000, 1 s or 0.1 s>"
    patience.on_empty()
    assert repr(patience) == "<Patience empty, 1 s or 0.1 s>"
    assert patience.until(7.0) == 8.0


def served_in_time(load: float, *, patient: bool, seconds: int = 60) -> float:
    """The share of what an arm can do that callers get in time, at this many times the load it can bear.

    Ten connections, 0.2 to 0.6 s per answer, a deadline of 2 s, a queue of 1,024, first in, first out.
    A caller whose deadline passes while the arm works has cost its work. Ten seconds pass before counting.
    """
    patience, draws = Patience(timeout_ms=2_000), Random(1)
    queue: deque[tuple[float, float]] = deque()
    free = [0.0] * 10
    gap, served = 0.4 / 10 / load, 0
    for count in range(int(seconds / gap)):
        now = count * gap
        while queue and free[0] <= now:
            came, waits_until = queue.popleft()
            begun = max(heappop(free), came)
            if waits_until < begun:
                heappush(free, begun)
                continue
            done = begun + draws.uniform(0.2, 0.6)
            heappush(free, min(done, came + 2.0))
            served += done <= came + 2.0 and came >= 10.0
            if not queue:
                patience.on_empty()
        if len(queue) < 1_024:
            queue.append((now, min(now + 2.0, patience.until(now) if patient else now + 2.0)))
    return served / (seconds - 10) / (10 / 0.4)


def test_under_overload_the_arm_works_for_callers_who_are_still_there() -> None:
    """At 1.2 to 5 times the load it can bear, nearly all it does is of use; without the rule, much less."""
    assert min(served_in_time(load, patient=True) for load in (1.2, 2.0, 5.0)) > 0.95
    assert served_in_time(1.2, patient=False) < 0.6
    assert served_in_time(2.0, patient=False) < 0.1


def test_below_capacity_nobody_is_shed() -> None:
    """At nine tenths of the load it can bear, everybody is served either way."""
    assert served_in_time(0.9, patient=True) == served_in_time(0.9, patient=False) > 0.89
