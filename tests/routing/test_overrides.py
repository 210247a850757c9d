"""The first override that holds pins a request, a trace says why, and what cannot be is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import inf, nan

import msgspec
import pytest

from routing.errors import BadSnapshot
from routing.features import Value
from routing.overrides import Miss, Outcome, Rules, problems_of
from routing.rules import TOTAL_SHARE_BP, Condition, Op, Override

NOW = 1_000_000
HUGE = 10**5_000


class Request:
    """A request that has these attributes, and remembers what it was asked for."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values
        self.reads: list[str] = []

    def value(self, attribute: str) -> Value | None:
        self.reads.append(attribute)
        return self.values.get(attribute)


def always(bucket: int) -> Callable[[Override], int]:
    """The draws of a unit that is in the same bucket for every override."""
    return lambda _: bucket


def when(attribute: str, op: Op, *values: Value) -> Condition:
    """One condition."""
    return Condition(attribute=attribute, op=op, values=values)


def override(number: int, *conditions: Condition, **fields: int) -> Override:
    """One that pins to the arm of its own number."""
    return Override(id=number, arm_id=number, when=conditions, **fields)


def found(rules: Rules, values: Mapping[str, Value], at_ms: int = NOW, bucket: int = 0) -> int | None:
    """The id of the override that pins a request."""
    pinned = rules.find(Request(values), at_ms, always(bucket))
    return None if pinned is None else pinned.id


GOLD = when("header.X-Tier", Op.EQUALS, "gold")
OF_GOLD: Mapping[str, Value] = {"header.x-tier": "gold"}


def test_the_highest_priority_comes_first_and_of_equals_the_oldest() -> None:
    """In whatever order the overrides are given, each is the first when those before it are gone."""
    ranks = [(3, 9), (4, 9), (2, 5), (7, 5)]
    ordered = [override(number, GOLD, priority=priority) for number, priority in ranks]
    while ordered:
        assert found(Rules(ordered), OF_GOLD) == found(Rules(ordered[::-1]), OF_GOLD) == ordered[0].id
        ordered.pop(0)
    assert found(Rules([]), OF_GOLD) is None


def test_all_conditions_must_hold() -> None:
    """One that fails is enough, whichever it is."""
    rules = Rules([override(1, GOLD, when("path", Op.CONTAINS, "/a"), when("unit", Op.IN, "u1", "u2"))])
    values: dict[str, Value] = {**OF_GOLD, "path": "/a/b", "unit": "u2"}
    assert found(rules, values) == 1
    for attribute in values:
        assert found(rules, {**values, attribute: "other"}) is None
        assert found(rules, {name: value for name, value in values.items() if name != attribute}) is None


def test_without_conditions_everybody_is_pinned() -> None:
    """Those without any attribute, too; but others may come first, and a share may leave some out."""
    rules = Rules([override(1, share_bp=5_000), override(2, GOLD, priority=200)])
    assert [found(rules, {}, bucket=bucket) for bucket in (4_999, 5_000)] == [1, None]
    assert found(rules, OF_GOLD) == 2


def test_an_override_ends_to_the_millisecond() -> None:
    """It has its effect until just before it expires, and then the next one takes its place."""
    rules = Rules([override(1, GOLD, expires_at_ms=NOW), override(2, GOLD)])
    assert [found(rules, OF_GOLD, NOW + after) for after in (-NOW, -1, 0, 1)] == [1, 1, 2, 2]


def test_a_share_pins_the_units_whose_bucket_is_below_it() -> None:
    """The others go on to the next override."""
    rules = Rules([override(1, GOLD, share_bp=2_500), override(2, GOLD, share_bp=1), override(3, GOLD)])
    pinned = [found(rules, OF_GOLD, bucket=bucket) for bucket in range(TOTAL_SHARE_BP)]
    assert pinned == [1] * 2_500 + [3] * 7_500


def test_units_are_drawn_only_where_a_share_asks_for_it() -> None:
    """Not for a share of everybody, nor where a condition fails; and under each override's own salt."""

    def draw(one: Override) -> int:
        drawn.append(one.id)
        return 0

    drawn: list[int] = []
    rules = Rules([override(1, GOLD), override(2, when("unit", Op.EXISTS), share_bp=9_999)])
    for values in (OF_GOLD, {}, {"unit": "u"}):
        rules.find(Request(values), NOW, draw)
        rules.trace(Request(values), NOW, draw)
    assert drawn == [2, 2]


