"""What an override has pinned is counted once per decision, however often its event is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.db import tables
from app.db.overrides import HOUR_MS
from app.db.tables import DECISIONS
from policies.rollups import Sums
from routing.types import TOTAL_BP, Reason
from tests.app.events.books import Account, Books, values
from tests.app.events.facts import NEW, NOON_MS, OLD, claims, made, told

PINNED: dict[str, Any] = {"reason": Reason.OVERRIDE, "propensity_bp": TOTAL_BP}


async def matched(books: Books) -> list[Mapping[str, Any]]:
    """The counts by override and hour."""
    return await books.rows(tables.override_matches)


def counted(override_id: int, n: int, last_at_ms: int) -> dict[str, int]:
    """A row of counts."""
    hour = last_at_ms // HOUR_MS * HOUR_MS
    return {"override_id": override_id, "hour_start_ms": hour, "n": n, "last_at_ms": last_at_ms}


async def test_decisions_are_counted_by_override_and_hour(books: Books) -> None:
    """Those that one has pinned, whether they were served or only asked for; the others are not."""
    books.write(
        "w0",
        made(claims(1, **PINNED), override_id=7),
        made(claims(2, **PINNED, at_ms=NOON_MS + 5), override_id=7, status=None, error=None, latency_ms=None),
        made(claims(3, **PINNED, at_ms=NOON_MS + HOUR_MS), override_id=7),
        made(claims(4, OLD, **PINNED, at_ms=NOON_MS - 1), override_id=8),
        made(claims(5)),
    )
    await books.recorder.drain()
    assert await matched(books) == [
        counted(7, 2, NOON_MS + 5),
        counted(7, 1, NOON_MS + HOUR_MS),
        counted(8, 1, NOON_MS - 1),
    ]
    found = {row["id"]: row["override_id"] for row in await books.rows(tables.decisions)}
    assert sorted(found.values(), key=str) == [7, 7, 7, 8, None]


async def test_repeats_count_once(books: Books) -> None:
    """Within a batch, over batches, and from another worker."""
    event = made(claims(1, **PINNED), override_id=7)
    for name in ("w0", "w0", "w1"):
        books.write(name, event, event)
        await books.recorder.drain()
    assert await matched(books) == [counted(7, 1, NOON_MS)]


async def test_a_decision_known_from_an_outcome_counts_when_its_event_comes(books: Books) -> None:
    """Not before, as a token does not name the override; and then once."""
    decision = claims(1, **PINNED)
    books.write("w0", told(decision, "conversion", 1.0))
    await books.recorder.drain()
    assert await matched(books) == []
    for _ in range(2):
        books.write("w1", made(decision, override_id=7))
        await books.recorder.drain()
    assert await matched(books) == [counted(7, 1, NOON_MS)]


async def test_pinned_traffic_is_measured_but_decides_nothing(books: Books) -> None:
    """Its decisions and outcomes are kept apart from the evidence."""
    decision = claims(1, **PINNED)
    books.write("w0", made(decision, override_id=7), told(decision, "conversion", 1.0))
    await books.recorder.drain()
    accounts = await books.accounts()
    assert accounts[Account(NEW, DECISIONS, deciding=False)] == values(1)
    assert accounts[Account(NEW, "conversion", deciding=False)] == values(1)
    assert {account: sums for account, sums in accounts.items() if account.deciding and sums != Sums()} == {}
