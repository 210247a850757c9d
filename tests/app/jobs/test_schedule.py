"""One loop records, judges and tells the gateways; what fails is counted, and holds up nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
from sqlalchemy import update

from app.clock import now_ms
from app.db import overrides, recorders, rollups, tables
from app.db.errors import DatabaseUnavailable
from app.db.overrides import StoredOverride, insert_override
from app.db.routes import StoredRoute
from app.db.session import Connection, Database
from app.db.tables import DECISIONS
from app.db.timeline import Kind
from app.events.spool import Spool
from app.events.types import DecisionEvent
from app.jobs import expire, schedule
from app.jobs.schedule import FORGET_MS, Jobs
from policies.lifecycle import pause
from policies.types import Phase
from routing.claims import Claims
from routing.errors import BadSnapshot
from routing.types import Reason
from tests.app.db.stage import (
    DAY_MS,
    HOUR_MS,
    QUICK,
    START_MS,
    due_ms,
    evaluations_of,
    fill,
    get_route,
    put_route,
    route_spec,
    row_counts,
    save,
    timeline_of,
    until,
)

QUIET = {"old": (1_000, 0), "new": (1_000, 0)}
BAD = {"old": 0, "new": 500}
NO_FAILURES = {"record": 0, "evaluate": 0, "learn": 0, "expire": 0, "publish": 0}


async def put_present(
    database: Database, name: str = "ads", zone: str = "UTC", days_ago: int = 0
) -> StoredRoute:
    """A new route as of now, or of some days ago: the loop goes by the real clock."""
    policy = replace(QUICK, timezone=zone)
    return await put_route(database, route_spec(name, policy=policy), now_ms() - days_ago * DAY_MS)


class Gateways:
    """Whom `publish` tells; `error` is what telling them raises."""

    def __init__(self) -> None:
        self.told = 0
        self.error: Exception | None = None

    async def publish(self) -> None:
        """Count, or fail."""
        if self.error is not None:
            raise self.error
        self.told += 1


class Broken(Database):
    """A database that cannot be reached while `broken`."""

    broken = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """The same, or nothing."""
        if self.broken:
            raise DatabaseUnavailable("it is gone")
        async with super().read() as connection:
            yield connection


@pytest.fixture
def gateways() -> Gateways:
    """Gateways that listen."""
    return Gateways()


@pytest.fixture
def jobs(database: Database, tmp_path: Path, gateways: Gateways) -> Jobs:
    """The jobs of a data folder."""
    return Jobs(database, tmp_path, gateways.publish)


def spool_up(path: Path, route: StoredRoute, count: int) -> None:
    """A worker's spool with decisions of the challenger, as after a night without a recorder."""
    spool = Spool(path)
    arm = route.arm_ids["new"]
    for number in range(count):
        nonce = crc32(path.name.encode()) + number
        claims = Claims(route.id, arm, 0, False, Reason.SPLIT, 1_000, 1, 1, START_MS + number, nonce)
        event = DecisionEvent(decision=claims, served_arm_id=arm, status=200, error=False, latency_ms=1.0)
        spool.append(event)
    spool.close()


async def recorded(database: Database, route: StoredRoute) -> int:
    """How many decisions of the challenger are in the rollups."""
    arms = {route.arm_ids["new"]: "new"}
    async with database.read() as connection:
        found = await rollups.sums_since(connection, route.id, DECISIONS, arms, 1)
    return found[1]["new"].n if found else 0


async def test_a_turn_records_judges_and_tells(
    database: Database, jobs: Jobs, gateways: Gateways, tmp_path: Path
) -> None:
    """One turn copies what the spools hold, acts on what is due, and then tells the gateways; the status says
    when, and how many events there were."""
    route = await put_present(database)
    await fill(database, route, 0, QUIET, errors=BAD)
    spool_up(tmp_path / "spools" / "a.db", route, 3)
    spool_up(tmp_path / "spools" / "b.db", route, 4)
    before_ms = now_ms()
    await jobs.turn()
    assert await recorded(database, route) == 1_007
    assert (await get_route(database)).rollout.phase is Phase.ROLLED_BACK
    assert (gateways.told, jobs.status.events, jobs.status.failures) == (1, 7, NO_FAILURES)
    assert before_ms <= jobs.status.recorded_at_ms <= jobs.status.evaluated_at_ms <= now_ms()


