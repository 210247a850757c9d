"""A condition on one line says what it looks like, and every condition can be written so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.commands.conditions import parse_condition, scalar, write_condition

_TEXTS = st.text(max_size=6) | st.sampled_from(
    ["u1", "a,b", " x", "[1]", '"', "true", "12", "1e5", "é\n", ""]
)
_NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**6), 10**6).map(float)


@pytest.mark.parametrize(
    ("line", "attribute", "op", "values"),
    [
        ("unit in u1,u2", "unit", "in", ["u1", "u2"]),
        ("  unit   in  u1 , u2 ", "unit", "in", ["u1", "u2"]),
        ("unit in 007,1e5,true", "unit", "in", ["007", "1e5", "true"]),
        ('unit in ["a,b", " c", 5]', "unit", "in", ["a,b", " c", 5]),
        ("unit equals a,b c", "unit", "equals", ["a,b c"]),
        ('unit equals "12"', "unit", "equals", ["12"]),
        ("header.User-Agent matches ^bot{1,3} [0-9]", "header.User-Agent", "matches", ["^bot{1,3} [0-9]"]),
        ("header.x-app semver_gte 2.0", "header.x-app", "semver_gte", ["2.0"]),
        ("header.x-debug exists", "header.x-debug", "exists", []),
        ("header.x-debug exists false", "header.x-debug", "exists", [False]),
        ("header.x-load gt 0.5", "header.x-load", "gt", [0.5]),
        ("context.hour lt 6", "context.hour", "lt", [6]),
        ("context.hour in 6,7", "context.hour", "in", [6, 7]),
        ("context.beta equals true", "context.beta", "equals", [True]),
        ("context.country in DE,NO", "context.country", "in", ["DE", "NO"]),
        ("context.version semver_lt 2", "context.version", "semver_lt", ["2"]),
        ("path starts_with /v2/", "path", "starts_with", ["/v2/"]),
        ("unit in", "unit", "in", []),
    ],
)
def test_a_line_is_read_as_it_looks(line: str, attribute: str, op: str, values: list[object]) -> None:
    """Text stays text; numbers and truth values are such where there is an order, and in the context."""
    found = parse_condition(line)
    assert found == {"attribute": attribute, "op": op, "values": values}
    assert [type(value) for value in found["values"]] == [type(value) for value in values]


@pytest.mark.parametrize("line", ["", "unit", "unit in [1", 'unit in [1] and {"a"'])
def test_a_line_that_says_nothing_is_refused(line: str) -> None:
    """With the line, and what it must be."""
    with pytest.raises(ValueError, match=r"must (be ATTRIBUTE OP VALUE|hold values between commas)"):
        parse_condition(line)


def test_what_is_no_scalar_of_json_is_text() -> None:
    """No infinities, no lists, nothing without end."""
    for text in ("NaN", "-Infinity", "1e999", "[1]", "null", "{}", "9" * 5_000, "1" + "0" * 400):
        assert scalar(text) == text


@given(
    attribute=st.sampled_from(["unit", "header.x", "context.hour"]),
    op=st.sampled_from(["in", "not_in"]),
    values=st.lists(_TEXTS | _NUMBERS | st.booleans(), max_size=7),
)
def test_a_list_that_is_written_can_be_read(attribute: str, op: str, values: list[object]) -> None:
    """Whatever is in it."""
    condition = {"attribute": attribute, "op": op, "values": values}
    line = write_condition(condition, most=9)
    assert parse_condition(line) == condition
    assert "\n" not in line


@given(
    attribute=st.sampled_from(["unit", "context.name"]),
    op=st.sampled_from(["equals", "contains", "matches", "semver_lt"]),
    value=_TEXTS,
)
def test_a_text_that_is_written_can_be_read(attribute: str, op: str, value: str) -> None:
    """Where nothing else is expected, too."""
    condition = {"attribute": attribute, "op": op, "values": [value]}
    assert parse_condition(write_condition(condition)) == condition


@given(op=st.sampled_from(["lt", "gte"]), value=_NUMBERS)
def test_a_number_that_is_written_can_be_read(op: str, value: float) -> None:
    """To the bit."""
    condition = {"attribute": "header.x", "op": op, "values": [value]}
    assert parse_condition(write_condition(condition)) == condition


def test_many_values_are_not_all_shown() -> None:
    """The first five, and how many there are."""
    condition = {"attribute": "unit", "op": "in", "values": [f"u{number}" for number in range(1_000)]}
    assert write_condition(condition) == "unit in u0,u1,u2,u3,u4, … 1000 in all"
