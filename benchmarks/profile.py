"""Where a worker's time goes under load: `python -m benchmarks.profile`, for people who tune.

Prints processor time for each request, in the kernel and outside, and how often the worker was scheduled.
With `--functions` the worker runs under cProfile, which makes it two to four times slower, so that then the
shares count and not the times. A sampling profiler can be pointed at the process id that is printed.
"""

from __future__ import annotations

import argparse
import os
import pstats
import sys
import tempfile
from pathlib import Path

from benchmarks import calls, wrk
from benchmarks.endpoint import endpoints
from benchmarks.figures import MeasurementFailed
from benchmarks.gateway import Gateway, gateway, is_accounted
from benchmarks.plan import Effort, Plan
from benchmarks.processes import keep_off_measured_core
from benchmarks.routes import two_arms

_CONNECTIONS = 64
_WARM_SECONDS = 1
_STAT = "/proc/{pid}/stat"
_STATUS = "/proc/{pid}/status"


def main() -> int:
    """Profile one worker; 1 if it did not do what is profiled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--seconds", type=int, default=5, help="how long it is under load (%(default)s)")
    parser.add_argument(
        "--connections", type=int, default=_CONNECTIONS, help="callers at a time (%(default)s)"
    )
    parser.add_argument("--functions", type=int, metavar="N", help="the N functions that take the most time")
    given = parser.parse_args()
    if gap := wrk.missing("profile"):
        print(gap.why, file=sys.stderr)
        return 1
    if not is_accounted():
        print("this system has no /proc, which says what a process used", file=sys.stderr)
        return 1
    keep_off_measured_core()
    with tempfile.TemporaryDirectory(prefix="kingmaker-profile-") as folder:
        effort = Effort(rounds=1, seconds=given.seconds, soak_seconds=0)
        try:
            _profile(Plan(Path(folder), effort, print), given.connections, given.functions)
        except MeasurementFailed as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def _profile(plan: Plan, connections: int, functions: int | None) -> None:
    file = plan.folder / "functions.pstats"
    before = ("-m", "cProfile", "-o", str(file)) if functions else ()
    requests = calls.scores(plan.folder / "calls")
    with (
        endpoints(plan.place("endpoint")) as ports,
        gateway(plan.place("gateway"), two_arms(ports), before, pure=bool(before)) as worker,
    ):
        plan.say(f"worker is process {worker.process.pid}, on port {worker.port}")
        wrk.load("kingmaker", worker.port, requests, connections, _WARM_SECONDS)
        _load(plan, worker, requests, connections)
    if functions:
        pstats.Stats(str(file)).sort_stats("tottime").print_stats(functions)


def _load(plan: Plan, worker: Gateway, requests: Path, connections: int) -> None:
    before = _used(worker)
    load = wrk.load("kingmaker", worker.port, requests, connections, plan.seconds)
    spent = {name: after - before[name] for name, after in _used(worker).items()}
    plan.say(f"{load.rate:,.0f} requests/s, p50 {load.p50_us:,.0f} µs, p99 {load.p99_us:,.0f} µs")
    for name in ("user", "system"):
        plan.say(f"{1e6 * spent[name] / load.requests:,.1f} µs/request {name} time")
    for name in ("waited", "preempted"):
        plan.say(f"{spent[name] / load.requests:,.3f} times/request {name}")
    plan.say(
        f"{load.cores.measured:.0%} of the worker's core and {load.cores.load:.0%} of the load's core busy"
    )


def _used(worker: Gateway) -> dict[str, float]:
    """Processor time of all threads so far, in seconds; and how often the main thread left the core."""
    pid = worker.process.pid
    fields = Path(_STAT.format(pid=pid)).read_text().rpartition(")")[2].split()
    pairs = (line.split(":") for line in Path(_STATUS.format(pid=pid)).read_text().splitlines())
    status = {name: value.strip() for name, value in pairs}
    ticks = os.sysconf("SC_CLK_TCK")
    return {
        "user": int(fields[11]) / ticks,
        "system": int(fields[12]) / ticks,
        "waited": float(status["voluntary_ctxt_switches"]),
        "preempted": float(status["nonvoluntary_ctxt_switches"]),
    }


if __name__ == "__main__":
    sys.exit(main())
