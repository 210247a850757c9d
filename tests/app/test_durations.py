"""A length of time is a number with a unit, and is written as people write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("250ms", 250),
        ("2s", 2_000),
        ("1.5s", 1_500),
        ("30m", 1_800_000),
        ("24h", 86_400_000),
        ("1d", 86_400_000),
        ("0s", 0),
        ("0.0004s", 0),
        ("0.25d", 21_600_000),
        ("007ms", 7),
    ],
)
def test_a_number_with_a_unit_is_a_duration(text: str, milliseconds: int) -> None:
    """In whole milliseconds, rounded."""
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "1 s",
        " 1s",
        "1s\n",
        "-1s",
        "+1s",
        "1w",
        "1S",
        "1.s",
        ".5s",
        "1e3s",
        "1,5s",
        "1s2m",
        "٣s",
        "9" * 13 + "s",
    ],
)
def test_anything_else_is_refused_with_bound_and_value(text: str) -> None:
    """The message names the units and what was written."""
    with pytest.raises(ValueError, match="must be a number with one of the units ms, s, m, h, d") as refused:
        parse_duration(text)
    assert f"got {text!r}" in str(refused.value)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0ms"),
        (1, "1ms"),
        (1_001, "1001ms"),
        (90_000, "90s"),
        (3_600_000, "1h"),
        (86_400_000, "24h"),
        (172_800_000, "2d"),
        (90_000_000, "25h"),
    ],
)
def test_the_largest_unit_that_divides_it_is_written(milliseconds: int, text: str) -> None:
    """Hours up to one day."""
    assert format_duration(milliseconds) == text


@given(st.integers(0, 366 * 86_400_000))
def test_what_is_written_reads_the_same(milliseconds: int) -> None:
    """For every length that a route may declare."""
    assert parse_duration(format_duration(milliseconds)) == milliseconds
