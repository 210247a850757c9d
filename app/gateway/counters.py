"""What has this worker done? Counters and histograms, as Prometheus text, added up over workers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_HELP = {
    "kingmaker_requests_total": (
        "counter",
        "Requests answered, by route, serving arm, reason and class of status.",
    ),
    "kingmaker_request_seconds": ("histogram", "Time from a whole request to its whole answer."),
    "kingmaker_fallbacks_total": (
        "counter",
        "Requests that the champion answered in place of the assigned arm.",
    ),
    "kingmaker_upstream_errors_total": ("counter", "Attempts that failed, by kind."),
    "kingmaker_upstream_retries_total": ("counter", "Attempts repeated because a kept connection was stale."),
    "kingmaker_missing_units_total": ("counter", "Requests without the unit that their route declares."),
    "kingmaker_assignment_failures_total": (
        "counter",
        "Requests for the champion because assignment failed.",
    ),
    "kingmaker_refused_requests_total": ("counter", "Requests refused before routing, by status."),
    "kingmaker_unrouted_requests_total": ("counter", "Requests that no route matches."),
    "kingmaker_outcomes_accepted_total": ("counter", "Outcomes made durable."),
    "kingmaker_outcomes_rejected_total": ("counter", "Outcomes refused, by code."),
    "kingmaker_snapshot_failures_total": ("counter", "Snapshots that could not be used."),
    "kingmaker_snapshot_version": ("gauge", "Version of the snapshot in use."),
    "kingmaker_spool_waiting": ("gauge", "Events that wait for the disk."),
    "kingmaker_spool_dropped_total": ("counter", "Decisions that could not be written down."),
    "kingmaker_connections": ("gauge", "Open connections of callers."),
}

Labels = tuple[str, ...]


class Dump(msgspec.Struct, frozen=True):
    """One worker's figures, as its fellow workers read them from disk."""

    worker: str
    values: dict[str, float]
    histograms: dict[str, tuple[list[int], float]]


class Counters:
    """A worker's own figures. A series is named as in the Prometheus text, labels included."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._values: Counter[tuple[str, Labels]] = Counter()
        self._histograms: dict[Labels, Histogram] = {}

    def add(self, name: str, *labels: str, by: float = 1) -> None:
        """Adds to a counter; `labels` are names and values in turn."""
        self._values[name, labels] += by  # type: ignore[assignment]  # a Counter may count fractions

    def set(self, name: str, value: float) -> None:
        """Sets a gauge, or a counter that is kept elsewhere."""
        self._values[name, ()] = value  # type: ignore[assignment]  # as above

    def exchange(self, route: str, arm: str, reason: str, status: int, seconds: float) -> None:
        """Counts one proxied exchange."""
        labels = ("route", route, "arm", arm, "reason", reason, "code", f"{status // 100}xx")
        self._values["kingmaker_requests_total", labels] += 1
        series = ("route", route, "arm", arm)
        histogram = self._histograms.get(series)
        if histogram is None:
            histogram = self._histograms[series] = Histogram()
        histogram.observe(seconds)

    def dump(self) -> Dump:
        """The figures now."""
        values = {
            name + _braced(labels, self._worker): float(value)
            for (name, labels), value in self._values.items()
        }
        histograms = {
            _braced(labels, self._worker): (list(histogram.counts), histogram.total)
            for labels, histogram in self._histograms.items()
        }
        return Dump(self._worker, values, histograms)


class Histogram:
    """Counts per latency bucket, the last one without bound, and the sum in seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_S) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Adds one observation."""
        self.counts[bisect_left(LATENCY_BOUNDS_S, seconds)] += 1
        self.total += seconds


def render(dumps: Iterable[Dump]) -> str:
    """The figures of all workers in the Prometheus text format 0.0.4."""
    dumps = sorted(dumps, key=lambda dump: dump.worker)
    lines: list[str] = []
    for name, (kind, text) in _HELP.items():
        series = list(_series(name, dumps)) if kind != "histogram" else list(_histogram_series(name, dumps))
        if series:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *series]
    return "\n".join(lines) + "\n"


def _series(name: str, dumps: Iterable[Dump]) -> Iterable[str]:
    for dump in dumps:
        for series, value in sorted(dump.values.items()):
            if series.startswith(name + "{"):
                yield f"{series} {value:g}" if value != int(value) else f"{series} {int(value)}"


def _histogram_series(name: str, dumps: Iterable[Dump]) -> Iterable[str]:
    for dump in dumps:
        for braced, (counts, total) in sorted(dump.histograms.items()):
            open_braced, seen = braced[:-1], 0
            for bound, count in zip((*LATENCY_BOUNDS_S, "+Inf"), counts, strict=True):
                seen += count
                yield f'{name}_bucket{open_braced},le="{bound}"}} {seen}'
            yield f"{name}_sum{braced} {total:.6f}"
            yield f"{name}_count{braced} {seen}"


def _braced(labels: Labels, worker: str) -> str:
    pairs: Mapping[str, str] = dict(zip((*labels[::2], "worker"), (*labels[1::2], worker), strict=True))
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs.items()) + "}"
