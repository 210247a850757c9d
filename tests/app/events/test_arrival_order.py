"""Whatever the order in which events arrive, the books end up the same."""

from __future__ import annotations

from random import Random
from typing import Any

from app.clock import days_of
from app.db import tables
from app.db.rollups import RollupKey
from app.db.tables import DECISIONS
from app.events.recorder import record
from app.events.types import DecisionEvent, Event, OutcomeEvent, ShadowEvent
from policies.metrics import ERROR, LATENCY, Outcome, combine
from policies.rollups import Sums
from policies.types import Missing
from routing.bucketing import unit_bucket
from routing.claims import Claims, decision_id
from routing.types import Reason
from tests.app.events.books import Books, cells, rows, values
from tests.app.events.facts import DAY_MS, NEW, NOON_MS, OLD, claims, made, told

Placed = tuple[Event, str, int]
"""An event with its spool and its sequence number there."""


def some_events(random: Random) -> list[Placed]:
    """A few decisions and outcomes, with repeats, conflicts, ties and missing records among them."""
    spools = {"a" * 32: 0, "b" * 32: 0}
    placed: list[Placed] = []

    def place(event: Event) -> None:
        name = random.choice(list(spools))
        spools[name] += 1
        placed.append((event, name, spools[name]))

    for number in range(6):
        decision = claims(
            random.getrandbits(64),
            random.choice((OLD, NEW)),
            has_unit=random.random() < 0.5,
            unit_hash=random.getrandbits(64),
            reason=random.choice((Reason.SPLIT, Reason.SPLIT, Reason.FORCED)),
            epoch=random.choice((1, 2)),
            at_ms=NOON_MS + number // 3 * DAY_MS,
        )
        if random.random() < 0.7:
            place(made(decision, random.choice((OLD, NEW)), error=random.choice((True, False, None))))
        for _ in range(random.randrange(6)):
            metric = random.choice(("conversion", "profit", "latest", "peak", "undeclared"))
            times = {"at_ms": random.randrange(3), "received_at_ms": random.randrange(3)}
            place(told(decision, metric, random.randrange(4), random.choice(("", "x")), **times))
    return placed


def expected(books: Books, placed: list[Placed]) -> dict[RollupKey, Sums]:
    """The sums, worked out from all events at once."""
    decisions: dict[str, Claims] = {}
    observed: dict[str, DecisionEvent] = {}
    standing: dict[tuple[str, str], dict[str, Outcome]] = {}
    for event, spool, seq in placed:
        if isinstance(event, ShadowEvent):
            continue  # it makes no decision, and adds to no sum
        name = decision_id(event.decision)
        decisions[name] = event.decision
        if isinstance(event, OutcomeEvent):
            outcome = Outcome(event.value, event.at_ms, event.received_at_ms, f"{spool}:{seq:016d}")
            keys = standing.setdefault((name, event.metric), {})
            rivals = [outcome, *([keys[event.key]] if event.key in keys else [])]
            keys[event.key] = min(rivals, key=lambda one: (one.received_at_ms, one.event))
        else:
            observed[name] = event
    sums: dict[RollupKey, Sums] = {}
    for name, decision in decisions.items():
        found: dict[str, float | None] = {
            metric.name: combine(metric.aggregate, list(standing.get((name, metric.name), {}).values()))
            for metric in books.route.spec.metrics
        }
        if found["profit"] is None:
            found["profit"] = 0.0
        found[DECISIONS] = 1.0
        if (end := observed.get(name)) is not None:
            found[DECISIONS] = float(end.served_arm_id == decision.arm_id)
            found[LATENCY] = end.latency_ms
            found[ERROR] = None if end.error is None else float(end.error)
        for metric, value in found.items():
            key = key_of(books, decision, metric)
            sums[key] = sums.get(key, Sums()) + (Sums() if value is None else values(value))
    return {key: total for key, total in sums.items() if total != Sums()}


def key_of(books: Books, decision: Claims, metric: str) -> RollupKey:
    """Where a decision's value of a metric is kept."""
    return RollupKey(
        route_id=1,
        day=days_of(books.route.spec.policy).day_of(decision.at_ms),
        epoch=decision.epoch,
        arm_id=decision.arm_id,
        metric=metric,
        bucket=unit_bucket(decision.unit_hash) if decision.has_unit else 0,
        deciding=decision.reason is Reason.SPLIT,
        late=False,
    )


async def test_the_order_of_arrival_changes_nothing(books: Books) -> None:
    """Sums and outcomes are those of all events at once, in any order, batch by batch, from any spool."""
    assert books.route.spec.metrics[1].missing is Missing.ZERO
    for seed in range(25):
        random = Random(seed)
        placed = some_events(random)
        kept: list[list[Any]] = []
        for _ in range(2):
            random.shuffle(placed)
            async with books.database.transaction() as connection:
                for spool in ("a" * 32, "b" * 32, "a" * 32):
                    batch = [(event, seq) for event, name, seq in placed if name == spool]
                    half = len(batch) // 2
                    await record(connection, batch[:half], spool)
                    await record(connection, batch[half:], spool)
                assert await cells(connection) == expected(books, placed), f"seed {seed}"
                kept.append(await rows(connection, tables.outcomes))
                await connection.rollback()
        assert kept[0] == kept[1]
