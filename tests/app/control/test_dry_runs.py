"""A dry run says which arm a request would get, and every step can be followed."""

from __future__ import annotations

import json
import time

import pytest

from app.control.dry_runs import UNKNOWN, Kept
from routing.assignment import Asked, Plan
from routing.first_arm import FirstArm
from routing.types import TOTAL_BP, Reason
from tests.app.control.stage import Json, Stage, arm, document, faults

REFUSED: list[tuple[Json, str, str]] = [
    ({"method": "CONNECT"}, "method", "must be such as a gateway takes: method CONNECT is not supported"),
    ({"method": "GET IT"}, "method", "a request line must be"),
    ({"path": "no/slash"}, "path", "a request target must be a path"),
    ({"path": "/a/../b"}, "path", "must not hold dot segments"),
    ({"path": "/x y"}, "path", "a request line must be"),
    ({"headers": {"X Y": "z"}}, "headers", "must be names that are tokens, and values of one line"),
    ({"headers": {"X": "a\r\nY: b"}}, "headers", "values of one line"),
    ({"headers": {"X": "\x01"}}, "headers", "must not hold control characters"),
    ({"headers": {"Host": "a/b"}}, "headers", "Host must be a host name"),
    ({"headers": {f"X-{number}": "" for number in range(101)}}, "headers", "at most 100 fields, got 101"),
    ({"at": 7}, "at", "must be a time such as 2026-01-31T12:00:00Z, got 7"),
    ({"at": "2026-01-31T12:00:00"}, "at", "must carry its time zone"),
    ({"unit": 7}, "unit", "valid string, got 7"),
    ({"body": "{}"}, "body", "is not a known field"),
]


READ: Json = {
    "unit": {"header": "X-User-Id"},
    "context": [
        {"name": "country", "from": {"json": "/country"}, "type": "id"},
        {"name": "hour", "from": {"header": "X-Hour"}, "type": "numeric", "min": 0, "max": 23},
    ],
    "allow_force": True,
}


@pytest.fixture
async def bid(stage: Stage) -> Stage:
    """A route with a unit, a context, and overrides for Germany, for an app that is old, and for one user."""
    await stage.put(document(**READ))
    for priority, condition, changes in (
        (3, {"attribute": "context.country", "op": "equals", "values": ["DE"]}, {"share": 1}),
        (2, {"attribute": "header.X-App", "op": "semver_lt", "values": ["2.0.0"]}, {}),
        (1, {"attribute": "unit", "op": "equals", "values": ["u1"]}, {}),
    ):
        body = {"arm": "new", "when": [condition], "priority": priority, "reason": "because", **changes}
        answer = await stage.ask("POST", "/routes/ads/overrides", body)
        assert answer.status_code == 201, answer.text
    return stage


