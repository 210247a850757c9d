"""A route's name can be used again after it is gone; its id, and those of its arms, never."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from app.db import routes, tables
from app.db.errors import Conflict, NotFound, Unreadable
from app.db.session import Database
from app.db.timeline import Kind
from policies.lifecycle import promote, with_arms
from policies.metrics import Metric
from policies.spec import Advance, Approval, ArmSpec, Guardrail, Policy, RouteSpec
from policies.types import Aggregate, Better, Missing
from policies.types import Kind as MetricKind
from routing.features import Source, SourceKind
from routing.types import ArmHeader, Ejection, HealthCheck, Match, Prediction, Role, Tls, Upstream
from tests.app.db.stage import DAY_MS, START_MS, get_route, put_route, route_spec, row_counts, save

LATER_MS = START_MS + DAY_MS

FULL = RouteSpec(
    name="every-field_is.kept",
    arms=(
        ArmSpec("old", "http://10.0.0.1:9001/scörе", Role.CHAMPION, {"mlflow": "models:/bidder/7"}),
        ArmSpec(
            "new",
            "http://10.0.0.2:9001/score?v=2",
            headers=(ArmHeader(name="Authorization", env="TOKEN"), ArmHeader(name="X-Tier", value="gold")),
        ),
        ArmSpec("newer", "http://10.0.0.3/", Role.CHALLENGER),
        ArmSpec("dark", "https://10.0.0.4/", Role.SHADOW, sample_bp=1, tls=Tls(ca="/ca.pem", key="/key.pem")),
    ),
    weights={"old": 6_667, "new": 3_333, "newer": 0},
    match=Match(path_prefix="/v1/chat/completions", host="ads.example.com"),
    unit=Source(kind=SourceKind.JSON, name="/user/id"),
    metrics=(
        Metric("cost", MetricKind.CONTINUOUS, Better.LOWER, 1_000, Aggregate.SUM, Missing.ZERO),
        Metric("conversion", MetricKind.BINARY),
    ),
    predictions=(Prediction(name="score", pointer="/score", numeric=True),),
    policy=Policy(
        goal="conversion",
        confidence=0.95,
        minimum_effect=0.01,
        guardrails=(Guardrail("conversion", 0.2, 0.999, 10), Guardrail()),
        ramp_bp=(2_500, 5_000, 10_000),
        advance=Advance.HEALTHY,
        approval=Approval.MANUAL,
        day_length_ms=3_600_000,
        timezone="Europe/Berlin",
    ),
    upstream=Upstream(
        timeout_ms=100,
        connect_timeout_ms=10,
        max_connections=3,
        max_waiting=0,
        fallback=False,
        retry_percent=5,
        hedge_ms=50,
        ejection=Ejection(consecutive_failures=3),
        health_check=HealthCheck(path="/healthz", failures=1),
    ),
    allow_force=True,
)


async def delete(database: Database, name: str = "ads") -> None:
    """Take a route out of service."""
    route = await get_route(database, name)
    async with database.transaction() as connection:
        await routes.delete_route(connection, route.id, LATER_MS)


async def test_a_route_is_read_as_it_was_declared(database: Database) -> None:
    """Everything that a declaration can say is there again, with its arms in their order."""
    stored = await put_route(database, FULL)
    assert stored.spec == FULL
    assert stored.name == FULL.name
    assert list(stored.arm_ids) == ["old", "new", "newer", "dark"]
    assert (stored.version, stored.frozen_through_ms, stored.created_at_ms) == (1, 0, START_MS)


async def test_roles_and_split_are_those_of_the_rollout(database: Database) -> None:
    """After a promotion the route reads with the new champion and the new split."""
    route = await put_route(database)
    await save(database, route, promote(route.rollout, "new", LATER_MS), Kind.PROMOTED)
    now = await get_route(database)
    assert {arm.name: arm.role for arm in now.spec.arms} == {"old": Role.CHALLENGER, "new": Role.CHAMPION}
    assert now.spec.weights == {"old": 0, "new": 10_000}
    assert now.spec == routes.placed(route.spec, now.rollout)


async def test_a_shadow_arm_is_no_part_of_the_rollout(database: Database) -> None:
    """Whoever is promoted, it stays a shadow, and no share is ever its."""
    route = await put_route(database, FULL)
    assert set(route.rollout.weights) == {"old", "new", "newer"}
    await save(database, route, promote(route.rollout, "new", LATER_MS), Kind.PROMOTED)
    now = await get_route(database, FULL.name)
    assert {arm.name: arm.role for arm in now.spec.arms}["dark"] is Role.SHADOW
    assert now.arm_ids["dark"] not in {share.arm_id for share in now.shares}


async def test_all_live_routes_are_listed_by_name(database: Database) -> None:
    """The list is sorted, holds each route whole, and leaves out those that are gone."""
    for name in ("c", "a", "b", "gone"):
        await put_route(database, route_spec(name))
    await delete(database, "gone")
    async with database.read() as connection:
        found = await routes.load_routes(connection)
    assert [route.name for route in found] == ["a", "b", "c"]
    assert found[1] == await get_route(database, "b")


async def test_routes_are_found_by_id_while_they_live(database: Database) -> None:
    """Ids of live routes give them; ids that were deleted, or never given, give nothing."""
    here, gone = await put_route(database), await put_route(database, route_spec("gone"))
    await delete(database, "gone")
    async with database.read() as connection:
        assert await routes.load_by_id(connection, {here.id, gone.id, 999}) == {here.id: here}
        assert await routes.load_by_id(connection, set()) == {}


async def test_a_name_is_free_after_deletion_and_an_id_is_not(database: Database) -> None:
    """A route that takes a deleted route's name is another one, with ids that nobody ever had."""
    first = await put_route(database)
    await delete(database)
    with pytest.raises(NotFound, match="no route is named 'ads'"):
        await get_route(database)
    second = await put_route(database, now_ms=LATER_MS)
    assert second.id > first.id
    assert min(second.arm_ids.values()) > max(first.arm_ids.values())
    assert (second.version, second.created_at_ms) == (1, LATER_MS)


