"""Requests a second that one core carries, beside the peers: A B C D A B C D, 64 connections, wrk."""

from __future__ import annotations

from benchmarks import calls, wrk
from benchmarks.contestants import ENVOY, KINGMAKER, NGINX, Lineup, lineup
from benchmarks.figures import Figure, Finding, figure, ratio
from benchmarks.plan import Plan
from benchmarks.wrk import Load

_CONNECTIONS = 64
_WARM_SECONDS = 1
_DIRECT = "nobody between"


def measure(plan: Plan) -> list[Finding]:
    """Rates of everybody, our rate over each peer's, and how busy the cores were."""
    if gap := wrk.missing("requests per second"):
        return [gap]
    requests = calls.scores(plan.folder / "calls")
    with lineup(plan) as field:
        ports = {**field.ports, _DIRECT: field.direct}
        for who, port in ports.items():
            plan.say(f"warming {who}")
            wrk.load(who, port, requests, _CONNECTIONS, _WARM_SECONDS)
        loads: dict[str, list[Load]] = {who: [] for who in ports}
        for number in range(plan.rounds):
            for who, port in ports.items():
                plan.say(f"round {number + 1} of {plan.rounds}: {who}")
                loads[who].append(wrk.load(who, port, requests, _CONNECTIONS, plan.seconds))
        return _findings(field, loads)


def _findings(field: Lineup, loads: dict[str, list[Load]]) -> list[Finding]:
    rates = {who: [load.rate for load in runs] for who, runs in loads.items()}
    peers = [who for who in field.ports if who != KINGMAKER]
    return [
        *(figure(who, "requests/s", values) for who, values in rates.items()),
        *field.gaps,
        *(ratio(f"{KINGMAKER} / {who}", rates[KINGMAKER], rates[who]) for who in peers),
        *(each for who in (KINGMAKER, ENVOY, NGINX) if who in loads for each in _busy(who, loads[who])),
        figure(
            "stolen from the cores", "share", [load.cores.stolen for runs in loads.values() for load in runs]
        ),
    ]


def _busy(who: str, loads: list[Load]) -> list[Figure]:
    """How busy both cores were. Where the load's is the fuller one, the load was the bottleneck."""
    return [
        figure(f"its core busy: {who}", "share", [load.cores.measured for load in loads]),
        figure(f"load's core busy: {who}", "share", [load.cores.load for load in loads]),
    ]
