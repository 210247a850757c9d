"""What does a worker keep of one arm between requests? Connections, health, figures: looked up together."""

from __future__ import annotations

from app.gateway.counters import ArmSeries
from app.gateway.health import ArmHealth
from app.gateway.pool import Pool
from app.gateway.targets import Target


class Lane:
    """One arm of one route, as this worker reaches it. Mutable state: which connects have been counted.

    `has_fallback`: when this arm fails, the champion answers. `lines` name the arm to the caller.
    """

    __slots__ = ("_connects", "_refusals", "has_fallback", "health", "lines", "pool", "series", "target")

    def __init__(
        self, target: Target, pool: Pool, health: ArmHealth, series: ArmSeries, *, has_fallback: bool
    ) -> None:
        self.target = target
        self.pool = pool
        self.health = health
        self.series = series
        self.has_fallback = has_fallback
        self.lines = b"Kingmaker-Arm: %b\r\n" % target.arm.name.encode()
        self._connects, self._refusals = pool.connects, pool.refusals

    def count_connects(self) -> None:
        """Adds to the figures the connections that were made, or were not, since it was last asked."""
        made, refused = self.pool.connects - self._connects, self.pool.refusals - self._refusals
        self._connects, self._refusals = self.pool.connects, self.pool.refusals
        if made:
            self.series.add("kingmaker_upstream_connects_total", "result", "connected", by=made)
        if refused:
            self.series.add("kingmaker_upstream_connects_total", "result", "refused", by=refused)
