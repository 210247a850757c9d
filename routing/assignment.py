"""Which arm answers this request, why, and with what probability? Never fails: in doubt, the champion."""

from __future__ import annotations

from bisect import bisect_right

from routing.bucketing import bucket, unit_hash
from routing.types import SERVING, Choice, Reason, Route, certain


class Assignment(Choice, frozen=True, gc=False):
    """A choice for one unit, or for a request of its own."""

    unit_hash: int
    has_unit: bool


def assign(route: Route, unit: str | None, entropy: int, forced: str | None = None) -> Assignment:
    """The arm for a unit; without a unit the request is its own, drawn by `entropy` (64 random bits).

    Precedence: kill switch, forced arm (where the route allows it), split. `forced` is the name the caller
    asked for; an unknown or disallowed one, or one that serves nobody, is ignored. Anything wrong in the
    route's split ends in the champion with reason DEFAULT.
    """
    hash64 = entropy if unit is None else unit_hash(route.salt, unit)
    return _assignment(_choice(route, hash64, forced), hash64, unit is not None)


def default(route: Route, entropy: int) -> Assignment:
    """What is left when assignment fails: the champion."""
    return _assignment(certain(route.champion, Reason.DEFAULT), entropy, has_unit=False)


def _choice(route: Route, hash64: int, forced: str | None) -> Choice:
    if route.kill_switch:
        return certain(route.champion, Reason.KILL_SWITCH)
    if forced is not None and route.allow_force:
        arm = route.arm_named(forced)
        if arm is not None and arm.role in SERVING:
            return certain(arm, Reason.FORCED)
    return route.choices[bisect_right(route.ends, bucket(hash64))]


def _assignment(choice: Choice, hash64: int, has_unit: bool) -> Assignment:
    return Assignment(choice.arm, choice.reason, choice.propensity_bp, choice.probabilities, hash64, has_unit)
