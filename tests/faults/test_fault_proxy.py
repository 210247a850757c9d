"""Claims about the fault proxy itself: each fault is what it says, and healing heals."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.faults.fault_proxy import HEALTHY, Fault, FaultProxy
from tests.faults.origin import Origin, answer_to
from tests.faults.scene import CutOff, Wire, new_nonce, post


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin that answers."""
    origin = Origin()
    origin.is_behind_the_gateway = False
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def proxy(origin: Origin) -> AsyncIterator[FaultProxy]:
    """A proxy in front of it."""
    proxy = FaultProxy(origin.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def _asked(proxy: FaultProxy, size: int = 1) -> bytes | None:
    """What comes of one request: the nonce in its answer is right, or the connection ends."""
    nonce = new_nonce()
    try:
        async with Wire(proxy.port) as wire:
            wire.send(post(nonce, b"x" * size))
            answer = await wire.answer()
    except (CutOff, ConnectionRefusedError) as error:
        return error.args[0] if isinstance(error, CutOff) else b"refused"
    assert answer[b"x-nonce"] == nonce
    return None


@pytest.mark.parametrize(
    "fault",
    [
        HEALTHY,
        Fault("latency", latency=0.05),
        Fault("latency both ways", latency=0.05, both=True),
        Fault("bandwidth", bandwidth=2_000),
        Fault("slicer", slice_bytes=1, slice_pause=0.001, both=True),
        Fault("slow close", slow_close=0.1),
    ],
    ids=lambda fault: fault.name,
)
async def test_a_bearable_fault_loses_nothing(proxy: FaultProxy, fault: Fault) -> None:
    """Everything arrives, whole."""
    await proxy.fail(fault)
    assert await _asked(proxy) is None
    assert await _asked(proxy, 200) is None


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (Fault("down", down=True), b"refused"),
        (Fault("timeout", swallow=0.1), b""),
        (Fault("reset", reset=0.0), b""),
        (Fault("limit", limit=10), b"HTTP/1.1 2"),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
async def test_an_unbearable_fault_ends_the_connection(proxy: FaultProxy, fault: Fault, left: bytes) -> None:
    """Nothing, or just so much, of the answer arrives; after healing all of it does, on the same port."""
    await proxy.fail(fault)
    assert await _asked(proxy) == left
    port = proxy.port
    await proxy.fail(HEALTHY)
    assert proxy.port == port
    assert await _asked(proxy) is None


async def test_what_passes_is_what_was_sent(proxy: FaultProxy, origin: Origin) -> None:
    """Cut to single bytes both ways, a large request and its answer are still the same."""
    await proxy.fail(Fault("slicer", slice_bytes=7, both=True))
    assert await _asked(proxy, 20_000) is None
    [request] = origin.seen
    assert request.body == b"x" * 20_000
    assert len(answer_to(request)) < 200