async def test_turns_in_a_row_judge_once_a_second(
    database: Database, jobs: Jobs, gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judging waits until it is time again; recording and telling do not."""
    just_now_ms = now_ms()
    jobs.status.evaluated_at_ms = just_now_ms
    with monkeypatch.context() as patient:
        patient.setattr(schedule, "EVALUATE_SECONDS", 600.0)  # however slow the machine is
        await jobs.turn()
    assert (jobs.status.evaluated_at_ms, gateways.told) == (just_now_ms, 1)
    assert jobs.status.recorded_at_ms > 0
    a_second_ago_ms = now_ms() - 1_000
    jobs.status.evaluated_at_ms = a_second_ago_ms
    await jobs.turn()
    assert (jobs.status.evaluated_at_ms > a_second_ago_ms, gateways.told) == (True, 2)


async def test_a_clock_that_was_set_back_stops_nothing(database: Database, jobs: Jobs) -> None:
    """What was judged in an hour to come was judged before the clock was mended."""
    ahead_ms = now_ms() + 3_600_000
    jobs.status.evaluated_at_ms = ahead_ms
    await jobs.turn()
    assert jobs.status.evaluated_at_ms < ahead_ms


async def test_who_holds_the_record_back_is_said_once_a_minute(
    database: Database, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """Another machine's recorder, not heard of for two minutes; nothing is said of who is here."""
    await jobs.turn()
    async with database.transaction() as connection:
        await recorders.note(connection, "f" * 32, now_ms() - 120_000, now_ms() - 180_000)
    for _ in range(2):
        jobs.status.evaluated_at_ms = 0
        await jobs.turn()
    (said,) = [record for record in caplog.records if record.message == "record_is_behind"]
    fields = said.fields  # type: ignore[attr-defined]  # as our log has them
    assert (fields["recorder"], fields["recorded_through_seconds_ago"] // 10) == ("f" * 32, 18)


async def test_nothing_is_judged_on_what_was_not_recorded(
    database: Database, jobs: Jobs, gateways: Gateways, tmp_path: Path
) -> None:
    """While a spool cannot be read, no day is judged, for its events may be missing; the gateways are told of
    what others have changed all the same. Once it can be read again, judging goes on."""
    route = await put_present(database, days_ago=3)
    spool_up(tmp_path / "spools" / "a.db", route, 3)
    broken = tmp_path / "spools" / "b.db"
    broken.write_bytes(b"this is no database file" * 50)
    await jobs.turn()
    assert (jobs.status.failures["record"], gateways.told) == (1, 1)
    assert await evaluations_of(database, route) == []
    broken.unlink()
    jobs.status.evaluated_at_ms = 0
    await jobs.turn()
    assert await evaluations_of(database, route) != []
    assert jobs.status.failures == {**NO_FAILURES, "record": 1}


async def test_a_spool_that_breaks_later_leaves_what_was_recorded_before(
    database: Database, jobs: Jobs, tmp_path: Path
) -> None:
    """Of the days that had closed by then everything is known: they are judged."""
    await jobs.turn()
    route = await put_present(database, days_ago=3)
    broken = tmp_path / "spools" / "b.db"
    broken.write_bytes(b"this is no database file" * 50)
    jobs.status.evaluated_at_ms = 0
    await jobs.turn()
    assert jobs.status.failures == {**NO_FAILURES, "record": 1}
    assert await evaluations_of(database, route) != []


async def test_one_routes_failure_does_not_stop_the_others(
    database: Database, jobs: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    """A route in a time zone that no longer exists cannot be judged and keeps its traffic: that is counted
    and logged with the route's name, and the routes before and after it are judged."""
    for name in ("a", "b", "c"):
        route = await put_present(database, name, "Atlantis/Capital" if name == "b" else "UTC")
        if name != "b":
            await fill(database, route, 0, QUIET, errors=BAD)
    with caplog.at_level(logging.ERROR):
        await jobs.evaluate(START_MS)
    phases = [(await get_route(database, name)).rollout.phase for name in ("a", "b", "c")]
    assert phases == [Phase.ROLLED_BACK, Phase.TRIAL, Phase.ROLLED_BACK]
    assert jobs.status.failures == {**NO_FAILURES, "evaluate": 1}
    (record,) = caplog.records
    assert (record.message, record.__dict__["fields"]["route"]) == ("job_failed", "b")
    assert jobs.status.evaluated_at_ms > 0


async def test_who_was_slower_tries_again(database: Database, tmp_path: Path, gateways: Gateways) -> None:
    """A route that a person changes while it is judged is no failure: the next run judges what is there."""

    class Meddled(Database):
        meddle = True

        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[Connection]:
            if self.meddle:
                self.meddle = False
                route = await get_route(database)
                await save(database, route, pause(route.rollout), Kind.PAUSED)
            async with super().transaction() as connection:
                yield connection

    route = await put_present(database)
    await fill(database, route, 0, QUIET, errors=BAD)
    meddled = Meddled(database.engine.url.render_as_string(hide_password=False))
    jobs = Jobs(meddled, tmp_path, gateways.publish)
    await jobs.evaluate(START_MS)
    kinds = [entry.kind for entry in await timeline_of(database, route)]
    assert (kinds, jobs.status.failures) == ([Kind.ROUTE_CREATED, Kind.PAUSED], NO_FAILURES)
    await jobs.evaluate(START_MS)
    await meddled.close()
    kinds = [entry.kind for entry in await timeline_of(database, route)]
    assert (kinds[-1], jobs.status.failures) == (Kind.ROLLED_BACK, NO_FAILURES)


async def test_routes_where_nobody_is_on_trial_are_left_alone(database: Database, jobs: Jobs) -> None:
    """A route with a champion alone is not judged, and its version stays as it is."""
    route = await put_route(database, route_spec(weights={"old": 10_000, "new": 0}))
    await jobs.evaluate(due_ms(route, 9))
    assert await evaluations_of(database, route) == []
    assert await get_route(database) == route


async def test_a_database_that_is_away_is_counted_and_waited_for(
    database: Database, tmp_path: Path, gateways: Gateways
) -> None:
    """Without the database a turn fails at what needs it and ends; when it is back, so is everything."""
    route = await put_present(database)
    spool_up(tmp_path / "spools" / "a.db", route, 3)
    broken = Broken(database.engine.url.render_as_string(hide_password=False))
    jobs = Jobs(broken, tmp_path, gateways.publish)
    await jobs.turn()
    assert jobs.status.failures == {**NO_FAILURES, "record": 1, "evaluate": 1, "learn": 1, "expire": 1}
    assert (jobs.status.recorded_at_ms, jobs.status.evaluated_at_ms) == (0, 0)
    broken.broken = False
    await jobs.turn()
    await broken.close()
    assert (jobs.status.events, await recorded(database, route)) == (3, 3)
    assert jobs.status.evaluated_at_ms > 0


async def test_what_another_version_wrote_is_counted(database: Database, jobs: Jobs) -> None:
    """A route whose row cannot be read is a failure like any other, and does not end the loop."""
    route = await put_present(database)
    async with database.transaction() as connection:
        newer = update(tables.rollouts).values(state='{"champion": "old", "weights": "by magic"}')
        await connection.execute(newer.where(tables.rollouts.c.route_id == route.id))
    await jobs.turn()
    assert jobs.status.failures == {**NO_FAILURES, "evaluate": 1, "learn": 1}


async def test_a_turn_notes_what_has_expired(database: Database, jobs: Jobs, gateways: Gateways) -> None:
    """On the timeline, before it tells the gateways."""
    route = await put_present(database)
    async with database.transaction() as connection:
        old = StoredOverride(0, "new", route.arm_ids["new"], (), 1, 1, 1, "ann", "for a while", 0)
        await insert_override(connection, route.id, old)
    await jobs.turn()
    assert (await timeline_of(database, route))[-1].kind is Kind.OVERRIDE_EXPIRED
    assert (gateways.told, jobs.status.failures) == (1, NO_FAILURES)


async def test_matches_that_nobody_sees_are_forgotten_once_an_hour(
    database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some in a turn (here two), turn after turn until there are no more; then not before an hour is over."""
    monkeypatch.setattr(expire, "MOST_FORGOTTEN", 2)
    long_ago_ms = now_ms() - 3 * DAY_MS

    async def left(pinned: int = 0) -> int:
        async with database.transaction() as connection:
            times = [(9, long_ago_ms + number * HOUR_MS) for number in range(pinned)]
            await overrides.note_matches(connection, times)
        await jobs.expire()
        async with database.read() as connection:
            return (await row_counts(connection))["override_matches"]

    assert [await left(5), await left(), await left(), await left(3)] == [3, 1, 0, 3]
    jobs._forgot_ms -= FORGET_MS
    assert [await left(), await left()] == [1, 0]
    assert jobs.status.failures == NO_FAILURES


async def test_gateways_that_could_not_be_told_are_told_in_the_next_turn(
    jobs: Jobs, gateways: Gateways
) -> None:
    """A failure to publish is counted, and does not keep the next turn from trying again."""
    errors = (OSError("disk full"), DatabaseUnavailable("gone"), BadSnapshot("no champion"))
    for number, error in enumerate(errors, 1):
        gateways.error = error
        await jobs.turn()
        gateways.error = None
        await jobs.turn()
        assert (gateways.told, jobs.status.failures) == (number, {**NO_FAILURES, "publish": number})


async def test_the_last_thing_on_stop_is_to_record(database: Database, jobs: Jobs, tmp_path: Path) -> None:
    """Events that came after the last turn are copied before the loop ends."""
    route = await put_present(database)
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: jobs.status.evaluated_at_ms > 0)
    spool_up(tmp_path / "spools" / "late.db", route, 5)
    stop.set()
    await running
    assert (jobs.status.events, await recorded(database, route)) == (5, 5)


async def test_a_loop_that_is_told_to_stop_before_it_began_records_and_ends(
    database: Database, jobs: Jobs, gateways: Gateways, tmp_path: Path
) -> None:
    """Nothing but the final record happens."""
    route = await put_present(database)
    spool_up(tmp_path / "spools" / "a.db", route, 2)
    stop = asyncio.Event()
    stop.set()
    await jobs.run(stop)
    assert (jobs.status.events, jobs.status.evaluated_at_ms, gateways.told) == (2, 0, 0)


async def test_the_loop_does_not_wait_out_its_pause(jobs: Jobs, gateways: Gateways) -> None:
    """Between turns it can be stopped at once; without being stopped it takes turn after turn."""
    stop = asyncio.Event()
    running = asyncio.create_task(jobs.run(stop))
    await until(lambda: gateways.told >= 2)
    stop.set()
    await running
    assert jobs.status.failures == NO_FAILURES
