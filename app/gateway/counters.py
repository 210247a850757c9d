"""What has this worker done? Counters and histograms, as Prometheus or OpenMetrics text, worker by worker."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from math import inf

from app.gateway.dumps import Dump
from app.gateway.families import FAMILIES, LATENCY_BOUNDS_S, Kind
from app.gateway.process import process_figures

ARMS_LIMIT = 1_000
"""Pairs of route and arm that are told apart; the rest is counted under `other`."""

SERIES_LIMIT = 10_000
"""Series besides those of `ArmSeries` that are told apart; the rest is counted under `other`."""

OTHER = "other"
TEXT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = b"application/openmetrics-text; version=1.0.0; charset=utf-8"
_OPENMETRICS = b"application/openmetrics-text"
_OVERFLOWS = "kingmaker_series_overflows_total"
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})

Labels = tuple[str, ...]
"""Names and values in turn."""


class Series:
    """One value that grows or is set, and its name in the text."""

    __slots__ = ("text", "value")

    def __init__(self, name: str, labels: Labels, worker: str) -> None:
        self.text = name + _braced(labels, worker)
        self.value = 0.0


class Histogram:
    """Counts per latency bucket, the last one without bound, and the sum in seconds."""

    __slots__ = ("counts", "text", "total")

    def __init__(self, name: str, labels: Labels, worker: str) -> None:
        self.text = name + _braced(labels, worker)
        self.counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Adds one observation."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.total += seconds


class ArmSeries:
    """The figures of one arm of one route, looked up once and then counted into without a look-up.

    `in_flight` is the number of exchanges that wait for the arm or are being answered by it: whoever begins
    one adds 1, and takes it away at its end.
    """

    __slots__ = (
        "_answers",
        "_counters",
        "_in_flight_text",
        "_labels",
        "_seconds",
        "_upstream_seconds",
        "in_flight",
    )

    def __init__(self, counters: Counters, route: str, arm: str) -> None:
        self.in_flight = 0
        self._counters = counters
        self._labels = ("route", route, "arm", arm)
        self._answers: dict[tuple[str, int], Series] = {}
        worker = counters.worker
        self._in_flight_text = "kingmaker_requests_in_flight" + _braced(self._labels, worker)
        self._seconds = Histogram("kingmaker_request_duration_seconds", self._labels, worker)
        self._upstream_seconds = Histogram("kingmaker_upstream_duration_seconds", self._labels, worker)

    def observe(self, reason: str, status: int, seconds: float) -> None:
        """Counts one exchange that this arm served, from the whole request to the whole answer."""
        series = self._answers.get((reason, status // 100))
        if series is None:
            series = self._answer(reason, status // 100)
        series.value += 1
        histogram = self._seconds
        histogram.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        histogram.total += seconds

    def observe_upstream(self, seconds: float) -> None:
        """Counts one attempt on this arm, from its first byte sent to the last one received."""
        self._upstream_seconds.observe(seconds)

    def add(self, name: str, *labels: str, by: float = 1) -> None:
        """Adds to a counter of this arm; `labels` come after route and arm."""
        self._counters.add(name, *self._labels, *labels, by=by)

    def set(self, name: str, value: float) -> None:
        """Sets a gauge of this arm."""
        self._counters.set(name, value, *self._labels)

    def values(self) -> Iterator[tuple[str, float]]:
        """Every series with its value."""
        for series in self._answers.values():
            yield series.text, series.value
        yield self._in_flight_text, self.in_flight

    def histograms(self) -> Iterator[Histogram]:
        """The histograms into which something was counted."""
        return (histogram for histogram in (self._seconds, self._upstream_seconds) if any(histogram.counts))

    def _answer(self, reason: str, status_class: int) -> Series:
        code = f"{status_class}xx" if 1 <= status_class <= 5 else "none"
        labels = (*self._labels, "reason", str(reason), "code", code)
        series = Series("kingmaker_requests_total", labels, self._counters.worker)
        self._answers[reason, status_class] = series
        return series


class Counters:
    """A worker's own figures. How many series there can be is bounded, whatever is counted."""

    def __init__(self, worker: str, arms_limit: int = ARMS_LIMIT, series_limit: int = SERIES_LIMIT) -> None:
        self.worker = worker
        self._arms_limit = arms_limit
        self._series_limit = series_limit
        self._series: dict[tuple[str, Labels], Series] = {}
        self._arms: dict[tuple[str, str], ArmSeries] = {}
        self._live: frozenset[tuple[str, str]] = frozenset()
        self._may_forget_arms = False
        self._may_forget_series = False

    def add(self, name: str, *labels: str, by: float = 1) -> None:
        """Adds to a counter."""
        self.counter(name, labels).value += by

    def set(self, name: str, value: float, *labels: str) -> None:
        """Sets a gauge, or a counter that is kept elsewhere."""
        self.counter(name, labels).value = value

    def drop(self, name: str, *labels: str) -> None:
        """Forgets a gauge: what it told of is no more."""
        self._series.pop((name, labels), None)

    def counter(self, name: str, labels: Labels) -> Series:
        """The one value with this name and these labels; the same object as long as the route lives."""
        series = self._series.get((name, labels))
        return series if series is not None else self._new(name, labels)

    def series(self, route: str, arm: str) -> ArmSeries:
        """The figures of an arm; the same object each time."""
        found = self._arms.get((route, arm))
        return found if found is not None else self._new_arm(route, arm)

    def exchange(self, route: str, arm: str, reason: str, status: int, seconds: float) -> None:
        """Counts one exchange."""
        self.series(route, arm).observe(reason, status, seconds)

    def keep(self, live: Iterable[tuple[str, str]]) -> None:
        """Names the routes and arms there are. The figures of others stay until their room is needed."""
        self._live = frozenset(live)
        self._may_forget_arms = self._may_forget_series = True

    def dump(self) -> Dump:
        """The figures now, with those of the process."""
        for name, value in process_figures().items():
            self.set(name, value)
        values = {series.text: float(series.value) for series in self._series.values()}
        histograms = {}
        for arm in self._arms.values():
            values.update(arm.values())
            for histogram in arm.histograms():
                histograms[histogram.text] = (list(histogram.counts), histogram.total)
        return Dump(self.worker, values, histograms)

    def _new(self, name: str, labels: Labels) -> Series:
        if labels and self._is_full():
            self.add(_OVERFLOWS)
            labels = tuple(part if at % 2 == 0 else OTHER for at, part in enumerate(labels))
            if (known := self._series.get((name, labels))) is not None:
                return known
        series = self._series[name, labels] = Series(name, labels, self.worker)
        return series

    def _new_arm(self, route: str, arm: str) -> ArmSeries:
        if self._is_full_of_arms():
            self.add(_OVERFLOWS)
            route = arm = OTHER
            if (known := self._arms.get((OTHER, OTHER))) is not None:
                return known
        made = self._arms[route, arm] = ArmSeries(self, route, arm)
        return made

    def _is_full(self) -> bool:
        if len(self._series) >= self._series_limit and self._may_forget_series:
            self._may_forget_series = False
            routes = frozenset(route for route, _ in self._live)
            for key in [key for key in self._series if not self._is_live(key[1], routes)]:
                del self._series[key]
        return len(self._series) >= self._series_limit

    def _is_full_of_arms(self) -> bool:
        if len(self._arms) >= self._arms_limit and self._may_forget_arms:
            self._may_forget_arms = False
            for pair in [pair for pair in self._arms if pair not in self._live]:
                del self._arms[pair]
        return len(self._arms) >= self._arms_limit

    def _is_live(self, labels: Labels, routes: frozenset[str]) -> bool:
        """Whether what the labels name, if it is a route or an arm, is still there."""
        named = dict(zip(labels[::2], labels[1::2], strict=True))
        route, arm = named.get("route"), named.get("arm")
        if route is None:
            return True
        return route in routes if arm is None else (route, arm) in self._live


