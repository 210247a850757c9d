"""No caller can tell that its request was copied: whatever a shadow arm does, answers are as they were."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Iterable

import pytest

from app.events.types import DecisionEvent, ShadowEvent
from routing.types import Arm, Prediction, Role
from tests.app.gateway.shadowed import SHADOW, answer
from tests.app.gateway.stage import ArmServer, Message, Stage, claims_of, limits, say_nothing, until
from tests.app.gateway.test_copies import FAULTS

BODY = b'{"score": 0.5}'


@pytest.fixture
async def shadow(stage: Stage) -> AsyncIterator[ArmServer]:
    """A shadow arm of the stage's route, which is sent a copy of everything."""
    server = ArmServer()
    await server.start()
    adopt(stage, server, 20_000)
    stage.champion.script = stage.challenger.script = ArmServer.say(answer(BODY))
    yield server
    await server.stop()


def adopt(stage: Stage, shadow: ArmServer, timeout_ms: int) -> None:
    """Routes with a shadow arm beside the champion, which answers everything."""
    arm = Arm(id=SHADOW, name="next", url=f"http://127.0.0.1:{shadow.port}/", role=Role.SHADOW)
    score = Prediction(name="score", pointer="/score", numeric=True)
    stage.route(
        challenger_bp=0,
        arms=(*stage.arms(), arm),
        predictions=(score,),
        upstream=limits(timeout_ms=timeout_ms),
    )


def copies(stage: Stage) -> list[ShadowEvent]:
    """What was recorded of copies."""
    events: Iterable[object] = stage.spool.events
    return [event for event in events if isinstance(event, ShadowEvent)]


def decisions(stage: Stage) -> list[DecisionEvent]:
    """What was recorded of decisions."""
    events: Iterable[object] = stage.spool.events
    return [event for event in events if isinstance(event, DecisionEvent)]


def shown(message: Message) -> tuple[str, list[tuple[str, str]], bytes]:
    """What a caller sees of an answer, but for what is of this decision or this second alone."""
    changing = ("kingmaker-decision", "date")
    fields = [(name, "" if name in changing else value) for name, value in message.fields]
    return message.line, fields, message.body


@pytest.mark.parametrize("body", [None, b"ping", b"x" * 20_000])
async def test_a_copy_is_recorded_beside_what_the_caller_got(
    stage: Stage, shadow: ArmServer, body: bytes | None
) -> None:
    """The same body went to both, and one event says how both answered."""
    shadow.script = ArmServer.say(answer(b'{"score": 0.75}'))
    for count in (1, 2):  # over a new connection, and over a kept one
        got = await stage.ask("POST" if body else "GET", body=body)
        await until(lambda count=count: len(copies(stage)) == count)  # type: ignore[misc]
        event = copies(stage)[-1]
        assert event.decision == claims_of(got)
        assert event.primary is not None
        assert (event.primary.arm_id, event.primary.status, event.primary.predictions) == (
            1,
            200,
            {"score": 0.5},
        )
        assert (event.shadow.arm_id, event.shadow.predictions) == (SHADOW, {"score": 0.75})
        assert shadow.seen[-1].body == stage.champion.seen[-1].body == (body or b"")
        assert shadow.seen[-1]["kingmaker-decision"] == got["kingmaker-decision"]
        assert (shadow.seen[-1]["kingmaker-shadow"], stage.champion.seen[-1]["kingmaker-shadow"]) == (
            "true",
            None,
        )


@pytest.mark.parametrize("fault", [*FAULTS, "is down"])
async def test_no_fault_of_a_shadow_arm_reaches_a_caller(stage: Stage, shadow: ArmServer, fault: str) -> None:
    """Callers get what they got without it, at once; each copy is one event, and nothing is left of it."""
    stage.route(challenger_bp=0)
    expected = shown(await stage.ask("POST", body=b"ping"))
    adopt(stage, shadow, 500)
    if fault == "is down":
        await shadow.stop()
    else:
        shadow.script = FAULTS[fault][0]
    got = await asyncio.gather(*(stage.ask("POST", body=b"ping") for _ in range(20)))
    assert all(shown(message) == expected for message in got)
    assert {event.status for event in decisions(stage)} == {200}
    await until(lambda: stage.worker.mirror.under_way == 0)
    dropped = stage.counted("kingmaker_shadow_drops_total")
    assert len(copies(stage)) == stage.counted("kingmaker_shadow_requests_total") == 20 - dropped
    assert {event.error for event in decisions(stage)} == {False}


async def test_a_shadow_arm_that_hangs_holds_up_nobody(stage: Stage, shadow: ArmServer) -> None:
    """While all of its copies wait for their deadline, callers are answered."""
    shadow.script = say_nothing
    for _ in range(10):
        assert (await stage.ask("POST", body=b"ping")).body == BODY
    assert stage.worker.mirror.under_way == 10
    assert copies(stage) == []


async def test_an_answer_that_was_not_whole_is_no_primary(stage: Stage, shadow: ArmServer) -> None:
    """Of an arm that dies half way, and of a caller that leaves half way, the event holds the copy alone."""

    async def half(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")

    stage.champion.script = half
    _, writer = await stage.connect()
    writer.write(b"GET /r/bid HTTP/1.1\r\nHost: h\r\n\r\n")
    await until(lambda: len(stage.champion.seen) == 1)
    reader, dying = await stage.connect()
    dying.write(b"GET /r/bid HTTP/1.1\r\nHost: h\r\n\r\n")
    await reader.readuntil(b"half")
    await until(lambda: len(stage.champion.seen) == 2)
    leaving = writer.get_extra_info("socket")
    leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that it resets
    writer.transport.abort()
    await until(lambda: len(copies(stage)) == 1)
    for connection in list(stage.champion.open):
        connection.transport.abort()
    await until(lambda: len(copies(stage)) == 2)
    assert [event.primary for event in copies(stage)] == [None, None]


async def test_a_body_that_is_too_long_is_forwarded_and_not_copied(stage: Stage, shadow: ArmServer) -> None:
    """That is a drop, with its reason."""
    for size in (64 * 1024 + 1, 2 * 1024 * 1024):
        got = await stage.ask("POST", body=b"x" * size)
        assert (got.status, len(stage.champion.seen[-1].body)) == (200, size)
    assert stage.counted("kingmaker_shadow_drops_total") == 2
    assert shadow.seen == []


async def test_a_fallback_is_the_primary(stage: Stage, shadow: ArmServer) -> None:
    """Where the champion answered for a challenger, it is what the copy is compared with."""
    arm = Arm(id=SHADOW, name="next", url=f"http://127.0.0.1:{shadow.port}/", role=Role.SHADOW)
    stage.route(challenger_bp=10_000, arms=(*stage.arms(), arm))
    stage.challenger.script = ArmServer.say(answer(b"oops", b"500 Oops"))
    assert (await stage.ask("POST", body=b"ping")).body == BODY
    await until(lambda: len(copies(stage)) == 1)
    (event,) = copies(stage)
    assert event.primary is not None
    assert (event.decision.arm_id, event.primary.arm_id, event.primary.body_bytes) == (2, 1, len(BODY))
    assert len(shadow.seen) == 1
