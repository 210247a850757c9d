"""Does a worker stay small? Resident memory idle, under load over time, and among a thousand dull callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks import calls, wrk
from benchmarks.callers import answer_ms, idle_callers, slow_callers
from benchmarks.endpoint import endpoints
from benchmarks.figures import Finding, Gap, figure
from benchmarks.gateway import Gateway, gateway, is_accounted
from benchmarks.plan import Plan
from benchmarks.routes import two_arms

_CONNECTIONS = 64
_CALLERS = 1_000
_SETTLE_SECONDS = 4.0
_SAMPLES = 60
_PROBES = 20


def measure(plan: Plan) -> list[Finding]:
    """MB of one worker in each state. Samples under load are in the order taken."""
    if not is_accounted():
        return [Gap(name="memory", why="this system has no /proc, which says what is resident")]
    with endpoints(plan.place("endpoint")) as ports:
        with gateway(plan.place("loaded"), two_arms(ports)) as worker:
            plan.say("idle")
            time.sleep(1)
            found: list[Finding] = [figure("idle", "MB", [worker.memory_mb])]
            found += _under_load(plan, worker)
        for name, callers in (("idle connections", idle_callers), ("slow senders", slow_callers)):
            with gateway(plan.place(name.replace(" ", "-")), two_arms(ports)) as worker:
                plan.say(f"{_CALLERS:,} {name}")
                found += _among(worker, name, callers)
    return found


def _under_load(plan: Plan, worker: Gateway) -> list[Finding]:
    if gap := wrk.missing("under load"):
        return [gap]
    requests = calls.scores(plan.folder / "calls")
    seconds = plan.effort.soak_seconds
    samples: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(seconds / _SAMPLES):
            samples.append(worker.memory_mb)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    plan.say(f"under load for {seconds:,.0f} s")
    try:
        wrk.load("kingmaker", worker.port, requests, _CONNECTIONS, seconds)
    finally:
        ended.set()
        watcher.join()
    half = len(samples) // 2
    grown = sum(samples[half:]) / (len(samples) - half) - sum(samples[:half]) / half
    return [
        figure(f"under load, over {seconds:,.0f} s", "MB", samples),
        figure("under load, second half above first half", "MB", [grown]),
        figure("after load", "MB", [worker.memory_mb]),
    ]


def _among(
    worker: Gateway, name: str, callers: Callable[[int, int], AbstractContextManager[None]]
) -> list[Finding]:
    before = worker.memory_mb
    with callers(worker.port, _CALLERS):
        time.sleep(_SETTLE_SECONDS)
        during = worker.memory_mb
        answers = [answer_ms(worker.port) for _ in range(_PROBES)]
    return [
        figure(f"with {_CALLERS:,} {name}", "MB", [during]),
        figure(f"each of {_CALLERS:,} {name}", "KB", [1024 * (during - before) / _CALLERS]),
        figure(f"one caller's answer among {_CALLERS:,} {name}", "ms", answers),
    ]
