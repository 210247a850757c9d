"""Measures everything, prints a table and writes benchmarks/results/TIME.json."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks import judging, outcomes, proxy

_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run every measurement, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "proxy"), Path(folder, "outcomes")
        first.mkdir()
        second.mkdir()
        parts: dict[str, Callable[[], dict[str, object]]] = {
            "proxy": lambda: proxy.measure(first),
            "outcomes": lambda: outcomes.measure(second),
            "judging": judging.measure,
        }
        found = {name: parts[name]() for name in track(parts, description="measuring")}
    _show(found)
    _keep({"machine": platform.platform(), "cores": os.cpu_count(), **found})


def _show(found: dict[str, dict[str, object]]) -> None:
    table = Table(
        "measurement", "figure", title="Compare within this run only: machines differ and are shared."
    )
    for part, figures in found.items():
        for name, figure in figures.items():
            table.add_row(f"{part} · {name}", _text(figure))
    Console().print(table)


def _text(figure: object) -> str:
    if isinstance(figure, dict):
        return "\n".join(f"{name}: {_text(value)}" for name, value in figure.items())
    return f"{figure:,.3f}" if isinstance(figure, float) else str(figure)


def _keep(found: dict[str, object]) -> None:
    _RESULTS.mkdir(exist_ok=True)
    path = _RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
