"""Claims about ejection as callers and records see it: a failing arm is let alone, at its own cost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.gateway.health import Condition
from routing.types import Ejection, Reason
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Stage,
    claims_of,
    close_at_once,
    limits,
    request,
    say_nothing,
    until,
)

FAILS = ArmServer.say(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")


def failing(stage: Stage, base_ms: int = 600_000, **changes: Any) -> None:
    """All traffic is the challenger's, which fails; when it is ejected, then for so long."""
    rules = Ejection(base_ms=base_ms, longest_ms=600_000)
    stage.route(10_000, upstream=limits(**{"ejection": rules, **changes}))
    stage.challenger.script = FAILS


def condition(stage: Stage, arm_id: int = 2) -> Condition:
    """How an arm is."""
    return stage.worker.fleet.of(arm_id).condition(stage.loop.time())


@pytest.mark.parametrize(
    "script", [FAILS, close_at_once, ArmServer.say(b"nonsense\r\n\r\n")], ids=["5xx", "cut off", "garbage"]
)
async def test_five_failures_are_the_last(stage: Stage, script: Any) -> None:
    """The challenger is asked no more, and no caller has noticed anything."""
    failing(stage)
    stage.challenger.script = script
    answers = [await stage.ask("POST", body=b"x") for _ in range(12)]
    assert {(answer.status, answer["kingmaker-arm"]) for answer in answers} == {(200, "old")}
    assert {answer["kingmaker-reason"] for answer in answers} == {"FALLBACK"}
    assert {answer["kingmaker-assigned-arm"] for answer in answers} == {"new"}
    assert (len(stage.challenger.seen), len(stage.champion.seen)) == (5, 12)
    assert condition(stage) is Condition.EJECTED
    assert stage.counted("kingmaker_ejections_total") == 1
    assert stage.counted("kingmaker_fallbacks_total") == 12


async def test_who_was_diverted_counts_as_the_challengers_error(stage: Stage) -> None:
    """Ejecting an arm must not heal it: the record says error, on the assigned arm, without a latency."""
    failing(stage)
    answers = [await stage.ask() for _ in range(7)]
    events = stage.spool.events
    assert [event.decision for event in events] == [claims_of(answer) for answer in answers]
    assert {event.decision.arm_id for event in events} == {2}
    assert {event.decision.reason for event in events} == {Reason.STATIC}
    assert [(event.served_arm_id, event.status, event.error) for event in events] == [(1, 200, True)] * 7
    assert [event.latency_ms is None for event in events] == [False] * 5 + [True] * 2


async def test_without_fallback_the_diverted_are_answered_too(stage: Stage) -> None:
    """That rule is about answering a request twice, and here nobody was asked before."""
    failing(stage, fallback=False)
    answers = [await stage.ask() for _ in range(7)]
    assert [(answer.status, answer["kingmaker-arm"]) for answer in answers] == [(500, "new")] * 5 + [
        (200, "old")
    ] * 2
    assert answers[-1]["kingmaker-reason"] == "FALLBACK"
    assert [(event.error, event.latency_ms is None) for event in stage.spool.events[5:]] == [(True, True)] * 2
    assert len(stage.challenger.seen) == 5


async def test_one_probe_at_a_time_decides(stage: Stage) -> None:
    """When its time is over one request goes to the challenger; until it ends all others are diverted."""
    failing(stage, base_ms=300)
    for _ in range(5):
        await stage.ask()
    go = asyncio.Event()
    stage.challenger.script = ArmServer.say(OK, once=go)
    await until(lambda: condition(stage) is Condition.PROBING)
    probing = asyncio.create_task(stage.ask())
    await until(lambda: len(stage.challenger.seen) == 6)
    others = await asyncio.gather(*(stage.ask() for _ in range(10)))
    assert {answer["kingmaker-reason"] for answer in others} == {"FALLBACK"}
    assert len(stage.challenger.seen) == 6
    go.set()
    probe = await probing
    assert (probe["kingmaker-arm"], probe["kingmaker-reason"]) == ("new", "STATIC")
    assert condition(stage) is Condition.WELL
    assert (await stage.ask())["kingmaker-arm"] == "new"
    assert stage.spool.events[-1].error is False


