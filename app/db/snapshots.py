"""What gateways route by, as one object: every live route and the signing keys, read as one state."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import signing, versions
from app.db.routes import StoredRoute, load_routes
from policies.metrics import Metric
from policies.spec import ArmSpec
from routing.snapshot import Snapshot
from routing.types import Arm, MetricRule, Route


async def load_snapshot(connection: AsyncConnection, now_ms: int) -> Snapshot:
    """The snapshot of the state that the connection sees.

    Raises:
        BadSnapshot: what is stored contradicts itself.
    """
    return Snapshot(
        version=await versions.current(connection),
        created_at_ms=now_ms,
        routes=tuple(_route(route) for route in await load_routes(connection)),
        keys=await signing.load_keys(connection),
    )


def _route(stored: StoredRoute) -> Route:
    spec, rollout = stored.spec, stored.rollout
    return Route(
        id=stored.id,
        name=spec.name,
        match=spec.match,
        arms=tuple(_arm(stored.arm_ids[arm.name], arm) for arm in spec.arms),
        shares=stored.shares,
        salt=f"{stored.id}:{rollout.salt_number}",
        epoch=rollout.epoch,
        unit=spec.unit,
        metrics=tuple(_rule(metric) for metric in spec.metrics),
        predictions=spec.predictions,
        upstream=spec.upstream,
        allow_force=spec.allow_force,
        kill_switch=rollout.kill_switch,
    )


def _arm(arm_id: int, arm: ArmSpec) -> Arm:
    return Arm(
        id=arm_id,
        name=arm.name,
        url=arm.url,
        role=arm.role,
        headers=arm.headers,
        sample_bp=arm.sample_bp,
        tls=arm.tls,
    )


def _rule(metric: Metric) -> MetricRule:
    return MetricRule(name=metric.name, kind=metric.kind.value, window_ms=metric.window_ms)
