"""When does which job run? One loop: copy what the spools hold, judge what is due, learn from what is mature,
note which overrides have expired, tell the gateways."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from app.clock import now_ms
from app.db.errors import Conflict, DatabaseError, NotFound
from app.db.recorders import Mark, slowest
from app.db.routes import StoredRoute, load_routes
from app.db.session import Database
from app.events.recorder import Recorder
from app.jobs.evaluate import evaluate
from app.jobs.expire import expire, forget_matches
from app.jobs.learn import Learner

_log = logging.getLogger(__name__)

RECORD_SECONDS = 0.5
EVALUATE_SECONDS = 1.0
BEHIND_MS = 60_000
"""How far the record may be behind before it is said, and how often it is said then."""

FORGET_MS = 3_600_000
"""How often old matches of overrides are looked for: those of an hour become old together."""

TURN_BATCHES = 10
"""How much is learnt in one turn, of all routes together: the recorder is to have its turn, too."""

_JOBS = ("record", "evaluate", "learn", "expire", "publish")


@dataclass(slots=True)
class JobStatus:
    """What the jobs have done; all times Unix ms, 0: not yet."""

    recorded_at_ms: int = 0
    evaluated_at_ms: int = 0
    events: int = 0
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_JOBS, 0))


class Jobs:
    """Recorder, evaluator and learner of one installation, and who notes which overrides have expired.

    `publish` brings the gateways' snapshot up to date, and costs little when it is: it runs in every turn, so
    that a change whose author died before telling the gateways reaches them all the same. `is_last`: when the
    jobs are told to stop, the gateways that write to the data folder have ended.

    Mutable state: `status`; `_forgot_ms`, when all old matches of overrides had been forgotten;
    `_told_at_ms`, when it was last said that the record is behind.
    """

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        publish: Callable[[], Awaitable[object]],
        *,
        is_last: bool = False,
    ) -> None:
        self.status = JobStatus()
        self._is_last = is_last
        self._database = database
        self._recorder = Recorder(database, data_dir / "spools")
        self._learner = Learner(database)
        self._publish = publish
        self._forgot_ms = 0
        self._told_at_ms = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; then record once more, so that nothing waits for the next start."""
        while not stop.is_set():
            await self.turn()
            await _wait(stop, RECORD_SECONDS)
        if await self.record() and self._is_last:
            await self._leave()

    async def turn(self) -> None:
        """Record; evaluate, learn and expire if it is time; publish.

        What is not wholly recorded, of this folder's spools and of all others', is neither judged nor learnt
        from; guardrails judge all the same.
        """
        asked_at_ms = now_ms()
        await self.record()
        if not 0 <= asked_at_ms - self.status.evaluated_at_ms < EVALUATE_SECONDS * 1000:
            seen_through_ms = await self._seen_through()
            await self.evaluate(seen_through_ms)
            await self.learn(seen_through_ms)
            await self.expire()
        await self.publish()

    async def record(self) -> bool:
        """Copy what the spools hold; False when some of it could not be copied."""
        try:
            self.status.events += await self._recorder.drain()
        except Exception as error:  # noqa: BLE001 - the gateway must not end with the recorder
            self._failed("record", error)
            return False
        self.status.recorded_at_ms = now_ms()
        return True

    async def evaluate(self, seen_through_ms: int) -> None:
        """Judge what is due on every route. One that fails keeps its traffic, and the others are judged.

        `seen_through_ms`: all events before this moment are in the database; 0: who knows.
        """
        try:
            async with self._database.read() as connection:
                routes = await load_routes(connection)
        except DatabaseError as error:
            self._failed("evaluate", error)
            return
        for route in routes:
            if route.rollout.active_trials:
                await self._evaluate_route(route.name, seen_through_ms)
        self.status.evaluated_at_ms = now_ms()

    async def learn(self, seen_through_ms: int) -> None:
        """Learn from mature decisions, route by route in turn, until there are none or it is enough for now.

        One that fails learns nothing, and the others learn. `seen_through_ms` is as for `evaluate`.
        """
        try:
            waiting = deque(await self._learner.routes())
            batches = TURN_BATCHES
            while waiting and batches:
                route = waiting.popleft()
                if await self._learn_route(route, seen_through_ms):
                    waiting.append(route)
                    batches -= 1
            await self._learner.publish(now_ms())
        except Exception as error:  # noqa: BLE001 - nor with the learner
            self._failed("learn", error)

    async def expire(self) -> None:
        """Note which overrides have expired, and forget what is shown no more; what fails is tried again."""
        at_ms = now_ms()
        try:
            is_time = not 0 <= at_ms - self._forgot_ms < FORGET_MS
            if is_time and not await forget_matches(self._database, at_ms):
                self._forgot_ms = at_ms
            await expire(self._database, at_ms)
        except Exception as error:  # noqa: BLE001 - traffic does not depend on it
            self._failed("expire", error)

    async def publish(self) -> None:
        """Bring the gateways' snapshot up to date; what fails is tried again in the next turn."""
        try:
            await self._publish()
        except Exception as error:  # noqa: BLE001 - nor with the publisher
            self._failed("publish", error)

    async def _leave(self) -> None:
        try:
            await self._recorder.leave()
        except Exception as error:  # noqa: BLE001 - then others wait for this folder for a day
            self._failed("record", error)

    async def _seen_through(self) -> int:
        """All events before this moment are in the database; 0: who knows, as while it cannot be reached."""
        with contextlib.suppress(DatabaseError):
            async with self._database.read() as connection:
                mark = await slowest(connection)
            if mark is not None:
                self._tell_if_behind(mark)
                return mark.through_ms
        return 0

    def _tell_if_behind(self, mark: Mark) -> None:
        """Whoever waits for verdicts is to find out for whom."""
        at_ms = now_ms()
        is_behind = mark.through_ms < at_ms - BEHIND_MS
        if is_behind and not 0 <= at_ms - self._told_at_ms < BEHIND_MS:
            self._told_at_ms = at_ms
            fields = {
                "recorder": mark.recorder_id,
                "recorded_through_seconds_ago": (at_ms - mark.through_ms) // 1000,
                "heard_of_seconds_ago": (at_ms - mark.heard_at_ms) // 1000,
            }
            _log.warning("record_is_behind", extra={"fields": fields})

    async def _evaluate_route(self, name: str, seen_through_ms: int) -> None:
        try:
            await evaluate(self._database, name, seen_through_ms, now_ms())
        except (Conflict, NotFound):
            return  # somebody was faster: the next turn goes on from what they wrote
        except Exception as error:  # noqa: BLE001 - one route's trouble is not the others'
            self._failed("evaluate", error, route=name)

    async def _learn_route(self, route: StoredRoute, seen_through_ms: int) -> bool:
        try:
            return await self._learner.learn(route, seen_through_ms, now_ms())
        except (Conflict, NotFound):
            return False
        except Exception as error:  # noqa: BLE001 - as when it is evaluated
            self._failed("learn", error, route=route.name)
            return False

    def _failed(self, job: str, error: Exception, **fields: object) -> None:
        self.status.failures[job] += 1
        _log.error("job_failed", extra={"fields": {"job": job, "error": repr(error), **fields}})


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
