"""Additive sums per route, day, epoch, arm, metric and hash bucket of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import DECISIONS, rollups
from policies.days import Day
from policies.rollups import ArmCounts, Cell, Sums

_KEY = ("route_id", "day_start_ms", "epoch", "arm_id", "metric", "bucket", "deciding", "late")
_SUMS = ("n", "sum", "sum_squares")

MOST_DAYS = 1_000
"""How many days are given at once."""


class RollupKey(NamedTuple):
    """Which sums. `deciding`: assigned by the split; `late`: came after its day was judged."""

    route_id: int
    day: Day
    epoch: int
    arm_id: int
    metric: str
    bucket: int
    deciding: bool
    late: bool


class DailySums(NamedTuple):
    """One day's sums of one arm and metric, over epochs and buckets."""

    day_start_ms: int
    day: str
    arm_id: int
    metric: str
    deciding: bool
    late: bool
    sums: Sums


async def add(connection: AsyncConnection, deltas: Mapping[RollupKey, Sums]) -> None:
    """Add to the sums; what is not there yet starts at nothing."""
    if not deltas:
        return
    statement = upsert(connection, rollups)
    grown = {name: rollups.c[name] + statement.excluded[name] for name in _SUMS}
    rows = [_row(key, sums) for key, sums in deltas.items()]
    await connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=grown), rows)


async def evidence_cells(
    connection: AsyncConnection,
    route_id: int,
    metric: str,
    arms: Mapping[int, str],
    since_epoch: int,
    through_ms: int,
) -> list[Cell]:
    """The metric's sums that may decide: by the split, in time, of these arms (id → name), in this period.

    From epoch `since_epoch` on, of days that end by `through_ms`.
    """
    query = select(rollups).where(
        *_evidence(route_id, metric, arms),
        rollups.c.epoch >= since_epoch,
        rollups.c.day_end_ms <= through_ms,
    )
    return [_cell(row, arms) for row in (await connection.execute(query)).all()]


async def arm_counts(
    connection: AsyncConnection,
    route_id: int,
    metric: str,
    arms: Mapping[int, str],
    since_epoch: int,
    through_ms: int,
) -> dict[str, ArmCounts]:
    """Decisions, those served by their own arm, and those with an outcome of the metric; per arm name."""
    decisions = await evidence_cells(connection, route_id, DECISIONS, arms, since_epoch, through_ms)
    labelled = await evidence_cells(connection, route_id, metric, arms, since_epoch, through_ms)
    made, seen = _total(decisions), _total(labelled)
    return {
        arm: ArmCounts(
            decisions=made.get(arm, Sums()).n,
            served=round(made.get(arm, Sums()).total),
            labelled=seen.get(arm, Sums()).n,
        )
        for arm in arms.values()
    }


async def sums_since(
    connection: AsyncConnection, route_id: int, metric: str, arms: Mapping[int, str], since_epoch: int
) -> dict[int, dict[str, Sums]]:
    """The metric's sums of each allocation epoch from one on that has any: epoch → arm name → sums."""
    key = (rollups.c.epoch, rollups.c.arm_id)
    query = select(*key, *(func.sum(rollups.c[name]) for name in _SUMS)).where(
        *_evidence(route_id, metric, arms), rollups.c.epoch >= since_epoch
    )
    found: dict[int, dict[str, Sums]] = {}
    for row in (await connection.execute(query.group_by(*key))).all():
        sums = found.setdefault(row[0], dict.fromkeys(arms.values(), Sums()))
        sums[arms[row[1]]] = Sums(int(row[2]), float(row[3]), float(row[4]))
    return found


async def daily_sums(
    connection: AsyncConnection, route_id: int, from_ms: int, to_ms: int, limit: int = MOST_DAYS
) -> list[DailySums]:
    """Everything that was measured on the newest `limit` days that begin in [from_ms, to_ms]."""
    key = [rollups.c[name] for name in ("day_start_ms", "day", "arm_id", "metric", "deciding", "late")]
    sums = [func.sum(rollups.c[name]) for name in _SUMS]
    asked = (
        rollups.c.route_id == route_id,
        rollups.c.day_start_ms >= from_ms,
        rollups.c.day_start_ms <= to_ms,
    )
    starts = select(rollups.c.day_start_ms).where(*asked).distinct().order_by(rollups.c.day_start_ms.desc())
    days = list((await connection.scalars(starts.limit(limit))).all())
    if not days:
        return []
    query = select(*key, *sums).where(*asked, rollups.c.day_start_ms >= days[-1]).group_by(*key)
    rows = (await connection.execute(query)).all()
    return [DailySums._make((*row[:6], Sums(int(row[6]), float(row[7]), float(row[8])))) for row in rows]


def _evidence(route_id: int, metric: str, arms: Mapping[int, str]) -> Sequence[ColumnElement[bool]]:
    return (
        rollups.c.route_id == route_id,
        rollups.c.metric == metric,
        rollups.c.arm_id.in_(list(arms)),
        rollups.c.deciding.is_(True),
        rollups.c.late.is_(False),
    )


def _total(cells: Sequence[Cell]) -> dict[str, Sums]:
    totals: dict[str, Sums] = {}
    for cell in cells:
        totals[cell.arm] = totals.get(cell.arm, Sums()) + cell.sums
    return totals


def _cell(row: Any, arms: Mapping[int, str]) -> Cell:
    return Cell(
        day=Day(row.day_start_ms, row.day_end_ms, row.day),
        epoch=row.epoch,
        arm=arms[row.arm_id],
        bucket=row.bucket,
        sums=Sums(row.n, row.sum, row.sum_squares),
    )


def _row(key: RollupKey, sums: Sums) -> dict[str, object]:
    return {
        "route_id": key.route_id,
        "day_start_ms": key.day.start_ms,
        "day_end_ms": key.day.end_ms,
        "day": key.day.label,
        "epoch": key.epoch,
        "arm_id": key.arm_id,
        "metric": key.metric,
        "bucket": key.bucket,
        "deciding": key.deciding,
        "late": key.late,
        "n": sums.n,
        "sum": sums.total,
        "sum_squares": sums.squares,
    }
