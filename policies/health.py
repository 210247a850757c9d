"""Is a comparison still one of like with like? If not, its day is unhealthy, whatever the numbers say."""

from __future__ import annotations

from math import sqrt

from policies.rollups import ArmCounts

SERVED_AT_LEAST = 0.95
"""The least share of a challenger's decisions that it must have answered itself."""

LABELLED_APART = 0.05
"""How far apart, relative to the greater, the arms' shares of decisions with a value of the goal may be."""

_SIGNIFICANT = 3.29


def health_problem(champion: ArmCounts, challenger: ArmCounts, at_least: int) -> str | None:
    """What is wrong, as a sentence; None when nothing is, or when an arm has fewer than `at_least` decisions.

    Label coverage is unequal when it differs by more than LABELLED_APART and |z| of the two-proportion test
    exceeds 3.29 (p < 0.001); on sticky routes, whose decisions are not independent, that test alone would
    alarm too often.
    """
    if min(champion.decisions, challenger.decisions) < at_least:
        return None
    served = challenger.served / challenger.decisions
    if served < SERVED_AT_LEAST:
        return (
            f"the challenger served {served:.1%} of its decisions, at least {SERVED_AT_LEAST:.0%} are needed"
        )
    ours, theirs = (arm.labelled / arm.decisions for arm in (champion, challenger))
    if abs(theirs - ours) > LABELLED_APART * max(ours, theirs) and _z(champion, challenger) > _SIGNIFICANT:
        return f"{ours:.1%} of the champion's decisions have a value, but {theirs:.1%} of the challenger's"
    return None


def _z(first: ArmCounts, second: ArmCounts) -> float:
    """|z| of the two-proportion test, with pooled variance."""
    pooled = (first.labelled + second.labelled) / (first.decisions + second.decisions)
    variance = pooled * (1 - pooled) * (1 / first.decisions + 1 / second.decisions)
    difference = first.labelled / first.decisions - second.labelled / second.decisions
    return abs(difference) / sqrt(variance) if variance > 0 else 0.0
