"""What may an operator pin, to which arm, for whom and until when? All frozen."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from routing.features import Value

TOTAL_SHARE_BP = 10_000


class Op(StrEnum):
    """How an attribute is compared with a condition's values."""

    EQUALS = "equals"
    NOT_EQUALS = "not_equals"
    IN = "in"
    NOT_IN = "not_in"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    CONTAINS = "contains"
    MATCHES = "matches"
    LT = "lt"
    LTE = "lte"
    GT = "gt"
    GTE = "gte"
    SEMVER_LT = "semver_lt"
    SEMVER_GTE = "semver_gte"
    EXISTS = "exists"


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold: `attribute` is unit, path, method, header.NAME or context.NAME.

    `values` holds one value, several for `in` and `not_in`; for `exists` none, or a truth value.
    """

    attribute: str
    op: Op
    values: tuple[Value, ...] = ()


class Override(msgspec.Struct, frozen=True, kw_only=True):
    """Traffic that is pinned to an arm where all conditions hold. `share_bp` of the units, by their hash.

    The highest `priority` comes first, of equals the smallest `id`, which is the oldest. Times are Unix ms;
    it has no effect from `expires_at_ms` on.
    """

    id: int
    arm_id: int
    when: tuple[Condition, ...]
    share_bp: int = TOTAL_SHARE_BP
    priority: int = 100
    expires_at_ms: int | None = None
