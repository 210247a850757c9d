"""Each condition holds for what its row of the table says, and for nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.conditions import Check, Reading, check_of, merged, number_of, truth_of
from routing.features import Value
from routing.rules import Condition, Op, Override

HUGE = 10**400


class Request:
    """A request that has these attributes, and remembers what it was asked for."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values
        self.reads: list[str] = []

    def value(self, attribute: str) -> Value | None:
        self.reads.append(attribute)
        return self.values.get(attribute)


def nobody(override: Override) -> int:
    """No condition asks for a draw."""
    raise AssertionError(override)


def holds(check: Check, values: Mapping[str, Value]) -> bool:
    """Whether it does for a request with these attributes."""
    return check.holds(Reading(Request(values), 0, nobody))


def check(op: Op, *values: Value, attribute: str = "context.x") -> Check:
    """Of one condition."""
    return check_of(Condition(attribute=attribute, op=op, values=values))


ROWS: list[tuple[Op, tuple[Value, ...], list[Value], list[Value], bool]] = [
    (Op.EQUALS, ("ab",), ["ab"], ["", "a", "AB", "ab ", 1.0, True], False),
    (Op.EQUALS, ("",), [""], ["a", 0.0, False], False),
    (Op.EQUALS, ("18",), ["18"], ["18.0", "018", 18.0, True], False),
    (Op.EQUALS, ("018",), ["018"], ["18", 18.0], False),
    (Op.EQUALS, (18.0,), [18.0, 18, "18", "18.0", "018", "+18", "1.8e1"], ["18 ", "18x", "", True], False),
    (Op.EQUALS, (0.0,), [0.0, -0.0, "0", "-0"], ["", False, "false", nan], False),
    (Op.EQUALS, (1.0,), [1.0, "1"], [True, "true"], False),
    (Op.EQUALS, (True,), [True, "true", "TRUE"], [False, "false", 1.0, "1", "yes"], False),
    (Op.EQUALS, (False,), [False, "false", "fAlse"], [True, 0.0, "0", "", "falſe"], False),
    (Op.EQUALS, ("true",), ["true"], ["True", True], False),
    (Op.IN, ("a", 2.0, True), ["a", 2.0, "2", True, "true"], ["b", "A", 1.0, False], False),
    (Op.NOT_EQUALS, ("ab",), ["", "AB", 1.0, True], ["ab"], True),
    (Op.NOT_EQUALS, (18.0,), ["x", 17.0, nan, HUGE, True], [18.0, "18"], True),
    (Op.NOT_IN, ("a", 2.0, True), ["b", 1.0, False], ["a", "2", 2.0, "true", True], True),
    (Op.STARTS_WITH, ("ab",), ["ab", "abc"], ["", "a", "Ab", "cab", 1.0, True], False),
    (Op.STARTS_WITH, ("",), ["", "a"], [1.0, True], False),
    (Op.ENDS_WITH, ("ab",), ["ab", "cab"], ["", "b", "aB", "abc", 1.0, True], False),
    (Op.ENDS_WITH, ("",), ["", "a"], [1.0, False], False),
    (Op.CONTAINS, ("ab",), ["ab", "xaby"], ["", "a b", "AB", 1.0, True], False),
    (Op.CONTAINS, ("1",), ["1", "21"], [1.0, 21.0], False),
    (Op.MATCHES, ("^a.c",), ["abc", "axcd"], ["", "xabc", "ABC", 1.0, True], False),
    (Op.MATCHES, ("true",), ["is true"], [True], False),
    (Op.LT, (5.0,), [4.9, "4.9", -1e308, "-5"], [5.0, "5", 6.0, "", "a", True, -inf, nan, -HUGE], False),
    (Op.LTE, (5.0,), [5.0, "5.0", 4, "-1e2"], [5.1, "5.1", "5 ", "0x1", False, -inf, "-inf"], False),
    (Op.GT, (5.0,), [5.1, "5.1", 1e308], [5.0, "5", 4.0, "", "9_9", "９", True, inf, HUGE], False),
    (Op.GTE, (5.0,), [5.0, "5", "5e0", 6], [4.9, "4.9", ".5", "5.", True, inf, "inf", "1e400"], False),
    (Op.SEMVER_LT, ("v1.2.0",), ["1.1.9", "v1.2.0-rc.1"], ["1.2.0", "1.2.0+b", "1.1", "", 1.0], False),
    (Op.SEMVER_GTE, ("1.2.0",), ["1.2.0", "v1.10.0", "1.2.0+b"], ["1.2.0-rc.1", "2", "x", 2.0], False),
    (Op.EXISTS, (), ["", "a", 0.0, False, nan], [], False),
    (Op.EXISTS, (True,), ["", "a", 0.0, False, nan], [], False),
    (Op.EXISTS, (False,), [], ["", "a", 0.0, False, nan], True),
]
"""Op, its values, what it holds for, what it fails for, and whether it holds without the attribute."""


