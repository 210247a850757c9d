"""What has each route's bandit learnt, and up to which version of that do gateways know?

It is saved by expected version: of two learners who read the same state, one is refused. So each reward
counts once, whoever crashes, and when.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import CursorResult, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import pending, timeline, versions
from app.db.errors import Conflict
from app.db.pending import Awaited, Refill
from app.db.routes import StoredRoute
from app.db.session import upsert
from app.db.tables import bandit_arms, bandits
from policies.lessons import TEACHING, Apprentice, Knowledge, Lessons, wait_ms
from routing.claims import Claims, decision_id
from routing.errors import BadModel
from routing.linear_model import Sums
from routing.types import Reason

PUBLISH_MS = 10_000
"""Gateways are told of what was learnt at most that often, but at once of what is the first of a route."""


@dataclass(frozen=True, slots=True)
class BanditState:
    """How far a route's bandit is. `caught_up`: since it began, all that was due has been learnt once.

    `learned_at_ms` is when it last learnt; 0: not yet. `published_version` is the version that gateways were
    told of, at `published_at_ms`; 0: they know nothing. `refill` is how far its log is laid out to be learnt
    anew; None: all of it. All is as it is stored, and may be damaged: `check` tells.
    """

    route_id: int
    version: int
    meaning: str
    begun_at_ms: int
    learned_at_ms: int
    caught_up: bool
    published_version: int
    published_at_ms: int
    unusable: int
    apprentice: str
    refill: str | None


async def find_states(connection: AsyncConnection, route_ids: Collection[int]) -> dict[int, BanditState]:
    """Those of these routes whose bandits have begun, by route id."""
    query = select(bandits).where(bandits.c.route_id.in_(route_ids))
    return {row.route_id: _state(row) for row in (await connection.execute(query)).all()}


async def find_state(connection: AsyncConnection, route_id: int) -> BanditState | None:
    """How far a route's bandit is; None before it has begun."""
    return (await find_states(connection, (route_id,))).get(route_id)


async def load_knowledge(
    connection: AsyncConnection, state: BanditState, arm_ids: Collection[int], width: int
) -> Knowledge:
    """What has been learnt of these arms.

    Raises:
        BadModel: what is stored cannot be what was learnt.
    """
    check(state)
    rows = (await sums_rows(connection, (state.route_id,))).get(state.route_id, {})
    sums = await asyncio.to_thread(sums_of, rows, arm_ids, width)
    return Knowledge(sums, state.unusable, _apprentice(state.apprentice))


def check(state: BanditState) -> None:
    """Refuse a state that no learner has written.

    Raises:
        BadModel: which part of it is damaged.
    """
    if state.version < 1:
        raise BadModel(f"version must be at least 1, got {state.version}")
    if state.unusable < 0:
        raise BadModel(f"unusable must be at least 0, got {state.unusable}")
    _apprentice(state.apprentice)
    if state.refill is not None:
        _refill(state.refill)


def remedy(route: str) -> str:
    """What to do about damage that is not made good by itself."""
    return f"kingmaker bandit rebuild {route} --reason TEXT learns the log anew"


async def sums_rows(connection: AsyncConnection, route_ids: Collection[int]) -> dict[int, dict[int, bytes]]:
    """The sums of each route's arms as they are stored: route id → arm id → bytes."""
    found: dict[int, dict[int, bytes]] = {}
    query = select(bandit_arms).where(bandit_arms.c.route_id.in_(route_ids), bandit_arms.c.sums.is_not(None))
    for row in (await connection.execute(query)).all():
        found.setdefault(row.route_id, {})[row.arm_id] = row.sums
    return found


def sums_of(rows: Mapping[int, bytes], arm_ids: Collection[int], width: int) -> dict[int, Sums]:
    """The sums of these arms, in the order of their ids.

    Raises:
        BadModel: bytes that are none.
    """
    found: dict[int, Sums] = {}
    for arm_id in sorted(arm_ids & rows.keys()):
        try:
            found[arm_id] = Sums.from_bytes(rows[arm_id], width)
        except BadModel as error:
            raise BadModel(f"sums of arm {arm_id} are damaged: {error}") from error
    return found


async def pulls(connection: AsyncConnection, route_id: int) -> dict[int, int]:
    """For how many decisions the bandit has chosen each arm, by id."""
    query = select(bandit_arms.c.arm_id, bandit_arms.c.pulls).where(bandit_arms.c.route_id == route_id)
    return {row[0]: row[1] for row in (await connection.execute(query)).all()}


