"""Claims about callers who leave in the middle: the arm is let go, and nothing of them stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.faults.origin import Link, Origin, answer_to, flood
from tests.faults.scene import CutOff, Wire, Worker, get, new_nonce, post, route, until, worker
from tests.faults.strict import Whole

_CALLERS = 20
_HUGE = 50_000_000


@dataclass(frozen=True, slots=True)
class Leave:
    """Where a caller is when it leaves, and how: by a FIN of its own, by closing, or by a reset."""

    stage: str
    how: str


STAGES = (
    "connected",
    "in head",
    "in body",
    "in chunk",
    "waiting",
    "waiting with a body",
    "waiting, more behind",
    "in answer",
)
LEAVES = [Leave(stage, how) for stage, how in product(STAGES, ("half", "close", "reset"))]


class Held:
    """An arm that answers no request whose caller waits, and endlessly the one whose caller reads."""

    def script(self, link: Link, request: Whole) -> None:
        match request[b"x-wanted"]:
            case b"nothing":
                pass
            case b"much":
                flood(_HUGE)(link, request)
            case _:
                link.send(answer_to(request))


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin that lets callers wait."""
    origin = Origin()
    origin.script = Held().script
    await origin.start()
    yield origin
    await origin.stop()


async def _leave(gateway: Worker, origin: Origin, leave: Leave) -> None:
    """One caller's visit, up to where it leaves."""
    nonce = new_nonce()
    async with Wire(gateway.port) as wire:
        match leave.stage:
            case "in head":
                wire.send(get(nonce)[:-9])
            case "in body":
                wire.send(post(nonce, b"x" * 100)[:-50])
            case "in chunk":
                head = post(nonce, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
                wire.send(head + b"5\r\nab")
            case "waiting" | "waiting with a body" | "waiting, more behind":
                raw = get(nonce, b"/r/bid", b"X-Wanted: nothing")
                if leave.stage == "waiting with a body":
                    raw = raw[:-2].replace(b"GET", b"POST") + b"Content-Length: 3\r\n\r\nabc"
                if leave.stage == "waiting, more behind":
                    raw += get(nonce)
                wire.send(raw)
                await until(lambda: nonce in origin.nonces())
            case "in answer":
                wire.send(get(nonce, b"/r/bid", b"X-Wanted: much"))
                assert await wire.more()
            case _:
                pass
        await asyncio.sleep(0)
        if leave.how == "half":
            wire.finish()
            await _read_to_the_end(wire, leave)
        elif leave.how == "reset":
            wire.reset()


async def _read_to_the_end(wire: Wire, leave: Leave) -> None:
    """A caller that has said all that it will reads on: what has begun goes on, nothing else comes."""
    if leave.stage == "in answer":
        for _ in range(10):
            assert await wire.more()
        return
    with pytest.raises(CutOff) as ended:
        await wire.answer()
    assert ended.value.args == (b"",)


async def _all_leave(gateway: Worker, origin: Origin, leaves: list[Leave]) -> None:
    queue = list(leaves)

    async def call() -> None:
        while queue:
            await _leave(gateway, origin, queue.pop())

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(call())


def _is_let_go(origin: Origin) -> bool:
    """Whether no connection to the arm is in the middle of anything."""
    return all(
        link.lost or (link.is_between and all(not request[b"x-wanted"] for request in link.requests))
        for link in origin.links
    )


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(2, id="few"),
        pytest.param(48, id="a thousand", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
async def test_callers_who_leave_leave_nothing(tmp_path: Path, origin: Origin, rounds: int) -> None:
    """At every stage, by FIN, close and reset: the arm's connection ends, in-flight and connections are back
    to nothing, descriptors back to what they were, and the next caller is served."""
    with worker(tmp_path, [route(origin.port)]) as gateway:
        async with Wire(gateway.port) as wire:
            wire.send(get(new_nonce()))
            assert (await wire.answer()).status == 200
        before = gateway.descriptors
        await _all_leave(gateway, origin, LEAVES * rounds)
        await until(lambda: _is_let_go(origin))
        await until(lambda: gateway.descriptors <= before)
        assert await gateway.figures("kingmaker_requests_in_flight") == 0
        assert await gateway.figures("kingmaker_connections") == 1
        nonce = new_nonce()
        async with Wire(gateway.port) as wire:
            wire.send(get(nonce))
            assert (await wire.answer())[b"x-nonce"] == nonce
        assert gateway.troubles == []
    assert origin.broken == []
