"""Does a condition hold for what a request has?

| op | holds for | without the attribute |
| --- | --- | --- |
| `equals`, `in` | one of the values | fails |
| `not_equals`, `not_in` | whatever `equals`, `in` fail for | holds |
| `starts_with`, `ends_with`, `contains` | text that does | fails |
| `matches` | text in whose first 1,024 characters the expression is found, at any place | fails |
| `lt`, `lte`, `gt`, `gte` | a number, or text that is one | fails |
| `semver_lt`, `semver_gte` | text that is a version, by the precedence of semver.org | fails |
| `exists`, with or without true | anything | fails |
| `exists` with false | nothing | holds |

A value that is text equals the same text alone; a number equals that number, also as text; true and false
equal themselves, also as text in any case. A number is finite, and as text it is written like `-12`, `3.50`
or `1e3`; a truth value is no number. Case counts, but not in the names of headers and in methods.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf, isfinite
from typing import Any, ClassVar, Protocol, assert_never

from routing.features import Value
from routing.patterns import is_found, pattern
from routing.rules import Condition, Op, Override
from routing.semver import Precedence, precedence

Cut = tuple[Any, int]
"""A place between values: (value, 0) just before one, (value, 1) just after it."""

_DECIMAL = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_METHOD = "method"
_HEADER = "header."
_BEFORE_NUMBERS: Cut = (-inf, 0)
_AFTER_NUMBERS: Cut = (inf, 0)
_BEFORE_VERSIONS: Cut = ((-inf,), 0)
_AFTER_VERSIONS: Cut = ((inf,), 0)


class Subject(Protocol):
    """A request, as conditions see it."""

    def value(self, attribute: str) -> Value | None:
        """What it has for unit, path, method, header.NAME (in lower case) or context.NAME, if anything."""


class Reading:
    """What is asked of a request: its attributes, each read once at most, the time, and its draws.

    `draw` gives the basis-point bucket, 0 to 9,999, of the request's unit under an override's own salt.
    """

    def __init__(self, subject: Subject, at_ms: int, draw: Callable[[Override], int]) -> None:
        self.at_ms = at_ms
        self.draw = draw
        self._subject = subject
        self._values: dict[str, Value | None] = {}
        self._numbers: dict[str, float | None] = {}
        self._versions: dict[str, Precedence | None] = {}

    def value(self, attribute: str) -> Value | None:
        """What the request has; a method in upper case."""
        if attribute in self._values:
            return self._values[attribute]
        value = self._subject.value(attribute)
        if attribute == _METHOD and isinstance(value, str):
            value = value.upper()
        self._values[attribute] = value
        return value

    def number(self, attribute: str) -> float | None:
        """The number that it has there, if it has one."""
        if attribute not in self._numbers:
            self._numbers[attribute] = number_of(self.value(attribute))
        return self._numbers[attribute]

    def version(self, attribute: str) -> Precedence | None:
        """What the version that it has there is ordered by, if it has one."""
        if attribute not in self._versions:
            value = self.value(attribute)
            self._versions[attribute] = precedence(value) if isinstance(value, str) else None
        return self._versions[attribute]


class Check:
    """A condition, ready to be asked.

    An index can answer those of weight 0. Of the others the lighter one is asked first: it costs less, or
    fails more often.
    """

    weight: ClassVar[int] = 0

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def holds(self, reading: Reading) -> bool:
        """Whether it does."""
        raise NotImplementedError


class Among(Check):
    """One of these values."""

    def __init__(self, attribute: str, values: Iterable[Value]) -> None:
        super().__init__(attribute)
        self.texts: set[str] = set()
        self.truths: set[bool] = set()
        self.numbers: set[float] = set()
        for value in values:
            if isinstance(value, str):
                self.texts.add(value)
            elif isinstance(value, bool):
                self.truths.add(value)
            elif (number := number_of(value)) is not None:
                self.numbers.add(number)

    def holds(self, reading: Reading) -> bool:
        value = reading.value(self.attribute)
        if isinstance(value, str) and value in self.texts:
            return True
        if self.numbers and reading.number(self.attribute) in self.numbers:
            return True
        return bool(self.truths) and truth_of(value) in self.truths


class NotAmong(Check):
    """None of these values, or nothing."""

    weight: ClassVar[int] = 3

    def __init__(self, attribute: str, values: Iterable[Value]) -> None:
        super().__init__(attribute)
        self._among = Among(attribute, values)

    def holds(self, reading: Reading) -> bool:
        return not self._among.holds(reading)


class Exists(Check):
    """Anything, or nothing."""

    weight: ClassVar[int] = 2

    def __init__(self, attribute: str, wanted: bool) -> None:
        super().__init__(attribute)
        self.wanted = wanted

    def holds(self, reading: Reading) -> bool:
        return (reading.value(self.attribute) is not None) is self.wanted


class StartsWith(Check):
    """Text that begins like this."""

    def __init__(self, attribute: str, text: str) -> None:
        super().__init__(attribute)
        self.text = text

    def holds(self, reading: Reading) -> bool:
        value = reading.value(self.attribute)
        return isinstance(value, str) and value.startswith(self.text)


class EndsWith(Check):
    """Text that ends like this."""

    def __init__(self, attribute: str, text: str) -> None:
        super().__init__(attribute)
        self.text = text

    def holds(self, reading: Reading) -> bool:
        value = reading.value(self.attribute)
        return isinstance(value, str) and value.endswith(self.text)


class Contains(Check):
    """Text with this in it."""

    weight: ClassVar[int] = 1

    def __init__(self, attribute: str, text: str) -> None:
        super().__init__(attribute)
        self.text = text

    def holds(self, reading: Reading) -> bool:
        value = reading.value(self.attribute)
        return isinstance(value, str) and self.text in value


class Matches(Check):
    """Text in which an expression is found."""

    weight: ClassVar[int] = 4

    def __init__(self, attribute: str, expression: str) -> None:
        super().__init__(attribute)
        self.expression = expression
        self._pattern = pattern(expression)

    def holds(self, reading: Reading) -> bool:
        value = reading.value(self.attribute)
        return isinstance(value, str) and is_found(self._pattern, value)


class Range(Check):
    """Something that has an order, between two cuts."""

    def __init__(self, attribute: str, low: Cut, high: Cut) -> None:
        super().__init__(attribute)
        self.low = low
        self.high = high

    def point(self, reading: Reading) -> Cut | None:
        """The cut just before what the request has, if it has something of the kind."""
        raise NotImplementedError

    def holds(self, reading: Reading) -> bool:
        point = self.point(reading)
        return point is not None and self.low <= point < self.high


class NumberRange(Range):
    """A number between two cuts."""

    def point(self, reading: Reading) -> Cut | None:
        number = reading.number(self.attribute)
        return None if number is None else (number, 0)


class VersionRange(Range):
    """A version between two cuts."""

    def point(self, reading: Reading) -> Cut | None:
        version = reading.version(self.attribute)
        return None if version is None else (version, 0)


def attribute_of(condition: Condition) -> str:
    """What it reads, as a subject is asked for it: header names are in lower case."""
    attribute = condition.attribute
    return attribute.lower() if attribute.startswith(_HEADER) else attribute


def check_of(condition: Condition) -> Check:
    """The check of a condition with which nothing is wrong."""
    attribute = attribute_of(condition)
    values = tuple(map(_upper, condition.values)) if attribute == _METHOD else condition.values
    match condition.op:
        case Op.EQUALS | Op.IN:
            return Among(attribute, values)
        case Op.NOT_EQUALS | Op.NOT_IN:
            return NotAmong(attribute, values)
        case Op.STARTS_WITH:
            return StartsWith(attribute, str(values[0]))
        case Op.ENDS_WITH:
            return EndsWith(attribute, str(values[0]))
        case Op.CONTAINS:
            return Contains(attribute, str(values[0]))
        case Op.MATCHES:
            return Matches(attribute, str(condition.values[0]))
        case Op.LT | Op.LTE | Op.GT | Op.GTE:
            return _number_range(attribute, condition)
        case Op.SEMVER_LT:
            return VersionRange(attribute, _BEFORE_VERSIONS, _version(condition))
        case Op.SEMVER_GTE:
            return VersionRange(attribute, _version(condition), _AFTER_VERSIONS)
        case Op.EXISTS:
            return Exists(attribute, all(values))
        case _:
            assert_never(condition.op)


def merged(checks: Iterable[Check]) -> list[Check]:
    """The same checks, those of the numbers or versions of one attribute made one."""
    merged: list[Check] = []
    ranges: dict[tuple[type[Range], str], Range] = {}
    for check in checks:
        if not isinstance(check, Range):
            merged.append(check)
            continue
        key = type(check), check.attribute
        known = ranges.get(key, check)
        low, high = max(known.low, check.low), min(known.high, check.high)
        ranges[key] = type(check)(check.attribute, low, high)
    return [*merged, *ranges.values()]


def number_of(value: object) -> float | None:
    """The finite number that a value is, also as text; None where it is none."""
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value) is None:
            return None
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def truth_of(value: object) -> bool | None:
    """The truth value that a value is, also as text; None where it is none."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or len(value) > len("false"):
        return None
    text = value.lower()
    return True if text == "true" else False if text == "false" else None


def _number_range(attribute: str, condition: Condition) -> NumberRange:
    op = condition.op
    cut = (number_of(condition.values[0]), 1 if op in (Op.LTE, Op.GT) else 0)
    if op in (Op.LT, Op.LTE):
        return NumberRange(attribute, _BEFORE_NUMBERS, cut)
    return NumberRange(attribute, cut, _AFTER_NUMBERS)


def _upper(value: Value) -> Value:
    return value.upper() if isinstance(value, str) else value


def _version(condition: Condition) -> Cut:
    return precedence(str(condition.values[0])), 0
