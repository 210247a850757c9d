"""A thousand overrides of one route, of a usual mix, as teams have them after a while."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contexts import COUNTRIES
from routing.rules import Condition, Op, Override

_LISTED = 20
_LAST = 0
"""The priority of what comes after all the others."""


def overrides(count: int, arm_id: int, *, last_holds: bool) -> tuple[Override, ...]:
    """So many overrides to an arm, of which none holds for a measured request, or the very last one does.

    A fifth each: a list of 20 units; a tenant by a header; a country and a tier of the context; the beginning
    of a path; a version by a header. A request has all of these, so nothing is passed over for want of it.
    """
    found = [
        Override(id=number + 1, arm_id=arm_id, when=tuple(_conditions(number))) for number in range(count)
    ]
    if last_holds:
        anywhere = Condition(attribute="context.country", op=Op.IN, values=COUNTRIES)
        found[-1] = Override(id=count, arm_id=arm_id, when=(anywhere,), priority=_LAST)
    return tuple(found)


def _conditions(number: int) -> Iterator[Condition]:
    match number % 5:
        case 0:
            units = tuple(f"tester-{number}-{place}" for place in range(_LISTED))
            yield Condition(attribute="unit", op=Op.IN, values=units)
        case 1:
            yield Condition(attribute="header.X-Tenant", op=Op.EQUALS, values=(f"trial-{number}",))
        case 2:
            country = COUNTRIES[number // 5 % len(COUNTRIES)]
            yield Condition(attribute="context.country", op=Op.EQUALS, values=(country,))
            yield Condition(attribute="context.tier", op=Op.EQUALS, values=("internal",))
        case 3:
            yield Condition(attribute="path", op=Op.STARTS_WITH, values=(f"/r/bench/beta-{number}",))
        case _:
            version = f"{3 + number}.0.0"
            yield Condition(attribute="header.X-App-Version", op=Op.SEMVER_GTE, values=(version,))