def test_what_is_read_is_known_beforehand() -> None:
    """The attributes of all conditions, headers in lower case."""
    rules = Rules([override(1, GOLD, when("unit", Op.EXISTS)), override(2, when("context.A", Op.LT, 1.0))])
    assert rules.attributes == {"header.x-tier", "unit", "context.A"}
    assert Rules([override(1)]).attributes == frozenset()


def test_a_trace_says_what_came_of_each_override() -> None:
    """In their order, with the first condition that failed and what the request had in its place."""
    ages = when("context.age", Op.IN, *map(float, range(20)))
    rules = Rules(
        [
            override(1, GOLD, expires_at_ms=NOW),
            override(2, when("unit", Op.EXISTS), GOLD, ages),
            override(3, when("path", Op.EXISTS)),
            override(4, GOLD, share_bp=1),
            override(5, GOLD),
            override(6, GOLD),
            override(7, when("unit", Op.EXISTS, False)),
        ]
    )
    request = Request({**OF_GOLD, "unit": "ü\ud800" * 200, "context.age": HUGE})
    steps = rules.trace(request, NOW, always(1))
    assert [(step.override.id, step.outcome) for step in steps] == [
        (1, Outcome.EXPIRED),
        (2, Outcome.CONDITION),
        (3, Outcome.CONDITION),
        (4, Outcome.SHARE),
        (5, Outcome.MATCHED),
        (6, Outcome.PRECEDED),
        (7, Outcome.CONDITION),
    ]
    assert [step.miss for step in steps if step.miss is not None] == [
        Miss(condition=2, attribute="context.age", op=Op.IN, values=tuple(map(float, range(8))), value=inf),
        Miss(condition=0, attribute="path", op=Op.EXISTS, values=(), value=None),
        Miss(condition=0, attribute="unit", op=Op.EXISTS, values=(False,), value="ü?" * 128),
    ]
    assert len(request.reads) == len(set(request.reads))
    assert msgspec.json.encode(steps)


VALUES = "when.0.values"
LONG = "a" * 257
PROBLEMS: list[tuple[Condition, str, str]] = [
    (when("cookie.a", Op.EXISTS), "when.0.attribute", "got 'cookie.a'"),
    (
        when("header", Op.EXISTS),
        "when.0.attribute",
        "must be unit, path, method, header.NAME or context.NAME",
    ),
    (when("header.", Op.EXISTS), "when.0.attribute", "must be unit, path, method, header.NAME"),
    (when("context.", Op.EXISTS), "when.0.attribute", "must be unit, path, method, header.NAME"),
    (when("unit.x", Op.EXISTS), "when.0.attribute", "must be unit, path, method, header.NAME"),
    (when("Unit", Op.EXISTS), "when.0.attribute", "must be unit, path, method, header.NAME"),
    (when("header.a b", Op.EXISTS), "when.0.attribute", "must name a header by a token, got 'header.a b'"),
    (when("header.é", Op.EXISTS), "when.0.attribute", "must name a header by a token"),
    (
        when(f"context.{LONG}", Op.EXISTS),
        "when.0.attribute",
        "must have at most 256 characters, got 'context.a",
    ),
    (when("context.\ud800", Op.EXISTS), "when.0.attribute", "must be Unicode text without surrogates"),
    (Condition(attribute="unit", op="like"), "when.0.op", "must be one of equals, "),  # type: ignore[arg-type]
    (when("unit", Op.EQUALS), VALUES, "must hold 1 for equals, got 0"),
    (when("unit", Op.STARTS_WITH, "a", "b"), VALUES, "must hold 1 for starts_with, got 2"),
    (when("unit", Op.IN), VALUES, "must hold 1 to 10000 for in, got 0"),
    (when("unit", Op.NOT_IN, *["a"] * 10_001), VALUES, "must hold 1 to 10000 for not_in, got 10001"),
    (when("unit", Op.EXISTS, True, False), VALUES, "must hold 0 to 1 for exists, got 2"),
    (when("unit", Op.EXISTS, "true"), VALUES, "must hold true or false for exists, got 'true'"),
    (when("unit", Op.LT, "5"), VALUES, "must hold a finite number for lt, got '5'"),
    (when("unit", Op.GTE, True), VALUES, "must hold a finite number for gte, got True"),
    (when("unit", Op.GT, nan), VALUES, "must hold a finite number for gt, got nan"),
    (when("unit", Op.LTE, HUGE), VALUES, "must hold a finite number for lte, got an integer of 16610 bits"),
    (
        when("unit", Op.EQUALS, inf),
        VALUES,
        "must hold texts, finite numbers and truth values for equals, got inf",
    ),
    (
        when("unit", Op.IN, "a", None),  # type: ignore[arg-type]
        VALUES,
        "must hold texts, finite numbers and truth values for in, got None",
    ),
    (when("unit", Op.CONTAINS, 5.0), VALUES, "must hold text for contains, got 5.0"),
    (when("unit", Op.ENDS_WITH, True), VALUES, "must hold text for ends_with, got True"),
    (when("unit", Op.MATCHES, 1.0), VALUES, "must hold text for matches, got 1.0"),
    (
        when("unit", Op.MATCHES, "("),
        VALUES,
        "must be a regular expression of RE2 (missing ): () for matches, got '('",
    ),
    (when("unit", Op.SEMVER_LT, 1.0), VALUES, "must hold text for semver_lt, got 1.0"),
    (
        when("unit", Op.SEMVER_GTE, "1.0"),
        VALUES,
        "must hold a version as semver.org 2.0.0 has it for semver_gte",
    ),
    (when("unit", Op.IN, "a", LONG, LONG), VALUES, "must have at most 256 characters for in, got 'aaa"),
    (when("unit", Op.EQUALS, "\ud800"), VALUES, "must be Unicode text without surrogates for equals"),
]


