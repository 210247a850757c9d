"""Which day does a moment belong to? Calendar days in the route's time zone, or shorter ones for demos."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from policies.errors import BadSpec

CALENDAR_DAY_MS = 86_400_000
MINIMUM_DAY_MS = 1_000


@dataclass(frozen=True, slots=True, order=True)
class Day:
    """A half-open period [start_ms, end_ms) of Unix milliseconds, with the label it is stored under."""

    start_ms: int
    end_ms: int
    label: str


@dataclass(frozen=True, slots=True)
class DayClock:
    """Divides time into days.

    A length of 24 h means calendar days of the zone (23 or 25 hours long where clocks change), labelled by
    their date. A shorter one, at least one second, counts from the Unix epoch, labelled by its start in UTC.
    """

    length_ms: int
    zone: tzinfo

    def __post_init__(self) -> None:
        if not MINIMUM_DAY_MS <= self.length_ms <= CALENDAR_DAY_MS:
            raise BadSpec("policy.day.length", f"must be in [1s, 1d], got {self.length_ms} ms")

    def day_of(self, at_ms: int) -> Day:
        """The day that contains a moment."""
        if self.length_ms == CALENDAR_DAY_MS:
            return self._calendar_day(datetime.fromtimestamp(at_ms / 1000, self.zone).date())
        start_ms = at_ms - at_ms % self.length_ms
        return Day(start_ms, start_ms + self.length_ms, _instant_label(start_ms))

    def next_day(self, day: Day) -> Day:
        """The day that follows."""
        return self.day_of(day.end_ms)

    def _calendar_day(self, when: date) -> Day:
        return Day(self._midnight(when), self._midnight(when + timedelta(days=1)), when.isoformat())

    def _midnight(self, when: date) -> int:
        return int(datetime.combine(when, time.min, self.zone).timestamp() * 1000)


def _instant_label(start_ms: int) -> str:
    at = datetime.fromtimestamp(start_ms / 1000, UTC)
    precision = "milliseconds" if start_ms % 1000 else "seconds"
    return at.isoformat(timespec=precision).replace("+00:00", "Z")
