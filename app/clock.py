"""The time, and the days of a policy: the only place where the clock and the zone database are read."""

from __future__ import annotations

import time
from functools import lru_cache
from zoneinfo import ZoneInfo

from policies.days import DayClock
from policies.spec import Policy


def now_ms() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@lru_cache(maxsize=256)
def _days(length_ms: int, zone: str) -> DayClock:
    return DayClock(length_ms, ZoneInfo(zone))


def days_of(policy: Policy) -> DayClock:
    """How a policy divides time into days.

    Raises:
        ZoneInfoNotFoundError: there is no such time zone.
    """
    return _days(policy.day_length_ms, policy.timezone)
