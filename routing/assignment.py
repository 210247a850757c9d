"""Which arm answers this request, why, and with what probability? Never fails: in doubt, the champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from routing.bucketing import bucket, unit_hash
from routing.types import TOTAL_BP, Arm, Reason, Role, Route

_SERVING: Final = (Role.CHAMPION, Role.CHALLENGER)


class Assignment(msgspec.Struct, frozen=True, gc=False):
    """One answer of the split. `probabilities` is arm id → bp, as used by the draw; they sum to 10,000."""

    arm: Arm
    reason: Reason
    propensity_bp: int
    probabilities: Mapping[int, int]
    unit_hash: int
    has_unit: bool


def assign(route: Route, unit: str | None, entropy: int, forced: str | None = None) -> Assignment:
    """The arm for a unit; without a unit the request is its own, drawn by `entropy` (64 random bits).

    Precedence: kill switch, forced arm (where the route allows it), split. `forced` is the name the caller
    asked for; an unknown or disallowed one, or one that serves nobody, is ignored. Anything wrong in the
    route's split ends in the champion with reason DEFAULT.
    """
    hash64 = entropy if unit is None else unit_hash(route.salt, unit)
    if route.kill_switch:
        return _certain(route.champion, Reason.KILL_SWITCH, hash64, unit)
    if forced is not None and route.allow_force:
        arm = route.arm_named(forced)
        if arm is not None and arm.role in _SERVING:
            return _certain(arm, Reason.FORCED, hash64, unit)
    return _by_split(route, hash64, unit)


def _by_split(route: Route, hash64: int, unit: str | None) -> Assignment:
    arm, shares = route.arm_at(bucket(hash64)), route.probabilities
    if arm.role not in _SERVING:
        return _certain(route.champion, Reason.DEFAULT, hash64, unit)
    if len(shares) == 1:
        return _certain(arm, Reason.STATIC, hash64, unit)
    return Assignment(arm, Reason.SPLIT, shares[arm.id], shares, hash64, unit is not None)


def _certain(arm: Arm, reason: Reason, hash64: int, unit: str | None) -> Assignment:
    return Assignment(arm, reason, TOTAL_BP, {arm.id: TOTAL_BP}, hash64, unit is not None)
