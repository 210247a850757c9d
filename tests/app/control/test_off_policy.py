"""The API judges another way of choosing arms from a log whose truth is known, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete

from app.clock import now_ms
from app.control.api import off_policy
from app.db.routes import StoredRoute, update_spec
from app.db.session import Database
from app.db.tables import recorders
from policies.bandits import BanditSpec
from policies.lessons import GRACE_MS, SETTLE_MS
from policies.rewards import Reward
from policies.spec import RouteSpec
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.types import TOTAL_BP, Reason
from tests.app.cli.programs import invoke
from tests.app.control.stage import Stage, faults
from tests.app.db.stage import HOUR_MS, START_MS, get_route, put_route
from tests.app.logged_world import (
    CONTEXT,
    SPEC,
    Visit,
    record,
    time_of,
    value,
    visits,
    write_files,
)

METHODS = ("ips", "snips", "direct_method", "doubly_robust")
ALWAYS_NEW = {"kind": "always", "arm": "new"}
TRUTHS: dict[str, tuple[dict[str, Any], float]] = {
    "always": (ALWAYS_NEW, value({"DE": 1, "FR": 1})),
    "uniform": ({"kind": "uniform"}, value({"DE": 0.5, "FR": 0.5})),
    "weights": ({"kind": "weights", "weights": {"old": 8_000, "new": 2_000}}, value({"DE": 0.2, "FR": 0.2})),
    "learned": ({"kind": "learned"}, value({"DE": 1, "FR": 0})),
}
BANDIT: RouteSpec = replace(
    SPEC, bandit=BanditSpec(Reward("revenue"), warm_up=20), weights={"old": TOTAL_BP, "new": 0}
)


@pytest.fixture
async def either(tmp_path: Path, database: Database, app: FastAPI) -> AsyncIterator[Stage]:
    """A control plane on SQLite, and one on PostgreSQL."""
    stage = Stage(tmp_path, database, app)
    yield stage
    await stage.http.aclose()


async def filled(
    stage: Stage, spec: RouteSpec = SPEC, n: int = 1_000, **how: Any
) -> tuple[StoredRoute, list[Visit]]:
    """The route with a log."""
    route = await put_route(stage.database, spec)
    log = visits(route.arm_ids, n, route_id=route.id, **how)
    await record(stage.database, route, log)
    return route, log


async def ask(stage: Stage, policy: object = ALWAYS_NEW, **more: object) -> httpx.Response:
    """A question about a candidate on the route."""
    return await stage.ask("POST", "/off-policy-evaluations", {"route": "ads", "policy": policy, **more})


async def answer(stage: Stage, policy: object = ALWAYS_NEW, **more: object) -> dict[str, Any]:
    """The answer, which must be one."""
    found = await ask(stage, policy, **more)
    assert found.status_code == 200, found.text
    document: dict[str, Any] = found.json()
    return document


async def refused(stage: Stage, policy: object = ALWAYS_NEW, **more: object) -> dict[str, str]:
    """The fields that are at fault."""
    found = await ask(stage, policy, **more)
    assert found.status_code == 422, found.text
    return faults(found)


@pytest.mark.parametrize("units", [None, 700], ids=["each-its-own", "sticky"])
async def test_what_is_known_is_found(either: Stage, units: int | None) -> None:
    """By every method the truth is within four standard errors; what is learned finds out who is whose."""
    await filled(either, units=units)
    for policy, truth in TRUTHS.values():
        found = await answer(either, policy)
        assert abs(found["logged"]["value"] - value({"DE": 0.5, "FR": 0.5})) < 0.06
        for method in METHODS:
            one, apart = found["estimates"][method], found["differences"][method]
            assert abs(one["value"] - truth) < 4 * one["standard_error"], (policy, method)
            assert one["low"] < one["value"] < one["high"]
            assert apart["value"] == pytest.approx(one["value"] - found["logged"]["value"])
        assert (found["n"], found["units"] == 1_000) == (1_000, units is None)


async def test_the_answer_says_what_it_rests_on(stage: Stage) -> None:
    """Candidate, reward, terms, period, arms; what is learned is learned out of fold."""
    _, log = await filled(stage)
    found = await answer(
        stage,
        ALWAYS_NEW,
        reward={"expression": "revenue - 2 * cost", "default": -1},
        clip=1.5,
        level=0.9,
        folds=3,
    )
    assert found["policy"] == {**dict.fromkeys(("weights", "choose", "temperature")), **ALWAYS_NEW}
    assert found["reward"] == {"expression": "revenue - 2 * cost", "default": -1.0}
    assert (found["level"], found["clip"], found["folds"], found["learned"]) == (0.9, 1.5, 3, None)
    assert (found["since"], found["until"]) == ("2025-01-06T00:00:00Z", "2025-01-06T00:16:39Z")
    assert (found["left_out"], found["n"], found["units"]) == ({}, 1_000, 1_000)
    earned = [visit.outcomes.get("revenue", -1.0) for visit in log]
    assert found["logged"]["value"] == pytest.approx(sum(earned) / 1_000)
    old, new = found["arms"]
    assert (old["arm"], old["target_share"], new["arm"], new["target_share"]) == ("old", 0, "new", 1)
    assert new["decisions"] == sum(visit.arm == "new" for visit in log)
    assert (new["mean_propensity"], new["answers"], new["max_weight"]) == (0.5, True, 2.0)
    assert found["estimates"]["ips"]["clipped_share"] == pytest.approx(new["logged_share"])
    assert "clipping at 1.5 met" in found["warnings"][0]
    assert (await answer(stage, {"kind": "learned", "choose": "softmax", "temperature": 2}))[
        "learned"
    ] == "out_of_fold"


async def test_the_usual_reward_is_the_goal(stage: Stage) -> None:
    """Or what a bandit learns from."""
    await filled(stage, n=400)
    assert (await answer(stage))["reward"] == {"expression": "conversion", "default": 0.0}


async def test_a_bandit_is_judged_out_of_fold(stage: Stage) -> None:
    """It earns more than what drew the log, though it is judged on nothing that it has learned from."""
    await filled(stage, BANDIT, reason=Reason.BANDIT, share={"DE": 4_000, "FR": 7_000})
    found = await answer(stage, {"kind": "bandit"})
    assert (found["learned"], found["reward"]["expression"]) == ("out_of_fold", "revenue")
    assert found["differences"]["doubly_robust"]["low"] > 0
    by_conversions = await answer(stage, {"kind": "bandit"}, reward={"metric": "conversion"})
    assert by_conversions["arms"] == found["arms"], "it goes on learning from its own reward"
    truth = value({"DE": 1, "FR": 0})
    assert abs(by_conversions["estimates"]["doubly_robust"]["value"] - truth) < 0.1


async def test_only_mature_decisions_are_judged(stage: Stage) -> None:
    """Those whose outcomes may still come are left for later."""
    route, log = await filled(stage, n=400)
    late = visits(route.arm_ids, 50, route_id=route.id, first=400)
    shift_ms = now_ms() - HOUR_MS - START_MS - 420_000
    moved = [replace(visit, claims=type(visit.claims)(**_changed(visit, shift_ms))) for visit in late]
    await record(stage.database, route, moved)
    found = await answer(stage)
    assert 400 < found["n"] < 450
    assert len(log) == 400


async def test_what_may_still_be_in_a_spool_is_not_judged(either: Stage) -> None:
    """However long ago its window was over: a decision counts when everything is recorded that counts for it.
    That the record is behind is said, also where nothing is left to judge."""
    route, log = await filled(either)
    wait_ms = HOUR_MS + GRACE_MS + SETTLE_MS
    await record(either.database, route, [], through_ms=log[599].claims.at_ms + wait_ms)
    found = await answer(either)
    assert (found["n"], found["until"]) == (600, "2025-01-06T00:09:59Z")
    late = (
        "everything is recorded up to 2025-01-06T01:10:05+00:00 only: what was not mature by then is missing"
    )
    assert found["warnings"] == [late]
    earned = [visit.outcomes.get("conversion", 0.0) for visit in log[:600]]
    assert found["logged"]["value"] == pytest.approx(sum(earned) / 600)
    await record(either.database, route, [], through_ms=START_MS)
    nothing = await ask(either)
    assert faults(nothing) == {"policy": "cannot be judged: no_data"}
    assert "; everything is recorded up to 2025-01-06T00:00:00+00:00 only" in nothing.json()["detail"]
    async with either.database.transaction() as connection:
        await connection.execute(delete(recorders))
    assert "; no recorder has said yet up to when" in (await ask(either)).json()["detail"]


async def test_decisions_that_kept_an_earlier_arm_are_left_out_and_counted(
    either: Stage, tmp_path: Path
) -> None:
    """Those of the time that is judged, which are none of the number that may be asked for."""
    route, log = await filled(either, n=600)
    kept = [
        replace(visit, first_at_ms=START_MS)
        for visit in visits(
            route.arm_ids, 900, route_id=route.id, first=600, share={"DE": 9_000, "FR": 9_000}
        )
    ]
    first = [
        replace(visit, claims=type(visit.claims)(**_changed(visit, -600_000)), first_at_ms=START_MS - 900_000)
        for visit in kept[:40]
    ]
    await record(either.database, route, [*kept[40:], *first])
    found = await answer(either)
    assert (found["n"], found["left_out"], found["warnings"]) == (600, {"kept_arm": 900}, [])
    files = write_files(tmp_path, route.spec, [*log, *kept[40:], *first])
    flags = ("--route", files[0], "--events", files[1], "--policy", "always:new", "--json")
    ran = invoke("evaluate-policy", *flags, "--complete-until", time_of(now_ms()))
    assert json.loads(ran.stdout)["evaluations"] == [found]
    newest = await answer(either, most=570)
    assert (newest["n"], newest["left_out"]) == (570, {"kept_arm": 871})


def _changed(visit: Visit, shift_ms: int) -> dict[str, Any]:
    fields = {name: getattr(visit.claims, name) for name in visit.claims.__struct_fields__}
    return {**fields, "at_ms": visit.claims.at_ms + shift_ms}


async def test_a_span_and_a_number_may_be_asked_for(stage: Stage) -> None:
    """Both ends are included; of what is more than the number, the newest are judged, and that is said."""
    await filled(stage, n=1_000)
    first, last = time_of(START_MS + 100_000), time_of(START_MS + 599_000)
    found = await answer(stage, **{"from": first, "to": last})
    assert (found["n"], found["since"], found["until"]) == (
        500,
        "2025-01-06T00:01:40Z",
        "2025-01-06T00:09:59Z",
    )
    assert found["warnings"] == []
    assert (await answer(stage, **{"from": first, "to": last, "most": 500}))["warnings"] == []
    found = await answer(stage, most=300)
    assert (found["n"], found["since"]) == (300, "2025-01-06T00:11:40Z")
    assert found["warnings"] == ["there are more decisions: of those asked for, the newest 300 were judged"]
    backwards = await refused(stage, **{"from": last, "to": first})
    assert backwards == {"from": f"must not be after to, {_iso(first)}, got {_iso(last)}"}


def _iso(text: str) -> str:
    return text.replace(".000", "")


async def test_decisions_that_nobody_drew_are_left_out_and_counted(either: Stage, tmp_path: Path) -> None:
    """As in a file; where there are no others, that is said with what it means."""
    route, log = await filled(either, n=500)
    certain = visits(route.arm_ids, 40, route_id=route.id, first=500, reason=Reason.STATIC)
    await record(either.database, route, certain)
    found = await answer(either)
    assert (found["n"], found["left_out"]) == (500, {"not_drawn": 40})
    files = write_files(tmp_path, route.spec, [*log, *certain])
    flags = ("--route", files[0], "--events", files[1], "--policy", "always:new", "--json")
    ran = invoke("evaluate-policy", *flags, "--complete-until", time_of(now_ms()))
    assert json.loads(ran.stdout)["evaluations"] == [found]
    nothing = await ask(either, **{"from": time_of(START_MS + 500_000)})
    assert "left out: 40 not_drawn (one arm had everything, as in STATIC" in nothing.json()["detail"]


async def test_an_earlier_context_is_read_by_the_declaration_of_now(stage: Stage) -> None:
    """A feature that is new is missing from old decisions, and what has gone is no matter."""
    route, _ = await filled(stage)
    before = await answer(stage, {"kind": "learned"})
    mail = Feature(
        name="mail", source=Source(kind=SourceKind.HEADER, name="X-Mail"), type=FeatureType.TEXT, buckets=2
    )
    async with stage.database.transaction() as connection:
        await update_spec(
            connection, route.id, replace(route.spec, context=(mail, CONTEXT[0])), route.declared
        )
    after = await answer(stage, {"kind": "learned"})
    assert after["n"] == before["n"]
    assert abs(after["estimates"]["snips"]["value"] - before["estimates"]["snips"]["value"]) < 0.01


async def test_decisions_without_a_context_are_left_out_and_counted(stage: Stage) -> None:
    """Where one is declared; where none is, contexts are no matter."""
    route, _ = await filled(stage, n=400)
    await record(
        stage.database,
        route,
        [replace(visit, context=None) for visit in visits(route.arm_ids, 30, route_id=route.id, first=400)],
    )
    found = await answer(stage)
    assert (found["n"], found["left_out"]) == (400, {"without_context": 30})
    async with stage.database.transaction() as connection:
        await update_spec(connection, route.id, replace(route.spec, context=()), route.declared)
    found = await answer(stage)
    assert (found["n"], found["left_out"]) == (430, {})


@pytest.mark.parametrize(
    ("reason", "how", "more"),
    [
        ("no_data", {"reason": Reason.STATIC}, {}),
        ("no_support", {"share": {"DE": 0, "FR": 0}}, {}),
        ("propensities_do_not_add_up", {"share": {"DE": 5_000, "FR": 0}, "n": 1_000}, {}),
        ("too_few_effective_samples", {"n": 60}, {}),
        ("no_spread", {}, {"reward": {"expression": "cost + 1", "default": 1}}),
        ("no_reward", {}, {"reward": {"expression": "revenue / cost"}}),
    ],
)
async def test_what_cannot_be_judged_is_refused(
    stage: Stage, reason: str, how: dict[str, Any], more: dict[str, Any]
) -> None:
    """422 with the reason as a word that stays, and a sentence that speaks of arms by name."""
    await filled(stage, **how)
    found = await ask(stage, **more)
    assert found.status_code == 422, found.text
    assert faults(found) == {"policy": f"cannot be judged: {reason}"}
    assert "arm 1" not in found.json()["detail"]


async def test_wrong_propensities_are_refused(stage: Stage) -> None:
    """Logged as even where most went to `new`."""
    route = await put_route(stage.database, SPEC)
    log = visits(route.arm_ids, 1_000, route_id=route.id, share={"DE": 8_000, "FR": 8_000})
    wrong = [
        replace(visit, claims=type(visit.claims)(**{**_changed(visit, 0), "propensity_bp": 5_000}))
        for visit in log
    ]
    await record(stage.database, route, wrong)
    found = await ask(stage)
    assert faults(found) == {"policy": "cannot be judged: propensities_do_not_add_up"}
    assert "the mean of 1/propensity of arm new must be 1, got 1." in found.json()["detail"]


@pytest.mark.parametrize(
    ("policy", "more", "field"),
    [
        ({"kind": "always", "arm": "next"}, {}, "policy.arm"),
        ({"kind": "weights", "weights": {"new": 9_000}}, {}, "policy.weights"),
        ({"kind": "weights", "weights": {"next": 10_000}}, {}, "policy.weights"),
        ({"kind": "learned", "choose": "softmax", "temperature": 0}, {}, "policy.temperature"),
        ({"kind": "bandit"}, {}, "policy.kind"),
        ({"kind": "sometimes"}, {}, "policy.kind"),
        ({"kind": "always"}, {}, "policy"),
        ({"kind": "uniform", "arm": "new"}, {}, "policy"),
        ({"kind": "weights"}, {}, "policy"),
        ({"kind": "bandit", "choose": "greedy"}, {}, "policy"),
        ({"kind": "learned", "choose": "softmax"}, {}, "policy"),
        ({"kind": "learned", "temperature": 1}, {}, "policy"),
        ({"kind": "learned", "choose": "greedy", "temperature": 1}, {}, "policy"),
        (ALWAYS_NEW, {"reward": {"metric": "clicks"}}, "reward"),
        (ALWAYS_NEW, {"reward": {"expression": "revenue -"}}, "reward"),
        (ALWAYS_NEW, {"reward": {}}, "reward"),
        (ALWAYS_NEW, {"level": 1}, "level"),
        (ALWAYS_NEW, {"clip": 0.5}, "clip"),
        (ALWAYS_NEW, {"folds": 1}, "folds"),
        (ALWAYS_NEW, {"folds": 101}, "folds"),
        (ALWAYS_NEW, {"most": 0}, "most"),
        (ALWAYS_NEW, {"most": 500_001}, "most"),
        (ALWAYS_NEW, {"from": "yesterday"}, "from"),
        (ALWAYS_NEW, {"to": "2026-01-31T12:00:00"}, "to"),
        (ALWAYS_NEW, {"since": "2026-01-31T12:00:00Z"}, "since"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_its_field(
    ads: Stage, policy: object, more: dict[str, Any], field: str
) -> None:
    """422, before anything is read."""
    found = await refused(ads, policy, **more)
    assert list(found) == [field]


async def test_a_route_must_be_there(ads: Stage) -> None:
    """404 without one."""
    assert (
        await ads.ask("POST", "/off-policy-evaluations", {"route": "no", "policy": ALWAYS_NEW})
    ).status_code == 404


async def test_it_may_be_asked_by_whoever_may_look(ads: Stage) -> None:
    """A viewer's key is enough, that of the data plane is not; and nothing is written."""
    keys = {role: await ads.make_key(role) for role in ("viewer", "ingest")}
    before = await ads.state()
    body = {"route": "ads", "policy": ALWAYS_NEW}
    statuses = [
        (await ads.ask("POST", "/off-policy-evaluations", body, key)).status_code
        for key in (keys["viewer"], keys["ingest"], None)
    ]
    assert statuses == [422, 403, 401]
    assert await ads.state() == before


