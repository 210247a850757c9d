"""The declared features of a request are read where they are, and written down with its decision."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from app.events.types import DecisionEvent
from app.gateway.contexts import NamedSubject, RequestSubject
from app.gateway.scalars import Scalars
from app.gateway.units import JSON_BYTES, place_of
from routing.bandit import BanditTerms, Learned
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.overrides import Rules
from routing.rules import Condition, Op, Override
from tests.app.gateway.stage import Stage, read_message, request
from tests.app.gateway.test_units import request_of


def feature(name: str, kind: SourceKind, place: str, type_: FeatureType, **more: Any) -> Feature:
    """A feature that is found at a place."""
    return Feature(name=name, source=Source(kind=kind, name=place), type=type_, **more)


COUNTRY = feature("country", SourceKind.JSON, "/user/country", FeatureType.CATEGORICAL, values=("DE", "FR"))
HOUR = feature("hour", SourceKind.HEADER, "X-Hour", FeatureType.NUMERIC, minimum=0.0, maximum=23.0)
APP = feature("app", SourceKind.QUERY, "app", FeatureType.BOOLEAN)
SEEN = feature("seen", SourceKind.COOKIE, "seen", FeatureType.ID, buckets=8)
ALL = (COUNTRY, HOUR, APP, SEEN)
BODY = b'{"user": {"country": "DE"}}'


def decisions(stage: Stage) -> list[DecisionEvent]:
    """What was written down of decisions."""
    return [event for event in stage.spool.events if isinstance(event, DecisionEvent)]


def contexts(stage: Stage) -> list[dict[str, Any] | None]:
    """What was written down of the requests so far."""
    return [None if event.context is None else dict(event.context) for event in decisions(stage)]


async def test_features_are_read_wherever_they_are(stage: Stage) -> None:
    """Body, header, query and cookie; what is recorded has their types, and the version of the schema."""
    stage.route(context=ALL)
    sent = request("POST", "/r/bid/x?app=true", body=BODY, X_Hour="7.5", Cookie="a=b; seen=ab1")
    assert (await stage.send(sent)).status == 200
    (event,) = decisions(stage)
    assert event.context == {"country": "DE", "hour": 7.5, "app": True, "seen": "ab1"}
    assert event.schema == Encoder(ALL).version


@pytest.mark.parametrize(
    ("sent", "context"),
    [
        (request(), {}),
        (request("POST", body=b"not json"), {}),
        (request("POST", body=b'{"user": ["DE"]}'), {}),
        (request("POST", body=b'{"user": {"country": "US"}}', X_Hour="nine"), {"country": "US"}),
        (
            request("POST", "/r/bid?app=perhaps", body=b'{"user": {"country": {}}}', X_Hour="24"),
            {"hour": 23.0},
        ),
        (request("POST", body=b"[" * 100_000), {}),
        (request("POST", body=b'{"user": {"country": "DE"}, "x": "%b"}' % (b"x" * JSON_BYTES)), {}),
    ],
)
async def test_what_is_missing_or_no_such_value_is_left_out(
    stage: Stage, sent: bytes, context: dict[str, Any]
) -> None:
    """The request is answered whatever it says of itself; a body that is too long is not searched."""
    stage.route(context=ALL)
    assert (await stage.send(sent)).status == 200
    assert contexts(stage) == [context]


async def test_a_route_without_features_records_none(stage: Stage) -> None:
    """No context, and no schema."""
    stage.route()
    await stage.ask("POST", body=BODY)
    assert [(event.context, event.schema) for event in decisions(stage)] == [(None, 0)]


async def test_a_body_is_waited_for_where_a_feature_is_in_it(stage: Stage) -> None:
    """It is forwarded whole; where no feature is in it, the arm is asked before it has come."""
    stage.route(context=ALL)
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY))
    for piece in (BODY[:9], BODY[9:]):
        assert stage.champion.connections + stage.challenger.connections == 0
        writer.write(piece)
        await asyncio.sleep(0.005)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert [seen.body for seen in stage.champion.seen + stage.challenger.seen] == [BODY]
    assert contexts(stage) == [{"country": "DE"}]


async def test_unit_and_features_are_found_in_one_body(stage: Stage) -> None:
    """It is decoded once for both."""
    stage.route(context=ALL, unit=Source(kind=SourceKind.JSON, name="/user/country"))
    await stage.ask("POST", body=BODY)
    (event,) = decisions(stage)
    assert (event.decision.has_unit, event.context) == (True, {"country": "DE"})


async def test_decide_takes_features_by_name(stage: Stage) -> None:
    """They are read as those of a request are; a name that is not declared is ignored."""
    stage.route(context=ALL)
    asked = {"unit": "u1", "context": {"country": "FR", "hour": "30", "app": 1, "seen": 7, "more": {}}}
    answer = await stage.ask("POST", "/v1/decide/bid", body=msgspec.json.encode(asked))
    assert answer.status == 200
    (event,) = decisions(stage)
    assert event.context == {"country": "FR", "hour": 23.0, "app": True, "seen": "7"}
    assert event.schema == Encoder(ALL).version


def pinned(attribute: str, value: Any, arm_id: int = 2) -> Override:
    """An override for one condition."""
    return Override(
        id=7, arm_id=arm_id, when=(Condition(attribute=attribute, op=Op.EQUALS, values=(value,)),)
    )


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("unit", "u1"),
        ("path", "/r/bid/x"),
        ("method", "POST"),
        ("header.x-hour", 7.0),
        ("context.country", "DE"),
        ("context.hour", 7.0),
        ("context.app", True),
    ],
)
async def test_an_override_looks_at_all_of_a_request(stage: Stage, attribute: str, value: Any) -> None:
    """Unit, path, method, header fields and features pin it; the decision says by which override."""
    unit = Source(kind=SourceKind.HEADER, name="X-User")
    stage.route(0, context=ALL, unit=unit, overrides=(pinned(attribute, value),))
    sent = request("POST", "/r/bid/x?app=1", body=BODY, X_Hour="7", X_User="u1")
    answer = await stage.send(sent)
    assert (answer["kingmaker-arm"], answer["kingmaker-reason"]) == ("new", "OVERRIDE")
    other = await stage.send(request("GET", "/r/bid/y", X_Hour="8", X_User="u2"))
    assert (other["kingmaker-arm"], other["kingmaker-reason"]) == ("old", "STATIC")
    assert [event.override_id for event in decisions(stage)] == [7, None]


async def test_decide_is_pinned_by_unit_and_context_alone(stage: Stage) -> None:
    """There is no request that could have a path, a method or header fields."""
    stage.route(0, context=ALL, overrides=(pinned("context.country", "DE"),))
    asked = msgspec.json.encode({"context": {"country": "DE"}})
    answer = await stage.ask("POST", "/v1/decide/bid", body=asked)
    assert msgspec.json.decode(answer.body)["reason"] == "OVERRIDE"
    subject = NamedSubject("u1", {"country": "DE"})
    found = [subject.value(name) for name in ("unit", "context.country", "path", "method", "header.host")]
    assert found == ["u1", "DE", None, None, None]
    assert NamedSubject(None, None).value("context.country") is None


async def test_an_override_that_cannot_be_read_is_left_out_alone(stage: Stage) -> None:
    """It is counted; the others hold, the context is read, and the split divides the rest."""
    broken = msgspec.structs.replace(pinned("no such attribute", "x"), id=8)
    stage.route(0, context=ALL, overrides=(broken, pinned("context.country", "DE")))
    answers = [await stage.ask("POST", body=body) for body in (BODY, b"{}")]
    assert [answer["kingmaker-reason"] for answer in answers] == ["OVERRIDE", "STATIC"]
    assert stage.counted("kingmaker_plan_failures_total") == 1


async def test_a_context_that_cannot_be_read_leaves_overrides_and_split(stage: Stage) -> None:
    """Conditions on it see nothing; a bandit that would choose by it leaves its traffic to the champion."""
    broken = msgspec.structs.replace(COUNTRY, values=("DE", "DE"))
    overrides = (pinned("path", "/r/bid/x"), pinned("context.country", "DE"))
    stage.route(5_000, context=(broken,), overrides=overrides)
    assert (await stage.ask("POST", "/r/bid/x", body=BODY))["kingmaker-reason"] == "OVERRIDE"
    assert (await stage.ask("POST", body=BODY))["kingmaker-reason"] == "SPLIT"
    bandit = BanditTerms(learned=Learned(at_ms=0, schema=Encoder((COUNTRY,)).version))
    stage.route(0, context=(broken,), bandit=bandit)
    assert (await stage.ask("POST", body=BODY))["kingmaker-reason"] == "DEFAULT"
    assert stage.counted("kingmaker_plan_failures_total") == 2


async def test_a_context_whose_reading_fails_is_none(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is answered, by split and by what else overrides look at."""

    def fail(_: Scalars, __: bytes) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Scalars, "find", fail)
    stage.route(0, context=ALL, overrides=(pinned("path", "/r/bid/x"),))
    answers = [await stage.ask("POST", path, body=BODY) for path in ("/r/bid", "/r/bid/x")]
    assert [answer["kingmaker-reason"] for answer in answers] == ["STATIC", "OVERRIDE"]
    assert contexts(stage) == [None, None]


