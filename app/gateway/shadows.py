"""What does a worker keep of one shadow arm between requests? Copies, health, drops: looked up together."""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from app.gateway.counters import Counters, Series
from app.gateway.health import ArmHealth
from app.gateway.targets import Target
from routing.bucketing import bucket
from routing.types import TOTAL_BP, Arm, Route

if TYPE_CHECKING:
    from app.gateway.copies import Copy
    from routing.claims import Claims


class Drop(StrEnum):
    """Why a copy that was drawn is not made, or not ended."""

    DRAINING = "draining"
    UPGRADE = "upgrade"
    TOO_LONG = "too_long"
    IN_FLIGHT = "in_flight"
    PRESSURE = "pressure"
    EJECTED = "ejected"
    CLOSED = "closed"


_IN_FLIGHT: Final = Drop.IN_FLIGHT
_EJECTED: Final = Drop.EJECTED


class Shadow:
    """A shadow arm of one route, by one snapshot. What tells that a copy is to be dropped is at hand.

    `copies` are those under way to the arm, whichever snapshot they came with. Mutable state besides: the
    counters of its drops, as they are first needed.
    """

    __slots__ = ("_counters", "_drops", "_most", "_takes_all", "arm", "copies", "health", "route", "target")

    def __init__(
        self,
        route: Route,
        target: Target,
        copies: set[Copy],
        most_in_flight: int,
        health: ArmHealth,
        counters: Counters,
    ) -> None:
        self.route = route
        self.target = target
        self.arm = target.arm
        self.copies = copies
        self.health = health
        self._most = most_in_flight
        self._takes_all = target.arm.sample_bp >= TOTAL_BP
        self._counters = counters
        self._drops: dict[str, Series] = {}

    def wants(self, assigned: Arm, claims: Claims, now: float) -> bool:
        """Whether it is to be sent a copy of a decision, which it answers not itself. A drop is counted."""
        if self.arm is assigned or not (self._takes_all or self._is_drawn(claims)):
            return False
        reason = self.reason_to_drop(now)
        if reason is not None:
            self.drop(reason)
        return reason is None

    def reason_to_drop(self, now: float) -> Drop | None:
        """None when the arm may have one more copy as far as it is concerned."""
        if len(self.copies) >= self._most:
            return _IN_FLIGHT
        return None if self.health.would_admit(now) else _EJECTED

    def drop(self, reason: Drop) -> None:
        """Counts a copy that is not made, or not ended."""
        series = self._drops.get(reason)
        if series is None:
            labels = ("route", self.route.name, "arm", self.arm.name, "reason", str(reason))
            series = self._counters.counter("kingmaker_shadow_drops_total", labels)
            self._drops[reason] = series
        series.value += 1

    def count(self, name: str, *labels: str) -> None:
        """Adds to a counter of this arm; `labels` come after route and arm."""
        self._counters.add(name, "route", self.route.name, "arm", self.arm.name, *labels)

    def _is_drawn(self, claims: Claims) -> bool:
        """Whether a decision is in the arm's sample: by a hash of its nonce, for each arm anew."""
        told = b"%016x%x" % (claims.nonce, self.arm.id)
        drawn = blake2b(told, digest_size=8, key=self.route.salt.encode(), person=b"shadow")
        return bucket(int.from_bytes(drawn.digest(), "big")) < self.arm.sample_bp
