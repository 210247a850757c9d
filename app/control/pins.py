"""Would a change of a route take away, or give another meaning to, what live overrides stand on?

An override stands on its arm, and on the features of the context that it reads. What is read of a feature
follows from its source, its type and, of a number, its range; all else of it is for bandits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from app.db.errors import Conflict
from app.db.overrides import StoredOverride, live_overrides
from app.db.routes import StoredRoute
from app.db.session import Connection
from policies.spec import RouteSpec
from routing.features import Feature

_SHOWN_IDS = 20
_MEANING = {"from": "source", "type": "type"}
_RANGE = {"min": "minimum", "max": "maximum", "outside": "outside"}
"""Fields by their names on the wire, and the attributes that they are."""


async def require_unpinned(connection: Connection, route: StoredRoute, after: RouteSpec, now_ms: int) -> None:
    """Refuse a change of what live overrides stand on; those that have expired do not count.

    Raises:
        Conflict: that is so; it names each arm and feature, with the ids of its overrides.
    """
    arms, features = dict(_arms(route, after)), dict(_features(route.spec, after))
    if not arms and not features:
        return
    held = defaultdict(list)
    for override in await live_overrides(connection, route.id):
        if not override.is_expired(now_ms):
            for sentence in _stands_on(override, arms, features):
                held[sentence].append(override.id)
    if held:
        said = "; ".join(f"{sentence} {_ids(ids)}" for sentence, ids in held.items())
        raise Conflict(f"route {route.name!r}: {said}: remove them first")


def _stands_on(override: StoredOverride, arms: Mapping[int, str], features: Mapping[str, str]) -> list[str]:
    """What of these an override needs, as a sentence begins."""
    read = {condition.attribute for condition in override.when}
    pinned = [arms[override.arm_id]] if override.arm_id in arms else []
    return [*pinned, *(features[attribute] for attribute in sorted(features.keys() & read))]


def _arms(route: StoredRoute, after: RouteSpec) -> Iterator[tuple[int, str]]:
    """The ids of the arms that would answer nobody any more, and how a sentence about each begins."""
    for name in sorted(_answering(route.spec) - _answering(after)):
        yield route.arm_ids[name], f"arm {name!r} is pinned by"


def _features(before: RouteSpec, after: RouteSpec) -> Iterator[tuple[str, str]]:
    """The attributes of features that would go or be read otherwise, and how a sentence on each begins."""
    left = {feature.name: feature for feature in after.context}
    for feature in before.context:
        attribute = f"context.{feature.name}"
        if (wanted := left.get(feature.name)) is None:
            yield attribute, f"{attribute} is read by"
        elif changed := _changed(feature, wanted):
            yield attribute, f"{attribute}, whose {' and '.join(changed)} would change, is read by"


def _changed(before: Feature, after: Feature) -> list[str]:
    """In which fields two declarations differ by which a feature is read."""
    fields = _MEANING if before.type is not after.type else {**_MEANING, **_RANGE}
    return [name for name, field in fields.items() if getattr(before, field) != getattr(after, field)]


def _ids(ids: list[int]) -> str:
    shown = ", ".join(str(each) for each in sorted(ids)[:_SHOWN_IDS])
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return f"{'override' if len(ids) == 1 else 'overrides'} {shown}{more}"


def _answering(spec: RouteSpec) -> set[str]:
    return {arm.name for arm in spec.arms if arm.answers}
