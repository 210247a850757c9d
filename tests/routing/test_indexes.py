"""What is looked up is what asking every rule in turn would find, and few rules are asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf, nan
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from routing.features import Value
from routing.indexes import Rule, indexes_of
from routing.overrides import Outcome, Rules
from routing.rules import TOTAL_SHARE_BP, Condition, Op, Override

NOW = 5
VERSIONS = [
    "0.9.0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0",
    "1.0.1",
    "v2.0.0",
]
"""In their order."""
NUMBERS = {
    "-1": -1.0,
    "0": 0.0,
    "1": 1.0,
    "1.0": 1.0,
    "01": 1.0,
    "2": 2.0,
    "2.5": 2.5,
    "3e0": 3.0,
    "3E0": 3.0,
}
TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "FALSE": False}
WORDS = ["", "a", "ab", "abc", "abca", "b", "ba", "bab", "ca", "A", "é"]
TEXTS = [*WORDS, *NUMBERS, *TRUTHS, *VERSIONS]
EXPRESSIONS = ["a", "^a", "a$", "^ab?c", "[0-9]", "b.b", "^$"]
ATTRIBUTES = ["unit", "path", "method", "header.x-a", "header.X-A", "context.x", "context.y"]
SIDES = {
    Op.LT: (-1,),
    Op.LTE: (-1, 0),
    Op.GT: (1,),
    Op.GTE: (0, 1),
    Op.SEMVER_LT: (-1,),
    Op.SEMVER_GTE: (0, 1),
}
"""On which sides of its bound an op holds: below, at and above it."""

REALS: list[Value] = [-1.0, 0.0, 1.0, 1.5, 2.0, 2.5, 3.0]
ANYTHING: list[Value] = [*TEXTS, *REALS, True, False]
VALUES: dict[Op, Sequence[Value]] = {
    **dict.fromkeys(Op, ANYTHING),
    **dict.fromkeys([Op.STARTS_WITH, Op.ENDS_WITH, Op.CONTAINS], TEXTS),
    **dict.fromkeys([Op.LT, Op.LTE, Op.GT, Op.GTE], REALS),
    **dict.fromkeys([Op.SEMVER_LT, Op.SEMVER_GTE], VERSIONS),
    Op.MATCHES: EXPRESSIONS,
    Op.EXISTS: [True, False],
}
COUNTS = {Op.IN: (1, 4), Op.NOT_IN: (1, 4), Op.EXISTS: (0, 1)}


class Dice:
    """Rules and requests over few attributes, values and, in one set of rules, ops: so that many hold."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.ops = random.choices(list(Op), k=random.randint(1, 4))
        self.attributes = random.sample(ATTRIBUTES, 2)

    def condition(self) -> Condition:
        op, attribute = self.random.choice(self.ops), self.random.choice(self.attributes)
        if attribute == "method" and op.startswith("semver"):
            attribute = "unit"  # in upper case some versions have another place
        values = self.random.choices(VALUES[op], k=self.random.randint(*COUNTS.get(op, (1, 1))))
        return Condition(attribute=attribute, op=op, values=tuple(values))

    def rules(self, ids: Iterable[int]) -> list[Override]:
        """In any order; some expire, some pin a share."""
        return [
            Override(
                id=number,
                arm_id=number,
                when=tuple(self.condition() for _ in range(self.random.choice([0, 1, 1, 1, 2, 3]))),
                share_bp=self.random.choice([TOTAL_SHARE_BP, TOTAL_SHARE_BP, 5_000, 1]),
                priority=self.random.randint(0, 3),
                expires_at_ms=self.random.choice([None, None, NOW - 1, NOW, NOW + 1]),
            )
            for number in self.random.sample(list(ids), k=self.random.randint(0, 12))
        ]

    def request(self, values: Sequence[Value] = ANYTHING) -> dict[str, Value]:
        attributes = {attribute.lower() for attribute in ATTRIBUTES}
        return {name: self.random.choice(values) for name in sorted(attributes) if self.random.random() < 0.9}

    def unit(self) -> int:
        return self.random.randrange(TOTAL_SHARE_BP)


