"""What recorder tests stand on: a route in a database on disk, spools beside it, and what is in the books."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Table, select

from app.db import rollouts, tables
from app.db.decisions import SpoolMark, spool_mark
from app.db.migrate import migrate_database
from app.db.rollups import RollupKey
from app.db.routes import StoredRoute, insert_route, load_route
from app.db.session import Connection, Database
from app.db.timeline import Entry, Kind
from app.events.recorder import Recorder
from app.events.spool_reader import spool_id
from app.events.types import Event
from policies.days import Day
from policies.lifecycle import begin
from policies.metrics import Metric
from policies.rollups import Sums
from policies.spec import ArmSpec, RouteSpec
from policies.types import Aggregate, Missing
from policies.types import Kind as MetricKind
from routing.types import Match, Role
from tests.app.events.facts import write

SPEC = RouteSpec(
    name="bid",
    arms=(ArmSpec("old", "http://a", Role.CHAMPION), ArmSpec("new", "http://b")),
    weights={"old": 5_000, "new": 5_000},
    match=Match(path_prefix="/r/bid"),
    metrics=(
        Metric("conversion", MetricKind.BINARY),
        Metric("profit", MetricKind.CONTINUOUS, aggregate=Aggregate.SUM, missing=Missing.ZERO),
        Metric("latest", MetricKind.CONTINUOUS, aggregate=Aggregate.LAST),
        Metric("peak", MetricKind.CONTINUOUS, aggregate=Aggregate.MAX),
    ),
)


class Account(NamedTuple):
    """Which sums, over all days, epochs and hash buckets of units."""

    arm_id: int
    metric: str
    deciding: bool = True
    late: bool = False


@dataclass(frozen=True)
class Books:
    """A database with one route, the folder of its spools, and a recorder between them."""

    database: Database
    spools: Path
    route: StoredRoute

    @property
    def recorder(self) -> Recorder:
        """A recorder that has just started."""
        return Recorder(self.database, self.spools)

    def write(self, name: str, *events: Event) -> Path:
        """Writes events to the spool of a worker."""
        path = self.spools / f"{name}.db"
        write(path, *events)
        return path

    async def mark(self, name: str) -> SpoolMark:
        """How far the spool of a worker has been read."""
        async with self.database.read() as connection:
            return await spool_mark(connection, spool_id(self.spools / f"{name}.db"))

    async def accounts(self) -> dict[Account, Sums]:
        """All sums that are not zero."""
        async with self.database.read() as connection:
            return accounts(await cells(connection))

    async def rows(self, table: Table) -> list[Mapping[str, Any]]:
        """All rows of a table."""
        async with self.database.read() as connection:
            return await rows(connection, table)

    async def freeze(self, end_ms: int) -> None:
        """Says that the days that end by then have been judged."""
        async with self.database.transaction() as connection:
            route = await load_route(connection, self.route.name)
            await rollouts.save(connection, route, route.rollout, None, 0, frozen_through_ms=end_ms)


async def rows(connection: Connection, table: Table) -> list[Mapping[str, Any]]:
    """All rows of a table, by its key."""
    query = select(table).order_by(*table.primary_key.columns)
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def cells(connection: Connection) -> dict[RollupKey, Sums]:
    """All sums that are not zero, as they are kept."""
    found: dict[RollupKey, Sums] = {}
    for row in await rows(connection, tables.rollups):
        sums = Sums(row["n"], row["sum"], row["sum_squares"])
        if sums != Sums():
            key = {name: row[name] for name in RollupKey._fields if name != "day"}
            found[RollupKey(day=Day(row["day_start_ms"], row["day_end_ms"], row["day"]), **key)] = sums
    return found


def accounts(kept: Mapping[RollupKey, Sums]) -> dict[Account, Sums]:
    """The sums over days, epochs and hash buckets."""
    totals: dict[Account, Sums] = defaultdict(Sums)
    for key, sums in kept.items():
        totals[Account(key.arm_id, key.metric, key.deciding, key.late)] += sums
    return {account: sums for account, sums in totals.items() if sums != Sums()}


def values(*given: float) -> Sums:
    """The sums of these values."""
    return Sums(len(given), sum(given), sum(value * value for value in given))


async def open_books(folder: Path, template: Path) -> Books:
    """Books without entries; the first ones are migrated, and leave a template for the others to copy."""
    path = folder / "kingmaker.db"
    if not _copied(template, path):
        await migrate_database(f"sqlite:///{path}")
        shutil.copy(path, template)
    database = Database(f"sqlite:///{path}")
    async with database.transaction() as connection:
        route = await _route(connection, SPEC)
    (folder / "spools").mkdir()
    return Books(database, folder / "spools", route)


def _copied(template: Path, path: Path) -> bool:
    try:
        shutil.copy(template, path)
    except FileNotFoundError:
        return False
    return True


async def _route(connection: Connection, spec: RouteSpec) -> StoredRoute:
    route_id = await insert_route(connection, spec, 0)
    stored: Sequence[Mapping[str, Any]] = await rows(connection, tables.arms)
    arm_ids = {arm["name"]: arm["id"] for arm in stored}
    entry = Entry(Kind.ROUTE_CREATED, "tests", "")
    await rollouts.insert_rollout(connection, route_id, arm_ids, begin("old", spec.weights, 0), entry, 0)
    return await load_route(connection, spec.name)
