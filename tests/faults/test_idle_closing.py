"""Claims about an arm that closes idle connections when it likes, as servers do: nothing is done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.origin import Link, Origin, Then, answer_to
from tests.faults.scene import Wire, get, limits, new_nonce, post, route, worker
from tests.faults.strict import Whole

_CALLERS = 8


class Closing:
    """An arm that closes kept connections: some time after an answer, or when the next request is already
    there, which it does not read then. Where `breaks`, it also executes some, and closes without an answer.

    `executed` counts by nonce; `ends` are the kept connections that it has ended.
    """

    def __init__(self, seed: int, *, breaks: bool = False) -> None:
        self.executed: Counter[bytes] = Counter()
        self.ends = 0
        self._draw = Random(seed)
        self._breaks = breaks

    def script(self, link: Link, request: Whole) -> None:
        draw = self._draw.random()
        if len(link.requests) > 1 and draw < 0.05:
            self.ends += 1
            link.end(Then.RESET if self._draw.random() < 0.5 else Then.CLOSE)
            return
        self.executed[request[b"x-nonce"]] += 1
        if self._breaks and len(link.requests) > 1 and draw < 0.1:
            self.ends += 1
            link.end(Then.RESET)
            return
        link.send(answer_to(request))
        if draw > 0.8:
            asyncio.get_running_loop().call_later(self._draw.random() * 0.01, self._close_idle, link)

    def _close_idle(self, link: Link) -> None:
        if link.is_between and not link.lost:
            self.ends += 1
            link.end(Then.CLOSE)


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin, whose script is that of a claim."""
    origin = Origin()
    await origin.start()
    yield origin
    await origin.stop()


async def _ask_all(port: int, raws: list[bytes]) -> Counter[int]:
    """Asks from several kept connections; counts the statuses. Each answer is that to its own request."""
    counts: Counter[int] = Counter()

    async def call() -> None:
        async with Wire(port) as wire:
            while raws:
                raw = raws.pop()
                wire.send(raw)
                answer = await wire.answer()
                counts[answer.status] += 1
                assert answer.status != 200 or answer[b"x-nonce"] in raw

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(call())
    return counts


_COUNTS = [
    pytest.param(500, id="few"),
    pytest.param(10_000, id="many", marks=[pytest.mark.long, pytest.mark.timeout(600)]),
]


@pytest.mark.parametrize("count", _COUNTS)
async def test_no_post_is_executed_twice(tmp_path: Path, origin: Origin, count: int) -> None:
    """Whether it was answered or not. One whose connection broke before an answer is 502: nobody can know."""
    closing = Closing(count, breaks=True)
    origin.script = closing.script
    nonces = [new_nonce() for _ in range(count)]
    with worker(tmp_path, [route(origin.port, upstream=limits(retry_percent=100))]) as gateway:
        counts = await _ask_all(gateway.port, [post(nonce, b"x" * 100) for nonce in nonces])
        assert gateway.troubles == []
    assert max(closing.executed.values()) == 1
    assert closing.executed.keys() <= set(nonces)
    assert set(counts) <= {200, 502}
    assert counts.total() == count
    assert 0 < counts[502] <= closing.ends
    assert origin.broken == []


@pytest.mark.parametrize("count", _COUNTS)
async def test_every_get_is_answered(tmp_path: Path, origin: Origin, count: int) -> None:
    """A kept connection that the arm had closed costs the caller nothing, and no part of the retry budget."""
    closing = Closing(count)
    origin.script = closing.script
    nonces = [new_nonce() for _ in range(count)]
    with worker(tmp_path, [route(origin.port, upstream=limits(retry_percent=0))]) as gateway:
        counts = await _ask_all(gateway.port, [get(nonce) for nonce in nonces])
        assert gateway.troubles == []
    assert counts == {200: count}
    assert closing.ends > 0
    assert closing.executed.keys() == set(nonces)
    assert origin.broken == []
