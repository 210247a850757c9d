"""Claims about arms that fail in every way there is: of a challenger or a shadow no caller hears anything."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from routing.types import Arm, Ejection, Role
from tests.faults.fault_proxy import HEALTHY, Fault, FaultProxy
from tests.faults.origin import Link, Origin, Script, Then, flood, hang
from tests.faults.scene import (
    CutOff,
    Wire,
    Worker,
    get,
    limits,
    new_nonce,
    post,
    route,
    two_armed,
    until,
    worker,
)
from tests.faults.strict import Whole

_CALLERS = 8
_NEVER = Ejection(consecutive_failures=1_000_000, failure_percent=100, minimum_requests=1_000_000)
"""An arm that is ejected would hide what its faults do."""

FAULTS = [
    HEALTHY,
    Fault("latency beyond the deadline", latency=30.0),
    Fault("latency within the deadline", latency=0.05, both=True),
    Fault("down", down=True),
    Fault("bandwidth", bandwidth=3_000, both=True),
    Fault("hardly any bandwidth", bandwidth=10),
    Fault("slow close", slow_close=0.5, limit=200),
    Fault("timeout at once", swallow=0.0),
    Fault("timeout later", swallow=0.2),
    Fault("timeout never", swallow=1_000.0, both=True),
    Fault("reset at once", reset=0.0),
    Fault("reset before the answer", reset=0.05, latency=0.5),
    Fault("slicer", slice_bytes=1, slice_pause=0.0005, both=True),
    Fault("limit in the status line", limit=5),
    Fault("limit in the head", limit=40),
    Fault("limit in the body", limit=90),
    Fault("limit between answers", limit=230),
]


BEARABLE = ("none", "latency within the deadline", "bandwidth", "slicer")
"""Faults with which a challenger still answers."""

_QUICK_UPLOADS = ("down", "reset before the answer", "limit in the head")
_SLOW = ("latency beyond the deadline", "hardly any bandwidth", "timeout never", "slicer")


@pytest.fixture
async def champion() -> AsyncIterator[Origin]:
    """An arm that answers."""
    origin = Origin()
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def challenger() -> AsyncIterator[Origin]:
    """An arm that would answer, were it not for what is in between."""
    origin = Origin()
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def proxy(challenger: Origin) -> AsyncIterator[FaultProxy]:
    """What is in between."""
    proxy = FaultProxy(challenger.port)
    await proxy.start()
    yield proxy
    await proxy.stop()


async def _asked(gateway: Worker, count: int) -> Counter[str]:
    """Callers ask, GET and POST; each answer must be 200 and its own. Counts reasons and arms."""
    numbers = iter(range(count))
    found: Counter[str] = Counter()

    async def call() -> None:
        async with Wire(gateway.port) as wire:
            for number in numbers:
                nonce = new_nonce()
                wire.send(get(nonce) if number % 2 else post(nonce, b"x" * 200))
                answer = await wire.answer()
                assert (answer.status, answer[b"x-nonce"]) == (200, nonce), answer
                assert answer.body.startswith(nonce)
                found[f"{answer[b'kingmaker-arm'].decode()} {answer[b'kingmaker-reason'].decode()}"] += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(_CALLERS):
            callers.create_task(call())
    return found


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.long] if fault.name in _SLOW else [])
        for fault in FAULTS
    ],
)
async def test_callers_do_not_notice_a_failing_challenger(
    tmp_path: Path, champion: Origin, challenger: Origin, proxy: FaultProxy, fault: Fault
) -> None:
    """Every caller is answered, by the challenger or in its place by the champion, which answers its own as
    ever; healed, the challenger answers again."""
    upstream = limits(timeout_ms=2_000, connect_timeout_ms=1_000, ejection=_NEVER)
    with worker(tmp_path, [two_armed(champion.port, proxy.port, upstream=upstream)]) as gateway:
        await _asked(gateway, 10)
        await proxy.fail(fault)
        found = await _asked(gateway, 40)
        assert found["old SPLIT"] > 0
        assert found["new SPLIT" if fault.name in BEARABLE else "old FALLBACK"] > 0
        assert found.total() == found["old SPLIT"] + found["new SPLIT"] + found["old FALLBACK"]
        await proxy.fail(HEALTHY)
        assert (await _asked(gateway, 40))["new SPLIT"] > 0
        await until(lambda: all(link.lost or link.is_between for link in champion.links))
        assert await gateway.figures("kingmaker_requests_in_flight") == 0
        assert gateway.troubles == []
    assert champion.broken == []


_KEPT_BYTES = 1024 * 1024
"""The longest request that another arm can have as well."""


async def _uploaded(gateway: Worker, size: int, *, is_chunked: bool) -> int | None:
    """What becomes of one upload: the status of its answer, None when it is cut off."""
    nonce, body = new_nonce(), bytes(size)
    raw = post(nonce, body)
    if is_chunked:
        head = post(nonce, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        raw = head + b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    async with Wire(gateway.port) as wire:
        pushing = asyncio.ensure_future(wire.push(raw))
        try:
            answer = await wire.answer()
        except CutOff:
            return None
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
    assert answer.status != 200 or answer.body == b"%b %d" % (nonce, size)
    return answer.status


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[] if fault.name in _QUICK_UPLOADS else [pytest.mark.long])
        for fault in FAULTS
    ],
)
async def test_uploads_outlive_a_failing_challenger(
    tmp_path: Path, champion: Origin, proxy: FaultProxy, fault: Fault
) -> None:
    """Up to 1 MiB every upload is answered by either arm; a longer one is answered, refused or cut off, and
    nothing hangs or is left over."""
    upstream = limits(timeout_ms=3_000, connect_timeout_ms=1_000, ejection=_NEVER)
    with worker(tmp_path, [two_armed(champion.port, proxy.port, upstream=upstream)]) as gateway:
        await proxy.fail(fault)
        for is_chunked in (False, True):
            for size in (70_000, 900_000, _KEPT_BYTES):
                for _ in range(3):
                    assert await _uploaded(gateway, size, is_chunked=is_chunked) == 200
            for _ in range(3):
                assert await _uploaded(gateway, 3 * _KEPT_BYTES, is_chunked=is_chunked) in (
                    200,
                    502,
                    503,
                    504,
                    None,
                )
        await until(lambda: all(link.lost or link.is_between for link in champion.links))
        assert await gateway.figures("kingmaker_requests_in_flight") == 0
        assert gateway.troubles == []
    assert champion.broken == []


@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault.name in ("down", "timeout never", "reset at once")],
    ids=lambda fault: fault.name,
)
async def test_a_failing_challenger_is_asked_no_more(
    tmp_path: Path, champion: Origin, proxy: FaultProxy, fault: Fault
) -> None:
    """After five failures it is ejected: callers are answered by the champion at once."""
    upstream = limits(timeout_ms=1_500, connect_timeout_ms=1_000)
    with worker(tmp_path, [two_armed(champion.port, proxy.port, share=10_000, upstream=upstream)]) as gateway:
        await proxy.fail(fault)
        found = await _asked(gateway, 200)
        assert found == {"old FALLBACK": 200}
        assert await gateway.figures("kingmaker_arm_ejected") == 1
        assert await gateway.figures("kingmaker_ejections_total") == 1
        assert await gateway.figures("kingmaker_upstream_errors_total") <= 5 + _CALLERS
        assert gateway.troubles == []


def _reset(link: Link, _: Whole) -> None:
    link.end(Then.RESET)


def _garbage(link: Link, _: Whole) -> None:
    link.send(b"\x00" * 1_000)


def _half(link: Link, _: Whole) -> None:
    link.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")


SHADOWS: dict[str, Script] = {
    "hangs": hang,
    "resets": _reset,
    "floods": flood(100_000_000),
    "talks garbage": _garbage,
    "stops in the middle": _half,
}


@pytest.mark.parametrize("name", [*SHADOWS, "is deaf", "is not there"])
async def test_callers_do_not_notice_a_failing_shadow(
    tmp_path: Path, champion: Origin, challenger: Origin, name: str
) -> None:
    """Whatever it does, callers are answered by the champion; copies are bounded, and memory is."""
    challenger.script = SHADOWS.get(name, hang)
    challenger.is_deaf = name == "is deaf"
    if name == "is not there":
        await challenger.stop()
    shown = route(champion.port, upstream=limits(timeout_ms=1_000, connect_timeout_ms=500))
    url = f"http://127.0.0.1:{challenger.port}/score"
    shadow = Arm(id=99, name="shadow", url=url, role=Role.SHADOW)
    shadowed = route(champion.port, arms=(*shown.arms, shadow), upstream=shown.upstream)
    with worker(tmp_path, [shadowed], shadow_in_flight=8) as gateway:
        await _asked(gateway, 100)
        memory = gateway.memory
        assert await _asked(gateway, 400) == {"old STATIC": 400}
        assert gateway.memory - memory < 32 * 1024 * 1024
        assert challenger.open <= 8
        copies = await gateway.figures("kingmaker_shadow_requests_total")
        dropped = await gateway.figures("kingmaker_shadow_drops_total")
        assert copies + dropped > 0
        if name != "is deaf":
            await until(lambda: all(link.lost or link.is_between for link in challenger.links))
        assert gateway.troubles == []
    assert champion.broken == []
