"""What have mature decisions taught each route's bandit, and when are gateways told?

The decisions that were learnt from are removed in one transaction with the sums that follow, and only if
nobody else has learnt meanwhile: a learner that dies, or that another one overtakes, has written nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from app.db import bandits, pending
from app.db.bandits import BanditState
from app.db.routes import StoredRoute, load_by_id, load_routes
from app.db.session import Connection, Database
from app.db.timeline import Entry, Kind
from policies.lessons import Knowledge, Lessons, Mature, lessons_of
from routing.errors import BadModel

LEARNER = "learner"
"""The actor of what the learner does by itself."""

BATCH_DECISIONS = 2_000

CHECK_MS = 10_000
"""How often what is known of a route is read to see whether it is whole, when there is nothing to learn."""

REPAIR_MS = 60_000
"""What is damaged again within that time after it was begun anew is left to people until then."""

TELL_MS = 60_000
"""How often they are told of it."""


@dataclass(frozen=True, slots=True)
class _Lecture:
    """What a learner has read: how far a bandit is, what it knows, and the decisions that come next."""

    state: BanditState
    known: Knowledge
    decisions: dict[str, Mature]
    is_last: bool


class Learner:
    """The learner of one installation; several do no harm. It learns from `batch` decisions at a time.

    Mutable state: `_last`, the id of the route that was taught last, so that others are first next time;
    `_checked_at_ms`, when what is known of each route was last read; `_told_at_ms`, when it was last said
    that a route's state is damaged.
    """

    def __init__(self, database: Database, batch: int = BATCH_DECISIONS) -> None:
        self._database = database
        self._batch = batch
        self._last = 0
        self._checked_at_ms: dict[int, int] = {}
        self._told_at_ms: dict[int, int] = {}

    async def routes(self) -> list[StoredRoute]:
        """The routes that have a bandit, in turn. What was learnt for others is forgotten.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.read() as connection:
            routes = await _with_bandits(connection)
            has_others = await bandits.has_others(connection, [route.id for route in routes])
        if has_others:
            async with self._database.transaction() as connection:
                present = await _with_bandits(connection)
                await bandits.forget_others(connection, [route.id for route in present])
        return sorted(routes, key=lambda route: (route.id <= self._last, route.id))

    async def learn(self, route: StoredRoute, seen_through_ms: int, now_ms: int) -> bool:
        """Learn from a batch of a route's mature decisions; True when there may be more.

        What was learnt under another declaration is forgotten first; then the log is laid out, part by part,
        and learnt anew when all of it is. `seen_through_ms`: all events before this moment are in the
        database; 0: who knows.

        Raises:
            BadModel: what is known is damaged: the log is learnt anew, or, if that has been tried a moment
                ago, gateways know nothing now. That is raised once, and then once a minute.
            Conflict: somebody else has learnt meanwhile; nothing was written.
        """
        lessons = lessons_of(route.spec)
        if lessons is None:
            return False
        self._last = route.id
        async with self._database.read() as connection:
            state = await bandits.find_state(connection, route.id)
        if state is None or state.meaning != lessons.meaning:
            return await self._begin(route, lessons, now_ms)
        try:
            bandits.check(state)
            if state.refill is not None:
                return await self._lay_out(route, lessons, state)
            lecture = await self._prepare(route, lessons, seen_through_ms, now_ms)
        except BadModel as error:
            return await self._damaged(route, lessons, state, error, now_ms)
        return lecture is not None and await self._teach(route, lessons, lecture, now_ms)

    async def publish(self, now_ms: int) -> None:
        """Have gateways told what was learnt, if it is time.

        Raises:
            DatabaseUnavailable: the database cannot be reached.
        """
        async with self._database.read() as connection:
            if not await bandits.is_news(connection, now_ms):
                return
        async with self._database.transaction() as connection:
            await bandits.publish(connection, now_ms)

    async def _begin(self, route: StoredRoute, lessons: Lessons, now_ms: int) -> bool:
        """False when the route has been declared otherwise meanwhile: the next turn knows how."""
        async with self._database.transaction() as connection:
            if not await _is_declared(connection, route, lessons):
                return False
            await bandits.begin(connection, route, lessons, now_ms)
        return True

    async def _lay_out(self, route: StoredRoute, lessons: Lessons, state: BanditState) -> bool:
        async with self._database.transaction() as connection:
            await bandits.refill(connection, route, lessons, state)
        return True

    async def _prepare(
        self, route: StoredRoute, lessons: Lessons, seen_through_ms: int, now_ms: int
    ) -> _Lecture | None:
        """What is to be learnt, as one state of the database; None when that is nothing."""
        async with self._database.read() as connection:
            state = await bandits.find_state(connection, route.id)
            if state is None or state.meaning != lessons.meaning or state.refill is not None:
                return None
            found = await pending.due(connection, route.id, seen_through_ms, self._batch)
            is_last = len(found) < self._batch and seen_through_ms > 0
            has_news = bool(found) or (is_last and not state.caught_up)
            if not has_news and self._is_checked(route.id, now_ms):
                return None
            arm_ids = set(route.arm_ids.values())
            known = await bandits.load_knowledge(connection, state, arm_ids, lessons.width)
        self._checked_at_ms[route.id] = now_ms
        self._told_at_ms.pop(route.id, None)
        return _Lecture(state, known, found, is_last) if has_news else None

    async def _teach(self, route: StoredRoute, lessons: Lessons, lecture: _Lecture, now_ms: int) -> bool:
        decisions, arm_ids = list(lecture.decisions.values()), set(route.arm_ids.values())
        known, changed = await asyncio.to_thread(lessons.learn, lecture.known, decisions, arm_ids)
        async with self._database.transaction() as connection:
            await bandits.save(
                connection,
                lecture.state,
                known,
                changed,
                list(lecture.decisions),
                caught_up=lecture.is_last,
                now_ms=now_ms,
            )
        return not lecture.is_last

    async def _damaged(
        self, route: StoredRoute, lessons: Lessons, state: BanditState, error: BadModel, now_ms: int
    ) -> bool:
        """What cannot be used is made anew, or distrusted; False where there is nothing new to say of it.

        Raises:
            BadModel: what is damaged, and what is done about it.
        """
        if await self._repair(route, lessons, error, now_ms):
            raise BadModel(f"{error}; the log is learnt anew") from error
        async with self._database.transaction() as connection:
            await bandits.distrust(connection, state)
        if 0 <= now_ms - self._told_at_ms.get(route.id, -TELL_MS) < TELL_MS:
            return False
        self._told_at_ms[route.id] = now_ms
        raise BadModel(f"{error}; the champion answers; {bandits.remedy(route.name)}") from error

    async def _repair(self, route: StoredRoute, lessons: Lessons, error: BadModel, now_ms: int) -> bool:
        """Begin anew, unless that was done just now, or the route learns in another way by now."""
        async with self._database.transaction() as connection:
            state = await bandits.find_state(connection, route.id)
            was_just_begun = state is not None and 0 <= now_ms - state.begun_at_ms < REPAIR_MS
            if was_just_begun or not await _is_declared(connection, route, lessons):
                return False
            entry = Entry(Kind.BANDIT_REBUILT, LEARNER, f"what was learnt is damaged: {error}")
            await bandits.rebuild(connection, route, lessons, entry, now_ms)
        return True

    def _is_checked(self, route_id: int, now_ms: int) -> bool:
        return 0 <= now_ms - self._checked_at_ms.get(route_id, 0) < CHECK_MS


async def _with_bandits(connection: Connection) -> list[StoredRoute]:
    return [route for route in await load_routes(connection) if route.spec.bandit is not None]


async def _is_declared(connection: Connection, route: StoredRoute, lessons: Lessons) -> bool:
    """Whether a route still learns in this way."""
    present = (await load_by_id(connection, (route.id,))).get(route.id)
    wanted = None if present is None else lessons_of(present.spec)
    return wanted is not None and wanted.meaning == lessons.meaning
