"""Which of many rules can hold, by what a request has, and which of those comes first?

Every rule is listed under the one of its conditions that the fewest rules share, and is looked at only where
that one holds. `equals` and `in` are found by hash, prefixes and suffixes by the place of a text among sorted
ones, bounds in a segment tree over the ranges that they leave, and all regular expressions are searched for
at once; the rest is asked in order. So what a request costs grows with how many rules share a condition, not
with how many there are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import TypeVar

from routing.conditions import (
    Among,
    Check,
    Contains,
    Cut,
    EndsWith,
    Exists,
    Matches,
    NotAmong,
    NumberRange,
    Range,
    Reading,
    StartsWith,
    VersionRange,
    check_of,
    merged,
    truth_of,
)
from routing.features import Value
from routing.patterns import all_found, together
from routing.rules import TOTAL_SHARE_BP, Override

_Kind = TypeVar("_Kind", bound=Check)
_Key = TypeVar("_Key")


class Rule:
    """An override, ready to be asked. `place` is where it stands in the order of precedence.

    `checks` are its conditions as written; `rest` is what is left to ask once an index has found it.
    """

    def __init__(self, override: Override, place: int) -> None:
        self.override = override
        self.place = place
        self.checks = [check_of(condition) for condition in override.when]
        self.rest = sorted(merged(self.checks), key=_weight)
        self._expires_at_ms = override.expires_at_ms
        self._share_bp = override.share_bp

    def holds(self, reading: Reading) -> bool:
        """Whether it pins the request, now that an index has found it."""
        if self.is_expired(reading):
            return False
        for check in self.rest:
            if not check.holds(reading):
                return False
        return self.is_drawn(reading)

    def is_expired(self, reading: Reading) -> bool:
        """Whether it has no effect any more."""
        return self._expires_at_ms is not None and reading.at_ms >= self._expires_at_ms

    def is_drawn(self, reading: Reading) -> bool:
        """Whether the request's unit is in its share; it is drawn only where that is not everybody."""
        return self._share_bp >= TOTAL_SHARE_BP or reading.draw(self.override) < self._share_bp


class Index:
    """Some of the rules, by what they ask of a request."""

    def first(self, reading: Reading, best: int) -> int:
        """The place of the first of them that holds, where it is before `best`; or else `best`."""
        raise NotImplementedError


Listed = Sequence[tuple[_Kind, Rule]]
"""Rules in order, each with the check by which it is found."""


class InOrder(Index):
    """Rules that are asked one after the other."""

    def __init__(self, rules: list[Rule]) -> None:
        self._rules = rules

    def first(self, reading: Reading, best: int) -> int:
        return _first(self._rules, reading, best)


class Present(Index):
    """Rules that are asked one after the other where a request has an attribute."""

    def __init__(self, attribute: str, rules: list[Rule]) -> None:
        self.attribute = attribute
        self._rules = rules

    def first(self, reading: Reading, best: int) -> int:
        return best if reading.value(self.attribute) is None else _first(self._rules, reading, best)


class Values(Index):
    """Rules by the values of which a request must have one."""

    def __init__(self, attribute: str, listed: Listed[Among]) -> None:
        self.attribute = attribute
        self._texts: dict[str, list[Rule]] = {}
        self._numbers: dict[float, list[Rule]] = {}
        self._truths: dict[bool, list[Rule]] = {}
        for check, rule in listed:
            alone = [rule]
            _list(self._texts, check.texts, alone)
            _list(self._numbers, check.numbers, alone)
            _list(self._truths, check.truths, alone)

    def first(self, reading: Reading, best: int) -> int:
        value = reading.value(self.attribute)
        if isinstance(value, str) and (rules := self._texts.get(value)) is not None:
            best = _first(rules, reading, best)
        if self._numbers and (number := reading.number(self.attribute)) is not None:
            best = _first(self._numbers.get(number, _NONE), reading, best)
        if self._truths and (truth := truth_of(value)) is not None:
            best = _first(self._truths.get(truth, _NONE), reading, best)
        return best


