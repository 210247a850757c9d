"""Days are adjoining, cover all time, and follow the clocks of their zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.days import CALENDAR_DAY_MS, DayClock
from policies.errors import BadSpec

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/Sao_Paulo", "Asia/Beirut"]
HOUR_MS = 3_600_000


def ms(text: str) -> int:
    """Unix milliseconds of an ISO time."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


@given(
    at_ms=st.integers(ms("2000-01-01T00:00Z"), ms("2040-01-01T00:00Z")),
    length_ms=st.one_of(st.just(CALENDAR_DAY_MS), st.integers(1_000, CALENDAR_DAY_MS)),
    zone=st.sampled_from(ZONES),
)
def test_every_moment_is_in_its_day_and_days_adjoin(at_ms: int, length_ms: int, zone: str) -> None:
    """A moment lies in its day, its ends agree about that, and the next day starts where it ends."""
    clock = DayClock(length_ms, ZoneInfo(zone))
    day = clock.day_of(at_ms)
    assert day.start_ms <= at_ms < day.end_ms
    assert clock.day_of(day.start_ms) == clock.day_of(day.end_ms - 1) == day
    assert clock.next_day(day).start_ms == day.end_ms


@pytest.mark.parametrize(("date", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-07-01", 24)])
def test_calendar_days_are_as_long_as_their_clocks_say(date: str, hours: int) -> None:
    """In Berlin the day on which clocks go forward has 23 hours, the one on which they go back 25."""
    day = DayClock(CALENDAR_DAY_MS, ZoneInfo("Europe/Berlin")).day_of(ms(f"{date}T12:00Z"))
    assert day.label == date
    assert day.end_ms - day.start_ms == hours * HOUR_MS


def test_a_day_without_a_midnight_starts_when_its_clocks_do() -> None:
    """Where clocks skip midnight, the day starts at the first moment that carries its date."""
    day = DayClock(CALENDAR_DAY_MS, ZoneInfo("America/Sao_Paulo")).day_of(ms("2018-11-04T12:00Z"))
    assert day.start_ms == ms("2018-11-04T03:00Z")
    assert day.end_ms - day.start_ms == 23 * HOUR_MS


def test_short_days_count_from_the_epoch_and_are_labelled_by_their_start() -> None:
    """A day of 1.5 s is labelled in UTC, with milliseconds only where it needs them."""
    clock = DayClock(1_500, UTC)
    first = clock.day_of(1_499)
    assert (first.start_ms, first.end_ms, first.label) == (0, 1_500, "1970-01-01T00:00:00Z")
    assert clock.next_day(first).label == "1970-01-01T00:00:01.500Z"


@pytest.mark.parametrize("length_ms", [0, 999, CALENDAR_DAY_MS + 1])
def test_a_day_of_impossible_length_is_refused(length_ms: int) -> None:
    """A day is at least a second and at most a calendar day long."""
    with pytest.raises(BadSpec, match=rf"policy.day.length must be in \[1s, 1d\], got {length_ms} ms"):
        DayClock(length_ms, UTC)
