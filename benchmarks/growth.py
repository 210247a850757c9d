"""Does a request cost more with more routes, arms, overrides, with what users keep, or with a bandit? The
worker's processor time.

The load is the same at every size that is compared. With more routes it goes to one of them; where all are
busy there are also more connections to the arms, which is another thing, and has a figure of its own.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from benchmarks import calls, contexts, wrk
from benchmarks.endpoint import endpoints
from benchmarks.figures import Finding, Gap, MeasurementFailed, figure, ratio
from benchmarks.gateway import Gateway, gateway, is_accounted
from benchmarks.plan import Plan
from benchmarks.routes import even_arms, kept, pinned, target, thompson, two_arms
from routing.snapshot import Snapshot
from routing.types import Reason

ROUTES = (1, 100, 10_000)
ARMS = (2, 50)
OVERRIDES = 1_000
_BUSY_ROUTES = 100
_CONNECTIONS = 64
_WARM_SECONDS = 1
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Size:
    """What a gateway routes by, what it is sent, and why it is to choose; compared with the size `base`."""

    name: str
    snapshot: Snapshot
    requests: Path
    reason: Reason = Reason.SPLIT
    base: str | None = None


def measure(plan: Plan) -> list[Finding]:
    """µs of processor time a request at each size, and over its base. Sizes of a kind take turns."""
    if gap := wrk.missing("cost of a request"):
        return [gap]
    if not is_accounted():
        return [Gap(name="cost of a request", why="this system has no /proc, which says what a process used")]
    with endpoints(plan.place("endpoint")) as ports:
        kinds = [_counts(plan, ports), _overrides(plan, ports), _kept(plan, ports), _features(plan, ports)]
        return [finding for kind in kinds for finding in _findings(plan, list(kind))]


def _counts(plan: Plan, ports: Sequence[int]) -> Iterator[_Size]:
    one = calls.scores(plan.folder / "calls")
    targets = [target(number + 1) for number in range(_BUSY_ROUTES)]
    every = calls.scores(plan.folder / "every.calls", targets)
    routes = {count: f"{count:,} route{'' if count == 1 else 's'}" for count in ROUTES}
    arms = {count: f"{count} arms" for count in ARMS}
    for count, name in routes.items():
        yield _Size(name, two_arms(ports, routes=count), one, base=routes[ROUTES[0]])
    busy = two_arms(ports, routes=_BUSY_ROUTES)
    yield _Size(f"{_BUSY_ROUTES} routes, all busy", busy, every, base=routes[ROUTES[0]])
    for count, name in arms.items():
        yield _Size(name, even_arms(ports, count), one, base=arms[ARMS[0]])


def _overrides(plan: Plan, ports: Sequence[int]) -> Iterator[_Size]:
    """With none there is the same context to read: the ratio is of the overrides alone."""
    features = (*contexts.NARROW, *contexts.UNDECLARED)
    requests = contexts.posts(plan.folder / "overrides.calls", target(1), features, calls.USERS)
    none, some = "no overrides", f"{OVERRIDES:,} overrides"
    yield _Size(none, pinned(ports, 0), requests)
    yield _Size(f"{some}, none holds", pinned(ports, OVERRIDES), requests, base=none)
    last = pinned(ports, OVERRIDES, last_holds=True)
    yield _Size(f"{some}, the last one holds", last, requests, Reason.OVERRIDE, none)


def _kept(plan: Plan, ports: Sequence[int]) -> Iterator[_Size]:
    """Once the worker knows its users, which it has asked the store for in the seconds before."""
    requests = calls.scores(plan.folder / "kept.calls")
    by_hash = "arms by hash"
    yield _Size(by_hash, two_arms(ports), requests)
    yield _Size("first arms kept", kept(ports), requests, base=by_hash)


def _features(plan: Plan, ports: Sequence[int]) -> Iterator[_Size]:
    """The same requests, with 32 features in headers and body that only the bandit looks at."""
    requests = contexts.posts(plan.folder / "features.calls", target(1), contexts.WIDE, calls.USERS)
    weights, bandit = "2 arms by weights", f"2 arms by {len(contexts.WIDE)} features"
    yield _Size(weights, two_arms(ports), requests)
    yield _Size(bandit, thompson(ports, contexts.WIDE), requests, Reason.BANDIT, weights)


def _findings(plan: Plan, sizes: Sequence[_Size]) -> list[Finding]:
    with ExitStack() as stack:
        workers = []
        for size in sizes:
            plan.say(f"starting a gateway with {size.name}")
            workers.append(stack.enter_context(gateway(plan.place(size.name), size.snapshot)))
            _check(size, workers[-1].port)
        costs = _costs(plan, sizes, workers)
    return [
        *(figure(name, "µs/request", values) for name, values in costs.items()),
        *(
            ratio(f"{size.name} / {size.base}", costs[size.name], costs[size.base])
            for size in sizes
            if size.base not in (None, size.name)
        ),
    ]


def _costs(plan: Plan, sizes: Sequence[_Size], workers: Sequence[Gateway]) -> dict[str, list[float]]:
    for size, worker in zip(sizes, workers, strict=True):
        plan.say(f"warming {size.name}")
        wrk.load(size.name, worker.port, size.requests, _CONNECTIONS, _WARM_SECONDS)
    costs: dict[str, list[float]] = {size.name: [] for size in sizes}
    for number in range(plan.rounds):
        for size, worker in zip(sizes, workers, strict=True):
            plan.say(f"round {number + 1} of {plan.rounds}: {size.name}")
            costs[size.name].append(cost_us(size.name, worker, size.requests, plan.seconds))
    return costs


def cost_us(name: str, worker: Gateway, requests: Path, seconds: float) -> float:
    """µs of processor time that a worker uses for each request under full load."""
    before = worker.cpu_seconds
    load = wrk.load(name, worker.port, requests, _CONNECTIONS, seconds)
    return 1e6 * (worker.cpu_seconds - before) / load.requests


def _check(size: _Size, port: int) -> None:
    """There is no fast way of choosing for another reason."""
    request = calls.read(size.requests)[0]
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE_SECONDS) as caller:
            caller.sendall(request)
            with HTTPResponse(caller) as answer:
                answer.begin()
                reason = answer.getheader("Kingmaker-Reason")
    except (OSError, HTTPException) as error:
        raise MeasurementFailed(f"{size.name}: the first request was not answered: {error!r}") from error
    if reason != size.reason:
        raise MeasurementFailed(f"{size.name}: reason must be {size.reason}, got {reason}")