async def test_the_history_of_a_deleted_route_stays(database: Database) -> None:
    """Deleting a route removes no row of any table."""
    await put_route(database)
    async with database.read() as connection:
        before = await row_counts(connection)
    await delete(database)
    async with database.read() as connection:
        assert await row_counts(connection) == before


async def test_a_name_leads_to_who_had_it_last(database: Database) -> None:
    """The id behind a name is that of the live route, else of the one deleted last, else there is none."""
    async with database.read() as connection:
        with pytest.raises(NotFound, match="no route is named 'ads'"):
            await routes.find_route_id(connection, "ads")
    first = await put_route(database)
    await delete(database)
    async with database.read() as connection:
        assert await routes.find_route_id(connection, "ads") == first.id
    second = await put_route(database)
    async with database.read() as connection:
        assert await routes.find_route_id(connection, "ads") == second.id


async def test_a_name_that_is_taken_is_a_conflict(database: Database) -> None:
    """A second live route of a name is refused, and none of its arms is written."""
    await put_route(database)
    async with database.read() as connection:
        before = await row_counts(connection)
    with pytest.raises(Conflict):
        await put_route(database)
    async with database.read() as connection:
        assert await row_counts(connection) == before


async def test_of_many_who_take_a_name_at_once_one_gets_it(database: Database) -> None:
    """Five writers make a route of the same name at the same time: one succeeds, four are told Conflict."""
    results = await asyncio.gather(*(put_route(database) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results if isinstance(result, BaseException)] == [Conflict] * 4
    async with database.read() as connection:
        counts = await row_counts(connection)
    assert (counts["routes"], counts["arms"], counts["rollouts"], counts["timeline"]) == (1, 2, 1, 1)


async def test_an_arms_name_is_free_once_it_is_retired_and_its_id_is_not(database: Database) -> None:
    """A live arm's name is taken; a retired one's may be given to a new arm, which has an id of its own."""
    route = await put_route(database, route_spec(weights={"old": 10_000, "new": 0}))
    arm = ArmSpec("new", "http://127.0.0.1:9009/again")
    with pytest.raises(Conflict):
        async with database.transaction() as connection:
            await routes.insert_arm(connection, route.id, arm, LATER_MS)
    async with database.transaction() as connection:
        await routes.retire_arm(connection, route.arm_ids["new"], LATER_MS)
    await save(database, route, with_arms(route.rollout, ("old",)), Kind.ARM_RETIRED)
    assert (await get_route(database)).arm_ids == {"old": route.arm_ids["old"]}
    async with database.transaction() as connection:
        again = await routes.insert_arm(connection, route.id, arm, LATER_MS)
    assert again not in route.arm_ids.values()
    assert (await get_route(database)).arm_ids == {"old": route.arm_ids["old"], "new": again}


async def test_two_routes_may_have_arms_of_one_name(database: Database) -> None:
    """Arms are named within their route."""
    one, other = await put_route(database), await put_route(database, route_spec("other"))
    assert set(one.arm_ids) == set(other.arm_ids)
    assert set(one.arm_ids.values()).isdisjoint(other.arm_ids.values())


async def test_an_arm_can_be_declared_anew(database: Database) -> None:
    """A changed arm keeps its id, its place and the role that the rollout gave it."""
    route = await put_route(database)
    moved = replace(route.spec.arms[0], url="http://127.0.0.1:1/elsewhere", labels={"tier": "gold"})
    async with database.transaction() as connection:
        await routes.update_arm(connection, route.arm_ids["old"], replace(moved, role=Role.CHALLENGER))
    now = await get_route(database)
    assert now.spec.arms == (moved, route.spec.arms[1])
    assert now.arm_ids == route.arm_ids


@pytest.mark.parametrize("column", ["spec", "state"])
async def test_a_route_of_another_version_is_unreadable(database: Database, column: str) -> None:
    """A row that this version does not understand is told by its route's name, as one of our errors."""
    route = await put_route(database)
    table = {"spec": tables.routes, "state": tables.rollouts}[column]
    async with database.transaction() as connection:
        await connection.execute(table.update().values({column: '{"split": {"mode": "oracle"}}'}))
    for load in (routes.load_routes, lambda connection: routes.load_by_id(connection, {route.id})):
        async with database.read() as connection:
            with pytest.raises(Unreadable, match="route 'ads' was not written by this version"):
                await load(connection)