async def note_decisions(
    connection: AsyncConnection, routes: Mapping[int, StoredRoute], new: Sequence[Claims]
) -> None:
    """Let the rewards be waited for of new decisions from which a bandit learns, and count what it chose."""
    waits = {
        route.id: wait_ms(route.spec, route.spec.bandit)
        for route in routes.values()
        if route.spec.bandit is not None
    }
    taught = [claims for claims in new if claims.route_id in waits and claims.reason in TEACHING]
    awaited = [
        Awaited(decision_id(claims), claims.route_id, claims.at_ms + waits[claims.route_id])
        for claims in taught
    ]
    await pending.add(connection, awaited)
    chosen = Counter((c.route_id, c.arm_id) for c in taught if c.reason is Reason.BANDIT)
    live = {(route.id, arm_id) for route in routes.values() for arm_id in route.arm_ids.values()}
    await _count_pulls(connection, {place: chosen[place] for place in sorted(chosen.keys() & live)})


async def begin(connection: AsyncConnection, route: StoredRoute, lessons: Lessons, now_ms: int) -> None:
    """Forget what a route's bandit has learnt, and begin to lay its log out anew: `refill` goes on with that.

    Raises:
        Conflict: somebody else changed it meanwhile.
    """
    locked = select(bandits).where(bandits.c.route_id == route.id).with_for_update()
    row = (await connection.execute(locked)).first()
    blank = {
        "meaning": lessons.meaning,
        "begun_at_ms": now_ms,
        "learned_at_ms": 0,
        "caught_up": False,
        "published_version": 0,
        "unusable": 0,
        "apprentice": _text(Apprentice()),
        "refill": None,
    }
    if row is None:
        first = insert(bandits).values(route_id=route.id, version=1, published_at_ms=0, **blank)
        await connection.execute(first)
    else:
        await _compare_and_set(connection, _state(row), blank)
    await _forget_sums(connection, route.id)
    await _lay_out(connection, route, lessons, pending.refill_from(now_ms))


async def refill(
    connection: AsyncConnection, route: StoredRoute, lessons: Lessons, state: BanditState
) -> None:
    """Lay out some more of a route's log, as `begin` began to.

    Raises:
        BadModel: how far it was is damaged.
        Conflict: somebody else changed it meanwhile.
    """
    place = _refill(state.refill or "")
    await _compare_and_set(connection, state, {})
    await _lay_out(connection, route, lessons, place)


async def rebuild(
    connection: AsyncConnection, route: StoredRoute, lessons: Lessons, entry: timeline.Entry, now_ms: int
) -> None:
    """As `begin`, with a row of the timeline. Until it has caught up the champion answers.

    Raises:
        Conflict: somebody else changed it meanwhile.
    """
    await begin(connection, route, lessons, now_ms)
    await timeline.append(connection, route.id, route.rollout, route.version, entry, now_ms)


async def distrust(connection: AsyncConnection, state: BanditState) -> None:
    """Have gateways told at once that a damaged state is not to be used, unless they know nothing of it.

    It counts as not caught up from then on: who mends it by hand has it told again when all is learnt.
    """
    mine = (bandits.c.route_id == state.route_id, bandits.c.version == state.version)
    is_used = bandits.c.caught_up | (bandits.c.published_version != 0)
    change = update(bandits).where(*mine, is_used).values(caught_up=False, published_version=0)
    if (await connection.execute(change)).rowcount:
        await versions.bump(connection)


async def save(
    connection: AsyncConnection,
    state: BanditState,
    known: Knowledge,
    changed: Collection[int],
    taken: Sequence[str],
    *,
    caught_up: bool,
    now_ms: int,
) -> None:
    """Write what is known after the decisions `taken`, of which arms it has `changed`: they wait no more.

    Raises:
        Conflict: somebody else has learnt meanwhile; the transaction must not be kept.
    """
    values = {
        "learned_at_ms": now_ms,
        "caught_up": state.caught_up or caught_up,
        "unusable": known.unusable,
        "apprentice": _text(known.apprentice),
    }
    await _compare_and_set(connection, state, values)
    if await pending.remove(connection, taken) != len(taken):
        raise Conflict(f"decisions of route {state.route_id} were learnt from by somebody else")
    rows = [
        {"route_id": state.route_id, "arm_id": arm_id, "pulls": 0, "sums": known.sums[arm_id].to_bytes()}
        for arm_id in sorted(changed)
    ]
    if rows:
        statement = upsert(connection, bandit_arms)
        newer = {"sums": statement.excluded.sums}
        identity = ["route_id", "arm_id"]
        await connection.execute(statement.on_conflict_do_update(index_elements=identity, set_=newer), rows)


