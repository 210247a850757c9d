"""Claims about routes as feature flags, which OpenFeature's remote evaluation protocol (OFREP) specifies."""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.ofrep import FLAGS_PATH, BadEvaluation, basis_of, read_question, reason_of
from routing.features import Source, SourceKind
from routing.tokens import verify
from routing.types import Match, Reason
from tests.app.gateway.flags import flag, flags, tag_of
from tests.app.gateway.stage import KEY, Stage, claims_of, read_message, request, shares

USER = Source(kind=SourceKind.HEADER, name="X-User-Id")


async def test_a_flag_is_a_route_and_its_value_the_arm(stage: Stage) -> None:
    """The same unit gets the same arm as through the proxy; the decision is recorded, no arm is called."""
    stage.route(unit=USER)
    proxied = claims_of(await stage.ask(X_User_Id="u1"))
    called = len(stage.champion.seen) + len(stage.challenger.seen)
    answer = await flag(stage, context={"targetingKey": "u1", "country": "DE", "cart": {"items": [1, 2.5]}})
    document = json.loads(answer.body)
    token = document["metadata"].pop("decision")
    arm = {1: "old", 2: "new"}[proxied.arm_id]
    assert (answer.status, answer["content-type"]) == (200, "application/json")
    assert document == {
        "key": "bid",
        "value": arm,
        "variant": arm,
        "reason": "SPLIT",
        "metadata": {"reason": "SPLIT", "propensity": 0.5, "snapshot": stage.version},
    }
    event = stage.spool.events[-1]
    assert verify(token, {KEY.id: KEY}) == event.decision
    assert (event.decision.unit_hash, event.decision.has_unit) == (proxied.unit_hash, True)
    assert (event.served_arm_id, event.status, event.error, event.latency_ms) == (None, None, None, None)
    assert len(stage.champion.seen) + len(stage.challenger.seen) == called


@pytest.mark.parametrize(
    "context", [None, {}, {"targetingKey": ""}, {"targetingKey": None}, {"country": "DE"}]
)
async def test_without_a_targeting_key_an_evaluation_is_its_own(stage: Stage, context: object) -> None:
    """As a request without its declared unit is."""
    stage.route(unit=USER)
    values = {json.loads((await flag(stage, context=context)).body)["value"] for _ in range(40)}
    assert values == {"old", "new"}
    assert {event.decision.has_unit for event in stage.spool.events} == {False}


async def test_a_kill_switch_and_a_forced_arm_are_heeded(stage: Stage) -> None:
    """They have reasons of their own, in the words of OpenFeature and in ours."""
    stage.route(allow_force=True)
    forced = json.loads((await flag(stage, Kingmaker_Force_Arm="new")).body)
    stage.route(allow_force=True, kill_switch=True)
    killed = json.loads((await flag(stage, Kingmaker_Force_Arm="new")).body)
    told = [(one["value"], one["reason"], one["metadata"]["reason"]) for one in (forced, killed)]
    assert told == [("new", "TARGETING_MATCH", "FORCED"), ("old", "STATIC", "KILL_SWITCH")]


def test_every_reason_has_a_word_of_openfeature() -> None:
    """Draws are splits, what somebody has set for this unit or request is a match, all else is static."""
    by_word: dict[str, set[str]] = {}
    for reason in Reason:
        by_word.setdefault(reason_of(reason), set()).add(reason)
    assert by_word == {
        "SPLIT": {"SPLIT", "BANDIT"},
        "TARGETING_MATCH": {"OVERRIDE", "FORCED"},
        "STATIC": {"STATIC", "KILL_SWITCH", "FALLBACK", "DEFAULT"},
    }


async def test_no_such_flag_is_told_as_openfeature_wants_it(stage: Stage) -> None:
    """404 with its key, and nothing is recorded."""
    answer = await flag(stage, "unheard")
    assert (answer.status, answer["content-type"]) == (404, "application/json")
    assert json.loads(answer.body) == {
        "key": "unheard",
        "errorCode": "FLAG_NOT_FOUND",
        "errorDetails": "flag must be a route of the gateway's, got 'unheard'",
    }
    assert stage.spool.events == []


