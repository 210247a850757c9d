"""What the reader sees: a table with units and spread, and a file of JSON that holds every round."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.table import Table

from benchmarks.cores import Busy
from benchmarks.figures import Figure, Finding, Gap
from benchmarks.machine import Machine
from benchmarks.plan import Effort

_RESULTS = Path(__file__).parent / "results"
_NUMBERS = ("median", "lowest", "highest")
_COLUMNS = ("part", "measurement", *_NUMBERS, "unit")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `before`: how busy the cores were just before it, which is what others used."""

    at: datetime
    machine: Machine
    effort: Effort
    before: Busy
    parts: dict[str, list[Finding]]

    @property
    def has_failed(self) -> bool:
        """Whether something went wrong that should not have."""
        return any(isinstance(each, Gap) and each.failed for found in self.parts.values() for each in found)

    def json(self) -> bytes:
        """Everything, for a program."""
        return msgspec.json.format(msgspec.json.encode(self)) + b"\n"

    def keep(self) -> Path:
        """Write it down; gives the file."""
        _RESULTS.mkdir(exist_ok=True)
        path = _RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
        path.write_bytes(self.json())
        return path

    @property
    def caption(self) -> str:
        """What a reader of the figures has to know."""
        return (
            f"{self.effort.rounds} rounds of {self.effort.seconds} s. Before, others kept the cores "
            f"{self.before.measured:.0%} and {self.before.load:.0%} busy. Compare within this run only."
        )

    def markdown(self) -> str:
        """The table for a document."""
        rows = [_COLUMNS, ("---", "---", "---:", "---:", "---:", "---")]
        rows += [(part, *_cells(finding)) for part, found in self.parts.items() for finding in found]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        return "\n".join([f"{self.at:%Y-%m-%d}. {self.machine.text}. {self.caption}", "", *lines])

    def table(self) -> Table:
        """Everything but the single rounds, for a person."""
        table = Table(title=self.machine.text, caption=self.caption)
        for name in _COLUMNS:
            table.add_column(name, justify="right" if name in _NUMBERS else "left")
        for part, found in self.parts.items():
            for finding in found:
                table.add_row(part, *_cells(finding), style="yellow" if isinstance(finding, Gap) else None)
            table.add_section()
        return table


def _cells(finding: Finding) -> tuple[str, str, str, str, str]:
    match finding:
        case Figure(name=name, unit=unit):
            return name, _text(finding.median), _text(finding.low), _text(finding.high), unit
        case Gap(name=name, why=why, failed=failed):
            return name, "failed" if failed else "skipped", "", "", " ".join(why.split())


def _text(value: float) -> str:
    """Three digits that count, and no more decimals than that."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 1_000 else f"{value:,.1f}" if size >= 100 else f"{value:,.3g}"
