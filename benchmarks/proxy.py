"""Requests a second through one gateway worker on one core, side by side with the peer: A B A B."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.processes import LOAD_CORE, endpoint, gateway, peer, process

ROUNDS = 5
_SECONDS = 3.0
_Figures = dict[str, float]


def measure(folder: Path) -> dict[str, object]:
    """Five rounds of each at 64 connections and at one; the medians, the ratios and their range."""
    with endpoint() as first, endpoint() as second:
        arms = [first, second]
        with gateway(folder, arms) as (ours, worker), peer(arms) as theirs:
            _load(ours, 64), _load(theirs, 64)
            rounds = [(_load(ours, 64), _load(theirs, 64)) for _ in range(ROUNDS)]
            alone = [(_load(ours, 1), _load(theirs, 1)) for _ in range(ROUNDS)]
            memory_mb = _memory_mb(worker)
    ratios = [a["requests_per_second"] / b["requests_per_second"] for a, b in rounds]
    return {
        "kingmaker": _summary([a for a, _ in rounds], [a for a, _ in alone]),
        "fastapi_httpx": _summary([b for _, b in rounds], [b for _, b in alone]),
        "ratio": {"median": median(ratios), "low": min(ratios), "high": max(ratios)},
        "kingmaker_memory_mb": memory_mb,
    }


def _summary(busy: list[_Figures], alone: list[_Figures]) -> _Figures:
    return {
        "requests_per_second": median(run["requests_per_second"] for run in busy),
        "low": min(run["requests_per_second"] for run in busy),
        "high": max(run["requests_per_second"] for run in busy),
        "p50_ms_1_connection": median(run["p50_ms"] for run in alone),
        "p99_ms_1_connection": median(run["p99_ms"] for run in alone),
        "failed": sum(run["failed"] for run in [*busy, *alone]),
    }


def _load(port: int, connections: int) -> _Figures:
    command = ["-m", "benchmarks.load", str(port), "/r/bench", str(connections), str(_SECONDS)]
    with process(command, LOAD_CORE) as caller:
        out, _ = caller.communicate(timeout=_SECONDS + 15)
    figures: _Figures = json.loads(out)
    return figures


def _memory_mb(worker: subprocess.Popen[bytes]) -> float:
    if sys.platform != "linux":
        return float("nan")
    status = Path(f"/proc/{worker.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024
