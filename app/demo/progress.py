"""How far is the day, and how is the traffic? A bar on a terminal, and nothing where there is none."""

from __future__ import annotations

import time
from types import TracebackType

from rich import progress
from rich.console import Console

from app.demo.route import DAY_SECONDS
from app.demo.traffic import Tally


class Progress:
    """A bar for the day, below what is printed."""

    def __init__(self, console: Console) -> None:
        self._bar = progress.Progress(
            progress.TextColumn("  {task.description}"),
            progress.BarColumn(20),
            progress.TextColumn("{task.fields[traffic]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("this day", total=DAY_SECONDS, traffic="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, tally: Tally) -> None:
        """Show where the day and the traffic are."""
        traffic = f"{tally.requests:,} requests, {tally.outcomes:,} outcomes, {tally.errors} errors"
        self._bar.update(self._task, completed=time.time() % DAY_SECONDS, traffic=traffic)
