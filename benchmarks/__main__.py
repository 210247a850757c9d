"""Measures everything, or the parts named; prints a table and writes benchmarks/results/TIME.json."""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks import choosing, growth, judging, latency, memory, outcomes, proxy, shadow
from benchmarks.cores import busy
from benchmarks.figures import Finding, Gap, MeasurementFailed
from benchmarks.machine import machine
from benchmarks.plan import Effort, Plan
from benchmarks.processes import keep_off_measured_core
from benchmarks.report import Report

PARTS: dict[str, Callable[[Plan], list[Finding]]] = {
    "proxy": proxy.measure,
    "latency": latency.measure,
    "growth": growth.measure,
    "memory": memory.measure,
    "shadow": shadow.measure,
    "outcomes": outcomes.measure,
    "choosing": choosing.measure,
    "judging": judging.measure,
}
_NAMES = ", ".join(PARTS)
_OPEN_FILES = 20_000
_LOOK_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one part after the other; 1 if one of them failed."""
    given = _parser().parse_args(arguments)
    names = given.parts or list(PARTS)
    effort = Effort(
        rounds=given.rounds, seconds=given.seconds, soak_seconds=max(1, round(60 * given.minutes))
    )
    _allow_open_files()
    keep_off_measured_core()
    with busy() as cores:
        time.sleep(_LOOK_SECONDS)
    parts = _measure(names, effort)
    at = datetime.now(UTC)
    report = Report(at=at, machine=machine(), effort=effort, before=cores(), parts=parts)
    path = report.keep()
    if given.json:
        sys.stdout.buffer.write(report.json())
    elif given.markdown:
        print(report.markdown())
    else:
        Console().print(report.table())
        print(f"written to {path}")
    return 1 if report.has_failed else 0


def _measure(names: Sequence[str], effort: Effort) -> dict[str, list[Finding]]:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    found = {}
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=2) as progress:
        task = progress.add_task("", total=len(names))
        for name in names:

            def say(what: str, part: str = name) -> None:
                progress.update(task, description=f"{part} · {what}")

            found[name] = _part(name, effort, say)
            progress.advance(task)
    return found


def _part(name: str, effort: Effort, say: Callable[[str], None]) -> list[Finding]:
    """What a part found; one that fails does not keep the others from being measured."""
    with tempfile.TemporaryDirectory(prefix="kingmaker-bench-") as folder:
        try:
            return PARTS[name](Plan(Path(folder), effort, say))
        except (MeasurementFailed, OSError, subprocess.SubprocessError) as error:
            return [Gap(name=name, why=str(error), failed=True)]


def _allow_open_files() -> None:
    """Whoever is started inherits it: a thousand callers are a thousand files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", type=_part_name, metavar="part", help=f"of {_NAMES}; none is all of them"
    )
    parser.add_argument(
        "--rounds", type=_positive, default=5, help="how often everybody has a turn (%(default)s)"
    )
    parser.add_argument("--seconds", type=_positive, default=3, help="how long a turn lasts (%(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=0.5, help="how long memory is watched under load (%(default)s)"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of the table")
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    return parser


def _part_name(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"part must be one of {_NAMES}, got {text}")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


if __name__ == "__main__":
    sys.exit(main())
