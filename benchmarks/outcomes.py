"""Outcomes a second that one worker has made durable before it answers, in batches of 1 and of 100."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks import calls, wrk
from benchmarks.endpoint import endpoints
from benchmarks.figures import Finding, MeasurementFailed, figure
from benchmarks.gateway import gateway
from benchmarks.plan import Plan
from benchmarks.routes import two_arms

SIZES = (1, 100)
_CONNECTIONS = 64
_DECISIONS = 200
_OUTCOMES = 5_000
_WARM_SECONDS = 1


def measure(plan: Plan) -> list[Finding]:
    """Outcomes a second for each size of a batch; sizes take turns."""
    if gap := wrk.missing("outcomes"):
        return [gap]
    with (
        endpoints(plan.place("endpoint")) as ports,
        gateway(plan.place("gateway"), two_arms(ports)) as worker,
    ):
        tokens = [_token(worker.port, number) for number in range(_DECISIONS)]
        requests = {size: _batches(plan.folder / f"{size}.calls", tokens, size) for size in SIZES}
        for size, batches in requests.items():
            plan.say(f"warming batches of {size}")
            wrk.load("outcomes", worker.port, batches, _CONNECTIONS, _WARM_SECONDS)
        rates: dict[int, list[float]] = {size: [] for size in SIZES}
        for number in range(plan.rounds):
            for size, batches in requests.items():
                plan.say(f"round {number + 1} of {plan.rounds}: batches of {size}")
                found = wrk.load("outcomes", worker.port, batches, _CONNECTIONS, plan.seconds)
                rates[size].append(size * found.rate)
    return [figure(f"batches of {size}", "outcomes/s", values) for size, values in rates.items()]


def _token(port: int, number: int) -> str:
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/decide/bench", json={"unit": f"user-{number}"})
        return str(answer.raise_for_status().json()["decision"])
    except httpx.HTTPError as error:
        raise MeasurementFailed(f"no decision to attribute outcomes to: {error}") from error


def _batches(path: Path, tokens: list[str], size: int) -> Path:
    return calls.posts(path, "/v1/outcomes", _bodies(tokens, size))


def _bodies(tokens: list[str], size: int) -> Iterator[bytes]:
    outcomes = [
        {"decision": tokens[number % len(tokens)], "metric": "profit", "value": 1.5, "id": str(number)}
        for number in range(_OUTCOMES)
    ]
    for start in range(0, len(outcomes), size):
        yield json.dumps({"outcomes": outcomes[start : start + size]}).encode()
