"""An override pins what it is meant for, to the millisecond, and every pinned decision says by which one."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from app.events.types import DecisionEvent
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.rules import Condition, Op, Override
from routing.types import TOTAL_BP, Reason
from tests.app.gateway.stage import Message, Stage, claims_of, until

CONTEXT = (
    Feature(
        name="country", source=Source(kind=SourceKind.JSON, name="/country"), type=FeatureType.ID, buckets=2
    ),
    Feature(
        name="hour",
        source=Source(kind=SourceKind.QUERY, name="hour"),
        type=FeatureType.NUMERIC,
        maximum=23,
    ),
)
GERMANY = json.dumps({"country": "DE"}).encode()
FRANCE = json.dumps({"country": "FR"}).encode()


def pin(attribute: str, op: Op, *values: Any, override_id: int = 5, **changes: Any) -> Override:
    """An override to the challenger on one condition."""
    condition = Condition(attribute=attribute, op=op, values=values)
    return Override(id=override_id, arm_id=2, when=(condition,), **changes)


def route(stage: Stage, *overrides: Override, **changes: Any) -> None:
    """All unpinned traffic is the champion's."""
    unit = Source(kind=SourceKind.HEADER, name="X-User-Id")
    stage.route(0, unit=unit, context=CONTEXT, overrides=overrides, **changes)


def told(answer: Message) -> tuple[str | None, str | None]:
    """Which arm has answered, and why."""
    assert answer.status == 200, answer
    return answer["kingmaker-arm"], answer["kingmaker-reason"]


@pytest.mark.parametrize(
    ("override", "meant", "other"),
    [
        (pin("unit", Op.IN, "u1", "u2"), {"X_User_Id": "u2"}, {"X_User_Id": "u3"}),
        (pin("header.X-App", Op.SEMVER_GTE, "2.0.0"), {"X_App": "2.0.1"}, {"X_App": "1.9.9"}),
        (pin("header.x-debug", Op.EXISTS), {"X_Debug": ""}, {}),
        (pin("path", Op.ENDS_WITH, "/beta"), {"path": "/r/bid/beta?x=/alpha"}, {"path": "/r/bid?x=/beta"}),
        (pin("method", Op.EQUALS, "post"), {"method": "POST", "body": b"{}"}, {}),
        (
            pin("context.country", Op.EQUALS, "DE"),
            {"method": "POST", "body": GERMANY},
            {"method": "POST", "body": FRANCE},
        ),
        (pin("context.hour", Op.LT, 6.0), {"path": "/r/bid?hour=3"}, {"path": "/r/bid?hour=18"}),
    ],
    ids=lambda value: value.when[0].attribute if isinstance(value, Override) else "",
)
async def test_it_pins_whom_it_is_meant_for(
    stage: Stage, override: Override, meant: dict[str, Any], other: dict[str, Any]
) -> None:
    """And nobody else; the answer, the token and the event all say that it was an override."""
    route(stage, override)
    answer = await stage.ask(**meant)
    assert told(answer) == ("new", "OVERRIDE")
    assert told(await stage.ask(**other)) == ("old", "STATIC")
    claims = claims_of(answer)
    assert (claims.reason, claims.propensity_bp) == (Reason.OVERRIDE, TOTAL_BP)
    await until(lambda: len(stage.spool.events) == 2)
    pinned, unpinned = stage.spool.events
    assert isinstance(pinned, DecisionEvent)
    assert (pinned.override_id, pinned.decision) == (5, claims)
    assert (unpinned.override_id, unpinned.decision.reason) == (None, Reason.STATIC)


async def test_it_ends_to_the_millisecond_without_a_reload(stage: Stage) -> None:
    """The worker goes by its own clock: the decision's time tells on which side it was."""
    expires_at_ms = time.time_ns() // 1_000_000 + 300
    route(stage, pin("method", Op.EQUALS, "GET", expires_at_ms=expires_at_ms))
    version = stage.version
    seen: dict[bool, set[str | None]] = {True: {"new"}, False: set()}
    while not seen[False]:
        answer = await stage.ask()
        seen[claims_of(answer).at_ms < expires_at_ms].add(answer["kingmaker-arm"])
    assert seen == {True: {"new"}, False: {"old"}}
    assert stage.worker.routing is not None
    assert stage.worker.routing.version == version


async def test_what_comes_before_it_has_precedence(stage: Stage) -> None:
    """A kill switch, and an arm that is asked for where that is allowed."""
    override = pin("method", Op.EQUALS, "GET")
    route(stage, override, allow_force=True)
    assert told(await stage.ask()) == ("new", "OVERRIDE")
    assert told(await stage.ask(Kingmaker_Force_Arm="old")) == ("old", "FORCED")
    route(stage, override, allow_force=True, kill_switch=True)
    assert told(await stage.ask()) == ("old", "KILL_SWITCH")
    assert told(await stage.ask(Kingmaker_Force_Arm="new")) == ("old", "KILL_SWITCH")


async def test_a_share_holds_the_same_users_each_time(stage: Stage) -> None:
    """About as many as it says, chosen by their hash under a salt of its own."""
    route(stage, pin("unit", Op.STARTS_WITH, "u", share_bp=5_000))
    first = {unit: told(await stage.ask(X_User_Id=unit)) for unit in (f"u{number}" for number in range(40))}
    assert 8 <= list(first.values()).count(("new", "OVERRIDE")) <= 32
    for unit, before in first.items():
        assert told(await stage.ask(X_User_Id=unit)) == before


async def test_asking_for_the_decision_alone_is_pinned_too(stage: Stage) -> None:
    """By unit and context, which are all that there is; conditions on the rest of a request do not hold."""
    route(
        stage,
        pin("context.country", Op.EQUALS, "DE"),
        pin("path", Op.EXISTS, override_id=6),
        pin("header.x-app", Op.EXISTS, override_id=7),
    )
    asked = {"unit": "u1", "context": {"country": "DE"}}
    answer = await stage.ask("POST", "/v1/decide/bid", json.dumps(asked).encode(), X_App="1")
    found = json.loads(answer.body)
    assert (found["arm"], found["reason"], found["probabilities"]) == ("new", "OVERRIDE", {"new": 1.0})
    (event,) = stage.spool.events
    assert (event.override_id, event.context) == (5, {"country": "DE"})
    answer = await stage.ask("POST", "/v1/decide/bid", b"{}", X_App="1")
    assert json.loads(answer.body)["reason"] == "STATIC"
