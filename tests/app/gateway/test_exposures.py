"""Claims about `POST /v1/exposures`: decisions that a bulk answer told of count once they are confirmed."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import pytest

from app.events.types import DecisionEvent
from app.gateway import exposures
from app.gateway.entries import Code, Rejected, Verdict
from app.gateway.exposures import EncoderOf, event_of
from app.gateway.ofrep import KEPT_MS
from routing.claims import Claims, SigningKey
from routing.context import Encoder
from routing.features import Feature, FeatureType, Source, SourceKind
from routing.snapshot import RouteTable
from routing.tokens import sign, verify
from routing.types import Reason
from tests.app.gateway.stage import KEY, Stage, request, until

FORGED = sign(Claims(1, 1, 1, False, Reason.SPLIT, 1, 1, 1, 1, 1), SigningKey(id=KEY.id, secret=b"x" * 32))
HOUR_MS = 3_600_000
COUNTRY = Feature(
    name="country",
    source=Source(kind=SourceKind.HEADER, name="X-Country"),
    type=FeatureType.CATEGORICAL,
    values=("DE", "FR"),
)
HOUR = Feature(
    name="hour", source=Source(kind=SourceKind.JSON, name="/hour"), type=FeatureType.NUMERIC, maximum=23.0
)


async def bulk(stage: Stage, unit: str = "u1") -> str:
    """The token of the one flag of a bulk answer."""
    body = json.dumps({"context": {"targetingKey": unit}}).encode()
    answer = await stage.ask("POST", "/ofrep/v1/evaluate/flags", body)
    (flag,) = json.loads(answer.body)["flags"]
    return str(flag["metadata"]["decision"])


def judged(stage: Stage, entry: object, now_ms: int) -> Any:
    """What is written down of an entry at a moment."""
    assert stage.worker.routing is not None
    return event_of(entry, stage.worker.routing.table, now_ms, lambda _: None)


async def confirm(stage: Stage, document: object, **headers: str) -> tuple[int, dict[str, Any]]:
    """Posts exposures; the status and the parsed answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    answer = await stage.ask("POST", "/v1/exposures", body, **headers)
    return answer.status, json.loads(answer.body)


