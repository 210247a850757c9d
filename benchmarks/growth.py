"""Does a request cost more with more routes, or more arms? Processor time of the worker for each request.

The load is the same at every number of routes: it goes to one of them. Where all are busy there are also
more connections to the arms, which is another thing, and has a figure of its own.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from benchmarks import calls, wrk
from benchmarks.endpoint import endpoints
from benchmarks.figures import Finding, Gap, figure, ratio
from benchmarks.gateway import Gateway, gateway, is_accounted
from benchmarks.plan import Plan
from benchmarks.routes import even_arms, target, two_arms
from routing.snapshot import Snapshot

ROUTES = (1, 100, 10_000)
ARMS = (2, 50)
_BUSY_ROUTES = 100
_CONNECTIONS = 64
_WARM_SECONDS = 1
_ALL_BUSY = f"{_BUSY_ROUTES} routes, all busy"


def measure(plan: Plan) -> list[Finding]:
    """µs of processor time a request at each size, and over the smallest size. Sizes take turns."""
    if gap := wrk.missing("cost of a request"):
        return [gap]
    if not is_accounted():
        return [Gap(name="cost of a request", why="this system has no /proc, which says what a process used")]
    one = calls.scores(plan.folder / "calls")
    every = calls.scores(plan.folder / "every.calls", [target(number + 1) for number in range(_BUSY_ROUTES)])
    with ExitStack() as stack:
        ports = stack.enter_context(endpoints(plan.place("endpoint")))

        def start(name: str, snapshot: Snapshot) -> Gateway:
            plan.say(f"starting a gateway with {name}")
            return stack.enter_context(gateway(plan.place(name), snapshot))

        sizes = {
            _routes(count): (start(_routes(count), two_arms(ports, routes=count)), one) for count in ROUTES
        }
        sizes[_ALL_BUSY] = sizes[_routes(_BUSY_ROUTES)][0], every
        sizes |= {_arms(count): (start(_arms(count), even_arms(ports, count)), one) for count in ARMS}
        return _findings(_costs(plan, sizes))


def _routes(count: int) -> str:
    return f"{count:,} route{'' if count == 1 else 's'}"


def _arms(count: int) -> str:
    return f"{count} arms"


def _costs(plan: Plan, sizes: dict[str, tuple[Gateway, Path]]) -> dict[str, list[float]]:
    for name, (worker, requests) in sizes.items():
        plan.say(f"warming {name}")
        wrk.load(name, worker.port, requests, _CONNECTIONS, _WARM_SECONDS)
    costs: dict[str, list[float]] = {name: [] for name in sizes}
    for number in range(plan.rounds):
        for name, (worker, requests) in sizes.items():
            plan.say(f"round {number + 1} of {plan.rounds}: {name}")
            costs[name].append(cost_us(name, worker, requests, plan.seconds))
    return costs


def cost_us(name: str, worker: Gateway, requests: Path, seconds: float) -> float:
    """µs of processor time that a worker uses for each request under full load."""
    before = worker.cpu_seconds
    load = wrk.load(name, worker.port, requests, _CONNECTIONS, seconds)
    return 1e6 * (worker.cpu_seconds - before) / load.requests


def _findings(costs: dict[str, list[float]]) -> list[Finding]:
    one, two = _routes(ROUTES[0]), _arms(ARMS[0])
    pairs = [(_routes(count), one) for count in ROUTES[1:]]
    pairs += [(_ALL_BUSY, one), *((_arms(count), two) for count in ARMS[1:])]
    return [
        *(figure(name, "µs/request", values) for name, values in costs.items()),
        *(ratio(f"{name} / {base}", costs[name], costs[base]) for name, base in pairs),
    ]