def render(dumps: Iterable[Dump], *, openmetrics: bool = False) -> str:
    """The figures of all workers in the Prometheus text format 0.0.4, or as OpenMetrics 1.0."""
    by_name: dict[str, list[str]] = {}
    for dump in sorted(dumps, key=lambda dump: dump.worker):
        for text, value in sorted(dump.values.items()):
            by_name.setdefault(text.partition("{")[0], []).append(f"{text} {_number(value)}")
        for text, (counts, total) in sorted(dump.histograms.items()):
            name, _, labels = text.partition("{")
            by_name.setdefault(name, []).extend(_buckets(name, labels[:-1], counts, total))
    lines: list[str] = []
    for name, family in FAMILIES.items():
        if name in by_name:
            is_counter = openmetrics and family.kind is Kind.COUNTER
            shown = name.removesuffix("_total") if is_counter else name
            lines += [f"# HELP {shown} {family.text}", f"# TYPE {shown} {family.kind}", *by_name[name]]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def is_openmetrics(accept: bytes) -> bool:
    """Whether a reader's Accept field asks for OpenMetrics, as Prometheus' does."""
    kinds = (part.partition(b";") for part in accept.lower().split(b","))
    return any(
        kind.strip() == _OPENMETRICS and b"q=0" not in {option.strip() for option in options.split(b";")}
        for kind, _, options in kinds
    )


def _buckets(name: str, labels: str, counts: list[int], total: float) -> Iterator[str]:
    seen = 0
    for bound, count in zip((*LATENCY_BOUNDS_S, inf), counts, strict=True):
        seen += count
        yield f'{name}_bucket{{{labels},le="{_bound(bound)}"}} {seen}'
    yield f"{name}_sum{{{labels}}} {total:.6f}"
    yield f"{name}_count{{{labels}}} {seen}"


def _bound(bound: float) -> str:
    return "+Inf" if bound == inf else repr(float(bound))


def _number(value: float) -> str:
    """A whole number as such, else every digit that tells it from its neighbours."""
    return str(int(value)) if value == value // 1 and abs(value) < 1e15 else repr(value)


def _braced(labels: Labels, worker: str) -> str:
    pairs = zip((*labels[::2], "worker"), (*labels[1::2], worker), strict=True)
    return "{" + ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs) + "}"