def token_of(**changes: Any) -> str:
    """A token of ours with these claims."""
    claims = Claims(1, 1, 1, True, Reason.SPLIT, 5_000, 1, 1, time.time_ns() // 1_000_000, 1)
    return sign(
        Claims(**{name: changes.get(name, getattr(claims, name)) for name in Claims.__struct_fields__}), KEY
    )


async def test_a_confirmed_decision_is_recorded_with_what_its_token_says(stage: Stage) -> None:
    """As one that was asked for by itself: nobody served it."""
    token = await bulk(stage)
    assert stage.spool.events == []
    assert await confirm(stage, {"decision": token}) == (202, {"accepted": 1, "rejected": []})
    event: Any = stage.spool.outcomes[0]
    assert event.decision == verify(token, {KEY.id: KEY})
    assert (event.served_arm_id, event.status, event.error, event.latency_ms) == (None, None, None, None)
    assert stage.counted("kingmaker_exposures_accepted_total") == 1


@pytest.mark.parametrize("form", ["list", "lines", "plain lines"])
async def test_many_are_judged_one_by_one(stage: Stage, form: str) -> None:
    """What is good is recorded; what is not is named by its index."""
    entries = [{"decision": await bulk(stage, unit)} for unit in ("u1", "u2")]
    entries.insert(1, {"decision": FORGED})
    lines = b"\n".join(json.dumps(entry).encode() for entry in entries)
    document = {"exposures": entries} if form == "list" else lines
    headers = {"Content_Type": "application/x-ndjson"} if form == "lines" else {}
    status, answer = await confirm(stage, document, **headers)
    assert (status, answer["accepted"]) == (202, 2)
    assert [(entry["index"], entry["code"]) for entry in answer["rejected"]] == [(1, "bad_decision")]
    assert len({event.decision.unit_hash for event in stage.spool.outcomes}) == 2
    assert stage.counted("kingmaker_exposures_rejected_total") == 1


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"decision": FORGED}, "bad_decision"),
        ({"decision": "nonsense"}, "bad_decision"),
        ({"decision": ""}, "bad_decision"),
        ({"decision": "ü€"}, "bad_decision"),
        ({"decision": "\ud800"}, "bad_decision"),
        ({"decision": token_of(route_id=99)}, "unknown_route"),
        ({"decision": token_of(at_ms=time.time_ns() // 1_000_000 + HOUR_MS)}, "from_future"),
        ({"decision": token_of(at_ms=time.time_ns() // 1_000_000 - 26 * HOUR_MS)}, "too_late"),
        ({"decision": token_of(), "context": []}, "bad_exposure"),
        ({"decision": token_of(), "context": "DE"}, "bad_exposure"),
        ({"decision": 5}, "bad_exposure"),
        ({}, "bad_exposure"),
        ({"decision": token_of(), "surplus": 1}, "bad_exposure"),
        ([], "bad_exposure"),
        (None, "bad_exposure"),
    ],
)
async def test_each_fault_has_its_code(stage: Stage, entry: object, code: str) -> None:
    """When none can be accepted the answer is 422, and nothing is recorded."""
    status, answer = await confirm(stage, {"exposures": [entry]})
    assert (status, [rejected["code"] for rejected in answer["rejected"]]) == (422, [code])
    assert stage.spool.outcomes == []


@pytest.mark.parametrize(("metrics", "longest_ms"), [(None, HOUR_MS), ((), 0)])
async def test_a_decision_can_be_confirmed_as_long_as_it_may_be_kept_and_have_an_outcome(
    stage: Stage, metrics: tuple[()] | None, longest_ms: int
) -> None:
    """To the millisecond: for a day, and the longest window of the route's metrics."""
    if metrics is not None:
        stage.route(metrics=metrics)
    at_ms = 1_800_000_000_000
    entry = {"decision": token_of(at_ms=at_ms)}
    most_ms = KEPT_MS + longest_ms
    assert judged(stage, entry, at_ms + most_ms).decision.at_ms == at_ms
    with pytest.raises(Rejected) as late:
        judged(stage, entry, at_ms + most_ms + 1)
    assert late.value.code is Code.TOO_LATE
    assert str(late.value) == f"decision must be at most {most_ms} ms old for route bid, got {most_ms + 1} ms"


async def test_a_context_that_is_sent_along_is_recorded_as_decide_reads_it(stage: Stage) -> None:
    """With the version of its declaration; what is not declared, or cannot be, is left out."""
    stage.route(context=(COUNTRY, HOUR))
    context = {"targetingKey": "u1", "country": "DE", "hour": "99", "cart": {"items": [1]}, "later": None}
    await stage.ask("POST", "/v1/decide/bid", json.dumps({"unit": "u1", "context": context}).encode())
    (decided,) = stage.spool.events
    assert (await confirm(stage, {"decision": await bulk(stage), "context": context}))[0] == 202
    (confirmed,) = stage.spool.outcomes
    assert confirmed.context == decided.context == {"country": "DE", "hour": 23.0}
    assert confirmed.schema == decided.schema == Encoder((COUNTRY, HOUR)).version
    assert confirmed.served_arm_id is confirmed.status is confirmed.override_id is None


@pytest.mark.parametrize(
    ("context", "recorded"),
    [
        ({}, {}),
        ({"country": 7.5, "hour": True}, {}),
        ({"country": "\ud800"}, {"country": "\ufffd"}),
        ({"hour": float("nan")}, {}),
        ({"hour": 10**400}, {"hour": 23.0}),
        (None, None),
    ],
)
async def test_a_context_may_lack_everything(
    stage: Stage, context: object, recorded: dict[str, object] | None
) -> None:
    """It is one all the same, unlike none; nothing in it is an error."""
    stage.route(context=(COUNTRY, HOUR))
    assert (await confirm(stage, {"decision": await bulk(stage), "context": context}))[0] == 202
    (event,) = stage.spool.outcomes
    assert (event.context, event.schema > 0) == (recorded, recorded is not None)


async def test_a_route_without_features_has_no_context(stage: Stage) -> None:
    """Whatever is sent along: nothing but the token is recorded."""
    assert (await confirm(stage, {"decision": await bulk(stage), "context": {"country": "DE"}}))[0] == 202
    (event,) = stage.spool.outcomes
    assert (event.context, event.schema) == (None, 0)


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b'{"exposures": 1}', b'{"exposures": [], "x": 1}', b"[" * 200_000]
)
async def test_a_body_without_exposures_is_a_problem(stage: Stage, body: bytes) -> None:
    """Its shape is refused as a whole."""
    status, answer = await confirm(stage, body)
    assert (status, answer["title"]) == (422, "Unprocessable Content")


async def test_outcomes_are_no_exposures(stage: Stage) -> None:
    """Each list has its own name, so that what is sent to the wrong place is not taken for the other."""
    token = await bulk(stage)
    assert (await confirm(stage, {"outcomes": [{"decision": token}]}))[0] == 422
    body = json.dumps({"exposures": [{"decision": token}]}).encode()
    assert (await stage.ask("POST", "/v1/outcomes", body)).status == 422


async def test_exposures_are_acknowledged_only_once_they_are_on_disk(stage: Stage) -> None:
    """Until the spool says that it is done, the caller hears nothing."""
    token = await bulk(stage)
    stage.spool.slow = True
    confirming = asyncio.create_task(confirm(stage, {"decision": token}))
    await until(lambda: len(stage.spool.undone) == 1)
    done, _ = await asyncio.wait([confirming], timeout=0.2)
    assert not done
    stage.spool.undone[0](None)
    assert (await confirming)[0] == 202


async def test_exposures_that_cannot_be_made_durable_are_not_accepted(stage: Stage) -> None:
    """When the disk refuses, the caller is told to come back."""
    token = await bulk(stage)
    stage.spool.refuses = True
    status, answer = await confirm(stage, {"decision": token})
    assert (status, answer["detail"]) == (503, "exposures could not be made durable: disk is full")


async def test_who_does_not_wait_for_the_disk_harms_nobody(stage: Stage) -> None:
    """A page may be closed as soon as it has confirmed; that counts all the same."""
    token = await bulk(stage)
    stage.spool.slow = True
    stage.limit(half_closed_seconds=0.0)
    _, writer = await stage.connect()
    writer.write(request("POST", "/v1/exposures", json.dumps({"decision": token}).encode()))
    await until(lambda: len(stage.spool.undone) == 1)
    writer.transport.abort()
    await until(stage.worker.quiet.is_set)
    stage.spool.undone[0](None)
    assert (await stage.ask(path="/healthz")).status == 200


async def test_too_many_at_once_are_refused(stage: Stage) -> None:
    """By their number, and by their size before they are read."""
    status, answer = await confirm(stage, {"exposures": [1] * 10_001})
    assert (status, answer["detail"]) == (413, "exposures must be at most 10000 at once, got 10001")
    raw = b"POST /v1/exposures HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999\r\n\r\n"
    assert (await stage.send(raw)).status == 413


async def test_exposures_by_the_thousand_are_judged_in_slices(stage: Stage) -> None:
    """In order, with the index that each had, while other requests are answered."""
    good = {"decision": await bulk(stage)}
    exposures = [good if index % 2 else 1 for index in range(1_001)]
    (status, answer), health = await asyncio.gather(
        confirm(stage, {"exposures": exposures}), stage.ask(path="/healthz")
    )
    assert (status, answer["accepted"], health.status) == (202, 500, 200)
    assert [entry["index"] for entry in answer["rejected"]] == list(range(0, 1_001, 2))


async def test_a_body_is_read_by_one_declaration(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is worked out once, also where another snapshot comes in between."""
    stage.route(context=(COUNTRY,))
    entry = {"decision": await bulk(stage), "context": {"country": "DE", "hour": 7}}
    asked: list[Encoder | None] = []

    def judged(entry: object, table: RouteTable, now_ms: int, encoder_of: EncoderOf) -> DecisionEvent:
        asked.append(encoder_of(table.snapshot.routes[0]))
        stage.route(context=(COUNTRY, HOUR))
        return event_of(entry, table, now_ms, encoder_of)

    monkeypatch.setattr(exposures, "event_of", judged)
    assert (await confirm(stage, {"exposures": [entry] * 120}))[0] == 202
    assert len(asked) == 120
    assert len({id(encoder) for encoder in asked}) == 1
    assert {event.schema for event in stage.spool.outcomes} == {Encoder((COUNTRY,)).version}


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
async def test_exposures_are_posted(stage: Stage, method: str) -> None:
    """The answer says so."""
    answer = await stage.ask(method, "/v1/exposures")
    assert (answer.status, answer["allow"]) == (405, "POST")


async def test_without_a_snapshot_callers_are_told_to_come_back(stage: Stage) -> None:
    """Nothing can be judged without the keys."""
    stage.worker.routing = None
    answer = await stage.ask("POST", "/v1/exposures", b"{}")
    assert (answer.status, answer["retry-after"]) == (503, "1")


async def test_judging_never_raises(stage: Stage) -> None:
    """Entries of any JSON type are refused, one by one."""
    entries: list[object] = [None, 1, "x", [], {}, {"decision": []}, {"decision": {"decision": 1}}]
    others: list[object] = [1, "x", [], [{}]]
    entries += [{"decision": token_of(), "context": other} for other in others]
    verdict: Verdict[Any] = Verdict()
    verdict.judge(entries, 0, partial(judged, stage, now_ms=0))
    assert len(verdict.rejected) == len(entries)
