"""What gateways route by, as one object: every live route and the signing keys, read as one state."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from app.db import overrides, signing, versions
from app.db.learned import load_terms
from app.db.routes import StoredRoute, load_routes
from policies.metrics import Metric
from policies.spec import ArmSpec
from routing.bandit import BanditTerms
from routing.rules import Override
from routing.snapshot import Snapshot
from routing.types import SERVING, Arm, MetricRule, Route


async def load_snapshot(connection: AsyncConnection, now_ms: int) -> Snapshot:
    """The snapshot of the state that the connection sees.

    Raises:
        BadSnapshot: what is stored contradicts itself.
    """
    rules = await overrides.load_rules(connection, now_ms)
    stored = await load_routes(connection)
    terms = await load_terms(connection, stored)
    return Snapshot(
        version=await versions.current(connection),
        created_at_ms=now_ms,
        routes=tuple(route_of(route, rules.get(route.id, ()), terms.get(route.id)) for route in stored),
        keys=await signing.load_keys(connection),
    )


def route_of(stored: StoredRoute, rules: Sequence[Override], bandit: BanditTerms | None = None) -> Route:
    """A route as gateways have it. An override of an arm that answers nobody is left out."""
    spec, rollout = stored.spec, stored.rollout
    serving = {stored.arm_ids[arm.name] for arm in spec.arms if arm.role in SERVING}
    return Route(
        id=stored.id,
        name=spec.name,
        match=spec.match,
        arms=tuple(_arm(stored.arm_ids[arm.name], arm) for arm in spec.arms),
        shares=stored.shares,
        salt=f"{stored.id}:{rollout.salt_number}",
        epoch=rollout.epoch,
        unit=spec.unit,
        context=spec.context,
        overrides=tuple(override for override in rules if override.arm_id in serving),
        bandit=bandit,
        metrics=tuple(_rule(metric) for metric in spec.metrics),
        predictions=spec.predictions,
        upstream=spec.upstream,
        allow_force=spec.allow_force,
        kill_switch=rollout.kill_switch,
        first_arm_ms=spec.first_arm_ms,
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
