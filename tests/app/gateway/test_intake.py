"""Claims about the gateway's own endpoints: decide, outcomes, health, metrics."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from app.gateway.entries import Verdict
from app.gateway.outcomes import event_of
from routing.claims import Claims, SigningKey
from routing.features import Source, SourceKind
from routing.tokens import sign
from routing.types import Reason
from tests.app.gateway.stage import KEY, Stage, claims_of, read_message, request, until


async def decision(stage: Stage) -> str:
    """A token that the gateway has just signed."""
    token = (await stage.ask())["kingmaker-decision"]
    assert token is not None
    return token


async def report(stage: Stage, document: object, **headers: str) -> tuple[int, dict[str, Any]]:
    """Posts outcomes; the status and the parsed answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = await stage.ask("POST", "/v1/outcomes", body, **headers)
    return answer.status, json.loads(answer.body)


def token_of(**changes: Any) -> str:
    """A token of ours with these claims."""
    claims = {
        "route_id": 1,
        "arm_id": 1,
        "unit_hash": 1,
        "has_unit": False,
        "reason": Reason.SPLIT,
        "propensity_bp": 5_000,
        "epoch": 1,
        "snapshot": 1,
        "at_ms": time.time_ns() // 1_000_000,
        "nonce": 1,
    }
    return sign(Claims(**{**claims, **changes}), KEY)


async def test_one_outcome_is_accepted_with_what_its_token_says(stage: Stage) -> None:
    """It is written down with the decision's claims, the time given and its key."""
    token = await decision(stage)
    at = datetime.now(UTC).replace(microsecond=0)
    status, answer = await report(
        stage, {"decision": token, "metric": "conversion", "value": True, "at": at.isoformat(), "id": "k"}
    )
    (outcome,) = stage.spool.outcomes
    assert (status, answer) == (202, {"accepted": 1, "rejected": []})
    assert outcome.decision == stage.spool.events[0].decision
    assert (outcome.metric, outcome.value, outcome.key) == ("conversion", 1.0, "k")
    assert outcome.at_ms == round(at.timestamp() * 1000)


async def test_many_outcomes_are_judged_one_by_one(stage: Stage) -> None:
    """What is good is accepted; what is not is named by its index."""
    token = await decision(stage)
    good = {"decision": token, "metric": "profit", "value": -1.5}
    status, answer = await report(stage, {"outcomes": [good, {**good, "metric": "unheard"}, good]})
    assert (status, answer["accepted"]) == (202, 2)
    assert [(entry["index"], entry["code"]) for entry in answer["rejected"]] == [(1, "unknown_metric")]
    assert "unheard" in answer["rejected"][0]["message"]


@pytest.mark.parametrize("content_type", ["application/x-ndjson", "text/plain"])
async def test_outcomes_may_come_as_lines(stage: Stage, content_type: str) -> None:
    """NDJSON is known by its type or by its several lines; a broken line is refused alone."""
    line = json.dumps({"decision": await decision(stage), "metric": "profit", "value": 2})
    status, answer = await report(stage, f"{line}\n{line}\nnot json\n".encode(), Content_Type=content_type)
    assert (status, answer["accepted"]) == (202, 2)
    assert [(entry["index"], entry["code"]) for entry in answer["rejected"]] == [(2, "bad_outcome")]


