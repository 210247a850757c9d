"""A route's rollout is saved by expected version: of two writers who read the same state, one is refused."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import timeline
from app.db.errors import Conflict
from app.db.routes import StoredRoute, placed
from app.db.tables import allocations, rollouts
from policies.lifecycle import Rollout
from routing.types import Share
from routing.weights import lay_out


async def insert_rollout(
    connection: AsyncConnection,
    route_id: int,
    arm_ids: dict[str, int],
    rollout: Rollout,
    entry: timeline.Entry,
    now_ms: int,
) -> None:
    """Write a new route's rollout, its first allocation and its first row of the timeline."""
    shares = _shares((), rollout, arm_ids)
    row = insert(rollouts).values(
        route_id=route_id, version=1, state=_text(rollout), shares=_text(shares), frozen_through_ms=0
    )
    await connection.execute(row)
    await _allocate(connection, route_id, rollout, arm_ids)
    await timeline.append(connection, route_id, rollout, 1, entry, now_ms)


async def save(
    connection: AsyncConnection,
    route: StoredRoute,
    rollout: Rollout,
    entry: timeline.Entry | None,
    now_ms: int,
    frozen_through_ms: int = 0,
) -> StoredRoute:
    """Write the next state of a route as it was read, and its row of the timeline, in one transaction.

    Days that end by `frozen_through_ms` count as judged from now on.

    Raises:
        Conflict: somebody else has changed the route since it was read.
    """
    moved = rollout.epoch != route.rollout.epoch
    shares = _shares(route.shares, rollout, route.arm_ids) if moved else route.shares
    saved = replace(
        route,
        spec=placed(route.spec, rollout),
        rollout=rollout,
        shares=shares,
        version=route.version + 1,
        frozen_through_ms=max(route.frozen_through_ms, frozen_through_ms),
    )
    await _compare_and_set(connection, saved, route.version)
    if moved:
        await _allocate(connection, route.id, rollout, route.arm_ids)
    if entry is not None:
        await timeline.append(connection, route.id, rollout, saved.version, entry, now_ms)
    return saved


async def allocated(
    connection: AsyncConnection, route_id: int, since_epoch: int
) -> dict[int, dict[int, int]]:
    """How traffic was divided in each allocation epoch from one on: epoch → arm id → basis points."""
    query = select(allocations.c.epoch, allocations.c.weights).where(
        allocations.c.route_id == route_id, allocations.c.epoch >= since_epoch
    )
    rows = (await connection.execute(query)).all()
    return {row.epoch: msgspec.json.decode(row.weights, type=dict[int, int]) for row in rows}


async def _compare_and_set(connection: AsyncConnection, route: StoredRoute, expected: int) -> None:
    mine = (rollouts.c.route_id == route.id, rollouts.c.version == expected)
    change = (
        update(rollouts)
        .where(*mine)
        .values(
            version=route.version,
            state=_text(route.rollout),
            shares=_text(route.shares),
            frozen_through_ms=route.frozen_through_ms,
        )
    )
    if (await connection.execute(change)).rowcount != 1:
        raise Conflict(f"route {route.name!r} has changed since version {expected} was read")


async def _allocate(
    connection: AsyncConnection, route_id: int, rollout: Rollout, arm_ids: dict[str, int]
) -> None:
    weights = {arm_ids[arm]: share for arm, share in rollout.weights.items()}
    row = insert(allocations).values(
        route_id=route_id,
        epoch=rollout.epoch,
        started_at_ms=rollout.changed_at_ms,
        champion_id=arm_ids[rollout.champion],
        weights=_text(weights),
    )
    await connection.execute(row)


def _shares(previous: tuple[Share, ...], rollout: Rollout, arm_ids: dict[str, int]) -> tuple[Share, ...]:
    weights = {arm_ids[arm]: share for arm, share in rollout.weights.items()}
    return lay_out(previous, weights, arm_ids[rollout.champion])


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
