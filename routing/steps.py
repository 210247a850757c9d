"""What came of one override for one request, and which condition decided it?"""

from __future__ import annotations

from enum import StrEnum
from math import inf

import msgspec

from routing.conditions import Reading
from routing.features import Value
from routing.indexes import Rule
from routing.rules import Condition, Op, Override

_SHOWN_VALUES = 8
_SHOWN_CHARACTERS = 256


class Outcome(StrEnum):
    """What came of an override."""

    MATCHED = "matched"
    EXPIRED = "expired"
    CONDITION = "condition"
    SHARE = "share"
    PRECEDED = "preceded"


class Miss(msgspec.Struct, frozen=True, kw_only=True):
    """The first condition of an override that did not hold, and what the request had there.

    `condition` counts from 0. Of many values the first 8 are shown, of a long text 256 characters.
    """

    condition: int
    attribute: str
    op: Op
    values: tuple[Value, ...]
    value: Value | None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an override. CONDITION has a `miss`; PRECEDED would have matched had no other before."""

    override: Override
    outcome: Outcome
    miss: Miss | None = None


def step_of(rule: Rule, reading: Reading, success: Outcome) -> Step:
    """Its time comes first, then its conditions as written, then its share; after that it is a `success`."""
    if rule.is_expired(reading):
        return Step(override=rule.override, outcome=Outcome.EXPIRED)
    for place, check in enumerate(rule.checks):
        if not check.holds(reading):
            miss = _miss(rule.override.when[place], place, reading.value(check.attribute))
            return Step(override=rule.override, outcome=Outcome.CONDITION, miss=miss)
    return Step(override=rule.override, outcome=success if rule.is_drawn(reading) else Outcome.SHARE)


def written(text: str) -> str:
    """The text as UTF-8 can write it: surrogates become question marks."""
    return text.encode(errors="replace").decode()


def _miss(condition: Condition, place: int, value: Value | None) -> Miss:
    return Miss(
        condition=place,
        attribute=condition.attribute,
        op=condition.op,
        values=condition.values[:_SHOWN_VALUES],
        value=_cut(value),
    )


def _cut(value: Value | None) -> Value | None:
    """What an answer can show of it."""
    if isinstance(value, str):
        return written(value[:_SHOWN_CHARACTERS])
    if value is None or isinstance(value, bool):
        return value
    try:
        return float(value)
    except OverflowError:
        return inf if value > 0 else -inf
