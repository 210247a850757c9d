"""What tests of first arms stand on: a route whose units keep them, in a store that can be away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from app.gateway.first_arms import FirstArms
from app.stores.first_arms import Claim, StoreUnavailable
from routing.features import Source, SourceKind
from tests.app.gateway.stage import Stage

HOUR_MS = 3_600_000
UNITS = [f"u{number}" for number in range(10, 50)]


class MemoryStore:
    """A store in memory. `is_away`: it cannot be asked; `gate`: it answers once that is set.

    Of the keys that are `refused` it says nothing.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.batches: list[Sequence[Claim]] = []
        self.is_away = False
        self.refused: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()

    async def claim(self, claims: Sequence[Claim]) -> list[bytes | None]:
        self.batches.append(claims)
        await self.probe()
        return [None if claim.key in self.refused else self._claim(claim) for claim in claims]

    async def find(self, key: str) -> bytes | None:
        return self.held.get(key)

    async def probe(self) -> None:
        await self.gate.wait()
        if self.is_away:
            raise StoreUnavailable("away")

    async def close(self) -> None:
        pass

    def _claim(self, claim: Claim) -> bytes:
        if self.held.get(claim.key, claim.lapsed) == claim.lapsed:
            self.held[claim.key] = claim.value
        return self.held[claim.key]


class SlowStore(MemoryStore):
    """A store that takes its time; `answered` counts its answers."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.answered = 0

    async def claim(self, claims: Sequence[Claim]) -> list[bytes | None]:
        self.answered = 0
        await asyncio.sleep(self.seconds)
        self.answered += 1
        return await super().claim(claims)


class Sticky(Stage):
    """A stage whose route keeps first arms, in `store`."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.keep_with(self.store)

    def keep_with(self, store: Any, patience_seconds: float = 5.0) -> FirstArms:
        """A worker's memory is empty again, and it asks this store."""
        kept = FirstArms(self.loop, store, self.worker.counters, patience_seconds)
        self.worker.first_arms = kept
        return kept

    def sticky(self, challenger_bp: int = 5_000, **changes: Any) -> None:
        """Adopts a snapshot in which units keep their arms for an hour."""
        unit = Source(kind=SourceKind.HEADER, name="x-user")
        self.route(challenger_bp, **{"first_arm_ms": HOUR_MS, "unit": unit, **changes})

    async def up(self, challenger_bp: int = 5_000, **changes: Any) -> None:
        """The same, and the store has answered."""
        self.sticky(challenger_bp, **changes)
        assert self.worker.first_arms is not None
        await self.worker.first_arms.ready(5)

    async def arms_of(self, units: Sequence[str] = UNITS) -> dict[str, str | None]:
        """Which arm each unit is assigned."""
        return {unit: (await self.ask(x_user=unit))["kingmaker-arm"] for unit in units}

    def counted_as(self, result: str) -> float:
        """How many units' stores were asked for with this result."""
        name = f'kingmaker_first_arms_total{{route="bid",result="{result}",worker="w0"}}'
        return self.worker.dump().values.get(name, 0)

    @property
    def is_up(self) -> bool:
        return self.counted("kingmaker_first_arm_store_up") == 1

    @property
    def waiting(self) -> int:
        """How many requests wait for the store to be asked."""
        kept = self.worker.first_arms
        return 0 if kept is None else len(kept._queue)

    @property
    def is_asking(self) -> bool:
        """Whether the store is asked just now."""
        kept = self.worker.first_arms
        return kept is not None and kept._asking is not None and not kept._asking.done()
