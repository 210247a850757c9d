"""Gateways are told of a bandit what can be trusted, else nothing, so that the champion answers."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from sqlalchemy import update

from app.db import signing, tables
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.jobs.learn import Learner
from policies.metrics import Metric
from policies.rewards import Reward
from policies.spec import ArmSpec
from policies.types import Kind
from routing.assignment import Plan
from routing.bandit import BanditTerms
from routing.types import Role, Route
from tests.app.db.stage import START_MS, put_route, route_spec
from tests.app.events.facts import told
from tests.app.jobs.school import (
    COUNTRY,
    LATER_MS,
    bandit_spec,
    chosen,
    decided,
    known,
    learn,
    log,
    open_school,
    redeclare,
)


@pytest.fixture
async def signed(database: Database) -> Database:
    """A database with a signing key, on both kinds of server."""
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    return database


async def published(database: Database, name: str = "ads") -> Route:
    """A route as gateways get it."""
    async with database.read() as connection:
        snapshot = await load_snapshot(connection, LATER_MS)
    return next(route for route in snapshot.routes if route.name == name)


async def taught(database: Database, route: StoredRoute) -> None:
    """Each arm has a reward, and gateways may know."""
    for arm, profit in (("old", 1.0), ("new", 2.0)):
        one = chosen(route, arm)
        context = {"country": "DE"} if route.spec.context else None
        await log(database, decided(route, one, context), told(one, "profit", profit))
    await learn(database)


async def test_terms_are_those_that_were_declared(signed: Database) -> None:
    """Caps by the ids of arms; until anything was learnt, no more. A route that weights divide has none."""
    spec = bandit_spec(floor_bp=70, caps={"new": 4_000}, warm_up=9, apprentice=True)
    route = await put_route(signed, spec)
    await put_route(signed, route_spec("other"))
    assert (await published(signed, "other")).bandit is None
    assert (await published(signed)).bandit == BanditTerms(
        floor_bp=70, caps_bp={route.arm_ids["new"]: 4_000}, warm_up=9, is_apprentice=True
    )


async def test_what_was_learnt_of_the_arms_that_answer_is_there(signed: Database) -> None:
    """With the time and the features; of a shadow arm nothing is said."""
    spec = bandit_spec(context=(COUNTRY,), warm_up=1)
    dark = ArmSpec("dark", "http://127.0.0.1:9/", Role.SHADOW)
    route = await open_school(signed, replace(spec, arms=(*spec.arms, dark)))
    await taught(signed, route)
    await log(signed, decided(route, chosen(route, "dark"), {"country": "DE"}))
    await learn(signed, LATER_MS + 1)
    found = await published(signed)
    plan = Plan(found)
    assert (found.bandit is not None, plan.fault) == (True, None)
    assert found.bandit is not None
    learned = found.bandit.learned
    assert learned is not None
    assert plan.encoder is not None
    assert (learned.at_ms, learned.schema) == (LATER_MS + 1, plan.encoder.version)
    assert [(arm.arm_id, arm.rewards) for arm in learned.arms] == [
        (route.arm_ids["old"], 1),
        (route.arm_ids["new"], 1),
    ]


async def test_rewards_of_0_and_1_without_a_context_are_told_as_counts(signed: Database) -> None:
    """And are told apart from other rewards."""
    spec = bandit_spec(reward=Reward("profit"), warm_up=1)
    route = await open_school(signed, replace(spec, metrics=(Metric("profit", Kind.BINARY, window_ms=1),)))
    one, other = chosen(route), chosen(route)
    await log(signed, decided(route, one), decided(route, other), told(one, "profit", 1.0, at_ms=0))
    await learn(signed)
    bandit = (await published(signed)).bandit
    assert bandit is not None
    assert bandit.learned is not None
    (arm,) = bandit.learned.arms
    assert (bandit.is_binary, arm.successes, arm.failures) == (True, 1.0, 1.0)


async def test_what_is_of_another_meaning_or_not_all_yet_is_not_told(signed: Database) -> None:
    """From the change of a reward to the moment at which all of the log has been learnt by it."""
    route = await open_school(signed)
    await taught(signed, route)
    bandit = (await published(signed)).bandit
    assert bandit is not None
    assert bandit.learned is not None
    await redeclare(signed, bandit_spec(reward=Reward("2 * profit")))
    learner = Learner(signed, batch=1)
    for _ in range(3):
        found = await published(signed)
        assert found.bandit is not None
        assert found.bandit.learned is None
        (route,) = await learner.routes()
        assert await learner.learn(route, LATER_MS, LATER_MS)
    await learn(signed)
    found = await published(signed)
    assert found.bandit is not None
    assert found.bandit.learned is not None


@pytest.mark.parametrize("stored", [b"\x00", "nan"])
async def test_what_is_damaged_is_not_told(
    signed: Database, stored: bytes | str, caplog: pytest.LogCaptureFixture
) -> None:
    """The champion answers, an error is logged, and other routes go on as they were."""
    route = await open_school(signed)
    other = await open_school(signed, bandit_spec("other"))
    for one in (route, other):
        await taught(signed, one)
    arm_id = route.arm_ids["new"]
    if stored == "nan":
        stored = replace((await known(signed, route)).sums[arm_id], y=float("nan")).to_bytes()
    async with signed.transaction() as connection:
        row = tables.bandit_arms.c.arm_id == arm_id
        await connection.execute(update(tables.bandit_arms).where(row).values(sums=stored))
    with caplog.at_level(logging.ERROR):
        plan = Plan(await published(signed))
    assert plan.bandit is None
    assert Plan(await published(signed, "other")).bandit is not None
    (record, *_) = caplog.records
    assert (record.message, record.__dict__["fields"]["route"]) == ("bandit_not_trusted", "ads")
