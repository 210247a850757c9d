"""Which share does a challenger get next, and what is left for the others?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from routing.types import TOTAL_BP


def next_share(ramp_bp: Sequence[int], share_bp: int) -> int:
    """The first step of the ramp above the share held now; the last step, 10,000, is promotion."""
    return next((step for step in ramp_bp if step > share_bp), TOTAL_BP)


def with_share(weights: Mapping[str, int], arm: str, share_bp: int, champion: str) -> dict[str, int]:
    """The split with `arm` at `share_bp`. The champion pays; others when it would be left short.

    A champion without traffic is nothing to compare with: it keeps half of what `arm` leaves, or all that it
    had if that was less, and the others give in proportion. `weights` is arm → basis points, summing to
    10,000, and so is the result; no arm is lost from it.
    """
    others = {name: held for name, held in weights.items() if name not in (arm, champion)}
    left = TOTAL_BP - share_bp
    room = left - min(weights[champion], left // 2)
    if (held := sum(others.values())) > room:
        others = {name: share * room // held for name, share in others.items()}
    return {champion: left - sum(others.values()), arm: share_bp, **others}


def without(weights: Mapping[str, int], arm: str, champion: str) -> dict[str, int]:
    """The split after `arm` has given its whole share back to the champion."""
    return with_share(weights, arm, 0, champion)


def all_to(arm: str, arms: Sequence[str]) -> dict[str, int]:
    """All traffic to one arm."""
    return {name: TOTAL_BP if name == arm else 0 for name in arms}
