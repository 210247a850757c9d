"""Copies events from spools to SQL: each takes effect once, however often it is read.

A batch, its differences to the rollups and the spool's mark are written in one transaction. When a folder has
been read to its end, it is noted that everything before that is in the database.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.clock import now_ms
from app.db import bandits, decisions, overrides, recorders, rollups, shadows
from app.db.routes import StoredRoute, hold_by_id
from app.db.session import Connection, Database
from app.events.spool import SpoolError
from app.events.spool_reader import Batch, acknowledge, read_batch, spool_id
from app.events.tally import Tally
from app.events.types import DecisionEvent, Event, OutcomeEvent, ShadowEvent
from policies.metrics import Outcome
from routing.claims import Claims, decision_id

BATCH_EVENTS = 2_000

NOTE_MS = 1_000
"""How often it is noted up to when everything is recorded."""

MOST_OUTCOMES = 1_000
"""Outcomes of one metric that a decision may have; more have no effect, and are counted."""

_ID = re.compile("[0-9a-f]{32}")


class Recorder:
    """Reads all spools of a folder into one database.

    Mutable state: `_id`, that of the folder, once it was read; `_noted_ms`, up to when it was last said to be
    recorded.
    """

    def __init__(self, database: Database, spools: Path, clock: Callable[[], int] = now_ms) -> None:
        self._database = database
        self._spools = spools
        self._clock = clock
        self._id: str | None = None
        self._noted_ms = 0

    async def drain(self) -> int:
        """Copy everything that the spools held when asked; gives the number of events.

        Raises:
            SpoolError: a spool cannot be read; the others were copied.
            DatabaseUnavailable: nothing of the batch in hand was written.
        """
        asked_at_ms = self._clock()
        since_ms = asked_at_ms - self._noted_ms
        if not 0 <= since_ms < recorders.GONE_MS // 2:
            await self._note(asked_at_ms, None)
        copied, broken = await self._drain_all()
        if broken is not None:
            await self._note(asked_at_ms, None)
            raise broken
        if not 0 <= since_ms < NOTE_MS:
            await self._note(asked_at_ms, asked_at_ms)
            self._noted_ms = asked_at_ms
        return copied

    async def leave(self) -> None:
        """Copy the rest; then nobody need wait for this folder, to which no gateway writes any more.

        Raises:
            SpoolError, DatabaseUnavailable: as `drain`; others wait for the folder as before.
        """
        await self.drain()
        if self._id is not None:
            async with self._database.transaction() as connection:
                await recorders.forget(connection, self._id)

    async def _drain_all(self) -> tuple[int, SpoolError | None]:
        """How many events were copied, and what is wrong with the last spool that could not be read."""
        copied = 0
        broken: SpoolError | None = None
        for path in sorted(self._spools.glob("*.db")):
            try:
                copied += await self.drain_spool(path)
            except SpoolError as error:
                broken = error
        return copied, broken

    async def drain_spool(self, path: Path) -> int:
        """As `drain`, for one spool; what comes while it is copied waits for the next time."""
        batch = await self._copy_batch(path)
        asked_for, copied = batch.newest_seq, len(batch.events)
        while batch.events and batch.last_seq < asked_for:
            batch = await self._copy_batch(path)
            copied += len(batch.events)
        return copied

    async def _note(self, at_ms: int, through_ms: int | None) -> None:
        if self._id is None:
            self._id = await asyncio.to_thread(_identity, self._spools)
        async with self._database.transaction() as connection:
            await recorders.note(connection, self._id, at_ms, through_ms)

    async def _copy_batch(self, path: Path) -> Batch:
        identity = await asyncio.to_thread(spool_id, path)
        async with self._database.read() as connection:
            mark = await decisions.spool_mark(connection, identity)
        batch = await asyncio.to_thread(read_batch, path, mark.seq, BATCH_EVENTS)
        if batch.events:
            async with self._database.transaction() as connection:
                await _record_once(connection, batch)
        await asyncio.to_thread(acknowledge, path, identity, max(mark.seq, batch.last_seq))
        return batch


def _identity(spools: Path) -> str:
    """The id of a folder of spools, which it gets when it is read for the first time."""
    path = spools / "recorder.id"
    try:
        if path.exists() and _ID.fullmatch(known := path.read_text(errors="replace")):
            return known
        spools.mkdir(parents=True, exist_ok=True)
        new = uuid.uuid4().hex
        draft = spools / f"{new}.new"
        draft.write_text(new)
        draft.replace(path)
        return path.read_text()
    except (OSError, ValueError) as error:
        raise SpoolError(f"cannot tell which folder {spools} is: {error}") from error


async def _record_once(connection: Connection, batch: Batch) -> None:
    """Write what of a batch lies above the spool's mark, and move the mark."""
    mark = await decisions.spool_mark(connection, batch.spool_id)
    fresh = batch.events[max(0, mark.seq + 1 - batch.first_seq) :]
    if not fresh:
        return
    places = range(batch.last_seq - len(fresh) + 1, batch.last_seq + 1)
    counts = await record(connection, list(zip(fresh, places, strict=True)), batch.spool_id)
    moved = decisions.SpoolMark(
        batch.last_seq, mark.conflicts + counts.conflicts, mark.unreadable + counts.unreadable
    )
    await decisions.set_spool_mark(connection, batch.spool_id, moved)


