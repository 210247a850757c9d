"""When do two learners know the same?"""

from __future__ import annotations

import numpy as np

from policies.lessons import Apprentice, Knowledge
from routing.linear_model import Sums

_CLOSE = 1e-9


def same(one: Knowledge, two: Knowledge) -> bool:
    """Whether it is the same but for rounding: sums in another order differ in their last digits."""
    return (
        one.sums.keys() == two.sums.keys()
        and one.unusable == two.unusable
        and _same_totals(one.apprentice, two.apprentice)
        and all(_same_sums(one.sums[arm_id], two.sums[arm_id]) for arm_id in one.sums)
    )


def _same_totals(one: Apprentice, two: Apprentice) -> bool:
    first, second = ([totals.agreement, totals.earned, totals.actual] for totals in (one, two))
    size = 1.0 + one.decisions + max(map(abs, first))
    return one.decisions == two.decisions and np.allclose(first, second, rtol=_CLOSE, atol=_CLOSE * size)


def _same_sums(one: Sums, two: Sums) -> bool:
    size = 1.0 + one.n + one.yy**0.5
    return (one.n, one.as_of_ms) == (two.n, two.as_of_ms) and all(
        np.allclose(getattr(one, name), getattr(two, name), rtol=_CLOSE, atol=_CLOSE * size)
        for name in ("weight", "weight_squares", "xx", "xy", "y", "yy")
    )