def test_a_request_has_nothing_for_an_unknown_attribute() -> None:
    """Not even one that looks like a known one."""
    subject = RequestSubject(request_of((b"X-Hour", b"\xff")), None, None)
    assert [subject.value(name) for name in ("paths", "context.hour", "unit", "header.x")] == [None] * 4
    assert subject.value("header.x-hour") == "\udcff"


async def test_rules_are_worked_out_once_while_they_stay_the_same(stage: Stage) -> None:
    """A new snapshot with the same overrides costs no new look at each; with others, they are in force."""

    async def asked(path: str) -> tuple[str | None, Rules | None]:
        stage.route(0, context=ALL, overrides=(pinned("path", path),))
        reason = (await stage.ask("GET"))["kingmaker-reason"]
        routing = stage.worker.routing
        assert routing is not None
        return reason, stage.worker.course(routing, routing.table.snapshot.routes[0]).plan.rules

    first, again, other = await asked("/r/bid"), await asked("/r/bid"), await asked("/r/other")
    assert (first[0], again[0], other[0]) == ("OVERRIDE", "OVERRIDE", "STATIC")
    assert first[1] is again[1] is not other[1]


def test_query_and_cookies_are_read_once_for_all_features() -> None:
    """However many there are: the first of each name counts, and an empty one is nothing."""
    sent = request_of((b"Cookie", b'a="1"; a=2; b=; c'), query=b"a=1&a=2&b=&c&%64=%65+f")
    found = {
        (kind, name): place_of(Source(kind=kind, name=name))(sent)
        for kind in (SourceKind.QUERY, SourceKind.COOKIE)
        for name in "abcd"
    }
    assert [found[SourceKind.QUERY, name] for name in "abcd"] == ["1", None, None, "e f"]
    assert [found[SourceKind.COOKIE, name] for name in "abcd"] == ["1", None, None, None]
    assert (len(sent.parameters or ()), len(sent.cookies or ())) == (4, 3)
    sent.forget()
    assert (sent.parameters, sent.cookies) == (None, None)
