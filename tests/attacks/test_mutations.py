"""Claims about requests that chance has spoilt: each is answered or refused, and the worker is as before."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.attacks.mutations import mutations
from tests.faults.origin import Origin
from tests.faults.scene import PATIENCE_SECONDS, Wire, Worker, get, new_nonce, route, until, worker
from tests.faults.strict import read_answer

_CALLERS = 16
_MAY_GROW_BYTES = 12 * 1024 * 1024
_VERDICTS = (501, 505, 508)
"""5xx that say what the request is, rather than that something has failed."""


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin that answers whatever comes."""
    origin = Origin()
    await origin.start()
    yield origin
    await origin.stop()


async def _sent(port: int, raw: bytes) -> list[int]:
    """The statuses of what is answered up to the end of the connection."""
    async with asyncio.timeout(PATIENCE_SECONDS), Wire(port) as wire:
        sending = asyncio.ensure_future(wire.push(raw))
        left = b""
        try:
            await sending
            wire.finish()
        finally:
            left = await wire.rest()
    statuses: list[int] = []
    while left:
        head = raw.startswith(b"HEAD") or b"HEAD" in raw
        answer = read_answer(left, b"HEAD" if head and _is_bare(left) else b"GET")
        if answer is None:
            assert len(statuses) > 0 or left.startswith(b"HTTP/1.1 "), left
            break
        statuses.append(answer.status)
        left = left[answer.size :]
    return statuses


def _is_bare(left: bytes) -> bool:
    """Whether a head is all there is of an answer, as for HEAD."""
    end = left.find(b"\r\n\r\n") + 4
    return left[end : end + 5] in (b"", b"HTTP/")


async def _suffer(port: int, seed: int, count: int) -> Counter[int]:
    """Sends mutations from several callers at a time; counts the statuses."""
    raws = mutations(seed, count)
    counts: Counter[int] = Counter()

    async def call() -> None:
        for raw in raws:
            statuses = await _sent(port, raw)
            failed = [status for status in statuses if status >= 500 and status not in _VERDICTS]
            assert failed == [], raw
            counts.update(statuses or [0])

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(call())
    return counts


async def _is_as_before(gateway: Worker, origin: Origin, connections: int) -> None:
    nonce = new_nonce()
    async with Wire(gateway.port) as wire:
        wire.send(get(nonce))
        assert (await wire.answer())[b"x-nonce"] == nonce
    assert gateway.is_alive
    assert gateway.troubles == []
    assert origin.broken == []
    await until(lambda: gateway.descriptors <= connections + 1 + _CALLERS)
    assert await gateway.figures("kingmaker_connections") == 1
    assert await gateway.figures("kingmaker_requests_in_flight") == 0


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(1, 2_000, id="two thousand"),
        pytest.param(
            2, 100_000, id="a hundred thousand", marks=[pytest.mark.long, pytest.mark.timeout(1_200)]
        ),
    ],
)
async def test_mutated_requests_harm_nobody(tmp_path: Path, origin: Origin, seed: int, count: int) -> None:
    """Each is answered or its connection closed; no 5xx but verdicts on the request, no traceback, no growth,
    no descriptor or exchange left over; what reaches the arm is clean."""
    with worker(tmp_path, [route(origin.port)], head_seconds=5, body_seconds=5) as gateway:
        await _suffer(gateway.port, seed + 1_000, count // 5)
        descriptors, memory = gateway.descriptors, gateway.memory
        origin.seen.clear()
        origin.links = [link for link in origin.links if not link.lost]
        counts = await _suffer(gateway.port, seed, count)
        assert gateway.memory - memory < _MAY_GROW_BYTES
        await _is_as_before(gateway, origin, descriptors)
    assert counts[200] > count // 20
    assert counts[400] > count // 5
