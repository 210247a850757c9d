"""What do answers look like to a person? Aligned text that stays whole and plain when it is piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000
_LARGE = 1e9
_NOTHING = "-"
_UNITS_SECONDS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def render(*parts: RenderableType) -> str:
    """The parts under one another, tables with a free line around them; on a terminal as wide as that."""
    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, emoji=False, markup=False, no_color=True, width=_UNLIMITED)
    with console.capture() as captured:
        for index, part in enumerate(parts):
            if index and not (isinstance(part, str) and isinstance(parts[index - 1], str)):
                console.print()
            console.print(part, soft_wrap=isinstance(part, str))
    return "\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n"))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """One line a row. Columns of numbers are aligned to the right; None shows as a dash."""
    cells = [list(row) for row in rows]
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for index, heading in enumerate(headings):
        values = [row[index] for row in cells if row[index] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        drawn.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell(value)) for value in row))
    return drawn


def facts(pairs: Mapping[str, object]) -> Table:
    """A name and its value, line by line."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 1), show_header=False)
    drawn.add_column(style="bold")
    drawn.add_column(overflow="fold")
    for name, value in pairs.items():
        drawn.add_row(Text(name), Text(cell(value)))
    return drawn


def cell(value: object) -> str:
    """A value in a few characters, on one line, without anything that a terminal would obey."""
    if value is None or value in ("", [], {}):
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{cell(name)} {cell(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(cell(each) for each in value)
    return "".join(character if character.isprintable() else " " for character in str(value))


def number(value: float) -> str:
    """Four significant digits, but all of those before the point."""
    return f"{value:.0f}" if 1_000 <= abs(value) < _LARGE else f"{value:.4g}"


def percent(share: float | None, signed: bool = False) -> str | None:
    """A share in per cent; `signed` for differences."""
    if share is None:
        return None
    digits = "+.1f" if signed else ".1f"
    return f"{share * 100:{digits if abs(share) < _LARGE else '.3g'}} %"


def interval(found: Mapping[str, float] | None) -> str | None:
    """`mean [low, high]`."""
    if found is None:
        return None
    mean, low, high = (_fixed(found[name]) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def relative(found: Mapping[str, float] | None) -> str | None:
    """`mean [low, high]` of a relative difference, in per cent."""
    if found is None:
        return None
    mean, low, high = (percent(found[name], signed=True) for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def moment(text: str | None) -> str | None:
    """An RFC 3339 time to the second."""
    if text is None:
        return None
    return f"{_time(text):%Y-%m-%d %H:%M:%S}Z"


def span(since: str, until: str) -> str:
    """How long it is from one time to another, in its two largest units."""
    rest = max(0, int((_time(until) - _time(since)).total_seconds()))
    counted: list[str] = []
    for unit, size in _UNITS_SECONDS:
        count, rest = divmod(rest, size)
        if count or counted:
            counted.append(f"{count} {unit}")
    return " ".join(counted[:2]) or "0 s"


def shares(weights: Mapping[str, int]) -> str:
    """Arms with their basis points, the largest share first; arms without traffic are left out."""
    ordered = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{arm} {share}" for arm, share in ordered if share) or _NOTHING


def streak(counts: Mapping[str, Any]) -> str | None:
    """What a streak stands at: `2 winning, 1 frozen`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or None


def _fixed(value: float) -> str:
    """As `number`, with the zeros at the end: numbers of one interval have as many digits."""
    return number(value) if abs(value) >= 1_000 else f"{value:#.4g}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