HOUR = timedelta(hours=1)
FORGED = sign(Claims(1, 1, 1, False, Reason.SPLIT, 1, 1, 1, 1, 1), SigningKey(id=KEY.id, secret=b"x" * 32))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"decision": FORGED}, "bad_decision"),
        ({"decision": "nonsense"}, "bad_decision"),
        ({"decision": "ü€"}, "bad_decision"),
        ({"decision": token_of(route_id=99)}, "unknown_route"),
        ({"metric": "unheard"}, "unknown_metric"),
        ({"metric": "error"}, "unknown_metric"),
        ({"value": float("nan")}, "bad_value"),
        ({"value": float("inf")}, "bad_value"),
        ({"value": 1e16}, "bad_value"),
        ({"value": "1"}, "bad_value"),
        ({"value": None}, "bad_value"),
        ({"metric": "conversion", "value": 2}, "bad_value"),
        ({"metric": "conversion", "value": float("nan")}, "bad_value"),
        ({"value": True}, "bad_value"),
        ({"at": (datetime.now(UTC) + HOUR).isoformat()}, "from_future"),
        ({"decision": token_of(at_ms=1), "at": None}, "too_late"),
        ({"at": (datetime.now(UTC) - HOUR).isoformat()}, "bad_outcome"),
        ({"at": "yesterday"}, "bad_outcome"),
        ({"at": "2026-01-01T00:00:00"}, "bad_outcome"),
        ({"id": 5}, "bad_outcome"),
        ({"id": "x" * 257}, "bad_outcome"),
        ({"surplus": 1}, "bad_outcome"),
        ({"\ud800": 1}, "bad_outcome"),
        ({"id": "\ud800"}, "bad_outcome"),
        ({"id": "k\0"}, "bad_outcome"),
        ({"decision": "\ud800"}, "bad_decision"),
        ({"metric": "\ud800"}, "unknown_metric"),
        ({"value": 10**400}, "bad_value"),
        ({"value": -float("inf")}, "bad_value"),
        ({"at": "9999-12-31T23:59:59-14:00"}, "from_future"),
        ({"at": "0001-01-01T00:00:00+14:00"}, "bad_outcome"),
    ],
)
async def test_each_fault_of_an_outcome_has_its_code(
    stage: Stage, changes: dict[str, Any], code: str
) -> None:
    """When none can be accepted the answer is 422, and nothing is written."""
    entry = {"decision": await decision(stage), "metric": "profit", "value": 1.0, **changes}
    status, answer = await report(stage, {"outcomes": [entry]})
    assert status == 422
    assert [rejected["code"] for rejected in answer["rejected"]] == [code]
    assert stage.spool.outcomes == []


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b'{"outcomes": 1}', b'{"outcomes": [], "x": 1}', b"[" * 200_000]
)
async def test_a_body_without_outcomes_is_a_problem(stage: Stage, body: bytes) -> None:
    """Its shape is refused as a whole."""
    status, answer = await report(stage, body)
    assert (status, answer["title"]) == (422, "Unprocessable Content")


async def test_outcomes_that_cannot_be_made_durable_are_not_accepted(stage: Stage) -> None:
    """When the disk refuses, the caller is told to come back."""
    token = await decision(stage)
    stage.spool.refuses = True
    status, answer = await report(stage, {"decision": token, "metric": "profit", "value": 1})
    assert (status, answer["title"]) == (503, "Service Unavailable")


async def test_an_outcome_is_acknowledged_only_once_it_is_on_disk(stage: Stage) -> None:
    """Until the spool says that it is done, the caller hears nothing."""
    token = await decision(stage)
    stage.spool.slow = True
    reporting = asyncio.create_task(report(stage, {"decision": token, "metric": "profit", "value": 1}))
    await until(lambda: len(stage.spool.undone) == 1)
    done, _ = await asyncio.wait([reporting], timeout=0.2)
    assert not done
    stage.spool.undone[0](None)
    assert (await reporting)[0] == 202


async def test_who_does_not_wait_for_the_disk_harms_nobody(stage: Stage) -> None:
    """The caller may have left when its outcomes are on disk."""
    token = await decision(stage)
    stage.spool.slow = True
    body = json.dumps({"decision": token, "metric": "profit", "value": 1}).encode()
    _, writer = await stage.connect()
    writer.write(request("POST", "/v1/outcomes", body))
    await until(lambda: len(stage.spool.undone) == 1)
    writer.close()
    await until(stage.worker.quiet.is_set)
    stage.spool.undone[0](None)
    assert (await stage.ask(path="/healthz")).status == 200