class Affixes(Index):
    """Rules by how a text must begin or, read `backwards`, end.

    Of the sorted beginnings the last one that is not behind a text begins with every one that the text begins
    with. From each a step leads to the longest other one that it begins with.
    """

    def __init__(self, attribute: str, listed: Iterable[tuple[str, Rule]], *, backwards: bool) -> None:
        rules: dict[str, list[Rule]] = {}
        for text, rule in listed:
            rules.setdefault(text[::-1] if backwards else text, []).append(rule)
        self.attribute = attribute
        self._backwards = backwards
        self._texts = sorted(rules)
        self._rules = [rules[text] for text in self._texts]
        self._steps = _steps(self._texts)
        self._longest = max(map(len, self._texts))

    def first(self, reading: Reading, best: int) -> int:
        text = reading.value(self.attribute)
        if not isinstance(text, str):
            return best
        if self._backwards:
            text = text[: -self._longest - 1 : -1]
        place = bisect_right(self._texts, text) - 1
        while place >= 0:
            if text.startswith(self._texts[place]):
                best = _first(self._rules[place], reading, best)
            place = self._steps[place]
        return best


class Parts(Index):
    """Rules by what a text must have in it, one after the other."""

    def __init__(self, attribute: str, listed: Listed[Contains]) -> None:
        self.attribute = attribute
        self._parts = [(check.text, rule.place, rule) for check, rule in listed]

    def first(self, reading: Reading, best: int) -> int:
        text = reading.value(self.attribute)
        if not isinstance(text, str):
            return best
        for part, place, rule in self._parts:
            if place >= best:
                break
            if part in text and rule.holds(reading):
                return place
        return best


class Expressions(Index):
    """Rules by an expression that must be found in a text: all at once, unless they are too large for RE2."""

    def __init__(self, attribute: str, listed: Listed[Matches]) -> None:
        self.attribute = attribute
        self._listed = listed
        self._together = together([check.expression for check, _ in listed])

    def first(self, reading: Reading, best: int) -> int:
        text = reading.value(self.attribute)
        if not isinstance(text, str) or self._listed[0][1].place >= best:
            return best
        places = None if self._together is None else all_found(self._together, text)
        if places is None:
            return self._first_of_each(reading, best)
        return _first([self._listed[place][1] for place in places], reading, best)

    def _first_of_each(self, reading: Reading, best: int) -> int:
        for check, rule in self._listed:
            if rule.place >= best:
                break
            if check.holds(reading) and rule.holds(reading):
                return rule.place
        return best


class Ranges(Index):
    """Rules by the range in which a number, or a version, must be: a segment tree.

    The cuts divide the line into slots. A range is listed at the few nodes that together stand for its slots,
    and a slot finds its ranges on the way from its leaf to the root.
    """

    def __init__(self, listed: Listed[Range]) -> None:
        self._range = listed[0][0]
        self._cuts = sorted({cut for check, _ in listed for cut in (check.low, check.high)})
        self._slots = len(self._cuts) + 1
        self._nodes: list[list[Rule]] = [[] for _ in range(2 * self._slots)]
        for check, rule in listed:
            for node in self._covering(check):
                self._nodes[node].append(rule)

    def first(self, reading: Reading, best: int) -> int:
        point = self._range.point(reading)
        if point is None:
            return best
        node = self._slots + bisect_right(self._cuts, point)
        while node:
            best = _first(self._nodes[node], reading, best)
            node >>= 1
        return best

    def _covering(self, check: Range) -> Iterator[int]:
        start = self._slots + bisect_left(self._cuts, check.low) + 1
        end = self._slots + bisect_left(self._cuts, check.high) + 1
        while start < end:
            if start & 1:
                yield start
                start += 1
            if end & 1:
                end -= 1
                yield end
            start >>= 1
            end >>= 1


def indexes_of(rules: Sequence[Rule]) -> list[Index]:
    """The rules, each in one index; the condition that it answers is taken from the `rest` of a rule."""
    crowds = _Crowds(rules)
    in_order: list[Rule] = []
    found: defaultdict[str, list[tuple[Check, Rule]]] = defaultdict(list)
    for rule in rules:
        check = rule.rest[0] if len(rule.rest) == 1 else min(rule.rest, key=crowds.rank, default=None)
        if check is None or isinstance(check, NotAmong) or (isinstance(check, Exists) and not check.wanted):
            in_order.append(rule)
            continue
        found[check.attribute].append((check, rule))
        rule.rest.remove(check)
    by_attribute = [index for attribute, listed in found.items() for index in _indexes(attribute, listed)]
    return [*by_attribute, InOrder(in_order)] if in_order else by_attribute