async def test_one_is_judged_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for their turn, and are answered."""
    judging = 0
    answering = off_policy._answer

    def counted(*arguments: Any) -> Any:
        nonlocal judging
        judging += 1
        assert judging == 1
        found = answering(*arguments)
        judging -= 1
        return found

    monkeypatch.setattr(off_policy, "_answer", counted)
    await filled(stage, n=400)
    found = await asyncio.gather(*(ask(stage) for _ in range(4)))
    assert [one.status_code for one in found] == [200] * 4


@pytest.mark.parametrize("units", [None, 300], ids=["each-its-own", "sticky"])
async def test_exported_lines_come_to_the_same_numbers(
    either: Stage, tmp_path: Path, units: int | None
) -> None:
    """To the last digit, whichever candidate is judged, and by whichever reward."""
    _, log = await filled(either, BANDIT, n=600, units=units, reason=Reason.BANDIT)
    route = await get_route(either.database)
    files = write_files(tmp_path, route.spec, log)
    complete = ("--complete-until", time_of(now_ms()))
    policies = [
        "always:new",
        "uniform",
        "weights:old=2000,new=8000",
        "learned",
        "learned:softmax=0.5",
        "bandit",
    ]
    asked = [part for policy in policies for part in ("--policy", policy)]
    flags = ("--route", files[0], "--events", files[1], "--reward", "conversion", "--json", *complete)
    ran = invoke("evaluate-policy", *flags, *asked)
    assert (ran.exit_code, ran.stderr) == (0, "")
    for found in json.loads(ran.stdout)["evaluations"]:
        policy = {name: given for name, given in found["policy"].items() if given is not None}
        assert await answer(either, policy, reward={"expression": "conversion"}) == found
