"""Would a change of a route leave live overrides without their arm, or without a feature that they read?"""

from __future__ import annotations

from collections import defaultdict

from app.db.errors import Conflict
from app.db.overrides import StoredOverride, live_overrides
from app.db.routes import StoredRoute
from app.db.session import Connection
from policies.spec import RouteSpec

_SHOWN_IDS = 20


async def require_unpinned(connection: Connection, route: StoredRoute, after: RouteSpec, now_ms: int) -> None:
    """Refuse a change that takes away what live overrides stand on; those that have expired do not count.

    Raises:
        Conflict: that is so; it names each arm and feature, with the ids of its overrides.
    """
    arms = _answering(route.spec) - _answering(after)
    features = _features(route.spec) - _features(after)
    if not arms and not features:
        return
    held = defaultdict(list)
    for override in await live_overrides(connection, route.id):
        if not override.is_expired(now_ms):
            for thing in _stands_on(override, route, arms, features):
                held[thing].append(override.id)
    if held:
        said = "; ".join(f"{thing} {_ids(ids)}" for thing, ids in held.items())
        raise Conflict(f"route {route.name!r}: {said}: remove them first")


def _stands_on(override: StoredOverride, route: StoredRoute, arms: set[str], features: set[str]) -> list[str]:
    """What of these an override needs, as a sentence begins."""
    read = {condition.attribute for condition in override.when}
    pinned = [f"arm {arm!r} is pinned by" for arm in sorted(arms) if route.arm_ids[arm] == override.arm_id]
    return [*pinned, *(f"{feature} is read by" for feature in sorted(features & read))]


def _ids(ids: list[int]) -> str:
    shown = ", ".join(str(each) for each in sorted(ids)[:_SHOWN_IDS])
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return f"{'override' if len(ids) == 1 else 'overrides'} {shown}{more}"


def _answering(spec: RouteSpec) -> set[str]:
    return {arm.name for arm in spec.arms if arm.answers}


def _features(spec: RouteSpec) -> set[str]:
    return {f"context.{feature.name}" for feature in spec.context}