def _indexes(attribute: str, listed: Listed[Check]) -> Iterator[Index]:
    if values := _only(Among, listed):
        yield Values(attribute, values)
    if starts := _only(StartsWith, listed):
        yield Affixes(attribute, ((check.text, rule) for check, rule in starts), backwards=False)
    if ends := _only(EndsWith, listed):
        yield Affixes(attribute, ((check.text, rule) for check, rule in ends), backwards=True)
    if numbers := _only(NumberRange, listed):
        yield Ranges(numbers)
    if versions := _only(VersionRange, listed):
        yield Ranges(versions)
    if parts := _only(Contains, listed):
        yield Parts(attribute, parts)
    if expressions := _only(Matches, listed):
        yield Expressions(attribute, expressions)
    if present := [rule for check, rule in listed if isinstance(check, Exists)]:
        yield Present(attribute, present)


class _Crowds:
    """How many rules a request can find at most under a check."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        checks = [check for rule in rules for check in rule.rest]
        self._rules: defaultdict[tuple[str, type], Counter[Value]] = defaultdict(Counter)
        for place, values in chain.from_iterable(map(_places, checks)):
            self._rules[place].update(values)
        ranges: defaultdict[tuple[type[Check], str], list[Range]] = defaultdict(list)
        for check in checks:
            if isinstance(check, Range):
                ranges[type(check), check.attribute].append(check)
        self._depths = {key: _depth(found) for key, found in ranges.items()}

    def rank(self, check: Check) -> tuple[int, int]:
        """Orders checks by how well they tell a rule from others, the best one first."""
        if isinstance(check, Range):
            return check.weight, self._depths[type(check), check.attribute]
        if isinstance(check, Matches):
            return Contains.weight, 0
        found = [max(map(self._rules[place].__getitem__, values)) for place, values in _places(check)]
        return check.weight, max(found, default=0)


def _places(check: Check) -> Iterator[tuple[tuple[str, type], Iterable[Value]]]:
    """Under which values of which kind a rule with this check is found, as far as there are any."""
    if isinstance(check, Among):
        for kind, values in ((str, check.texts), (float, check.numbers), (bool, check.truths)):
            if values:
                yield (check.attribute, kind), values
    elif isinstance(check, StartsWith | EndsWith):
        yield (check.attribute, type(check)), (check.text,)


def _depth(ranges: Iterable[Range]) -> int:
    """How many of them overlap at most."""
    steps: Counter[Cut] = Counter()
    for found in ranges:
        if found.low < found.high:
            steps[found.low] += 1
            steps[found.high] -= 1
    return max(accumulate(steps[cut] for cut in sorted(steps)), default=0)


def _list(rules: dict[_Key, list[Rule]], values: set[_Key], alone: list[Rule]) -> None:
    """List a rule under values. While it is the only one there, its list is shared: some have thousands."""
    known = values & rules.keys()
    rules.update(dict.fromkeys(values - known if known else values, alone))
    for value in known:
        listed = rules[value]
        if len(listed) == 1:
            rules[value] = listed + alone
        else:
            listed += alone


def _steps(texts: Sequence[str]) -> list[int]:
    """Of each of the sorted texts, the place of the longest other one that it begins with; −1: of none."""
    steps: list[int] = []
    for place, text in enumerate(texts):
        step = place - 1
        while step >= 0 and not text.startswith(texts[step]):
            step = steps[step]
        steps.append(step)
    return steps


def _only(kind: type[_Kind], listed: Listed[Check]) -> list[tuple[_Kind, Rule]]:
    return [(check, rule) for check, rule in listed if isinstance(check, kind)]


def _weight(check: Check) -> int:
    return check.weight


def _first(rules: Sequence[Rule], reading: Reading, best: int) -> int:
    for rule in rules:
        if rule.place >= best:
            break
        if rule.holds(reading):
            return rule.place
    return best


_NONE: list[Rule] = []
