"""Which override, if any, pins this request, and why?

`problems_of` names what cannot be in an override, `Rules.find` gives the one that pins a request, and
`Rules.trace` says of each what came of it. What a condition means stands in `routing.conditions`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from routing.conditions import Reading, Subject, attribute_of, number_of
from routing.errors import BadSnapshot
from routing.indexes import Rule, indexes_of
from routing.patterns import refusal
from routing.rules import TOTAL_SHARE_BP, Condition, Op, Override
from routing.semver import precedence
from routing.steps import Miss, Outcome, Step, step_of, written

__all__ = ["Miss", "Outcome", "Problem", "Rules", "Step", "Subject", "problems_of"]

MAX_CONDITIONS = 16
MAX_VALUES = 10_000
MAX_CHARACTERS = 256
MAX_PRIORITY = 1_000_000

Problem = tuple[str, str]
"""A field by its name on the wire, and what it must be."""

_SHOWN_CHARACTERS = 64
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OPS = frozenset(Op)
_NUMBER_OPS = frozenset({Op.LT, Op.LTE, Op.GT, Op.GTE})
_VERSION_OPS = frozenset({Op.SEMVER_LT, Op.SEMVER_GTE})
_TEXT_OPS = frozenset({Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS, Op.MATCHES}) | _VERSION_OPS
_VALUE_OPS = frozenset({Op.EQUALS, Op.NOT_EQUALS, Op.IN, Op.NOT_IN})
_COUNTS = {Op.IN: (1, MAX_VALUES), Op.NOT_IN: (1, MAX_VALUES), Op.EXISTS: (0, 1)}
_ONE = (1, 1)


class Rules:
    """The overrides of a route, ready to be asked. `attributes` is all that they read of a request.

    All conditions must hold and the unit must be in the share. The highest priority comes first, of equals
    the smallest id. From its `expires_at_ms` on an override has no effect. `draw` gives the basis-point
    bucket, 0 to 9,999, of the request's unit under an override's own salt; it is asked only where the share
    is not everybody. No value that a request can have makes `find` or `trace` raise.

    Raises:
        BadSnapshot: an override has problems.
    """

    def __init__(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            _check(override)
        self.attributes = frozenset(attribute_of(each) for override in overrides for each in override.when)
        ordered = sorted(overrides, key=lambda override: (-override.priority, override.id))
        self._rules = [Rule(override, place) for place, override in enumerate(ordered)]
        self._indexes = indexes_of(self._rules)

    def find(self, subject: Subject, at_ms: int, draw: Callable[[Override], int]) -> Override | None:
        """The override that pins a request at a time, if one does."""
        reading = Reading(subject, at_ms, draw)
        best = nobody = len(self._rules)
        for index in self._indexes:
            best = index.first(reading, best)
        return None if best == nobody else self._rules[best].override

    def trace(self, subject: Subject, at_ms: int, draw: Callable[[Override], int]) -> list[Step]:
        """What comes of every override, in their order; one at most is MATCHED, and is what `find` gives."""
        reading = Reading(subject, at_ms, draw)
        steps: list[Step] = []
        success = Outcome.MATCHED
        for rule in self._rules:
            step = step_of(rule, reading, success)
            if step.outcome is Outcome.MATCHED:
                success = Outcome.PRECEDED
            steps.append(step)
        return steps


def problems_of(when: Sequence[Condition], share: int, priority: int) -> list[Problem]:
    """Everything in an override that cannot be; empty when it can.

    Without a condition it pins every request. Of a condition's values the first wrong one is named.
    """
    return list(_problems(when, share, priority))


def _problems(when: Sequence[Condition], share: int, priority: int) -> Iterator[Problem]:
    if len(when) > MAX_CONDITIONS:
        yield "when", f"must hold at most {MAX_CONDITIONS} conditions, got {len(when)}"
    for place, condition in enumerate(when[:MAX_CONDITIONS]):
        for field, message in _condition_problems(condition):
            yield f"when.{place}.{field}", message
    if not 1 <= share <= TOTAL_SHARE_BP:
        yield "share", f"must be in [1, {TOTAL_SHARE_BP}], got {_shown(share)}"
    if not 0 <= priority <= MAX_PRIORITY:
        yield "priority", f"must be in [0, {MAX_PRIORITY}], got {_shown(priority)}"


def _condition_problems(condition: Condition) -> Iterator[Problem]:
    op = condition.op
    values: Sequence[object] = condition.values
    if (message := _attribute_problem(condition.attribute)) is not None:
        yield "attribute", f"{message}, got {_shown(condition.attribute)}"
    if op not in _OPS:
        yield "op", f"must be one of {', '.join(Op)}, got {_shown(op)}"
        return
    least, most = _COUNTS.get(op, _ONE)
    if not least <= len(values) <= most:
        bound = str(most) if least == most else f"{least} to {most}"
        yield "values", f"must hold {bound} for {op}, got {len(values)}"
    if op in _VALUE_OPS and _are_plain(values):
        return
    for value in values[:most]:
        if (message := _value_problem(op, value)) is not None:
            yield "values", f"{message} for {op}, got {_shown(value)}"
            return


def _are_plain(values: Sequence[object]) -> bool:
    """Whether nothing can be wrong with values that are compared: nearly all are so, and there are many."""
    try:
        texts = cast("Sequence[str]", values)
        return all(map(str.isascii, texts)) and max(map(len, texts), default=0) <= MAX_CHARACTERS
    except TypeError:
        return False


def _attribute_problem(attribute: str) -> str | None:
    if (message := _text_problem(attribute)) is not None:
        return message
    kind, _, name = attribute.partition(".")
    if kind == "header" and name and not _TOKEN.fullmatch(name):
        return "must name a header by a token"
    if attribute in {"unit", "path", "method"} or (kind in {"header", "context"} and name):
        return None
    return "must be unit, path, method, header.NAME or context.NAME"


def _value_problem(op: Op, value: object) -> str | None:
    if op == Op.EXISTS:
        return None if isinstance(value, bool) else "must hold true or false"
    if op in _NUMBER_OPS:
        is_number = not isinstance(value, str) and number_of(value) is not None
        return None if is_number else "must hold a finite number"
    if isinstance(value, str):
        return _text_problem(value) or _writing_problem(op, value)
    if op in _TEXT_OPS:
        return "must hold text"
    if isinstance(value, bool) or number_of(value) is not None:
        return None
    return "must hold texts, finite numbers and truth values"


def _text_problem(text: str) -> str | None:
    if len(text) > MAX_CHARACTERS:
        return f"must have at most {MAX_CHARACTERS} characters"
    return None if text.isascii() or written(text) == text else "must be Unicode text without surrogates"


def _writing_problem(op: Op, text: str) -> str | None:
    if op == Op.MATCHES:
        return refusal(text)
    if op in _VERSION_OPS and precedence(text) is None:
        return "must hold a version as semver.org 2.0.0 has it"
    return None


def _check(override: Override) -> None:
    for field, message in problems_of(override.when, override.share_bp, override.priority):
        raise BadSnapshot(f"override {override.id}: {field} {message}")


def _shown(value: object) -> str:
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{value[:_SHOWN_CHARACTERS]!r}… of {len(value)} characters"
    if isinstance(value, int) and value.bit_length() > 64:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)
