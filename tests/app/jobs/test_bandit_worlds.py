"""From what arms earn to the shares that gateways give them: decisions, log, learner, snapshot, and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random

import msgspec
import pytest

from app.db import signing
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.events.types import Event
from policies.metrics import Metric
from policies.rewards import Reward
from policies.spec import RouteSpec
from policies.types import Kind
from routing.assignment import Asked, Assignment, Plan
from routing.claims import Claims
from routing.features import Value
from routing.snapshot import Snapshot
from tests.app.db.stage import HOUR_MS, START_MS, get_route, put_route
from tests.app.events.facts import made, told
from tests.app.jobs.school import COUNTRY, bandit_spec, known, learn, log

ROUND_MS = 2 * HOUR_MS
CONVERSION = Metric("conversion", Kind.BINARY, window_ms=HOUR_MS)

Rewards = Callable[[str, str, Random], float | None]
"""From arm and country to what is reported; None: nothing."""


class World:
    """Callers from two countries, and what the arms earn with them. The clock goes on by rounds.

    Mutable state: `now_ms`, and `plan`, by which a gateway assigns.
    """

    plan: Plan

    def __init__(self, database: Database, route: StoredRoute, rewards: Rewards) -> None:
        self.now_ms = START_MS
        self._database = database
        self._route = route
        self._rewards = rewards
        self._random = Random(route.id)
        self._metric = route.spec.metrics[0].name
        self._arms = {arm_id: name for name, arm_id in route.arm_ids.items()}

    async def learn(self) -> None:
        """All that is mature is learnt, and gateways get what follows, as JSON."""
        await learn(self._database, self.now_ms)
        async with self._database.read() as connection:
            snapshot = await load_snapshot(connection, self.now_ms)
        snapshot = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
        self.plan = Plan(next(route for route in snapshot.routes if route.id == self._route.id))

    async def round(self, requests: int) -> Counter[tuple[str, str]]:
        """Requests are decided on and rewarded, and all is mature; how often each country got each arm."""
        events: list[Event] = []
        counts: Counter[tuple[str, str]] = Counter()
        for _ in range(requests):
            country = self._random.choice(("DE", "FR"))
            claims, found = self._decide({"country": country})
            arm = self._arms[found.arm.id]
            counts[country, arm] += 1
            encoder = self.plan.encoder
            context = None if encoder is None else {"country": country}
            schema = 0 if encoder is None else encoder.version
            considered = found.considered_bp
            events.append(made(claims, schema=schema, context=context, considered_bp=considered))
            if (reward := self._rewards(arm, country, self._random)) is not None:
                events.append(told(claims, self._metric, reward))
        await log(self._database, *events)
        self.now_ms += ROUND_MS
        await self.learn()
        return counts

    def shares(self, country: str) -> dict[str, int]:
        """What the arms get now of a country's requests."""
        assert self.plan.bandit is not None, self.plan.fault
        encoder = self.plan.encoder
        if encoder is not None:
            shares = self.plan.bandit.shares(encoder.encode({"country": country}))
            return dict(zip(self._arms.values(), shares, strict=True))
        return {self._arms[arm_id]: share for arm_id, share in self._decide({})[1].probabilities.items()}

    def _decide(self, context: dict[str, Value]) -> tuple[Claims, Assignment]:
        at_ms, nonce = self.now_ms + self._random.randrange(HOUR_MS // 2), self._random.getrandbits(64)
        asked = Asked(None, self._random.getrandbits(64), at_ms=at_ms, nonce=nonce, context=context)
        found = self.plan.assign(asked)
        claims = Claims(
            *(self._route.id, found.arm.id, found.unit_hash, found.has_unit, found.reason),
            *(found.propensity_bp, 1, 1, at_ms, nonce),
        )
        return claims, found


async def world(database: Database, spec: RouteSpec, rewards: Rewards) -> World:
    """A route that gateways serve, and whose bandit has learnt nothing yet."""
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    made_world = World(database, await put_route(database, spec), rewards)
    await made_world.learn()
    return made_world


def by_country(arm: str, country: str, random: Random) -> float:
    """`new` is good in Germany and bad in France, where `old` is good; `third` is bad everywhere."""
    good = {"DE": "new", "FR": "old"}[country] == arm
    return (2.0 if good else 1.0 if arm != "third" else 0.0) + random.gauss(0, 1)


async def test_each_segment_gets_its_best_arm_within_floor_and_cap(sqlite: Database) -> None:
    """Even shares at first; then those of the arm that earns most with a country rise up to its cap, those of
    the others fall down to the floor, and both hold whatever is learnt."""
    spec = bandit_spec(
        arms=("old", "new", "third"), context=(COUNTRY,), floor_bp=200, caps={"new": 8_000}, warm_up=50
    )
    here = await world(sqlite, spec, by_country)
    assert set(here.shares("DE").values()) == {3_333, 3_334}
    for _ in range(5):
        await here.round(300)
        for country in ("DE", "FR", "US"):
            shares = here.shares(country)
            assert min(shares.values()) >= 200
            assert shares["new"] <= 8_000
            assert sum(shares.values()) == 10_000
    german, french = here.shares("DE"), here.shares("FR")
    assert (german["new"], french["old"] > 9_000, french["third"] < 300) == (8_000, True, True)
    counts = await here.round(400)
    assert counts["DE", "new"] > 2 * counts["DE", "old"]
    assert counts["FR", "old"] > 5 * counts["FR", "new"]


async def test_conversions_without_a_context_are_learnt_by_their_rates(sqlite: Database) -> None:
    """What is not reported is no conversion, once it is mature: the arm that converts gets the traffic."""
    spec = replace(bandit_spec(reward=Reward("conversion"), floor_bp=100), metrics=(CONVERSION,))

    def rewards(arm: str, _: str, random: Random) -> float | None:
        return 1.0 if random.random() < {"old": 0.1, "new": 0.3}[arm] else None

    here = await world(sqlite, spec, rewards)
    assert here.plan.bandit is not None
    assert here.shares("DE") == {"old": 5_000, "new": 5_000}
    for _ in range(3):
        await here.round(300)
    assert here.shares("DE")["new"] > 9_800


async def test_an_apprentice_is_told_apart_from_who_answers(sqlite: Database) -> None:
    """The champion answers everything; with which probability the bandit would have chosen it is logged, and
    what it is so known to have earned is added up."""
    here = await world(sqlite, bandit_spec(context=(COUNTRY,), apprentice=True), by_country)
    counts = await here.round(300)
    assert {arm for _, arm in counts} == {"old"}
    totals = (await known(sqlite, await get_route(sqlite))).apprentice
    assert totals.decisions == 300
    assert totals.agreement == pytest.approx(150.0)
    assert totals.earned == pytest.approx(totals.actual / 2)


async def test_a_world_that_turns_is_followed_by_a_bandit_that_forgets(sqlite: Database) -> None:
    """With a discount the traffic goes to the arm that earns now; without one the past still outweighs it."""
    shares = {}
    for discount in (1.0, 0.02):
        turned = False

        def rewards(arm: str, _: str, random: Random) -> float:
            return float(arm == ("old" if turned else "new")) + random.gauss(0, 0.5)  # noqa: B023 - it turns

        name = f"ads-{discount}"
        spec = bandit_spec(name, discount=discount, floor_bp=500, warm_up=20)
        here = await world(sqlite, spec, rewards)
        for number in range(12):
            turned = number >= 8
            await here.round(100)
        shares[discount] = here.shares("DE")["old"]
    assert shares[0.02] > 9_000 > 5_000 > shares[1.0]