dice = st.randoms(use_true_random=True).map(Dice)


class Request:
    """A request that has these attributes, each of which may be read once."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values
        self.reads: set[str] = set()

    def value(self, attribute: str) -> Value | None:
        assert attribute not in self.reads
        self.reads.add(attribute)
        return self.values.get(attribute)


def draws(unit: int) -> Callable[[Override], int]:
    """The buckets of a unit, another one for each override."""
    return lambda override: (unit + override.id * 3_331) % TOTAL_SHARE_BP


def number(value: Value | None) -> float | None:
    """What a value is as a number."""
    if isinstance(value, str):
        return NUMBERS.get(value)
    return None if value is None or isinstance(value, bool) else value


def equal(value: Value | None, wanted: Value) -> bool:
    """Whether a request has what a condition wants."""
    if isinstance(wanted, str):
        return isinstance(value, str) and value == wanted
    if isinstance(wanted, bool):
        return (TRUTHS.get(value) if isinstance(value, str) else value) is wanted
    return number(value) == wanted


def side(op: Op, value: Value | None, bound: Value) -> int | None:
    """On which side of the bound a value is, if it can be on any."""
    pair = (number(value), number(bound))
    if op.startswith("semver"):
        pair = (VERSIONS.index(value) if value in VERSIONS else None, VERSIONS.index(str(bound)))
    left, right = pair
    return None if left is None or right is None else (left > right) - (left < right)


def holds(condition: Condition, subject: Mapping[str, Value]) -> bool:
    """Whether a condition does: as the table says it, with nothing prepared."""
    op, values = condition.op, condition.values
    value = subject.get(condition.attribute.lower())
    if condition.attribute == "method" and op is not Op.MATCHES:
        values = tuple(wanted.upper() if isinstance(wanted, str) else wanted for wanted in values)
    if condition.attribute == "method" and isinstance(value, str):
        value = value.upper()
    if op is Op.EXISTS:
        return (value is not None) == (values != (False,))
    if op in (Op.NOT_EQUALS, Op.NOT_IN):
        return not any(equal(value, wanted) for wanted in values)
    if op in (Op.EQUALS, Op.IN):
        return any(equal(value, wanted) for wanted in values)
    if op in SIDES:
        return side(op, value, values[0]) in SIDES[op]
    if not isinstance(value, str):
        return False
    text = str(values[0])
    if op is Op.STARTS_WITH:
        return value[: len(text)] == text
    if op is Op.ENDS_WITH:
        return value[max(len(value) - len(text), 0) :] == text
    return text in value if op is Op.CONTAINS else re.search(text, value) is not None


def first(rules: Sequence[Override], subject: Mapping[str, Value], unit: int) -> Override | None:
    """The override that pins a request, each being asked in turn."""
    for override in sorted(rules, key=lambda one: (-one.priority, one.id)):
        lives = override.expires_at_ms is None or override.expires_at_ms > NOW
        is_drawn = draws(unit)(override) < override.share_bp
        if lives and is_drawn and all(holds(condition, subject) for condition in override.when):
            return override
    return None


@settings(max_examples=400)
@given(dice)
def test_what_is_found_is_the_first_that_holds(dice: Dice) -> None:
    """Whatever the rules are found by; and a trace says the same, of one of them at most."""
    rules = dice.rules(range(99))
    made = Rules(rules)
    for _ in range(8):
        subject, unit = dice.request(), dice.unit()
        expected = first(rules, subject, unit)
        assert made.find(Request(subject), NOW, draws(unit)) is expected
        steps = made.trace(Request(subject), NOW, draws(unit))
        matched = [step.override for step in steps if step.outcome is Outcome.MATCHED]
        assert matched == ([] if expected is None else [expected])
        assert {step.override.id for step in steps} == {override.id for override in rules}


@given(dice)
def test_rules_that_do_not_hold_change_nothing(dice: Dice) -> None:
    """However many they are and wherever they stand, the same one is found."""
    rules, others, subject, unit = (
        dice.rules(range(99)),
        dice.rules(range(100, 199)),
        dice.request(),
        dice.unit(),
    )
    failing = [one for one in others if first([one], subject, unit) is None]
    found = Rules(rules).find(Request(subject), NOW, draws(unit))
    assert Rules([*failing, *rules]).find(Request(subject), NOW, draws(unit)) is found


def when(attribute: str, op: Op, *values: Value) -> Condition:
    """One condition."""
    return Condition(attribute=attribute, op=op, values=values)


GOLD = when("header.x-a", Op.EQUALS, "gold")
KINDS: dict[str, tuple[Callable[[int], list[Condition]], Callable[[int], dict[str, Value]]]] = {
    "a value": (lambda n: [when("unit", Op.EQUALS, f"u{n}")], lambda n: {"unit": f"u{n}"}),
    "some values": (lambda n: [when("unit", Op.IN, n, f"u{n}", "x")], lambda n: {"unit": f"{n}.0"}),
    "a prefix": (lambda n: [when("path", Op.STARTS_WITH, f"/{n}/")], lambda n: {"path": f"/{n}/{n}/a"}),
    "a suffix": (lambda n: [when("unit", Op.ENDS_WITH, f"@{n}.de")], lambda n: {"unit": f"@9@{n}.de"}),
    "a range": (
        lambda n: [when("context.x", Op.GTE, n), when("context.x", Op.LT, n + 1)],
        lambda n: {"context.x": n + 0.5},
    ),
    "versions": (
        lambda n: [when("context.x", Op.SEMVER_GTE, f"1.{n}.0"), when("context.x", Op.SEMVER_LT, f"1.{n}.5")],
        lambda n: {"context.x": f"1.{n}.4"},
    ),
    "what can be looked up": (
        lambda n: [when("path", Op.MATCHES, "a"), when("path", Op.EXISTS), when("unit", Op.EQUALS, f"u{n}")],
        lambda n: {"path": "/a", "unit": f"u{n}"},
    ),
}


def asked(request: Request) -> int:
    """How many of the `thousand` rules were asked, each of which asks for an attribute of its own."""
    return sum(attribute.startswith("header.of-") for attribute in request.reads)


def thousand(conditions: Callable[[int], list[Condition]]) -> list[Override]:
    """Rules that also want something not to be there, which an index does not know."""
    return [
        Override(id=n, arm_id=1, when=(*conditions(n), when(f"header.of-{n}", Op.EXISTS, False)))
        for n in range(1, 1_001)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_few_rules_are_asked(kind: str) -> None:
    """Of a thousand the one that holds, and none where none does."""
    conditions, subject = KINDS[kind]
    rules = Rules(thousand(conditions))
    for n, expected in ((1, 1), (500, 500), (1_000, 1_000), (5_000, None)):
        request = Request(subject(n))
        found = rules.find(request, NOW, draws(0))
        assert (None if found is None else found.id) == expected
        assert asked(request) == (expected is not None)


@pytest.mark.parametrize(
    ("op", "value"), [(Op.EQUALS, "a"), (Op.STARTS_WITH, "a"), (Op.CONTAINS, "a"), (Op.NOT_EQUALS, "b")]
)
def test_what_comes_after_the_first_is_not_asked(op: Op, value: str) -> None:
    """Where all of a thousand hold, one is asked."""
    rules = thousand(lambda _: [when("unit", op, value)])
    request = Request({"unit": "a"})
    assert Rules(rules).find(request, NOW, draws(0)) is rules[0]
    assert asked(request) == 1


def test_a_rule_is_found_by_what_the_fewest_share() -> None:
    """By the value or the range that tells it from others; the rest of its conditions is asked then."""
    fits: list[Callable[[int], list[Condition]]] = [
        lambda n: [GOLD, when("unit", Op.EQUALS, f"u{n}")],
        lambda n: [GOLD, when("unit", Op.GT, n), when("unit", Op.LTE, n + 1)],
        lambda n: [when("context.x", Op.LT, n), when("unit", Op.GTE, n), when("unit", Op.LT, n + 2)],
        lambda n: [GOLD, when("path", Op.IN, f"p{n}", "p"), when("unit", Op.STARTS_WITH, f"u{n}")],
        lambda n: [
            when("path", Op.EXISTS),
            when("path", Op.MATCHES, "a"),
            when("unit", Op.CONTAINS, f"u{n}"),
        ],
        lambda n: [when("unit", Op.MATCHES, f"u{n}"), when("path", Op.NOT_EQUALS, "a")],
    ]
    for conditions in fits:
        rules = [Rule(override, place) for place, override in enumerate(thousand(conditions))]
        assert len(indexes_of(rules)) == 1
        for rule in rules:
            left = {condition.attribute for condition in rule.override.when} - {"unit"}
            assert {check.attribute for check in rule.rest} == left


@pytest.mark.parametrize("size", [3, 200], ids=["all at once", "one by one"])
def test_expressions_are_found_in_order(size: int) -> None:
    """Of those that are found the first one that holds, also where they are too large for all at once."""
    rules = [
        override_of(number, when("unit", Op.MATCHES, f"[ab]{{{size}}}{number}$"), when("path", Op.EXISTS))
        for number in range(1, 100)
    ]
    made = Rules([*rules, override_of(100, when("unit", Op.STARTS_WITH, "bb"))])
    text = "ab" * 100
    for unit, subject, expected in (
        (f"{text}7", {"path": "/"}, 7),
        (f"{text}17", {"path": "/"}, 17),
        (f"b{text}b7", {"path": "/"}, 7),
        (f"b{text}", {"path": "/"}, None),
        (f"bb{text}99", {}, 100),
        (f"{text}7", {}, None),
        ("7", {"path": "/"}, None),
    ):
        found = made.find(Request({"unit": unit, **subject}), NOW, draws(0))
        assert (None if found is None else found.id) == expected


def override_of(number: int, *conditions: Condition) -> Override:
    """One that pins everybody for whom these hold."""
    return Override(id=number, arm_id=1, when=conditions)


PREFIXES = st.lists(st.text(alphabet="ab", max_size=6), min_size=1, max_size=30)


@given(
    prefixes=PREFIXES,
    text=st.text(alphabet="abc", max_size=9),
    op=st.sampled_from([Op.STARTS_WITH, Op.ENDS_WITH]),
)
def test_every_prefix_and_suffix_of_a_text_is_found(prefixes: list[str], text: str, op: Op) -> None:
    """However they are nested: leaving out the one that was found leads to the next."""
    rules = [
        Override(id=number, arm_id=1, when=(when("unit", op, prefix),))
        for number, prefix in enumerate(prefixes)
    ]
    good = [one for one in rules if holds(one.when[0], {"unit": text})]
    while rules:
        found = Rules(rules).find(Request({"unit": text}), NOW, draws(0))
        assert found is (good[0] if good else None)
        if found is None:
            break
        rules.remove(good.pop(0))


ODD: st.SearchStrategy[Value] = st.one_of(
    st.text(),
    st.text(alphabet=st.characters(categories=["Cs"])),
    st.floats(),
    st.integers(),
    st.sampled_from(
        [nan, inf, -inf, 10**5_000, -(10**5_000), "9" * 5_000, "1e999", "x" * 100_000, "1." * 200]
    ),
)


@given(dice=dice, values=st.lists(ODD, min_size=1, max_size=6))
def test_no_value_raises(dice: Dice, values: list[Value]) -> None:
    """Whatever text or number stands in the place of an attribute, and a trace still says the same."""
    made = Rules(dice.rules(range(99)))
    subject = dice.request(values)
    found = made.find(Request(subject), NOW, draws(0))
    steps = made.trace(Request(subject), NOW, draws(0))
    matched = [step.override for step in steps if step.outcome is Outcome.MATCHED]
    assert matched == ([] if found is None else [found])
