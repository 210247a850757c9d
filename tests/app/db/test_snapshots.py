"""The snapshot is what is live, as one state: routes, arms, shares and keys."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from app.db import routes, signing, versions
from app.db.overrides import StoredOverride, insert_override
from app.db.session import Database
from app.db.snapshots import load_snapshot
from app.db.timeline import Kind
from policies.lifecycle import promote, set_kill_switch, start, with_arms
from policies.spec import ArmSpec
from routing.errors import BadSnapshot
from routing.features import Source, SourceKind
from routing.snapshot import Snapshot
from routing.types import (
    ArmHeader,
    Ejection,
    HealthCheck,
    Match,
    MetricRule,
    Prediction,
    Role,
    Tls,
    Upstream,
    probabilities,
)
from tests.app.db.stage import START_MS, put_route, route_spec, save


async def _load(database: Database) -> Snapshot:
    async with database.read() as connection:
        return await load_snapshot(connection, START_MS)


@pytest.fixture
async def signed(database: Database) -> Database:
    """A database with a signing key, on both kinds of server."""
    async with database.transaction() as connection:
        await signing.ensure_key(connection, START_MS)
    return database


async def test_without_a_key_there_is_no_snapshot(database: Database) -> None:
    """Nothing could be signed."""
    with pytest.raises(BadSnapshot, match="at least one signing key"):
        await _load(database)


async def test_without_routes_it_is_empty_but_whole(signed: Database) -> None:
    """A gateway can start before anything is declared."""
    snapshot = await _load(signed)
    assert (snapshot.version, snapshot.created_at_ms, snapshot.routes) == (1, START_MS, ())
    assert len(snapshot.keys) == 1


async def test_it_holds_everything_that_a_gateway_needs(signed: Database) -> None:
    """Every declared part of a route arrives, secrets by name, and survives the way to the file."""
    spec = replace(
        route_spec(),
        arms=(
            ArmSpec(
                "old", "http://127.0.0.1:1/a", Role.CHAMPION, headers=(ArmHeader(name="A", env="TOKEN"),)
            ),
            ArmSpec("new", "http://127.0.0.1:2/b"),
            ArmSpec("dark", "https://127.0.0.1:3/c", Role.SHADOW, sample_bp=500, tls=Tls(ca="/ca.pem")),
        ),
        predictions=(Prediction(name="score", pointer="/score", numeric=False),),
        match=Match(path_prefix="/x", host="ads.example.com"),
        unit=Source(kind=SourceKind.COOKIE, name="uid"),
        upstream=Upstream(
            timeout_ms=4,
            connect_timeout_ms=2,
            max_connections=3,
            fallback=False,
            hedge_ms=1,
            ejection=Ejection(consecutive_failures=3),
            health_check=HealthCheck(path="/healthz"),
        ),
        allow_force=True,
    )
    stored = await put_route(signed, spec)
    snapshot = await _load(signed)
    (route,) = snapshot.routes
    assert (route.id, route.name, route.match, route.unit) == (stored.id, "ads", spec.match, spec.unit)
    assert (route.upstream, route.allow_force, route.kill_switch) == (spec.upstream, True, False)
    assert route.metrics == (MetricRule(name="conversion", kind="binary", window_ms=3_600_000),)
    assert [(arm.id, arm.name, arm.url, arm.role) for arm in route.arms] == [
        (stored.arm_ids["old"], "old", "http://127.0.0.1:1/a", Role.CHAMPION),
        (stored.arm_ids["new"], "new", "http://127.0.0.1:2/b", Role.CHALLENGER),
        (stored.arm_ids["dark"], "dark", "https://127.0.0.1:3/c", Role.SHADOW),
    ]
    assert (route.arms[2].sample_bp, route.arms[2].tls) == (500, Tls(ca="/ca.pem"))
    assert route.predictions == spec.predictions
    assert route.arms[0].headers == (ArmHeader(name="A", env="TOKEN"),)
    assert probabilities(route.shares) == {stored.arm_ids["old"]: 9_000, stored.arm_ids["new"]: 1_000}
    assert msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot) == snapshot


async def test_it_holds_the_overrides_of_arms_that_answer(signed: Database) -> None:
    """With their ids and expiry; one of an arm that is a shadow, or gone, is left out."""
    spec = route_spec(weights={"old": 10_000, "new": 0})
    dark = ArmSpec("dark", "http://127.0.0.1:3/c", Role.SHADOW)
    route = await put_route(signed, replace(spec, arms=(*spec.arms, dark)))
    async with signed.transaction() as connection:
        made = [
            await insert_override(
                connection,
                route.id,
                StoredOverride(0, arm, route.arm_ids[arm], (), 1, 7, START_MS + 1, "ann", "why", START_MS),
            )
            for arm in ("old", "new", "dark")
        ]
        await routes.retire_arm(connection, route.arm_ids["new"], START_MS)
    await save(signed, route, with_arms(route.rollout, ("old",)), Kind.ARM_RETIRED)
    (found,) = (await _load(signed)).routes
    assert found.overrides == (made[0].rule,)
    assert found.overrides[0].expires_at_ms == START_MS + 1


async def test_it_follows_the_rollout(signed: Database) -> None:
    """Role, shares, epoch and switch are those of now, in a version that rises with each change."""
    route = await put_route(signed)
    before = await _load(signed)
    route = await save(signed, route, promote(route.rollout, None, START_MS), Kind.PROMOTED)
    await save(signed, route, set_kill_switch(route.rollout, True), Kind.KILL_SWITCH_ON)
    after = await _load(signed)
    assert after.version == before.version + 2
    (found,) = after.routes
    assert (found.champion.name, found.kill_switch, found.epoch) == ("new", True, route.rollout.epoch)
    assert probabilities(found.shares) == {route.arm_ids["new"]: 10_000}


async def test_a_fresh_trial_draws_its_units_anew(signed: Database) -> None:
    """The salt changes when a challenger starts from nothing, and not before; no two routes share one."""
    route = await put_route(signed, route_spec(weights={"old": 10_000, "new": 0}))
    other = await put_route(signed, route_spec("other"))
    salts = [found.salt for found in (await _load(signed)).routes]
    assert len(set(salts)) == 2
    await save(signed, route, start(route.rollout, "new", 1_000, START_MS), Kind.ROLLOUT_STARTED)
    by_id = {found.id: found.salt for found in (await _load(signed)).routes}
    assert by_id[route.id] not in salts
    assert by_id[other.id] in salts


async def test_what_is_gone_is_not_in_it(signed: Database) -> None:
    """Neither a retired arm nor a deleted route."""
    route = await put_route(signed, route_spec(weights={"old": 10_000, "new": 0}))
    gone = await put_route(signed, route_spec("gone"))
    async with signed.transaction() as connection:
        await routes.retire_arm(connection, route.arm_ids["new"], START_MS)
        await routes.delete_route(connection, gone.id, START_MS)
    await save(signed, route, with_arms(route.rollout, ("old",)), Kind.ARM_RETIRED)
    (found,) = (await _load(signed)).routes
    assert [arm.name for arm in found.arms] == ["old"]


async def test_a_change_that_is_undone_leaves_the_version_as_it_was(signed: Database) -> None:
    """The version rises in the transaction of the change, or not at all."""
    before = await _load(signed)
    async with signed.rehearsal() as connection:
        await versions.bump(connection)
        assert await versions.current(connection) == before.version + 1
    assert await _load(signed) == before
