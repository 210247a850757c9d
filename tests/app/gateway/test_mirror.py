"""Copies are made of a sample, dropped before anybody waits for them, and never many at a time."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest

from app.gateway.answers import Answer
from app.gateway.mirror import BODY_BYTES, is_pressed
from app.gateway.requests import Request
from app.gateway.upstream import Attempt, Failure, UpstreamConnection
from routing.types import Arm, Ejection, Role
from tests.app.events.facts import claims
from tests.app.gateway.shadowed import SHADOW, Shadowed, answer
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    limits,
    say_nothing,
    until,
)


async def test_copies_of_one_arm_are_few_at_a_time(shadowed: Shadowed) -> None:
    """An arm that hangs holds four connections of its own, here; the other copies are dropped and counted."""
    shadowed.shadow.script = say_nothing
    made = [shadowed.copy(nonce=nonce) for nonce in range(100)]
    assert sum(copies is not None for copies in made) == shadowed.mirror.under_way == 4
    assert shadowed.drops == {"in_flight": 96}
    assert shadowed.pool.open <= 4
    assert "4 copies under way" in repr(shadowed.mirror)


def _drain(shadowed: Shadowed) -> None:
    shadowed.draining = True


def _press(shadowed: Shadowed) -> None:
    shadowed.pressed = True


def _fail(shadowed: Shadowed) -> None:
    shadowed.fleet.of(SHADOW).set_well(False, 0.0)


@pytest.mark.parametrize(
    ("reason", "prepare", "changes"),
    [
        ("draining", _drain, {}),
        ("pressure", _press, {}),
        ("ejected", _fail, {}),
        ("too_long", None, {"body": None}),
        ("too_long", None, {"body": [b"x" * BODY_BYTES, b"x"]}),
        (
            "upgrade",
            None,
            {
                "head": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
            },
        ),
    ],
)
async def test_copies_are_dropped_first(
    shadowed: Shadowed,
    reason: str,
    prepare: Callable[[Shadowed], None] | None,
    changes: dict[str, Any],
) -> None:
    """When the worker drains, callers wait, the arm is ejected, or the request is not one to copy."""
    if prepare is not None:
        prepare(shadowed)
    assert shadowed.copy(**changes) is None
    assert shadowed.drops == {reason: 1}
    assert (shadowed.attempts, shadowed.events, shadowed.codes) == ([], [], {})


async def test_the_longest_body_is_copied(shadowed: Shadowed) -> None:
    """64 KiB are."""
    head = b"POST /r/bid HTTP/1.1\r\nHost: h\r\nContent-Length: %d" % BODY_BYTES
    await shadowed.compared(shadowed.made(head=head, body=[b"x" * BODY_BYTES]))
    assert len(shadowed.shadow.seen[0].body) == BODY_BYTES


async def test_a_sample_is_drawn_by_the_decision(shadowed: Shadowed) -> None:
    """A tenth gets a copy, always of the same decisions, of others for another arm; the rest is no drop."""
    tenth = Arm(id=SHADOW, name="next", url=shadowed.url, role=Role.SHADOW, sample_bp=1_000)
    other = Arm(id=4, name="other", url=shadowed.url, role=Role.SHADOW, sample_bp=1_000)
    never = Arm(id=5, name="never", url=shadowed.url, role=Role.SHADOW, sample_bp=0)

    def drawn(arm: Arm) -> set[int]:
        shadowed.adopt(arm)
        shadowed.draining = True
        found = set()
        for nonce in range(2_000):
            before = sum(shadowed.drops.values())
            shadowed.copy(nonce=nonce << 32)
            if sum(shadowed.drops.values()) > before:
                found.add(nonce)
        return found

    first, again, others = drawn(tenth), drawn(tenth), drawn(other)
    assert first == again != others
    assert 150 < len(first) < 250
    assert len(first & others) < 60
    assert drawn(never) == set()
    assert shadowed.shadows == ()


async def test_an_arm_gets_no_copy_of_what_it_answers(shadowed: Shadowed) -> None:
    """A shadow arm that was asked itself, by force, is no shadow of itself."""
    assert shadowed.copy(arm_id=SHADOW) is None
    assert (shadowed.attempts, shadowed.drops) == ([], {})


async def test_an_exchange_copies_by_the_snapshot_it_began_with(shadowed: Shadowed) -> None:
    """Though the shadow arm is gone from the newest one: its copy is still counted, and still closed."""
    shadowed.shadow.script = say_nothing
    before, old = shadowed.shadows, shadowed.route
    shadowed.adopt(arms=shadowed.stage.arms())
    assert shadowed.shadows == ()
    assert shadowed.copy() is None
    shadowed.shadows, shadowed.route = before, old
    shadowed.made()
    assert shadowed.mirror.under_way == 1
    shadowed.mirror.close()
    assert (shadowed.mirror.under_way, shadowed.drops) == (0, {"closed": 1})


async def test_snapshots_share_the_limit_of_an_arm(shadowed: Shadowed) -> None:
    """What went to an arm by the last snapshot counts in the next one."""
    shadowed.shadow.script = say_nothing
    for nonce in range(4):
        shadowed.made(nonce=nonce)
    shadowed.adopt()
    assert shadowed.copy(nonce=4) is None
    assert shadowed.drops == {"in_flight": 1}


async def test_closing_drops_what_is_under_way(shadowed: Shadowed) -> None:
    """Its connection ends, it is counted, and no event is written."""
    shadowed.shadow.script = say_nothing
    copies = shadowed.made()
    await until(lambda: len(shadowed.shadow.seen) == 1)
    shadowed.mirror.close()
    copies.primary(shadowed.stage.arms()[0], 200, 5.0)
    await shadowed.ended()
    await until(lambda: not shadowed.shadow.open)
    assert (shadowed.events, shadowed.drops) == ([], {"closed": 1})


async def test_a_shadow_arm_that_fails_is_ejected(shadowed: Shadowed) -> None:
    """After five failures nothing is sent to it for a while; a probe that it answers brings it back."""
    shadowed.adopt(upstream=limits(ejection=Ejection(base_ms=100, longest_ms=100)))
    shadowed.shadow.script = ArmServer.say(answer(b"", b"503 Busy"))
    for nonce in range(5):
        shadowed.made(nonce=nonce).primary_failed()
        await shadowed.ended()
    assert shadowed.copy(nonce=5) is None
    assert shadowed.drops == {"ejected": 1}
    assert shadowed.counters.dump().values[
        'kingmaker_ejections_total{route="bid",arm="next",worker="w0"}'
    ] == pytest.approx(1)
    shadowed.shadow.script = ArmServer.say(OK)
    await until(lambda: shadowed.copy(nonce=6) is not None)
    await shadowed.ended()
    assert not shadowed.fleet.of(SHADOW).barred


async def test_no_fault_in_a_copy_reaches_the_exchange(
    shadowed: Shadowed, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a copy cannot even be written, that is logged, and no copy is made."""
    shadowed.adopt()

    def broken(*_: object) -> bytes:
        raise ValueError("no head")

    request = Request()
    request.keep()
    assert shadowed.mirror.begin([*shadowed.shadows], claims(1), request, broken) is None
    assert "a request was not copied" in caplog.text


class Waiting:
    """Somebody who asks an arm, and waits."""

    method = b"GET"

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        connection.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", last=True)

    def on_answer(self, attempt: Attempt, answer: Answer) -> None: ...
    def on_failure(self, attempt: Attempt, failure: Failure) -> None: ...
    def pause_request(self) -> None: ...
    def resume_request(self) -> None: ...
    def is_sending(self) -> bool:
        return False


@pytest.mark.parametrize(("arm_id", "pressed"), [(1, True), (SHADOW, False)])
async def test_pressure_is_a_caller_for_whom_no_connection_is_on_its_way(
    shadowed: Shadowed, arm_id: int, pressed: bool
) -> None:
    """Not one whose connection is being made, and not a copy that waits."""
    shadowed.shadow.script = shadowed.stage.champion.script = say_nothing
    shadowed.adopt(upstream=limits(max_connections=1))
    target = shadowed.routing.targets[arm_id]
    attempts = [shadowed.attempt(Waiting(), target, monotonic() + 60) for _ in range(2)]
    pool = shadowed.pool
    pool.acquire(attempts[0])
    assert not is_pressed([pool])
    pool.acquire(attempts[1])
    assert is_pressed([pool]) == pressed
    for attempt in attempts:
        attempt.cancel()