async def test_a_probe_that_fails_ejects_for_longer(stage: Stage) -> None:
    """Its caller gets the champion's answer, and the challenger is let alone again."""
    failing(stage, base_ms=200)
    for _ in range(5):
        await stage.ask()
    await until(lambda: condition(stage) is Condition.PROBING)
    assert (await stage.ask()).status == 200
    health = stage.worker.fleet.of(2)
    assert (condition(stage), health.ejections, len(stage.challenger.seen)) == (Condition.EJECTED, 2, 6)
    assert health.ejected_until - stage.loop.time() > 0.25


async def test_a_probe_whose_caller_leaves_makes_room_for_another(stage: Stage) -> None:
    """It says nothing, and nobody has to wait for it."""
    failing(stage, base_ms=200)
    for _ in range(5):
        await stage.ask()
    stage.challenger.script = say_nothing
    await until(lambda: condition(stage) is Condition.PROBING)
    _, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.challenger.seen) == 6)
    writer.transport.abort()
    await until(lambda: not stage.challenger.open)
    stage.challenger.script = ArmServer.say(OK)
    assert (await stage.ask())["kingmaker-arm"] == "new"


async def test_a_failing_champion_is_asked_all_the_same(stage: Stage) -> None:
    """There is nobody else."""
    stage.route(0)
    stage.champion.script = FAILS
    answers = [await stage.ask() for _ in range(8)]
    assert {(answer.status, answer["kingmaker-arm"]) for answer in answers} == {(500, "old")}
    assert len(stage.champion.seen) == 8
    stage.champion.script = ArmServer.say(OK)
    assert (await stage.ask()).status == 200


async def test_a_failing_champion_is_asked_in_the_challengers_place(stage: Stage) -> None:
    """Both fail, both are ejected, and the champion's failure is the callers'."""
    failing(stage)
    stage.champion.script = FAILS
    answers = [await stage.ask() for _ in range(8)]
    assert {(answer.status, answer["kingmaker-reason"]) for answer in answers} == {(500, "FALLBACK")}
    assert (len(stage.challenger.seen), len(stage.champion.seen)) == (5, 8)


async def test_a_hanging_arm_with_impatient_callers_is_found_out(stage: Stage) -> None:
    """Who leaves after a quarter of the arm's time has left because of it."""
    stage.route(10_000, upstream=limits(timeout_ms=2_000))
    stage.challenger.script = say_nothing
    for count in range(1, 6):
        _, writer = await stage.connect()
        writer.write(request())
        await until(lambda count=count: len(stage.challenger.seen) == count)  # type: ignore[misc]
        await asyncio.sleep(0.3)
        writer.transport.abort()
    await until(lambda: len(stage.spool.events) == 5)
    assert condition(stage) is Condition.EJECTED
    assert [event.error for event in stage.spool.events] == [True] * 5


async def test_callers_who_leave_at_once_prove_nothing(stage: Stage) -> None:
    """However many they are."""
    stage.route(10_000)
    stage.challenger.script = say_nothing
    for count in range(1, 8):
        _, writer = await stage.connect()
        writer.write(request())
        await until(lambda count=count: len(stage.challenger.seen) == count)  # type: ignore[misc]
        writer.transport.abort()
    await until(lambda: len(stage.spool.events) == 7)
    assert condition(stage) is Condition.WELL


async def test_a_full_arm_is_not_a_failing_one(stage: Stage) -> None:
    """That no connection was free says nothing about it; whom it has no room for gets the champion."""
    stage.route(10_000, upstream=limits(max_connections=1, max_waiting=1))

    async def late(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.4)
        writer.write(OK)

    stage.challenger.script = late
    answers = await asyncio.gather(*(stage.ask("POST", body=b"x") for _ in range(3)))
    assert {answer.status for answer in answers} == {200}
    assert sorted(answer["kingmaker-reason"] or "" for answer in answers) == ["FALLBACK", "STATIC", "STATIC"]
    assert condition(stage) is Condition.WELL
