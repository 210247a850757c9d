"""Does a caller notice a shadow arm that hangs? The route's p99 with one, beside the same route without."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks import calls, wrk
from benchmarks.arrivals import Arrivals, arrivals
from benchmarks.endpoint import endpoints
from benchmarks.figures import Finding, Gap, figure, ratio
from benchmarks.gateway import gateway
from benchmarks.plan import Plan
from benchmarks.routes import two_arms
from benchmarks.silence import silence

_WITH, _WITHOUT = "with a shadow that hangs", "without a shadow"
_CONNECTIONS = 64
_PEAK_SECONDS = 1
_STEP = 100


def measure(plan: Plan) -> list[Finding]:
    """p50 and p99 of the primary answer at half of the peak, and with over without. All traffic is copied."""
    if gap := wrk.missing("shadow"):
        return [gap]
    requests = calls.scores(plan.folder / "calls")
    with ExitStack() as stack:
        arms = stack.enter_context(endpoints(plan.place("endpoint")))
        hanging = stack.enter_context(silence(plan.place("silence")))
        plain = stack.enter_context(gateway(plan.place("without"), two_arms(arms)))
        shadowed = stack.enter_context(gateway(plan.place("with"), two_arms(arms, shadow=hanging.port)))
        ports = {_WITHOUT: plain.port, _WITH: shadowed.port}
        peaks = []
        for who, port in ports.items():
            plan.say(f"peak {who}")
            peaks.append(wrk.load(who, port, requests, _CONNECTIONS, _PEAK_SECONDS).rate)
        rate = max(_STEP, int(min(peaks) / 2 / _STEP) * _STEP)
        runs: dict[str, list[Arrivals]] = {who: [] for who in ports}
        for number in range(plan.rounds):
            for who, port in ports.items():
                plan.say(f"{rate:,}/s, round {number + 1} of {plan.rounds}: {who}")
                runs[who].append(arrivals(who, port, requests, rate, plan.seconds))
    return _findings(rate, runs, hanging.heard)


def _findings(rate: int, runs: dict[str, list[Arrivals]], copies: int) -> list[Finding]:
    if not copies:
        why = "the shadow arm was sent no copy, so the figures would compare nothing"
        return [Gap(name="p99 with a hanging shadow", why=why, failed=True)]
    p50 = {who: [run.p50_us for run in found] for who, found in runs.items()}
    p99 = {who: [run.p99_us for run in found] for who, found in runs.items()}
    return [
        *(figure(f"{rate:,}/s · {who}, p50", "µs", values) for who, values in p50.items()),
        *(figure(f"{rate:,}/s · {who}, p99", "µs", values) for who, values in p99.items()),
        ratio("p50 with / without", p50[_WITH], p50[_WITHOUT]),
        ratio("p99 with / without", p99[_WITH], p99[_WITHOUT]),
        figure("copies that the shadow arm was sent", "copies", [copies]),
    ]