async def forget_others(connection: AsyncConnection, route_ids: Collection[int]) -> None:
    """Forget what was learnt for routes other than these, which have a bandit, or a part of it.

    A bandit that is declared again before everything is forgotten finds a meaning that is not its own, and
    begins anew.
    """
    room = pending.STEP_DECISIONS
    for route_id in sorted(set(await _begun(connection)) - set(route_ids)):
        nothing = {"version": bandits.c.version + 1, "meaning": "", "caught_up": False}
        await connection.execute(update(bandits).where(bandits.c.route_id == route_id).values(nothing))
        room -= await pending.clear(connection, route_id, room)
        if room <= 0:
            return
        for table in (bandit_arms, bandits):
            await connection.execute(delete(table).where(table.c.route_id == route_id))


async def has_others(connection: AsyncConnection, route_ids: Collection[int]) -> bool:
    """Whether `forget_others` has something to do."""
    return not set(route_ids).issuperset(await _begun(connection))


async def is_news(connection: AsyncConnection, now_ms: int) -> bool:
    """Whether it is time that gateways are told what was learnt."""
    query = select(bandits.c.version, bandits.c.published_version, bandits.c.published_at_ms)
    rows = (await connection.execute(query.where(bandits.c.caught_up))).all()
    news = [row for row in rows if row.version != row.published_version]
    since_ms = now_ms - max((row.published_at_ms for row in rows), default=0)
    is_time = not 0 <= since_ms < PUBLISH_MS
    return any(is_time or not row.published_version for row in news)


async def publish(connection: AsyncConnection, now_ms: int) -> None:
    """Ask for a new snapshot, with all that was learnt since the last one, if that is anything."""
    told = (
        update(bandits)
        .where(bandits.c.caught_up, bandits.c.version != bandits.c.published_version)
        .values(published_version=bandits.c.version, published_at_ms=now_ms)
    )
    if (await connection.execute(told)).rowcount:
        await versions.bump(connection)


async def _begun(connection: AsyncConnection) -> Sequence[int]:
    return (await connection.scalars(select(bandits.c.route_id))).all()


async def _compare_and_set(
    connection: AsyncConnection, state: BanditState, values: Mapping[str, object]
) -> None:
    mine = (bandits.c.route_id == state.route_id, bandits.c.version == state.version)
    change = update(bandits).where(*mine).values(version=max(0, state.version) + 1, **values)
    result: CursorResult[Any] = await connection.execute(change)
    if result.rowcount != 1:
        raise Conflict(f"what is known of route {state.route_id} has changed since version {state.version}")


async def _lay_out(connection: AsyncConnection, route: StoredRoute, lessons: Lessons, place: Refill) -> None:
    further = await pending.refill(connection, route.id, wait_ms(route.spec, lessons.bandit), place)
    there = update(bandits).where(bandits.c.route_id == route.id)
    await connection.execute(there.values(refill=None if further is None else _text(further)))


async def _count_pulls(connection: AsyncConnection, chosen: Mapping[tuple[int, int], int]) -> None:
    rows = [
        {"route_id": route_id, "arm_id": arm_id, "pulls": n, "sums": None}
        for (route_id, arm_id), n in chosen.items()
    ]
    if not rows:
        return
    statement = upsert(connection, bandit_arms)
    grown = {"pulls": bandit_arms.c.pulls + statement.excluded.pulls}
    identity = ["route_id", "arm_id"]
    await connection.execute(statement.on_conflict_do_update(index_elements=identity, set_=grown), rows)


async def _forget_sums(connection: AsyncConnection, route_id: int) -> None:
    """Arms are locked in the order in which others lock them."""
    mine = bandit_arms.c.route_id == route_id
    locked = select(bandit_arms.c.arm_id).where(mine).order_by(bandit_arms.c.arm_id).with_for_update()
    await connection.execute(locked)
    await connection.execute(update(bandit_arms).where(mine).values(sums=None))


def _state(row: Row[Any]) -> BanditState:
    return BanditState(
        route_id=row.route_id,
        version=row.version,
        meaning=row.meaning,
        begun_at_ms=row.begun_at_ms,
        learned_at_ms=row.learned_at_ms,
        caught_up=row.caught_up,
        published_version=row.published_version,
        published_at_ms=row.published_at_ms,
        unusable=row.unusable,
        apprentice=row.apprentice,
        refill=row.refill,
    )


def _apprentice(text: str) -> Apprentice:
    try:
        return msgspec.json.decode(text, type=Apprentice)
    except msgspec.MsgspecError as error:
        raise BadModel(f"apprentice must be the totals of one, got {text!r}: {error}"[:500]) from error


def _refill(text: str) -> Refill:
    try:
        return msgspec.json.decode(text, type=Refill)
    except msgspec.MsgspecError as error:
        raise BadModel(f"refill must be a place in the log, got {text!r}: {error}"[:500]) from error


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
