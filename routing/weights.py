"""How are the 10,000 buckets divided among the arms, and which units move when that changes?

A challenger grows out of the champion's buckets and gives buckets back to the champion, no more than its
share changed by. A unit moves between two challengers only where the champion had too few buckets of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from routing.errors import BadWeights
from routing.types import TOTAL_BP, Share


def check_weights(weights: Mapping[str, int], arms: Collection[str]) -> None:
    """Refuse a split that does not describe all traffic over known arms; nothing is repaired.

    Raises:
        BadWeights: an unknown arm, a share outside [0, 10,000], or a sum other than 10,000.
    """
    for arm in weights:
        if arm not in arms:
            raise BadWeights(f"weights names unknown arm {arm!r}; the route has {sorted(arms)}")
    _check_amounts(weights.items())


def lay_out(previous: Sequence[Share], weights: Mapping[int, int], champion_id: int) -> tuple[Share, ...]:
    """The new division of the buckets for `weights` (arm id → bp, summing to 10,000).

    `previous` is the division in force (empty: all the champion's). Buckets of arms that are gone go to the
    champion first; then each challenger gives back what it has too much of, and last takes what it lacks,
    of what was given back only when nothing else is left.

    Raises:
        BadWeights: a share outside [0, 10,000], or a sum other than 10,000.
    """
    _check_amounts(weights.items())
    owners = _owners(previous, weights, champion_id)
    free = _held(owners, champion_id)
    challengers = [arm_id for arm_id in weights if arm_id != champion_id]
    for arm_id in challengers:
        surplus = _held(owners, arm_id)[weights[arm_id] :]
        _give(owners, surplus, champion_id)
        free += surplus
    for arm_id in challengers:
        lacking = weights[arm_id] - owners.count(arm_id)
        _give(owners, free[:lacking], arm_id)
        free = free[lacking:]
    return _shares(owners)


def _check_amounts(weights: Iterable[tuple[object, int]]) -> None:
    total = 0
    for arm, weight in weights:
        if not 0 <= weight <= TOTAL_BP:
            raise BadWeights(f"weights.{arm} must be in [0, {TOTAL_BP}], got {weight}")
        total += weight
    if total != TOTAL_BP:
        raise BadWeights(f"weights must sum to {TOTAL_BP}, got {total}")


def _owners(previous: Sequence[Share], weights: Mapping[int, int], champion_id: int) -> list[int]:
    owners = [champion_id] * TOTAL_BP
    for share in previous:
        if share.arm_id in weights:
            owners[share.start_bp : share.end_bp] = [share.arm_id] * (share.end_bp - share.start_bp)
    return owners


def _held(owners: Sequence[int], arm_id: int) -> list[int]:
    return [index for index, owner in enumerate(owners) if owner == arm_id]


def _give(owners: list[int], buckets: Iterable[int], arm_id: int) -> None:
    for index in buckets:
        owners[index] = arm_id


def _shares(owners: Sequence[int]) -> tuple[Share, ...]:
    shares: list[Share] = []
    start = 0
    for index in range(1, len(owners) + 1):
        if index == len(owners) or owners[index] != owners[start]:
            shares.append(Share(arm_id=owners[start], start_bp=start, end_bp=index))
            start = index
    return tuple(shares)