async def test_too_large_a_body_is_refused_before_it_is_read(stage: Stage) -> None:
    """The declared length is enough."""
    raw = b"POST /v1/outcomes HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"
    assert (await stage.send(raw)).status == 413


async def test_decide_answers_with_the_assignment_alone(stage: Stage) -> None:
    """The same unit gets the same arm as through the proxy; no arm is called; the decision is recorded."""
    stage.route(unit=Source(kind=SourceKind.HEADER, name="X-User-Id"))
    proxied = claims_of(await stage.ask(X_User_Id="u1"))
    called = len(stage.champion.seen) + len(stage.challenger.seen)
    answer = await stage.ask("POST", "/v1/decide/bid", b'{"unit": "u1", "context": {"country": "DE"}}')
    document = json.loads(answer.body)
    assert answer.status == 200
    assert document["arm"] == {1: "old", 2: "new"}[proxied.arm_id]
    assert document["propensity"] == 0.5
    assert document["probabilities"] == {"old": 0.5, "new": 0.5}
    assert (document["route"], document["reason"], document["snapshot"]) == ("bid", "SPLIT", stage.version)
    assert document["url"].startswith("http://127.0.0.1:")
    assert len(stage.champion.seen) + len(stage.challenger.seen) == called
    event = stage.spool.events[-1]
    assert (event.served_arm_id, event.status, event.error, event.latency_ms) == (None, None, None, None)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("/v1/decide/unheard", b"{}", 404), ("/v1/decide/bid", b'{"x": 1}', 422), ("/v1/decide/bid", b"", 200)],
)
async def test_decide_refuses_what_it_does_not_know(
    stage: Stage, path: str, body: bytes, status: int
) -> None:
    """Unknown routes and unknown fields are refused; a body may be left out."""
    assert (await stage.ask("POST", path, body)).status == status


async def test_a_head_of_health_has_no_body(stage: Stage) -> None:
    """HEAD is answered like GET, without the body."""
    answer = await stage.send(request("HEAD", "/healthz"))
    assert (answer.status, answer["content-length"]) == (200, "15")


async def test_judging_never_raises(stage: Stage) -> None:
    """Entries of any JSON type are refused, one by one."""
    routing = stage.worker.routing
    assert routing is not None
    entries = [None, 1, "x", [], {}, {"value": []}, msgspec.json.decode(b'{"decision": 1}')]
    verdict: Verdict[Any] = Verdict()
    verdict.judge(entries, 0, partial(event_of, table=routing.table, now_ms=0))
    assert len(verdict.rejected) == len(entries)


async def test_too_many_outcomes_at_once_are_refused(stage: Stage) -> None:
    """Judging them would keep every request of the worker waiting."""
    assert (await report(stage, b"1\n" * 30_000))[0] == 413
    assert (await report(stage, {"outcomes": [1] * 10_001}))[0] == 413


async def test_outcomes_by_the_thousand_are_judged_in_slices(stage: Stage) -> None:
    """In order, with the index that each had, while other requests are answered."""
    good = {"decision": await decision(stage), "metric": "profit", "value": 1}
    outcomes = [good if index % 2 else 1 for index in range(1_001)]
    (status, answer), health = await asyncio.gather(
        report(stage, {"outcomes": outcomes}), stage.ask(path="/healthz")
    )
    assert (status, answer["accepted"], health.status) == (202, 500, 200)
    assert [entry["index"] for entry in answer["rejected"]] == list(range(0, 1_001, 2))


@pytest.mark.parametrize("path", ["/v1/decide/bid", "/v1/outcomes", "/r/bid"])
async def test_without_a_snapshot_callers_are_told_to_come_back(stage: Stage, path: str) -> None:
    """Nothing can be decided or judged yet, whatever the body; the connection is kept if that is read."""
    stage.worker.routing = None
    reader, writer = await stage.connect()
    for _ in range(2):
        writer.write(request("POST", path, b"{}"))
        answer = await asyncio.wait_for(read_message(reader), 10)
        assert (answer.status, answer["retry-after"], answer["connection"]) == (503, "1", None)
