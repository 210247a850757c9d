"""The words of promotion: kinds of metric, verdicts, actions, phases."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What the values of a metric are."""

    BINARY = "binary"
    COUNT = "count"
    CONTINUOUS = "continuous"
    RATIO = "ratio"


class Better(StrEnum):
    """Which direction of a metric is good."""

    HIGHER = "higher"
    LOWER = "lower"


class Aggregate(StrEnum):
    """How several outcomes of one metric on one decision become one value."""

    FIRST = "first"
    LAST = "last"
    SUM = "sum"
    MAX = "max"


class Missing(StrEnum):
    """What a decision without an outcome of the metric means: left out, or a zero."""

    SKIP = "skip"
    ZERO = "zero"


class Verdict(StrEnum):
    """Of one closed day, for one challenger."""

    WIN = "win"
    TIE = "tie"
    INCONCLUSIVE = "inconclusive"
    INSUFFICIENT_DATA = "insufficient_data"
    LOSE = "lose"
    UNHEALTHY = "unhealthy"
    ERROR = "error"


class Action(StrEnum):
    """What follows from an evaluation."""

    NONE = "none"
    HOLD = "hold"
    STEP = "step"
    AWAIT_APPROVAL = "await_approval"
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    END = "end"


class Phase(StrEnum):
    """Where a route's rollout stands."""

    IDLE = "idle"
    TRIAL = "trial"
    RAMPING = "ramping"
    AWAITING_APPROVAL = "awaiting_approval"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    INCONCLUSIVE = "inconclusive"
