"""Decisions and outcomes, each once, and up to which sequence number of each spool they are here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Insert, bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import contexts, decisions, outcomes, spool_marks
from app.events.types import DecisionEvent, OutcomeEvent
from policies.metrics import Outcome
from routing.claims import Claims, decision_id

_IDS_A_QUERY = 500
_OBSERVED = ("served_arm_id", "status", "error", "latency_ms", "override_id", "considered_bp", "first_at_ms")


@dataclass(frozen=True, slots=True)
class SpoolMark:
    """How far a spool has been read, and how many of its events could not be used."""

    seq: int = 0
    conflicts: int = 0
    unreadable: int = 0


async def known_decisions(connection: AsyncConnection, ids: Collection[str]) -> dict[str, bool]:
    """Which of these decisions are here; True: complete, False: known from an outcome's token only."""
    known: dict[str, bool] = {}
    for some in chunks(sorted(ids)):
        query = select(decisions.c.id, decisions.c.complete).where(decisions.c.id.in_(some))
        known.update((row[0], row[1]) for row in (await connection.execute(query)).all())
    return known


async def insert_decisions(
    connection: AsyncConnection, events: Sequence[DecisionEvent], tokens: Sequence[Claims]
) -> None:
    """Write new decisions: whole ones, and those that only an outcome's token tells of."""
    whole = [{**_claimed(event.decision), **_observed(event)} for event in events]
    blank = {**dict.fromkeys(_OBSERVED), "complete": False}
    rows = [*whole, *({**_claimed(claims), **blank, **_kept(claims)} for claims in tokens)]
    if rows:
        await connection.execute(insert(decisions), rows)
    await insert_contexts(connection, events)


async def complete_decisions(connection: AsyncConnection, events: Sequence[DecisionEvent]) -> None:
    """Write what was observed of decisions that were known from a token only."""
    if not events:
        return
    change = update(decisions).where(decisions.c.id == bindparam("decision"))
    rows = [{"decision": decision_id(event.decision), **_observed(event)} for event in events]
    await connection.execute(change, rows)
    await insert_contexts(connection, events)


async def insert_contexts(connection: AsyncConnection, events: Sequence[DecisionEvent]) -> None:
    """Write the contexts of decisions that are here. Of several of a decision the first one stands.

    But what a worker has seen itself stands in place of what somebody has said of it, whichever came first.
    """
    told = [event for event in events if event.confirmed]
    statement = upsert(connection, contexts)
    seen = {name: statement.excluded[name] for name in ("schema_version", "features")}
    await _insert(statement.on_conflict_do_nothing(index_elements=["decision_id"]), connection, told)
    own = [event for event in events if not event.confirmed]
    await _insert(statement.on_conflict_do_update(index_elements=["decision_id"], set_=seen), connection, own)


async def _insert(statement: Insert, connection: AsyncConnection, events: Sequence[DecisionEvent]) -> None:
    rows = {
        decision_id(event.decision): {
            "decision_id": decision_id(event.decision),
            "route_id": event.decision.route_id,
            "schema_version": event.schema,
            "features": msgspec.json.encode(event.context).decode(),
        }
        for event in reversed(events)
        if event.context is not None
    }
    if rows:
        await connection.execute(statement, list(rows.values()))


async def known_outcomes(
    connection: AsyncConnection, decision_ids: Collection[str]
) -> dict[tuple[str, str], dict[str, Outcome]]:
    """The outcomes of these decisions: (decision, metric) → key → outcome."""
    known: dict[tuple[str, str], dict[str, Outcome]] = defaultdict(dict)
    for some in chunks(sorted(decision_ids)):
        query = select(outcomes).where(outcomes.c.decision_id.in_(some))
        for row in (await connection.execute(query)).all():
            known[row.decision_id, row.metric][row.key] = Outcome(
                row.value, row.at_ms, row.received_at_ms, row.event
            )
    return known


async def write_outcomes(connection: AsyncConnection, events: Sequence[tuple[OutcomeEvent, str]]) -> None:
    """Write the outcomes that stand from now on, each with its event's place in the log."""
    rows = [
        {
            "decision_id": decision_id(event.decision),
            "metric": event.metric,
            "key": event.key,
            "value": event.value,
            "at_ms": event.at_ms,
            "received_at_ms": event.received_at_ms,
            "event": place,
        }
        for event, place in events
    ]
    if not rows:
        return
    statement = upsert(connection, outcomes)
    newer = {name: statement.excluded[name] for name in ("value", "at_ms", "received_at_ms", "event")}
    identity = ["decision_id", "metric", "key"]
    await connection.execute(statement.on_conflict_do_update(index_elements=identity, set_=newer), rows)


async def spool_mark(connection: AsyncConnection, spool_id: str) -> SpoolMark:
    """How far a spool has been read."""
    query = select(spool_marks).where(spool_marks.c.spool_id == spool_id).with_for_update()
    row = (await connection.execute(query)).first()
    return SpoolMark(row.seq, row.conflicts, row.unreadable) if row else SpoolMark()


async def total_mark(connection: AsyncConnection) -> SpoolMark:
    """How much of all spools has been read, and how much of it could not be used."""
    totals = [func.coalesce(func.sum(spool_marks.c[name]), 0) for name in ("seq", "conflicts", "unreadable")]
    row = (await connection.execute(select(*totals))).one()
    return SpoolMark(*(int(total) for total in row))


async def set_spool_mark(connection: AsyncConnection, spool_id: str, mark: SpoolMark) -> None:
    """Note how far a spool has been read."""
    values = {"seq": mark.seq, "conflicts": mark.conflicts, "unreadable": mark.unreadable}
    statement = upsert(connection, spool_marks).values(spool_id=spool_id, **values)
    await connection.execute(statement.on_conflict_do_update(index_elements=["spool_id"], set_=values))


def _claimed(claims: Claims) -> dict[str, object]:
    return {
        "id": decision_id(claims),
        "route_id": claims.route_id,
        "assigned_arm_id": claims.arm_id,
        "epoch": claims.epoch,
        "snapshot": claims.snapshot,
        "reason": claims.reason.value,
        "propensity_bp": claims.propensity_bp,
        "unit_hash": f"{claims.unit_hash:016x}" if claims.has_unit else None,
        "at_ms": claims.at_ms,
    }


def _kept(claims: Claims) -> dict[str, object]:
    """Of a kept arm a token does not say since when: at the latest since the decision."""
    return {"first_at_ms": claims.at_ms} if claims.is_kept else {}


def _observed(event: DecisionEvent) -> dict[str, object]:
    return {
        "served_arm_id": event.served_arm_id,
        "status": event.status,
        "error": event.error,
        "latency_ms": event.latency_ms,
        "override_id": event.override_id,
        "considered_bp": event.considered_bp,
        "first_at_ms": event.first_at_ms,
        "complete": True,
    }


def chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """The ids, as many at a time as one query takes."""
    for start in range(0, len(ids), _IDS_A_QUERY):
        yield ids[start : start + _IDS_A_QUERY]
