"""Routes and arms as they are now: what was declared, with roles and split as the rollout has moved them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from sqlalchemy import Row, Select, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.errors import NotFound, Unreadable
from app.db.tables import arms, rollouts, routes
from policies.bandits import BanditSpec
from policies.lifecycle import Rollout
from policies.spec import ArmSpec, RouteSpec
from routing.types import Role, Share


class Placement(msgspec.Struct, frozen=True):
    """Which arm is champion, and who gets which share (arm name → basis points), unless a bandit divides."""

    champion: str
    weights: dict[str, int]
    bandit: BanditSpec | None = None

    @classmethod
    def of(cls, spec: RouteSpec) -> Placement:
        """That of a declaration; arms that hold nothing are left out."""
        weights = {arm: share for arm, share in spec.weights.items() if share}
        return cls(spec.champion.name, weights, spec.bandit)


class _Declaration(msgspec.Struct, frozen=True):
    """What is stored of a route: its declaration without arms and split, and those as a placement."""

    spec: RouteSpec
    placement: Placement


@dataclass(frozen=True, slots=True)
class StoredRoute:
    """One route. `spec` has the live arms with their present roles, and the present weights.

    `declared` has roles and weights as they were last declared: where a rollout has moved them, it differs.
    `version` rises with every change of the route and is what a writer must have seen (compare-and-set).
    """

    id: int
    spec: RouteSpec
    declared: Placement
    arm_ids: dict[str, int]
    rollout: Rollout
    shares: tuple[Share, ...]
    version: int
    frozen_through_ms: int
    created_at_ms: int

    @property
    def name(self) -> str:
        """The route's public name."""
        return self.spec.name


async def load_route(connection: AsyncConnection, name: str) -> StoredRoute:
    """The live route with this name.

    Raises:
        NotFound: there is none.
    """
    found = await _load(connection, _live().where(routes.c.name == name))
    if not found:
        raise NotFound(f"no route is named {name!r}")
    return found[0]


async def load_routes(connection: AsyncConnection) -> list[StoredRoute]:
    """All live routes, by name."""
    return await _load(connection, _live().order_by(routes.c.name))


async def load_by_id(connection: AsyncConnection, route_ids: Collection[int]) -> dict[int, StoredRoute]:
    """Live routes by id, of those asked for."""
    found = await _load(connection, _live().where(routes.c.id.in_(route_ids)))
    return {route.id: route for route in found}


async def hold_by_id(connection: AsyncConnection, route_ids: Collection[int]) -> dict[int, StoredRoute]:
    """The same; what is declared of them stays as it is until the transaction ends."""
    query = select(routes.c.id).where(routes.c.id.in_(route_ids)).order_by(routes.c.id)
    await connection.execute(query.with_for_update(read=True))
    return await load_by_id(connection, route_ids)


async def find_route_id(connection: AsyncConnection, name: str) -> int:
    """The id of the route that has this name, or had it last.

    Raises:
        NotFound: there never was one.
    """
    query = select(routes.c.id).where(routes.c.name == name)
    found = await connection.scalar(query.order_by(routes.c.id.desc()).limit(1))
    if found is None:
        raise NotFound(f"no route is named {name!r}")
    return int(found)


async def insert_route(connection: AsyncConnection, spec: RouteSpec, now_ms: int) -> int:
    """Write a new route and its arms; gives the route's id.

    Raises:
        Conflict: the name is taken.
    """
    row = insert(routes).values(
        name=spec.name, spec=_declared(spec, Placement.of(spec)), created_at_ms=now_ms
    )
    route_id = int((await connection.execute(row.returning(routes.c.id))).scalar_one())
    for arm in spec.arms:
        await insert_arm(connection, route_id, arm, now_ms)
    return route_id


async def update_spec(
    connection: AsyncConnection, route_id: int, spec: RouteSpec, placement: Placement
) -> None:
    """Write what was declared of a route; its arms are rows of their own."""
    change = update(routes).where(routes.c.id == route_id).values(spec=_declared(spec, placement))
    await connection.execute(change)


async def delete_route(connection: AsyncConnection, route_id: int, now_ms: int) -> None:
    """Take a route out of service. Its history stays."""
    await connection.execute(update(routes).where(routes.c.id == route_id).values(deleted_at_ms=now_ms))


