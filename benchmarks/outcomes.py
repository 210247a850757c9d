"""Durable outcomes a second through one gateway worker, in batches of 1 and of 100."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median

import httpx

from benchmarks.processes import endpoint, gateway

ROUNDS = 5
_CONNECTIONS = 16
_SECONDS = 2.0


def measure(folder: Path) -> dict[str, object]:
    """Five rounds of each size: the median with its range."""
    with endpoint() as port, gateway(folder, [port, port]) as (ours, _):
        tokens = [_token(ours, number) for number in range(200)]
        result = {}
        for size in (1, 100):
            rounds = [asyncio.run(_post(ours, tokens, size)) for _ in range(ROUNDS)]
            result[f"batch_{size}"] = {"median": median(rounds), "low": min(rounds), "high": max(rounds)}
    return {"outcomes_per_second": result}


def _token(port: int, number: int) -> str:
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/decide/bench", json={"unit": f"u{number}"})
    return str(answer.raise_for_status().json()["decision"])


async def _post(port: int, tokens: list[str], size: int) -> float:
    until = time.perf_counter() + _SECONDS
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        bodies = _bodies(tokens, size)
        counts = await asyncio.gather(*(_caller(client, bodies, until) for _ in range(_CONNECTIONS)))
    return sum(counts) * size / _SECONDS


def _bodies(tokens: list[str], size: int) -> list[dict[str, object]]:
    outcomes = [
        {"decision": token, "metric": "profit", "value": 1.5, "id": str(number)}
        for number in range(5)
        for token in tokens
    ]
    return [{"outcomes": outcomes[start : start + size]} for start in range(0, len(outcomes), size)]


async def _caller(client: httpx.AsyncClient, bodies: list[dict[str, object]], until: float) -> int:
    count = 0
    while time.perf_counter() < until:
        answer = await client.post("/v1/outcomes", json=bodies[count % len(bodies)])
        answer.raise_for_status()
        count += 1
    return count
