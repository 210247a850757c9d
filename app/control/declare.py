"""What does a declaration change about a route, and what has a rollout moved since and so stays?

Role and split are initial values. Once a rollout, or a person through the API, has moved them, declaring the
route again leaves them as they are and says so, unless it is told to take over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from app.control.documents import BadDeclaration, document_of, plain, require_sound
from app.control.pins import require_unpinned
from app.control.splits import split_document
from app.db import rollouts, routes
from app.db.errors import Conflict, NotFound
from app.db.routes import Placement, StoredRoute
from app.db.session import Connection
from app.db.timeline import Entry, Kind
from policies.errors import BadSpec, IllegalTransition
from policies.lifecycle import Rollout, begin, reallocated, set_split, with_arms
from policies.metrics import Metric
from policies.spec import ArmSpec, RouteSpec
from policies.types import Missing
from routing.snapshot import place_of
from routing.types import TOTAL_BP, Role

_KEYED_BY_NAME = ("arms", "context", "metrics")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field, named as on the wire, with its value before and after; None: absent."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Declared:
    """What a declaration has done. `kept`: fields that stay (before) although declared otherwise (after)."""

    route: StoredRoute
    created: bool
    changes: tuple[Difference, ...]
    kept: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Author:
    """Who declares, when (Unix ms) and why."""

    actor: str
    now_ms: int
    reason: str = "declared"


async def declare(
    connection: Connection,
    spec: RouteSpec,
    author: Author,
    *,
    take_over: bool = False,
    retire_missing: bool = True,
) -> Declared:
    """Bring a route to its declaration, which has been checked; make it if there is none.

    `take_over`: role and split as declared, too. `retire_missing`: arms that are no longer named go, unless
    they hold traffic. Those of a declared bandit go as well: it has no share of theirs, and goes on without.

    Raises:
        BadDeclaration: a metric would change its meaning.
        Conflict: another route matches the same requests, or a live override needs an arm or a feature that
            would go.
        IllegalTransition: the change would spoil a trial that runs.
    """
    await _refuse_same_match(connection, spec)
    try:
        route = await routes.load_route(connection, spec.name)
    except NotFound:
        return await _create(connection, spec, author)
    _refuse_new_meaning(route, spec)
    return await _change(connection, route, _Plan.of(route, spec, take_over, retire_missing), author)


def differences(before: RouteSpec, after: RouteSpec) -> tuple[Difference, ...]:
    """Every field in which two declarations differ; the goal too, where the order of metrics decides it."""
    old, new = (dict(_fields("", plain(document_of(spec)))) for spec in (before, after))
    if before.policy.goal is None and after.policy.goal is None:
        old["policy.goal"], new["policy.goal"] = (spec.goal and spec.goal.name for spec in (before, after))
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        Difference(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an existing route is to become."""

    spec: RouteSpec
    target: Placement
    declared: Placement
    kept: tuple[Difference, ...]

    @classmethod
    def of(cls, route: StoredRoute, spec: RouteSpec, take_over: bool, retire_missing: bool) -> _Plan:
        wanted, current = Placement.of(spec), Placement.of(route.spec)
        stands = take_over or current == route.declared
        target = wanted if stands else current
        roles = {arm.name: arm.role.value for arm in route.spec.arms}
        missing = [arm for arm in route.spec.arms if arm.name not in {arm.name for arm in spec.arms}]
        busy = {target.champion, *target.weights, *(() if stands else _served_by_bandit(route.spec))}
        stay = tuple(arm for arm in missing if arm.name in busy or not (retire_missing or take_over))
        splits = _of_splits(target, wanted, spec.metrics)
        moved = [Difference("champion", target.champion, wanted.champion), splits]
        absent = [Difference(f"arms.{arm.name}", "in service", "absent") for arm in stay]
        shadows = [arm.name for arm in spec.arms if arm.role is Role.SHADOW and arm.name in busy]
        answering = [Difference(f"arms.{name}.role", roles[name], Role.SHADOW.value) for name in shadows]
        kept = (*(field for field in moved if field.before != field.after), *answering, *absent)
        arms = tuple(_answering(arm) if arm.name in shadows else arm for arm in spec.arms)
        whole = replace(spec, arms=(*arms, *stay), bandit=target.bandit)
        return cls(whole, target, wanted if stands else route.declared, kept)


def _served_by_bandit(spec: RouteSpec) -> Sequence[str]:
    """The arms that hold traffic by a route's bandit; none where weights divide."""
    return [] if spec.bandit is None else [arm.name for arm in spec.arms if arm.answers]


def _of_splits(target: Placement, wanted: Placement, metrics: Sequence[Metric]) -> Difference:
    """How two divisions differ: in their weights, or in what divides."""
    if target.bandit is None and wanted.bandit is None:
        return Difference("split.weights", target.weights, wanted.weights)
    shown = (plain(split_document(one.weights, one.bandit, metrics)) for one in (target, wanted))
    return Difference("split", *shown)


def _answering(arm: ArmSpec) -> ArmSpec:
    """The arm, which holds traffic or the crown and so cannot be the shadow that it is declared to be."""
    return replace(arm, role=Role.CHALLENGER, sample_bp=TOTAL_BP)


async def _create(connection: Connection, spec: RouteSpec, author: Author) -> Declared:
    route_id = await routes.insert_route(connection, spec, author.now_ms)
    arm_ids = await routes.arm_ids(connection, route_id)
    rollout = begin(spec.champion.name, spec.weights, author.now_ms)
    entry = Entry(Kind.ROUTE_CREATED, author.actor, author.reason)
    await rollouts.insert_rollout(connection, route_id, arm_ids, rollout, entry, author.now_ms)
    return Declared(await routes.load_route(connection, spec.name), True, (), ())