async def insert_arm(connection: AsyncConnection, route_id: int, arm: ArmSpec, now_ms: int) -> int:
    """Write a new arm; gives its id.

    Raises:
        Conflict: a live arm of the route has the name.
    """
    row = insert(arms).values(
        route_id=route_id, name=arm.name, spec=_text(_unplaced(arm)), created_at_ms=now_ms
    )
    return int((await connection.execute(row.returning(arms.c.id))).scalar_one())


async def arm_ids(connection: AsyncConnection, route_id: int) -> dict[str, int]:
    """The ids of a route's live arms, by name."""
    query = select(arms.c.name, arms.c.id).where(arms.c.route_id == route_id, arms.c.retired_at_ms.is_(None))
    return {row[0]: row[1] for row in (await connection.execute(query.order_by(arms.c.id))).all()}


async def arm_names(connection: AsyncConnection, route_id: int) -> dict[int, str]:
    """The names of all arms that a route has, or has had, by id."""
    query = select(arms.c.id, arms.c.name).where(arms.c.route_id == route_id)
    return {row[0]: row[1] for row in (await connection.execute(query)).all()}


async def update_arm(connection: AsyncConnection, arm_id: int, arm: ArmSpec) -> None:
    """Write what was declared of an arm."""
    await connection.execute(update(arms).where(arms.c.id == arm_id).values(spec=_text(_unplaced(arm))))


async def retire_arm(connection: AsyncConnection, arm_id: int, now_ms: int) -> None:
    """Take an arm out of service; its id is never used again."""
    await connection.execute(update(arms).where(arms.c.id == arm_id).values(retired_at_ms=now_ms))


def placed(spec: RouteSpec, rollout: Rollout) -> RouteSpec:
    """The declaration with roles and split as the rollout has them. A shadow arm has no part in it."""
    arms_now = tuple(
        replace(arm, role=Role.CHAMPION) if arm.name == rollout.champion else _unplaced(arm)
        for arm in spec.arms
    )
    return replace(spec, arms=arms_now, weights=dict(rollout.weights))


def _live() -> Select[Any]:
    columns = (routes, rollouts.c.version, rollouts.c.state, rollouts.c.shares, rollouts.c.frozen_through_ms)
    joined = select(*columns).join(rollouts, rollouts.c.route_id == routes.c.id)
    return joined.where(routes.c.deleted_at_ms.is_(None))


async def _load(connection: AsyncConnection, query: Select[Any]) -> list[StoredRoute]:
    rows = (await connection.execute(query)).all()
    live = select(arms).where(arms.c.route_id.in_([row.id for row in rows]), arms.c.retired_at_ms.is_(None))
    arms_of: dict[int, list[Row[Any]]] = {}
    for arm in (await connection.execute(live.order_by(arms.c.id))).all():
        arms_of.setdefault(arm.route_id, []).append(arm)
    return [_readable(row, arms_of.get(row.id, [])) for row in rows]


def _readable(row: Row[Any], arm_rows: Sequence[Row[Any]]) -> StoredRoute:
    try:
        return _stored(row, arm_rows)
    except msgspec.MsgspecError as error:
        raise Unreadable(f"route {row.name!r} was not written by this version: {error}") from error


def _stored(row: Row[Any], arm_rows: Sequence[Row[Any]]) -> StoredRoute:
    rollout = msgspec.json.decode(row.state, type=Rollout)
    stored = msgspec.json.decode(row.spec, type=_Declaration)
    arm_specs = tuple(msgspec.json.decode(arm.spec, type=ArmSpec) for arm in arm_rows)
    return StoredRoute(
        id=row.id,
        spec=placed(replace(stored.spec, arms=arm_specs), rollout),
        declared=stored.placement,
        arm_ids={arm.name: arm.id for arm in arm_rows},
        rollout=rollout,
        shares=msgspec.json.decode(row.shares, type=tuple[Share, ...]),
        version=row.version,
        frozen_through_ms=row.frozen_through_ms,
        created_at_ms=row.created_at_ms,
    )


def _unplaced(arm: ArmSpec) -> ArmSpec:
    return arm if arm.role is Role.SHADOW else replace(arm, role=Role.CHALLENGER)


def _declared(spec: RouteSpec, placement: Placement) -> str:
    return _text(_Declaration(replace(spec, arms=(), weights={}), placement))


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
