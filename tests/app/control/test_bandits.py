"""What a bandit has learnt can be read, and learnt anew on somebody's order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it carries no types
from sqlalchemy import update

from app.clock import now_ms
from app.db import tables
from app.db.routes import StoredRoute
from app.events.types import Event
from app.jobs.learn import Learner
from policies.bandits import BanditSpec
from policies.rewards import Reward
from policies.spec import RouteSpec
from routing.errors import BadModel
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.types import Reason
from tests.app import logged_world
from tests.app.control.stage import Json, Stage
from tests.app.db.stage import DAY_MS, HOUR_MS, put_route
from tests.app.events.facts import told
from tests.app.jobs.school import COUNTRY, bandit_spec, chosen, decided, learn, log

APP = Feature(
    name="app",
    source=Source(kind=SourceKind.HEADER, name="X-App"),
    type=FeatureType.BOOLEAN,
    default=False,
)
SPEC = replace(
    bandit_spec(context=(COUNTRY, APP), warm_up=2, floor_bp=100, caps={"new": 8_000}),
    segments=("country", "app"),
)


async def declared(stage: Stage, spec: RouteSpec = SPEC) -> StoredRoute:
    """A route whose bandit has begun, as gateways have it."""
    route = await put_route(stage.database, spec, now_ms() - 9 * HOUR_MS)
    await learn(stage.database, now_ms())
    await stage.context.publish()
    return route


async def happened(stage: Stage, route: StoredRoute, **more: Any) -> None:
    """Two hours ago `new` earned 1 in Germany, and `old` in France, three times each; the others nothing."""
    events: list[Event] = []
    for country in ("DE", "FR", "US"):
        for arm in ("old", "new"):
            for _ in range(3):
                one = chosen(route, arm, now_ms() - 2 * HOUR_MS, **more)
                good = {"DE": "new", "FR": "old"}.get(country) == arm
                events += [decided(route, one, {"country": country}), told(one, "profit", float(good))]
    await log(stage.database, *events)


async def view(stage: Stage) -> Json:
    """What is answered, which is as it is described."""
    found: Json = await stage.read("/routes/ads/bandit")
    api = stage.app.openapi()
    schema = {"$ref": "#/components/schemas/BanditView", "components": api["components"]}
    Draft202012Validator(schema).validate(found)
    return found


async def test_a_bandit_shows_its_terms_before_it_has_learnt(stage: Stage) -> None:
    """Even shares, no segments, and prior beliefs that are the same for all arms."""
    await declared(stage)
    found = await view(stage)
    assert {name: found[name] for name in ("route", "mode", "reward", "floor", "caps", "discount")} == {
        "route": "ads",
        "mode": "live",
        "reward": {"expression": "profit", "default": 0.0},
        "floor": 100,
        "caps": {"new": 8_000},
        "discount": 1.0,
    }
    assert (found["fault"], found["unusable"], found["segments"]) == (None, 0, [])
    assert found["pending"] == {"decisions": 0, "first_due": None}
    for arm in found["arms"]:
        assert (arm["pulls"], arm["rewards"], arm["warm"], arm["mean_reward"]) == (0, 0, False, None)
        assert arm["share"] is None
        columns = [coefficient["column"] for coefficient in arm["coefficients"]]
        assert columns == ["intercept", "country=DE", "country=FR", "country=*", "country?", "app"]
    assert "apprentice" not in found or found["apprentice"] is None


async def test_what_was_learnt_is_shown_arm_by_arm_and_segment_by_segment(stage: Stage) -> None:
    """Counts, means, coefficients with their intervals; shares over recent contexts, and value by value."""
    route = await declared(stage)
    await happened(stage, route)
    waiting = chosen(route, at_ms=now_ms())
    await log(stage.database, decided(route, waiting, {"app": True}))
    await learn(stage.database, now_ms())
    found = await view(stage)
    old, new = found["arms"]
    assert (old["arm"], new["arm"]) == ("old", "new")
    assert (new["pulls"], new["rewards"], new["warm"]) == (10, 9, True)
    assert (new["mean_reward"], new["effective_samples"]) == pytest.approx((1 / 3, 9.0))
    assert found["pending"]["decisions"] == 1
    assert found["pending"]["first_due"] is not None
    german = next(one for one in new["coefficients"] if one["column"] == "country=DE")
    assert german["low"] < german["mean"] < german["high"]
    by_value = {(one["feature"], one["value"]): one for one in found["segments"]}
    assert {place: one["n"] for place, one in by_value.items()} == {
        ("country", "DE"): 6,
        ("country", "FR"): 6,
        ("country", "*"): 6,
        ("country", None): 1,
        ("app", False): 18,
        ("app", True): 1,
    }
    assert by_value["country", "DE"]["shares"]["new"] > 7_000
    assert by_value["country", "FR"]["shares"]["old"] > 7_000
    for one in (*found["segments"], {"shares": {arm["arm"]: arm["share"] for arm in found["arms"]}}):
        assert sum(one["shares"].values()) == pytest.approx(10_000)
        assert one["shares"]["new"] <= 8_000


async def test_without_features_there_is_one_share_for_all(stage: Stage) -> None:
    """It needs no context to be known, and there are no segments."""
    route = await declared(stage, bandit_spec(warm_up=1))
    for arm, profit in (("old", 0.0), ("new", 1.0)):
        events: list[Event] = []
        for _ in range(9):
            one = chosen(route, arm, now_ms() - 2 * HOUR_MS)
            events += [decided(route, one), told(one, "profit", profit)]
        await log(stage.database, *events)
    await learn(stage.database, now_ms())
    found = await view(stage)
    assert [arm["coefficients"][0]["column"] for arm in found["arms"]] == ["intercept", "intercept"]
    assert found["arms"][1]["share"] > 9_000
    assert found["segments"] == []


async def test_an_apprentice_shows_what_it_would_have_earned_at_least(stage: Stage) -> None:
    """As far as that is known; a share of a reward that is not positive is none."""
    route = await declared(stage, bandit_spec(apprentice=True))
    empty = (await view(stage))["apprentice"]
    assert empty == {
        "decisions": 0,
        "agreement": None,
        "earned": 0.0,
        "actual": 0.0,
        "share_of_reward": None,
    }
    for considered_bp, profit in ((10_000, 1.0), (5_000, 3.0)):
        one = chosen(route, "old", now_ms() - 2 * HOUR_MS, reason=Reason.STATIC)
        await log(
            stage.database, decided(route, one, considered_bp=considered_bp), told(one, "profit", profit)
        )
    await learn(stage.database, now_ms())
    found = await view(stage)
    assert found["mode"] == "apprentice"
    assert found["apprentice"] == {
        "decisions": 2,
        "agreement": 0.75,
        "earned": 2.5,
        "actual": 4.0,
        "share_of_reward": 0.625,
    }
    one = chosen(route, "old", now_ms() - 2 * HOUR_MS, reason=Reason.STATIC)
    await log(stage.database, decided(route, one, considered_bp=0), told(one, "profit", -9.0))
    await learn(stage.database, now_ms())
    totals = (await view(stage))["apprentice"]
    assert (totals["earned"], totals["actual"], totals["share_of_reward"]) == (2.5, -5.0, None)


@pytest.mark.parametrize("had_weights", [True, False])
async def test_what_an_apprentice_would_earn_is_estimated_from_a_time_of_weights(
    stage: Stage, had_weights: bool
) -> None:
    """Its own decisions are not drawn, so that they say nothing of other arms; those of weights before do."""
    spec = replace(logged_world.SPEC, bandit=BanditSpec(Reward("revenue"), apprentice=True))
    route = await put_route(stage.database, spec)
    if had_weights:
        log_of_weights = logged_world.visits(route.arm_ids, 400, route_id=route.id)
        await logged_world.record(stage.database, route, log_of_weights)
    made = [chosen(route, "old", now_ms() - 2 * HOUR_MS, reason=Reason.STATIC) for _ in range(9)]
    await log(stage.database, *(decided(route, one, {"country": "DE"}, considered_bp=5_000) for one in made))
    asked = {"route": "ads", "policy": {"kind": "bandit"}}
    answer = await stage.ask("POST", "/off-policy-evaluations", asked)
    if had_weights:
        assert answer.status_code == 200, answer.text
        assert answer.json()["n"] == 400
    else:
        assert (answer.status_code, "no_data" in answer.text) == (422, True)


async def test_a_rebuild_forgets_and_learns_the_log_again(stage: Stage) -> None:
    """The timeline says who wanted it and why; until all is learnt gateways know nothing, and then as much as
    before."""
    route = await declared(stage)
    await happened(stage, route)
    await learn(stage.database, now_ms())
    await stage.context.publish()
    before = await view(stage)
    answer = await stage.ask("POST", "/routes/ads/bandit/rebuild", {"reason": "doubts"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["pending"]["decisions"] == 18
    assert answer.json()["fault"] == "not all that is in the log has been learnt yet"
    bandit = stage.published().bandit
    assert bandit is not None
    assert bandit.learned is None
    entry = (await stage.timeline())[-1]
    assert (entry["kind"], entry["actor"], entry["reason"]) == ("bandit_rebuilt", "local", "doubts")
    await learn(stage.database, now_ms())
    await Learner(stage.database).publish(now_ms())
    await stage.context.publish()
    after = await view(stage)
    assert after["arms"] == before["arms"]
    assert after["fault"] is None
    assert stage.published().bandit is not None
    bandit = stage.published().bandit
    assert bandit is not None
    assert bandit.learned is not None


async def test_what_is_damaged_is_said(stage: Stage) -> None:
    """With the order that mends it, and nothing is shown that might come from it."""
    route = await declared(stage)
    await happened(stage, route)
    await learn(stage.database, now_ms())
    async with stage.database.transaction() as connection:
        await connection.execute(update(tables.bandit_arms).values(sums=b"\x07"))
    found = await view(stage)
    assert "damaged" in found["fault"]
    assert "kingmaker bandit rebuild ads" in found["fault"]
    assert [(arm["rewards"], arm["share"]) for arm in found["arms"]] == [(0, None), (0, None)]
    assert found["segments"] == []


@pytest.mark.parametrize("damaged", [{"version": -1}, {"refill": "junk"}, {"apprentice": "[]"}])
async def test_what_gateways_have_not_heard_of_is_said(stage: Stage, damaged: dict[str, Any]) -> None:
    """A fault is there with the time of what they choose by, until a learner has found it and told them."""
    await declared(stage)
    learner = Learner(stage.database)
    await learner.publish(now_ms())
    assert (await view(stage))["published_at"] is not None
    async with stage.database.transaction() as connection:
        await connection.execute(update(tables.bandits).values(**damaged))
    found = await view(stage)
    assert f"{next(iter(damaged))} must be" in found["fault"]
    assert found["published_at"] is not None
    (route,) = await learner.routes()
    with pytest.raises(BadModel):
        await learner.learn(route, now_ms(), now_ms())
    await stage.context.publish()
    found, bandit = await view(stage), stage.published().bandit
    assert (found["fault"] is not None, found["published_at"]) == (True, None)
    assert bandit is not None
    assert bandit.learned is None


async def test_rewards_are_shown_with_what_they_are_worth_by_now(stage: Stage) -> None:
    """Those of two days ago a quarter, by a discount of a half; as evidence they are still as many."""
    route = await declared(stage, bandit_spec(discount=0.5))
    made = [chosen(route, at_ms=now_ms() - 2 * DAY_MS, reason=Reason.SPLIT) for _ in range(8)]
    await log(stage.database, *(decided(route, one) for one in made))
    await learn(stage.database, now_ms())
    old, new = (await view(stage))["arms"]
    assert (old["worth"], old["rewards"]) == (0, 0)
    assert (new["pulls"], new["rewards"], new["effective_samples"]) == (0, 8, 8)
    assert new["worth"] == pytest.approx(2, rel=1e-3)


async def test_a_route_that_weights_divide_has_no_bandit(ads: Stage) -> None:
    """Nor has one that is not there; and only who may act on a route can have it learn anew."""
    for name in ("ads", "none"):
        assert (await ads.ask("GET", f"/routes/{name}/bandit")).status_code == 404
        answer = await ads.ask("POST", f"/routes/{name}/bandit/rebuild", {"reason": "why not"})
        assert answer.status_code == 404
    viewer = await ads.make_key("viewer")
    answer = await ads.ask("POST", "/routes/ads/bandit/rebuild", {"reason": "why not"}, viewer)
    assert answer.status_code == 403