async def _change(connection: Connection, route: StoredRoute, plan: _Plan, author: Author) -> Declared:
    rollout = _moved(route.rollout, plan, author.now_ms)
    if plan.spec.bandit != route.spec.bandit and rollout.epoch == route.rollout.epoch:
        rollout = reallocated(rollout, author.now_ms)
    after = routes.placed(plan.spec, rollout)
    require_sound(after)
    changes = differences(route.spec, after)
    if not changes:
        return await _note_placement(connection, route, plan, author.now_ms)
    _refuse_spoiling(route, after)
    await require_unpinned(connection, route, after, author.now_ms)
    arm_ids = await _write_arms(connection, route, after, author.now_ms)
    entry = Entry(Kind.ROUTE_CHANGED, author.actor, author.reason, evidence=changes)
    changing = replace(route, spec=after, arm_ids=arm_ids)
    await rollouts.save(connection, changing, rollout, entry, author.now_ms)
    await routes.update_spec(connection, route.id, plan.spec, plan.declared)
    return Declared(await routes.load_route(connection, route.name), False, changes, plan.kept)


async def _note_placement(connection: Connection, route: StoredRoute, plan: _Plan, now_ms: int) -> Declared:
    """Nothing changes; but it may be declared now what only has come about, and is a write like any other."""
    if plan.declared == route.declared:
        return Declared(route, False, (), plan.kept)
    await rollouts.save(connection, route, route.rollout, None, now_ms)
    await routes.update_spec(connection, route.id, plan.spec, plan.declared)
    return Declared(await routes.load_route(connection, route.name), False, (), plan.kept)


def _moved(rollout: Rollout, plan: _Plan, now_ms: int) -> Rollout:
    """The rollout over the declared arms, with the traffic that is to be. Shadow arms have no part in it."""
    names = tuple(arm.name for arm in plan.spec.arms if arm.answers)
    every = with_arms(rollout, tuple(dict.fromkeys((*rollout.weights, *names))))
    weights = {arm: plan.target.weights.get(arm, 0) for arm in every.weights}
    if (plan.target.champion, weights) != (every.champion, dict(every.weights)):
        every = set_split(every, weights, now_ms, plan.target.champion)
    return with_arms(every, names)


async def _write_arms(
    connection: Connection, route: StoredRoute, after: RouteSpec, now_ms: int
) -> dict[str, int]:
    """Write what is new, changed or gone; gives the ids of the arms that are live now."""
    known = {arm.name: arm for arm in route.spec.arms}
    ids: dict[str, int] = {}
    for arm in after.arms:
        if arm.name not in known:
            ids[arm.name] = await routes.insert_arm(connection, route.id, arm, now_ms)
            continue
        ids[arm.name] = route.arm_ids[arm.name]
        if arm != known[arm.name]:
            await routes.update_arm(connection, ids[arm.name], arm)
    for name in known.keys() - ids.keys():
        await routes.retire_arm(connection, route.arm_ids[name], now_ms)
    return ids


async def _refuse_same_match(connection: Connection, spec: RouteSpec) -> None:
    for other in await routes.load_routes(connection):
        if other.name != spec.name and place_of(other.spec.match) == place_of(spec.match):
            raise Conflict(
                f"match of route {spec.name!r} must differ from that of route {other.name!r}, "
                f"got path_prefix {spec.match.path_prefix!r} and host {spec.match.host!r} for both"
            )


def _refuse_new_meaning(route: StoredRoute, spec: RouteSpec) -> None:
    """Sums are kept under a metric's name: what they are sums of must not change."""
    errors = []
    for index, metric in enumerate(spec.metrics):
        known = route.spec.metric(metric.name)
        for field in ("kind", "aggregate", "missing"):
            if known is not None and getattr(known, field) != getattr(metric, field):
                before, after = getattr(known, field).value, getattr(metric, field).value
                bound = f"must stay {before!r}, as sums are kept under {metric.name!r}; declare a new metric"
                errors.append(BadSpec(f"metrics.{index}.{field}", f"{bound}, got {after!r}"))
        if known is None and metric.missing is Missing.ZERO:
            bound = "must be 'skip' for a metric that comes later, as no zeros were counted until now"
            errors.append(BadSpec(f"metrics.{index}.missing", f"{bound}, got 'zero'"))
    if errors:
        raise BadDeclaration(f"route {spec.name!r}", errors)


def _refuse_spoiling(route: StoredRoute, after: RouteSpec) -> None:
    """While a challenger is on trial, what its evidence is counted by must not change."""
    if not (trials := route.rollout.active_trials):
        return
    before = route.spec
    for field, old, new in (
        ("unit", before.unit, after.unit),
        ("stickiness.mode", before.first_arm_ms is None, after.first_arm_ms is None),
        ("policy.day.length", before.policy.day_length_ms, after.policy.day_length_ms),
        ("policy.day.timezone", before.policy.timezone, after.policy.timezone),
        ("policy.goal", _meaning(before), _meaning(after)),
    ):
        if old != new:
            raise IllegalTransition(
                f"{field} must not change while {trials[0].arm!r} is on trial: roll it back first"
            )


def _meaning(spec: RouteSpec) -> tuple[object, ...] | None:
    """What the streak of a trial was won on."""
    goal = spec.goal
    return None if goal is None else (goal.name, goal.better, goal.window_ms)


def _fields(prefix: str, value: object) -> Iterator[tuple[str, Any]]:
    """A document as (path, value) pairs; arms and metrics go by their names, other lists are one value."""
    if not isinstance(value, Mapping):
        yield prefix, value
        return
    for name, part in value.items():
        place = f"{prefix}.{name}" if prefix else str(name)
        if not prefix and name in _KEYED_BY_NAME:
            part = {item["name"]: item for item in part}
        yield from _fields(place, part)