@dataclass(slots=True)
class Counts:
    """Events without effect: repeats with another value; those not to be attributed, or too many."""

    conflicts: int = 0
    unreadable: int = 0


async def record(connection: Connection, events: Sequence[tuple[Event | None, int]], spool: str) -> Counts:
    """Write decisions, outcomes, what they add to the rollups, and shadow copies.

    Events come with their sequence numbers.
    """
    readable = [(event, seq) for event, seq in events if event is not None]
    routes = await hold_by_id(connection, {event.decision.route_id for event, _ in readable})
    usable = [(event, seq) for event, seq in readable if event.decision.route_id in routes]
    entry = _Entry(routes, Tally(), Counts(unreadable=len(events) - len(usable)))
    made = [event for event, _ in usable if isinstance(event, DecisionEvent)]
    told = [(event, f"{spool}:{seq:016d}") for event, seq in usable if isinstance(event, OutcomeEvent)]
    tokens = [event.decision for event, _ in usable if isinstance(event, OutcomeEvent) or _is_bare(event)]
    await _write_decisions(connection, entry, [event for event in made if not _is_bare(event)], tokens)
    await decisions.insert_contexts(connection, [event for event in made if _is_bare(event)])
    await _write_outcomes(connection, entry, told)
    await shadows.insert_answers(connection, [event for event, _ in usable if isinstance(event, ShadowEvent)])
    await rollups.add(connection, entry.tally.deltas)
    return entry.counts


@dataclass(slots=True)
class _Entry:
    """One batch on its way into the books."""

    routes: dict[int, StoredRoute]
    tally: Tally
    counts: Counts = field(default_factory=Counts)


async def _write_decisions(
    connection: Connection, entry: _Entry, made: Sequence[DecisionEvent], tokens: Iterable[Claims]
) -> None:
    events = {decision_id(event.decision): event for event in reversed(made)}
    claims = {decision_id(claim): claim for claim in tokens}
    known = await decisions.known_decisions(connection, {*events, *claims})
    new = [event for key, event in events.items() if key not in known]
    completed = [event for key, event in events.items() if known.get(key) is False]
    token_only = [claim for key, claim in claims.items() if key not in known and key not in events]
    await decisions.insert_decisions(connection, new, token_only)
    await decisions.complete_decisions(connection, completed)
    await overrides.note_matches(connection, _pinned([*new, *completed]))
    decided = [*(event.decision for event in new), *token_only]
    await bandits.note_decisions(connection, entry.routes, decided)
    for claim in decided:
        entry.tally.decided(entry.routes[claim.route_id], claim)
    for event in [*new, *completed]:
        entry.tally.observed(entry.routes[event.decision.route_id], event)


def _is_bare(event: Event) -> bool:
    """Whether nothing was observed of it: it was only asked for, or confirmed, with a context or without.

    What more there is may come later, or may be here already, from another worker: it is not overwritten.
    """
    return isinstance(event, DecisionEvent) and event == DecisionEvent(
        decision=event.decision,
        served_arm_id=None,
        status=None,
        error=None,
        latency_ms=None,
        schema=event.schema,
        context=event.context,
        confirmed=event.confirmed,
    )


def _pinned(events: Sequence[DecisionEvent]) -> list[tuple[int, int]]:
    """By which override, and when."""
    found = [(event.override_id, event.decision.at_ms) for event in events]
    return [(override_id, at_ms) for override_id, at_ms in found if override_id is not None]


async def _write_outcomes(
    connection: Connection, entry: _Entry, told: Sequence[tuple[OutcomeEvent, str]]
) -> None:
    known = await decisions.known_outcomes(connection, {decision_id(event.decision) for event, _ in told})
    standing: dict[tuple[str, str, str], tuple[OutcomeEvent, str]] = {}
    for event, place in told:
        decision = decision_id(event.decision)
        siblings = known[decision, event.metric]
        if len(siblings) >= MOST_OUTCOMES and event.key not in siblings:
            entry.counts.unreadable += 1
            continue
        outcome = Outcome(event.value, event.at_ms, event.received_at_ms, place)
        if (rival := siblings.get(event.key)) is not None:
            entry.counts.conflicts += rival.value != outcome.value
            if _received(rival) <= _received(outcome):
                continue
        before = list(siblings.values())
        siblings[event.key] = outcome
        _count_outcome(entry, event, before, list(siblings.values()))
        standing[decision, event.metric, event.key] = (event, place)
    await decisions.write_outcomes(connection, list(standing.values()))


def _received(outcome: Outcome) -> tuple[int, str]:
    """Of repeats, the smallest stands: the one received first, then the smallest event."""
    return outcome.received_at_ms, outcome.event


def _count_outcome(
    entry: _Entry, event: OutcomeEvent, before: Sequence[Outcome], after: Sequence[Outcome]
) -> None:
    route = entry.routes[event.decision.route_id]
    if (metric := route.spec.metric(event.metric)) is not None:
        entry.tally.outcome(route, event.decision, metric, before, after)