@pytest.mark.parametrize(("condition", "field", "message"), PROBLEMS)
def test_what_cannot_be_in_a_condition_is_named(condition: Condition, field: str, message: str) -> None:
    """By its field on the wire, what it must be, and what it is; and nobody routes by it."""
    problems = problems_of([condition], TOTAL_SHARE_BP, 100)
    assert [name for name, _ in problems] == [field]
    assert message in problems[0][1]
    assert "got " in problems[0][1]
    assert len(problems[0][1]) < 300
    with pytest.raises(BadSnapshot, match=rf"^override 5: {re.escape(field)} must "):
        Rules([override(5, condition)])


@pytest.mark.parametrize(
    ("share", "priority", "problems"),
    [
        (0, 100, [("share", "must be in [1, 10000], got 0")]),
        (10_001, 100, [("share", "must be in [1, 10000], got 10001")]),
        (1, -1, [("priority", "must be in [0, 1000000], got -1")]),
        (1, 1_000_001, [("priority", "must be in [0, 1000000], got 1000001")]),
        (1, 0, []),
        (10_000, 1_000_000, []),
    ],
)
def test_shares_and_priorities_have_bounds(
    share: int, priority: int, problems: list[tuple[str, str]]
) -> None:
    """Both ends included."""
    assert problems_of([], share, priority) == problems


def test_every_problem_is_named_at_once() -> None:
    """Each under the place of its condition."""
    conditions = [GOLD, when("unit", Op.LT, "x", "y"), when("x", Op.IN)]
    fields = ["when.1.values", "when.1.values", "when.2.attribute", "when.2.values", "share", "priority"]
    assert [field for field, _ in problems_of(conditions, 0, -1)] == fields


def test_conditions_are_counted() -> None:
    """16 of them may be, and of what is too much nothing more is said."""
    assert problems_of([GOLD] * 16, 1, 1) == []
    problems = [("when", "must hold at most 16 conditions, got 17")]
    assert problems_of([*[GOLD] * 16, when("x", Op.LT)], 1, 1) == problems


GOOD = [
    when("unit", Op.IN, *(f"u{number}" for number in range(10_000))),
    when("path", Op.EQUALS, ""),
    when("method", Op.NOT_EQUALS, "GET"),
    when("header.X-Client_1", Op.MATCHES, "^(ios|android)/"),
    when("context.user.Name ü", Op.IN, "a", 1.0, 1, True),
    when("context.age", Op.LTE, 10**300),
    when("context.app", Op.SEMVER_GTE, "v1.2.0-rc.1+5"),
    when("context.beta", Op.EXISTS),
    when("context.beta", Op.EXISTS, False),
    when("unit", Op.STARTS_WITH, "é" * 256),
]


def test_what_can_be_has_no_problem() -> None:
    """At the bounds, too."""
    assert problems_of(GOOD, 10_000, 0) == []
    assert Rules([override(1, *GOOD)]).find(Request({}), NOW, always(0)) is None