@pytest.mark.parametrize(("op", "values", "good", "bad", "absent"), ROWS)
def test_what_an_op_holds_for(
    op: Op, values: tuple[Value, ...], good: list[Value], bad: list[Value], absent: bool
) -> None:
    """By the values of the condition, the value of the request and their kinds."""
    one = check(op, *values)
    assert [value for value in good if not holds(one, {"context.x": value})] == []
    assert [value for value in bad if holds(one, {"context.x": value})] == []
    assert holds(one, {"context.y": "ab"}) is absent


def test_every_op_is_in_the_table() -> None:
    """None is forgotten."""
    assert {op for op, *_ in ROWS} == set(Op)


@pytest.mark.parametrize(
    ("op", "value"), [(Op.EQUALS, "get"), (Op.STARTS_WITH, "ge"), (Op.CONTAINS, "E"), (Op.MATCHES, r"^\w+T$")]
)
def test_methods_are_compared_in_upper_case(op: Op, value: str) -> None:
    """However the condition or the request writes them."""
    for method in ("GET", "get"):
        assert holds(check(op, value, attribute="method"), {"method": method})
    assert not holds(check(Op.EQUALS, "get", attribute="path"), {"path": "GET"})


def test_headers_are_asked_for_in_lower_case() -> None:
    """Their values keep their case, and so do the names of the context."""
    assert holds(check(Op.EQUALS, "Gold", attribute="header.X-Tier"), {"header.x-tier": "Gold"})
    assert not holds(check(Op.EQUALS, "gold", attribute="header.X-Tier"), {"header.x-tier": "Gold"})
    assert not holds(check(Op.EXISTS, attribute="context.Age"), {"context.age": "1"})


def test_an_attribute_is_read_once() -> None:
    """However many conditions ask for it, as whatever it may be."""
    request = Request({"context.x": "1.0.0"})
    asked = Reading(request, 0, nobody)
    for op, values, *_ in ROWS:
        check(op, *values).holds(asked)
        check(op, *values, attribute="context.absent").holds(asked)
    assert sorted(request.reads) == ["context.absent", "context.x"]


@given(
    bounds=st.lists(
        st.tuples(st.sampled_from([Op.LT, Op.LTE, Op.GT, Op.GTE]), st.integers(0, 4).map(float)), max_size=4
    ),
    value=st.integers(-1, 9),
)
def test_bounds_on_one_attribute_are_one_range(bounds: list[tuple[Op, float]], value: int) -> None:
    """It holds where each of them does, and also where they leave nothing."""
    checks = [check(op, bound) for op, bound in bounds]
    values = {"context.x": value / 2}
    assert len(merged(checks)) == min(len(checks), 1)
    assert all(holds(one, values) for one in merged(checks)) == all(holds(one, values) for one in checks)


def test_ranges_of_other_attributes_and_kinds_stay_apart() -> None:
    """A number and a version of one attribute, and the same of another."""
    checks = [
        check(Op.GTE, 1.0),
        check(Op.SEMVER_GTE, "1.0.0"),
        check(Op.LT, 2.0, attribute="context.y"),
        check(Op.EXISTS),
        check(Op.LT, 2.0),
    ]
    assert sorted(one.attribute for one in merged(checks)) == ["context.x"] * 3 + ["context.y"]


@given(st.text() | st.floats() | st.booleans() | st.integers() | st.just(HUGE))
def test_every_value_is_a_number_a_truth_or_neither(value: Value) -> None:
    """Nothing raises, and nothing is both."""
    assert number_of(value) is None or truth_of(value) is None


def test_a_long_row_of_digits_is_read_at_once() -> None:
    """A text of any length is a number or none, beyond what Python converts to an integer."""
    assert number_of("0." + "9" * 100_000) == 1.0
    assert number_of("9" * 100_000) is None
