"""Claims about all flags at once: what a page keeps, how long it is as good, and that none is recorded."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest

from app.gateway.decisions import Decision
from app.gateway.ofrep import FLAGS_PATH, Bulk
from routing.assignment import Assignment
from routing.claims import Claims
from routing.types import Arm, Match, MetricRule, Reason, Role, Route
from tests.app.gateway.flags import flag, flags, kill, publish, tag_of, told_of
from tests.app.gateway.stage import Stage, read_message, request, shares

HOUR_MS = 3_600_000
ARMS = (
    Arm(id=1, name="old", url="http://127.0.0.1:9", role=Role.CHAMPION),
    Arm(id=2, name="new", url="http://127.0.0.1:9", role=Role.CHALLENGER),
)
ROUTE = Route(
    id=1, name="bid", match=Match(path_prefix="/r/bid"), arms=ARMS, shares=shares(5_000), salt="s", epoch=1
)


async def test_all_flags_come_at_once_and_nothing_is_recorded(stage: Stage) -> None:
    """In the order of the snapshot; each is decided as it would be alone, and its token is as good."""
    publish(stage, 3)
    answer = await flags(stage, {"targetingKey": "u1"})
    assert (answer.status, stage.spool.events) == (200, [])
    document = json.loads(answer.body)
    assert [flag["key"] for flag in document["flags"]] == ["bid-0", "bid-1", "bid-2"]
    for told in document["flags"]:
        alone = json.loads((await flag(stage, told["key"], {"targetingKey": "u1"})).body)
        assert {**told, "metadata": None} == {**alone, "metadata": None}
    outcome = {"decision": document["flags"][1]["metadata"]["decision"], "metric": "profit", "value": 2.5}
    assert (await stage.ask("POST", "/v1/outcomes", json.dumps(outcome).encode())).status == 202


async def test_who_has_the_answer_is_told_so(stage: Stage) -> None:
    """304 without a body, with the tag that was sent, alone or not, however the context was written."""
    publish(stage, 3)
    first = await flags(stage, {"targetingKey": "u1", "country": "DE"})
    tag = tag_of(first)
    for sent in (tag, f'"else", {tag}', tag.removeprefix("W/")):
        again = await flags(stage, {"country": "DE", "targetingKey": "u1"}, sent)
        assert (again.status, again.body, tag_of(again)) == (304, b"", tag)
        assert (again["content-length"], again["content-type"], again["connection"]) == (None, None, None)
    assert stage.spool.events == []


Change = Callable[[Stage], object]


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        (lambda stage: None, {"context": {"targetingKey": "u2"}}),
        (lambda stage: None, {"context": {"targetingKey": "u1", "country": "FR"}}),
        (lambda stage: None, {"context": {"targetingKey": "u1"}, "Kingmaker_Force_Arm": "new"}),
        (lambda stage: publish(stage, 3, 10_000, allow_force=True), {"context": {"targetingKey": "u1"}}),
        (lambda stage: kill(stage, "bid-2"), {"context": {"targetingKey": "u1"}}),
    ],
    ids=["unit", "feature", "forced", "snapshot", "kill"],
)
async def test_who_has_another_answer_gets_this_one(
    stage: Stage, change: Change, asked: dict[str, Any]
) -> None:
    """Where anything that it depends on has changed, a kill switch of this worker included."""
    publish(stage, 3, allow_force=True)
    before = await flags(stage, {"targetingKey": "u1"})
    change(stage)
    after = await flags(stage, tag=tag_of(before), **asked)
    assert after.status == 200
    assert tag_of(after) != tag_of(before)


@pytest.mark.parametrize(
    "tag", ["*", '"nonsense"', 'W/"-"', f'"{"0" * 32}-0"', f'"{"0" * 32}-ffffffffffff"', ""]
)
async def test_a_tag_that_is_none_of_ours_is_no_answer(stage: Stage, tag: str) -> None:
    """Everything is told."""
    assert (await flags(stage, {"targetingKey": "u1"}, tag)).status == 200


async def test_what_was_drawn_for_nobody_is_kept_until_something_changes(stage: Stage) -> None:
    """Values would flicker if every poll drew anew; a kill switch ends them at once all the same."""
    publish(stage, 8)
    told = await flags(stage)
    answers = [await flags(stage, tag=tag_of(told)) for _ in range(5)]
    assert {answer.status for answer in answers} == {304}
    assert [other for other in [await flags(stage) for _ in range(5)] if told_of(other) != told_of(told)]
    kill(stage, "bid-7")
    assert told_of(await flags(stage, tag=tag_of(told)))["bid-7"] == "old"


@pytest.mark.parametrize(
    ("reason", "has_unit", "lasts"),
    [
        (Reason.SPLIT, True, False),
        (Reason.SPLIT, False, True),
        (Reason.BANDIT, True, True),
        (Reason.BANDIT, False, True),
        (Reason.OVERRIDE, True, False),
        (Reason.FORCED, False, False),
    ],
)
def test_another_draw_is_no_other_answer(reason: Reason, has_unit: bool, lasts: bool) -> None:
    """A bandit draws anew even for the same unit; any other change of an arm is one of what it depends on."""
    told = []
    for arm in ARMS:
        bulk = Bulk(blake2b(b"", digest_size=16))
        assignment = Assignment(arm, reason, 5_000, {}, 7, has_unit)
        bulk.add(
            ROUTE, Decision(assignment, Claims(1, arm.id, 7, has_unit, reason, 5_000, 1, 1, 1, 1), "token"), 1
        )
        told.append(bulk.tag(0))
    assert (told[0] == told[1]) is lasts


@pytest.mark.parametrize(
    ("windows_ms", "age_ms", "status"),
    [
        ((HOUR_MS, 6 * HOUR_MS), HOUR_MS // 2 - 60_000, 304),
        ((HOUR_MS, 6 * HOUR_MS), HOUR_MS // 2, 200),
        ((), 24 * HOUR_MS - 60_000, 304),
        ((), 24 * HOUR_MS, 200),
        ((240 * HOUR_MS,), 24 * HOUR_MS, 200),
        ((), -60_000, 200),
    ],
)
async def test_tokens_are_renewed_before_outcomes_come_too_late_for_them(
    stage: Stage, windows_ms: tuple[int, ...], age_ms: int, status: int
) -> None:
    """After half of the shortest attribution window, and after a day; nobody can have one of the future."""
    rules = (MetricRule(name=f"m{at}", kind="binary", window_ms=ms) for at, ms in enumerate(windows_ms))
    publish(stage, 2, metrics=tuple(rules))
    tag = tag_of(await flags(stage, {"targetingKey": "u1"}))
    found = re.fullmatch(r'W/"([0-9a-f]+)-([0-9a-f]+)"', tag)
    assert found is not None
    older = f'W/"{found[1]}-{int(found[2], 16) - age_ms:x}"'
    assert (await flags(stage, {"targetingKey": "u1"}, older)).status == status


async def test_flags_by_the_thousand_are_evaluated_in_slices(stage: Stage) -> None:
    """In order, while other requests are answered."""
    publish(stage, 1_001)
    answer, health = await asyncio.gather(flags(stage), stage.ask(path="/healthz"))
    assert (answer.status, health.status) == (200, 200)
    assert list(told_of(answer)) == [f"bid-{number}" for number in range(1_001)]


async def test_all_flags_are_of_one_snapshot(stage: Stage) -> None:
    """Of the newest one, where that comes while they are evaluated."""
    publish(stage, 1_000)
    for _ in range(2):
        asking = asyncio.create_task(flags(stage, {"targetingKey": "u1"}))
        await asyncio.sleep(0.01)
        publish(stage, 1_000)
        told = json.loads((await asking).body)["flags"]
        assert len(told) == 1_000
        assert len({one["metadata"]["snapshot"] for one in told}) == 1


async def test_nothing_more_is_evaluated_for_who_has_left(stage: Stage) -> None:
    """Between two slices it is noticed; nobody is harmed."""
    publish(stage, 5_000)
    _, writer = await stage.connect()
    writer.write(request("POST", FLAGS_PATH, b"{}"))
    await asyncio.sleep(0)
    writer.transport.abort()
    assert (await stage.ask(path="/healthz")).status == 200


async def test_no_flags_are_an_answer(stage: Stage) -> None:
    """A gateway without routes has an empty list."""
    publish(stage, 0)
    answer = await flags(stage)
    assert (answer.status, json.loads(answer.body)) == (200, {"flags": []})


async def test_a_connection_outlives_an_answer_without_a_body(stage: Stage) -> None:
    """What follows a 304 is the next answer."""
    tag = tag_of(await flags(stage, {"targetingKey": "u1"}))
    reader, writer = await stage.connect()
    polled = request("POST", FLAGS_PATH, b'{"context": {"targetingKey": "u1"}}', If_None_Match=tag)
    writer.write(polled * 2 + request("GET", "/healthz"))
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(3)]
    assert [answer.status for answer in answers] == [304, 304, 200]
