"""How long callers wait, beside the peers: alone on one connection, and at half of the slowest one's peak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks import calls, wrk
from benchmarks.arrivals import Arrivals, arrivals
from benchmarks.contestants import FASTAPI, KINGMAKER, Lineup, lineup
from benchmarks.figures import Finding, figure, ratio
from benchmarks.plan import Plan

_PEAK_CONNECTIONS = 64
_PEAK_SECONDS = 1
_DIRECT = "nobody between"
_STEP = 100

_Times = dict[str, list[tuple[float, float]]]
"""p50 and p99 in microseconds of each round, by who was measured."""


def measure(plan: Plan) -> list[Finding]:
    """p50 and p99 of everybody, without anybody between, and our p50 over each peer's."""
    if gap := wrk.missing("latency"):
        return [gap]
    requests = calls.scores(plan.folder / "calls")
    with lineup(plan) as field:
        return [*_alone(plan, field, requests), *_at_half_of_peak(plan, field, requests), *field.gaps]


def _alone(plan: Plan, field: Lineup, requests: Path) -> list[Finding]:
    def once(who: str, port: int) -> tuple[float, float]:
        load = wrk.load(who, port, requests, 1, plan.seconds)
        return load.p50_us, load.p99_us

    ports = {**field.ports, _DIRECT: field.direct}
    return _figures("1 connection", _rounds(plan, "1 connection", ports, once))


def _at_half_of_peak(plan: Plan, field: Lineup, requests: Path) -> list[Finding]:
    """FastAPI, which carries too little to set everybody's rate, is measured at half of its own peak."""
    peaks = {}
    for who, port in field.ports.items():
        plan.say(f"peak of {who}")
        peaks[who] = wrk.load(who, port, requests, _PEAK_CONNECTIONS, _PEAK_SECONDS).rate
    fast = {who: port for who, port in field.ports.items() if who != FASTAPI}
    rate = _half(min(peaks[who] for who in fast))
    return [
        *_paced(plan, {**fast, _DIRECT: field.direct}, requests, rate),
        *_paced(plan, {FASTAPI: field.ports[FASTAPI]}, requests, _half(peaks[FASTAPI])),
    ]


def _half(peak: float) -> int:
    return max(_STEP, int(peak / 2 / _STEP) * _STEP)


def _paced(plan: Plan, ports: dict[str, int], requests: Path, rate: int) -> list[Finding]:
    found: list[Arrivals] = []

    def once(who: str, port: int) -> tuple[float, float]:
        found.append(arrivals(who, port, requests, rate, plan.seconds))
        return found[-1].p50_us, found[-1].p99_us

    setting = f"{rate:,}/s"
    figures = _figures(setting, _rounds(plan, setting, ports, once))
    late = [each.late_p99_us for each in found]
    return [*figures, figure(f"{setting} · load generator late, p99", "µs", late)]


def _rounds(
    plan: Plan, setting: str, ports: dict[str, int], once: Callable[[str, int], tuple[float, float]]
) -> _Times:
    times: _Times = {who: [] for who in ports}
    for number in range(plan.rounds):
        for who, port in ports.items():
            plan.say(f"{setting}, round {number + 1} of {plan.rounds}: {who}")
            times[who].append(once(who, port))
    return times


def _figures(setting: str, times: _Times) -> list[Finding]:
    halves = {who: [p50 for p50, _ in found] for who, found in times.items()}
    found: list[Finding] = []
    for who, values in times.items():
        found.append(figure(f"{setting} · {who}, p50", "µs", halves[who]))
        found.append(figure(f"{setting} · {who}, p99", "µs", [p99 for _, p99 in values]))
    peers = [who for who in times if who not in (KINGMAKER, _DIRECT)] if KINGMAKER in times else []
    found += [ratio(f"{setting} · p50 {KINGMAKER} / {who}", halves[KINGMAKER], halves[who]) for who in peers]
    return found