@pytest.mark.parametrize(
    ("body", "code", "details"),
    [
        (b"nonsense", "PARSE_ERROR", "body must be JSON"),
        (b'{"context": {"a": NaN}}', "PARSE_ERROR", "body must be JSON"),
        (b'{"context": {"a": 1e400}}', "PARSE_ERROR", "body must be JSON"),
        (b'{"context": {"a": "\xff"}}', "PARSE_ERROR", "body must be JSON"),
        (b'{"context": {"targetingKey": "\\ud800"}}', "PARSE_ERROR", "body must be JSON"),
        (b'{"context": ' + b'{"a":' * 100_000, "PARSE_ERROR", "body must be JSON"),
        (b"[" * 400_000 + b"]" * 400_000, "PARSE_ERROR", "body must be JSON"),
        (b"[]", "PARSE_ERROR", "body must be an object, got array"),
        (b"null", "PARSE_ERROR", "body must be an object, got null"),
        (b'{"context": []}', "INVALID_CONTEXT", "context must be an object, got array"),
        (b'{"context": "u1"}', "INVALID_CONTEXT", "context must be an object, got string"),
        (b'{"context": 1.5}', "INVALID_CONTEXT", "context must be an object, got number"),
        (b'{"context": true}', "INVALID_CONTEXT", "context must be an object, got boolean"),
        (b'{"context": {"targetingKey": 7}}', "INVALID_CONTEXT", "targetingKey must be a string, got number"),
        (b'{"context": {"targetingKey": {}}}', "INVALID_CONTEXT", "must be a string, got object"),
    ],
)
@pytest.mark.parametrize("path", [FLAGS_PATH, f"{FLAGS_PATH}/bid"])
async def test_each_fault_of_a_request_has_its_code(
    stage: Stage, path: str, body: bytes, code: str, details: str
) -> None:
    """400, about the flag if there is one; a provider falls back to the default of its caller."""
    answer = await stage.ask("POST", path, body)
    document = json.loads(answer.body)
    assert (answer.status, document["errorCode"]) == (400, code)
    assert details in document["errorDetails"]
    assert document.get("key") == (None if path == FLAGS_PATH else "bid")
    assert stage.spool.events == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"context": null}',
        b'{"context": {"targetingKey": "u1"}, "later": "version"}',
        b'{"context": {"n": 123456789012345678901234567890, "e": 1e300, "deep": [[[[{"a": null}]]]]}}',
    ],
)
@pytest.mark.parametrize("path", [FLAGS_PATH, f"{FLAGS_PATH}/bid"])
async def test_a_context_may_hold_anything(stage: Stage, path: str, body: bytes) -> None:
    """What a later version of the protocol may add beside it does no harm either."""
    assert (await stage.ask("POST", path, body)).status == 200


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_VALUES)
def test_reading_a_question_never_fails_otherwise(value: object) -> None:
    """Whatever is sent is read, or refused with a code."""
    for document in (value, {"context": value}, {"context": {"targetingKey": value}}):
        with suppress(BadEvaluation):
            asked = read_question(json.dumps(document).encode(), None)
            assert basis_of(asked, 1)
            assert asked.unit is None or isinstance(asked.unit, str)


@pytest.mark.parametrize("path", [FLAGS_PATH, f"{FLAGS_PATH}/bid"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_flags_are_evaluated_by_post_alone(stage: Stage, path: str, method: str) -> None:
    """The answer says so."""
    answer = await stage.send(request(method, path))
    assert (answer.status, answer["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [FLAGS_PATH, f"{FLAGS_PATH}/bid"])
async def test_too_large_a_context_is_refused_before_it_is_read(stage: Stage, path: str) -> None:
    """The declared length is enough, and the refusal is one that providers can read."""
    raw = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\n".encode()
    answer = await stage.send(raw)
    assert (answer.status, json.loads(answer.body)["errorCode"]) == (413, "GENERAL")


@pytest.mark.parametrize("path", ["/ofrep/v1/configuration", "/ofrep/v1/", "/ofrep/v1/evaluate"])
async def test_what_else_the_protocol_may_have_is_not_there(stage: Stage, path: str) -> None:
    """The whole prefix is the gateway's, so no route is asked, not even one that matches everything."""
    stage.route(match=Match(path_prefix="/"))
    answer = await stage.ask(path=path)
    assert (answer.status, answer["content-type"]) == (404, "application/problem+json")
    assert stage.champion.seen + stage.challenger.seen == []


@pytest.mark.parametrize("path", [FLAGS_PATH, f"{FLAGS_PATH}/bid"])
async def test_without_a_snapshot_callers_are_told_to_come_back(stage: Stage, path: str) -> None:
    """503, by which web providers go on with what they have kept; the connection is kept too."""
    stage.worker.routing = None
    reader, writer = await stage.connect()
    for _ in range(2):
        writer.write(request("POST", path, b"{}"))
        answer = await asyncio.wait_for(read_message(reader), 10)
        assert (answer.status, answer["retry-after"], answer["connection"]) == (503, "1", None)
        assert json.loads(answer.body)["errorCode"] == "GENERAL"


async def test_a_gateway_that_parts_still_evaluates(stage: Stage) -> None:
    """And says that the connection ends, with a body or without one."""
    tag = tag_of(await flags(stage, {"targetingKey": "u1"}))
    stage.worker.part()
    for answer in (
        await flag(stage, context={"targetingKey": "u1"}),
        await flags(stage, {"targetingKey": "u1"}, tag),
    ):
        assert (answer.status, answer["connection"]) in ((200, "close"), (304, "close"))


async def test_questions_are_counted_by_call_and_status(stage: Stage) -> None:
    """Decide, one flag and all flags, whatever became of them."""
    tag = tag_of(await flags(stage, {"targetingKey": "u1"}))
    await flags(stage, {"targetingKey": "u1"}, tag)
    await flag(stage)
    await flag(stage, "unheard")
    await stage.ask("POST", "/v1/decide/bid", b"{}")
    counted = {
        series: value for series, value in stage.worker.dump().values.items() if "questions_total" in series
    }
    labels = {
        tuple(re.findall(r'(?:call|code)="([a-z0-9]+)"', series)): value for series, value in counted.items()
    }
    assert labels == {
        ("flags", "200"): 1,
        ("flags", "304"): 1,
        ("flag", "200"): 1,
        ("flag", "404"): 1,
        ("decide", "200"): 1,
    }


async def test_a_route_of_one_arm_is_static(stage: Stage) -> None:
    """Nobody draws where there is nothing to draw, and any share that is sure is told as such."""
    stage.route(shares=shares(0))
    document = json.loads((await flag(stage)).body)
    assert (document["value"], document["reason"], document["metadata"]["propensity"]) == (
        "old",
        "STATIC",
        1.0,
    )