async def asked(stage: Stage, **body: object) -> Json:
    """What a dry run answers, which must be a 200."""
    answer = await stage.ask("POST", "/routes/ads/dry-run", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_every_step_is_told(bid: Stage) -> None:
    """Who came before whom, which condition failed on what, in whose bucket it is; nothing is recorded."""
    before = await bid.state()
    said = await asked(
        bid,
        unit="u1",
        headers={"X-App": "2.1.0", "X-Hour": "18"},
        context={"country": "DE", "zodiac": "lion"},
        at="2026-01-31T12:00:00Z",
    )
    split = said["steps"].pop()
    thin = said["steps"].pop(2)
    assert said == {
        "route": "ads",
        "at": "2026-01-31T12:00:00Z",
        "unit": "u1",
        "arm": "new",
        "reason": "OVERRIDE",
        "propensity": 1.0,
        "probabilities": {"new": 1.0},
        "override": 3,
        "context": {"values": {"country": "DE", "hour": 18.0}, "missing": [], "unknown": ["zodiac"]},
        "steps": [
            {"step": "kill_switch", "outcome": "off"},
            {"step": "forced_arm", "outcome": "not_asked", "arm": None},
            {
                "step": "override",
                "override": 2,
                "arm": "new",
                "priority": 2,
                "outcome": "condition",
                "miss": {
                    "condition": 0,
                    "attribute": "header.X-App",
                    "op": "semver_lt",
                    "values": ["2.0.0"],
                    "value": "2.1.0",
                },
                "share": 10_000,
                "bucket": None,
                "chance": None,
            },
            {
                "step": "override",
                "override": 3,
                "arm": "new",
                "priority": 1,
                "outcome": "matched",
                "miss": None,
                "share": 10_000,
                "bucket": None,
                "chance": None,
            },
        ],
    }
    assert (thin["override"], thin["outcome"], thin["share"]) == (1, "share", 1)
    assert 1 <= thin["bucket"] < 10_000
    assert split["outcome"] == "preceded"
    share = split["share"]
    assert share["start"] <= split["bucket"] < share["end"]
    assert await bid.state() == before


async def test_units_and_features_are_read_where_they_are_declared(bid: Stage) -> None:
    """In headers and path too, by the gateway's own code; what is named by itself has precedence."""
    headers = {"x-user-id": "u1", "x-hour": "noon"}
    said = await asked(bid, headers=headers)
    assert (said["unit"], said["override"]) == ("u1", 3)
    assert said["context"] == {"values": {}, "missing": ["country", "hour"], "unknown": []}
    said = await asked(bid, headers=headers, unit="u2", context={"hour": 7})
    assert (said["unit"], said["override"], said["context"]["values"]) == ("u2", None, {"hour": 7.0})


async def test_without_a_unit_the_split_is_drawn(ads: Stage) -> None:
    """No arm and no propensity, but the reason, and with which probability each arm would answer."""
    said = await asked(ads)
    assert (said["arm"], said["reason"], said["propensity"]) == (None, "SPLIT", None)
    assert said["probabilities"] == {"old": 0.9, "new": 0.1}
    assert said["steps"][-1] == {"step": "split", "outcome": "drawn", "bucket": None, "share": None}
    await ads.put(document(split={"weights": {"old": 10_000}}), take_over=True)
    said = await asked(ads)
    assert (said["arm"], said["reason"], said["propensity"]) == ("old", "STATIC", 1.0)


async def test_a_bandit_is_a_draw_whoever_asks(ads: Stage) -> None:
    """Its probabilities are said; until it has learnt anything they are what gateways go by."""
    split = {"mode": "thompson", "reward": {"metric": "conversion"}}
    assert (await ads.put(document(split=split), take_over=True)).status_code == 200
    said = await asked(ads, unit="u1")
    plan = Plan(ads.published())
    done = plan.assign(Asked("u1", 0))
    assert (said["reason"], said["probabilities"]) == (
        done.reason,
        {
            arm.name: done.probabilities[arm.id] / TOTAL_BP
            for arm in plan.route.arms
            if arm.id in done.probabilities
        },
    )
    assert said["steps"][-1]["share"] is None


async def test_an_arm_may_be_asked_for(bid: Stage) -> None:
    """By name, or by the header; an override does not stand in its way, and the kill switch does."""
    said = await asked(bid, unit="u1", force_arm="old")
    assert (said["arm"], said["reason"], said["override"]) == ("old", "FORCED", None)
    assert said["steps"][1] == {"step": "forced_arm", "outcome": "matched", "arm": "old"}
    assert [step["outcome"] for step in said["steps"][2:]] == [
        "condition",
        "condition",
        "preceded",
        "preceded",
    ]
    said = await asked(bid, headers={"Kingmaker-Force-Arm": "new"})
    assert (said["arm"], said["reason"]) == ("new", "FORCED")
    await bid.ask("PUT", "/routes/ads/kill-switch", {"reason": "test"})
    said = await asked(bid, unit="u1", force_arm="new")
    assert (said["arm"], said["reason"]) == ("old", "KILL_SWITCH")
    outcomes = [step["outcome"] for step in said["steps"]]
    assert outcomes == ["on", "preceded", "condition", "condition", "preceded", "preceded"]


@pytest.mark.parametrize(
    ("allowed", "name", "outcome"),
    [(False, "new", "not_allowed"), (True, "none", "unknown_arm"), (True, "dark", "not_serving")],
)
async def test_an_arm_that_is_asked_for_in_vain_is_ignored(
    stage: Stage, allowed: bool, name: str, outcome: str
) -> None:
    """The step says why."""
    arms = [arm("old", role="champion"), arm("new"), arm("dark", role="shadow")]
    await stage.put(document(arms=arms, allow_force=allowed))
    said = await asked(stage, unit="u1", force_arm=name)
    assert said["reason"] == "SPLIT"
    assert said["steps"][1] == {"step": "forced_arm", "outcome": outcome, "arm": name}


async def test_the_time_may_be_another(bid: Stage) -> None:
    """An override that has not expired yet will have: the clock is an argument."""
    body = {"arm": "old", "priority": 9, "reason": "because", "expires_at": "2999-01-01T00:00:00Z"}
    await bid.ask("POST", "/routes/ads/overrides", body)
    assert (await asked(bid, unit="u1"))["override"] == 4
    at_the_last = await asked(bid, unit="u1", at="2998-12-31T23:59:59.999Z")
    too_late = await asked(bid, unit="u1", at="2999-01-01T00:00:00Z")
    assert (at_the_last["override"], too_late["override"]) == (4, 3)
    assert too_late["steps"][2]["outcome"] == "expired"


async def test_what_no_gateway_would_take_is_refused_by_field(ads: Stage) -> None:
    """422, in the gateway's own words."""
    for body, field, message in REFUSED:
        answer = await ads.ask("POST", "/routes/ads/dry-run", body)
        assert answer.status_code == 422, body
        found = faults(answer)
        assert list(found) == [field]
        assert message in found[field]


async def test_half_a_character_makes_nothing_fall_over(bid: Stage) -> None:
    """Such text cannot be answered with: it is refused, or what is kept of it is whole."""
    headers = {"Content-Type": "application/json"}
    for body, status in (
        ({"unit": "\udc80"}, 422),
        ({"path": "/\udc80"}, 422),
        ({"force_arm": "\udc80"}, 422),
        ({"headers": {"\udc80": ""}}, 422),
        ({"headers": {"X": "\udc80"}}, 422),
        ({"context": {"\udc80": 1}}, 422),
        ({"context": {"country": "\udc80"}}, 200),
    ):
        content = json.dumps(body).encode()
        answer = await bid.http.post("/v1/routes/ads/dry-run", content=content, headers=headers)
        assert answer.status_code == status, body
        assert answer.json()


async def test_whoever_may_look_may_ask(ads: Stage) -> None:
    """A viewer's key is enough, and a route that is not there is not found."""
    viewer = await ads.make_key("viewer")
    assert (await ads.ask("POST", "/routes/ads/dry-run", {}, viewer)).status_code == 200
    assert (await ads.ask("POST", "/routes/none/dry-run", {}, viewer)).status_code == 404


async def test_what_a_unit_keeps_is_told(bid: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it decides, and why not; where no store can be asked, that it is not known."""
    at_ms = time.time_ns() // 1_000_000
    first = FirstArm(1, 1, Reason.SPLIT, 7, at_ms, {1: 9_000, 2: 1_000})
    lapsed = FirstArm(9, 1, Reason.SPLIT, 7, at_ms, {9: 10_000})
    await bid.post("rollback")  # while a trial is on, whether arms are kept stays as it is
    await bid.put(document(**READ, stickiness={"mode": "first_arm"}))
    await bid.post("start", arm="new")

    async def step(kept: Kept, **body: object) -> tuple[str, str | None]:
        async def told(*_: object) -> Kept:
            return kept

        monkeypatch.setattr("app.control.api.overrides.kept_by", told)
        said = await asked(bid, **body)
        (found,) = [step for step in said["steps"] if step["step"] == "first_arm"]
        return found["outcome"], found["arm"]

    assert await step(Kept(True, first), unit="u2") == ("matched", "old")
    assert await step(Kept(True, first), unit="u1") == ("preceded", "old")
    assert await step(Kept(True, first), unit="u2", force_arm="new") == ("preceded", "old")
    assert await step(Kept(True, lapsed), unit="u2") == ("lapsed", None)
    assert await step(Kept(True), unit="u2") == ("none", None)
    assert await step(UNKNOWN, unit="u2") == ("unknown", None)
    assert await step(Kept(True, first), unit="u2", at="2999-12-31T12:00:00Z") == ("none", None)
    said = await asked(bid)
    assert [step["step"] for step in said["steps"] if step["step"] == "first_arm"] == []
