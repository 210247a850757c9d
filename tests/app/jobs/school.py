"""What learner tests stand on: a route whose bandit learns, what is in the log, and a learner's turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from app.db import bandits, pending, versions
from app.db.pending import Waiting
from app.db.routes import StoredRoute, update_spec
from app.db.session import Database
from app.db.timeline import Entry, Kind
from app.events.recorder import record
from app.events.types import DecisionEvent, Event
from app.jobs.learn import Learner
from policies.bandits import BanditSpec
from policies.lessons import Knowledge, lessons_of
from policies.metrics import Metric
from policies.rewards import Reward
from policies.spec import RouteSpec
from policies.types import Aggregate
from policies.types import Kind as MetricKind
from routing.claims import Claims
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.types import Reason
from tests.app.db.stage import HOUR_MS, START_MS, get_route, put_route, route_spec
from tests.app.events.facts import claims, made, told

PROFIT = Metric("profit", MetricKind.CONTINUOUS, window_ms=HOUR_MS, aggregate=Aggregate.SUM)
COUNTRY = Feature(
    name="country",
    source=Source(kind=SourceKind.HEADER, name="X-Country"),
    type=FeatureType.CATEGORICAL,
    values=("DE", "FR"),
)
LATER_MS = START_MS + 2 * HOUR_MS
"""When everything that was decided in the first half of an hour is mature."""

_nonces = count(1)


def bandit_spec(
    name: str = "ads",
    reward: Reward = Reward("profit"),  # noqa: B008 - it is frozen
    arms: Sequence[str] = ("old", "new"),
    context: tuple[Feature, ...] = (),
    **bandit: Any,
) -> RouteSpec:
    """A route whose traffic a bandit divides."""
    spec = route_spec(name, {"old": 10_000, **dict.fromkeys(arms[1:], 0)}, metrics=(PROFIT,))
    return replace(spec, context=context, bandit=BanditSpec(reward=reward, **bandit))


async def redeclare(database: Database, spec: RouteSpec) -> StoredRoute:
    """Write another declaration of a route, as the control plane does."""
    route = await get_route(database, spec.name)
    async with database.transaction() as connection:
        await update_spec(connection, route.id, spec, route.declared)
    return await get_route(database, spec.name)


def chosen(route: StoredRoute, arm: str = "new", at_ms: int = START_MS, **more: Any) -> Claims:
    """What the token of a new decision says: by default the bandit made it."""
    plain = {"reason": Reason.BANDIT, "route_id": route.id, "at_ms": at_ms}
    return claims(next(_nonces), route.arm_ids[arm], **{**plain, **more})


def decided(
    route: StoredRoute, claimed: Claims, context: Mapping[str, Any] | None = None, **more: Any
) -> DecisionEvent:
    """A decision with its context, read as the route declares it."""
    schema = Encoder(route.spec.context).version if context is not None else 0
    return made(claimed, context=context, schema=schema, **more)


async def log(database: Database, *events: Event, spool: str = "a" * 32) -> None:
    """Record events, in this order."""
    async with database.transaction() as connection:
        await record(connection, [(event, next(_nonces)) for event in events], spool)


async def learn(database: Database, now_ms: int = LATER_MS, batch: int = 2_000) -> int:
    """Let a new learner learn all that is due on all routes; gives the number of batches."""
    learner, batches = Learner(database, batch), 0
    for route in await learner.routes():
        while await learner.learn(route, now_ms, now_ms):
            batches += 1
    return batches


async def known(database: Database, route: StoredRoute) -> Knowledge:
    """What was learnt on a route."""
    lessons = lessons_of(route.spec)
    assert lessons is not None
    async with database.read() as connection:
        state = await bandits.find_state(connection, route.id)
        assert state is not None
        assert state.meaning == lessons.meaning
        return await bandits.load_knowledge(connection, state, set(route.arm_ids.values()), lessons.width)


async def rewards(database: Database, route: StoredRoute) -> dict[str, tuple[int, float]]:
    """By arm, how many rewards were learnt, and their discounted sum."""
    sums = (await known(database, route)).sums
    return {arm: (sums[arm_id].n, sums[arm_id].y) for arm, arm_id in route.arm_ids.items() if arm_id in sums}


async def open_school(database: Database, spec: RouteSpec | None = None) -> StoredRoute:
    """A new route whose bandit has begun to learn."""
    route = await put_route(database, spec or bandit_spec())
    await learn(database, START_MS)
    return route


async def decide(database: Database, route: StoredRoute, count: int, profit: float = 1.0) -> list[Claims]:
    """Log decisions of the challenger, each with a profit."""
    made = [chosen(route) for _ in range(count)]
    await log(
        database, *(decided(route, one) for one in made), *(told(one, "profit", profit) for one in made)
    )
    return made


async def waiting(database: Database, route: StoredRoute) -> Waiting:
    """What waits to be learnt."""
    async with database.read() as connection:
        return await pending.waiting(connection, route.id)


async def version(database: Database) -> int:
    """That of what gateways route by."""
    async with database.read() as connection:
        return await versions.current(connection)


async def rebuild(database: Database, route: StoredRoute, now_ms: int = LATER_MS) -> None:
    """As an operator does."""
    lessons = lessons_of(route.spec)
    assert lessons is not None
    async with database.transaction() as connection:
        await bandits.rebuild(connection, route, lessons, Entry(Kind.BANDIT_REBUILT, "ann", "doubts"), now_ms)
