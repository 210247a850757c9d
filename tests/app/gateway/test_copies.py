"""Whatever a shadow arm does with its copy, one event says so, and nothing is left."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.events.types import ArmAnswer
from app.gateway.predictions import HASHED_BYTES
from routing.types import Arm, Role
from tests.app.events.facts import claims
from tests.app.gateway.shadowed import SHADOW, Shadowed, answer
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    close_at_once,
    limits,
    say_nothing,
    until,
)


async def test_a_copy_is_the_request_as_the_shadow_arm_would_get_it(shadowed: Shadowed) -> None:
    """Its own URL and name, the caller's fields and body, and a field that says that it is a copy."""
    copies = shadowed.made()
    await shadowed.compared(copies)
    (seen,) = shadowed.shadow.seen
    assert (seen.line, seen.body) == ("POST /v3/x?y=1 HTTP/1.1", b"ping")
    assert seen.all("kingmaker-shadow") == ["true"]
    assert (seen["kingmaker-decision"], seen["kingmaker-arm"]) == ("token-1", "next")
    assert (seen["x-kept"], seen["content-length"]) == ("yes", "4")
    assert (shadowed.codes, shadowed.drops) == ({"2xx": 1}, {})


async def test_a_chunked_request_is_copied_in_chunks(shadowed: Shadowed) -> None:
    """The body is framed as the head says."""
    head = b"POST /r/bid HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked"
    await shadowed.compared(shadowed.made(head=head, body=[b"pi", b"ng"]))
    (seen,) = shadowed.shadow.seen
    assert (seen["transfer-encoding"], seen.body) == ("chunked", b"ping")


@pytest.mark.parametrize("first", ["copy", "primary"])
async def test_both_answers_are_recorded_together(shadowed: Shadowed, first: str) -> None:
    """Whichever of them comes first, there is one event with both: statuses, hashes, predictions."""
    shadowed.shadow.script = ArmServer.say(answer(b'{"score": 0.5, "label": "cat"}'))
    copies = shadowed.made()
    copies.tee([b'{"score": 0.25, '])
    if first == "copy":
        await shadowed.ended()
        assert shadowed.events == []
    copies.primary(shadowed.stage.arms()[1], 200, 5.0, [b'"label": "cat"}'])
    await until(lambda: len(shadowed.events) == 1)
    (event,) = shadowed.events
    assert event.decision == claims(1)
    assert event.primary is not None
    assert (event.shadow.arm_id, event.primary.arm_id) == (SHADOW, 2)
    assert event.shadow.predictions == {"score": 0.5, "label": "cat"}
    assert event.primary.predictions == {"score": 0.25, "label": "cat"}
    assert (event.shadow.status, event.shadow.failure, event.shadow.body_bytes) == (200, None, 30)
    assert (event.primary.status, event.primary.latency_ms, event.primary.body_bytes) == (200, 5.0, 31)
    assert event.shadow.body_hash != event.primary.body_hash


async def test_equal_bodies_have_equal_hashes(shadowed: Shadowed) -> None:
    """However they were cut on their way."""
    event = await shadowed.compared(shadowed.made(), b"ok")
    assert event.primary is not None
    assert event.shadow.body_hash == event.primary.body_hash is not None


async def test_what_a_caller_did_not_get_is_no_primary(shadowed: Shadowed) -> None:
    """Where no arm answered, or the caller left, the event holds the copy alone; the first word counts."""
    copies = shadowed.made()
    copies.tee([b"half an ans"])
    copies.primary_failed()
    copies.primary(shadowed.stage.arms()[0], 200, 5.0)
    await shadowed.ended()
    (event,) = shadowed.events
    assert event.primary is None
    assert event.shadow.status == 200


async def reset(_: Message, writer: asyncio.StreamWriter) -> None:
    """The script of an arm that dies in the middle of its answer."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()


async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
    """The script of an arm that never stops answering."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"8000\r\n%b\r\n" % (b"x" * 0x8000))
        await writer.drain()


async def drip(_: Message, writer: asyncio.StreamWriter) -> None:
    """The script of an arm that answers a byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.02)


FAULTS: dict[str, tuple[Any, int | None, str | None]] = {
    "hangs": (say_nothing, None, "timeout"),
    "drips": (drip, 200, "timeout"),
    "dies": (close_at_once, None, "cut_off"),
    "resets": (reset, 200, "cut_off"),
    "floods": (flood, 200, "too_long"),
    "talks nonsense": (ArmServer.say(b"\0\xff nonsense\r\n\r\n"), None, "malformed"),
    "answers twice": (ArmServer.say(OK + OK), None, "malformed"),
    "fails": (ArmServer.say(answer(b"", b"500 Oops")), 500, None),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_a_shadow_arm_does_is_one_event(shadowed: Shadowed, fault: str) -> None:
    """It hangs, dies, floods or talks nonsense: the event says so, and no attempt or connection is left."""
    shadowed.shadow.script, status, failure = FAULTS[fault]
    shadowed.adopt(upstream=limits(timeout_ms=300))
    event = await shadowed.compared(shadowed.made())
    assert (event.shadow.status, event.shadow.failure) == (status, failure)
    assert (event.shadow.body_hash is None) == (failure is not None)
    assert event.shadow.body_bytes < HASHED_BYTES + 1024 * 1024
    assert event.primary is not None
    assert sum(shadowed.codes.values()) == 1


async def test_a_shadow_arm_that_is_down_is_one_event(shadowed: Shadowed) -> None:
    """Nobody listens where it should be."""
    await shadowed.shadow.stop()
    event = await shadowed.compared(shadowed.made())
    assert (event.shadow.status, event.shadow.failure) == (None, "unreachable")
    assert event.shadow.predictions == {}


async def test_several_shadow_arms_are_several_copies(shadowed: Shadowed) -> None:
    """One event for each of them, with the same primary."""
    twin = Arm(id=4, name="twin", url=shadowed.url, role=Role.SHADOW)
    shadowed.adopt(shadowed.arm, twin)
    copies = shadowed.made()
    copies.primary(shadowed.stage.arms()[0], 200, 5.0, [b"ok"])
    await until(lambda: len(shadowed.events) == 2)
    assert {event.shadow.arm_id for event in shadowed.events} == {SHADOW, 4}
    first, second = shadowed.events
    assert first.primary == second.primary is not None


@pytest.mark.parametrize(("method", "failure"), [(b"GET", None), (b"POST", "cut_off")])
async def test_a_kept_connection_that_was_closed_is_no_failure(
    shadowed: Shadowed, method: bytes, failure: str | None
) -> None:
    """Where repeating can do no harm, the copy goes over another one; else it is lost."""
    head = method + b" /r/bid HTTP/1.1\r\nHost: h"
    shadowed.made(head=head, body=(), nonce=1).primary_failed()
    await shadowed.ended()
    served = shadowed.shadow.seen

    async def close_what_was_kept(request: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(OK) if len(served) > 2 else writer.close()

    shadowed.shadow.script = close_what_was_kept
    shadowed.made(head=head, body=(), nonce=2).primary_failed()
    await shadowed.ended()
    answers: list[ArmAnswer] = [event.shadow for event in shadowed.events]
    assert [found.failure for found in answers] == [None, failure]
