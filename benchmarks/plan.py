"""How much is measured, and where files may lie meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds` is how long each contestant is under load in each round, `soak_seconds` how long the memory
    of a worker is watched under load.
    """

    rounds: int
    seconds: int
    soak_seconds: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What one part is told. `folder` is its own and empty; `say` is told what happens right now."""

    folder: Path
    effort: Effort
    say: Callable[[str], None]

    @property
    def rounds(self) -> int:
        return self.effort.rounds

    @property
    def seconds(self) -> int:
        return self.effort.seconds

    def place(self, name: str) -> Path:
        """A new folder under this part's own."""
        path = self.folder / name
        path.mkdir()
        return path
