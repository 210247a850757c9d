"""What people read: whole, aligned, and harmless."""

from __future__ import annotations

import pytest

from app.tables import cell, facts, interval, moment, number, percent, render, shares, span, table


def test_columns_are_aligned_and_numbers_stand_to_the_right() -> None:
    """Text begins, and numbers end, at the same place in every line."""
    text = render(table(["arm", "n", "why"], [("old", 5, "a"), ("challenger", 12_345, "b")]))
    assert text.splitlines() == ["arm             n  why", "old             5  a", "challenger  12345  b"]


def test_nothing_is_cut_off_when_piped() -> None:
    """However long a cell is, it stays whole on one line."""
    reason = "because " * 200
    assert reason.strip() in render(table(["reason"], [(reason,)])).splitlines()[1]
    assert render(reason).splitlines() == [reason.strip()]


def test_what_others_wrote_is_text() -> None:
    """Markup, control characters and line breaks in a reason change nothing about the table."""
    line = render(table(["reason"], [("[red]x[/red] \x1b[31my\n:smile:",)])).splitlines()[1]
    assert line == "[red]x[/red]  [31my :smile:"


def test_facts_are_names_with_values() -> None:
    """A value that is missing shows as a dash."""
    assert render(facts({"route": "a", "goal": None})).splitlines() == ["route  a", "goal   -"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.04902, "0.04902"),
        (1234.5, "1234"),
        (250_123.0, "250123"),
        (2.0, "2"),
        (1e-7, "1e-07"),
        (3e12, "3e+12"),
    ],
)
def test_numbers_have_four_digits_that_count(value: float, text: str) -> None:
    """Enough to compare, and large numbers whole."""
    assert number(value) == text


def test_intervals_and_shares_read_as_people_write_them() -> None:
    """Mean [low, high]; arms with traffic, the largest first; yes and no."""
    assert interval({"mean": 0.5, "low": 0.4, "high": 0.6}) == "0.5000 [0.4000, 0.6000]"
    assert shares({"a": 0, "b": 1_000, "c": 9_000}) == "c 9000, b 1000"
    assert shares({}) == "-"
    assert percent(0.041, signed=True) == "+4.1 %"
    assert cell([True, {"length": "24h"}, []]) == "yes, length 24h, -"


def test_times_are_to_the_second_and_spans_in_their_two_largest_units() -> None:
    """UTC is said once, by the Z."""
    assert moment("2026-01-31T12:00:05.123456Z") == "2026-01-31 12:00:05Z"
    assert moment(None) is None
    assert span("2026-01-31T12:00:00Z", "2026-02-03T16:05:00Z") == "3 d 4 h"
    assert span("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.4Z") == "0 s"
