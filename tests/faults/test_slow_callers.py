"""Claims about callers who are slow or silent: they cost their socket, and nobody else notices them."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.faults.origin import Origin, flood
from tests.faults.scene import (
    PATIENCE_SECONDS,
    CutOff,
    Wire,
    Worker,
    get,
    new_nonce,
    post,
    route,
    until,
    worker,
)

_STREAM_BYTES = 512 * 1024
"""What may be held for one stream."""

_TOTAL = 32 * 1024 * 1024
_SMALL = 256 * 1024
_CONNECTION_BYTES = 64 * 1024
"""What a connection that says nothing may cost in memory."""


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    """An origin with small buffers of its own."""
    origin = Origin()
    origin.receive_bytes = origin.send_bytes = _SMALL
    await origin.start()
    yield origin
    await origin.stop()


@pytest.fixture
async def quick() -> AsyncIterator[Origin]:
    """An origin that answers at once."""
    origin = Origin()
    await origin.start()
    yield origin
    await origin.stop()


@asynccontextmanager
async def _dripping(
    port: int, count: int, head: Callable[[int], bytes], drips: bytes
) -> AsyncIterator[list[Wire]]:
    """So many callers who have said `head`, and say a byte more of `drips` every now and then."""
    wires = [Wire(port) for _ in range(count)]
    over = False

    async def drip() -> None:
        for byte in drips:
            for number, wire in enumerate(wires):
                if over:
                    return
                wire.send(bytes([byte]))
                if number % 50 == 0:
                    await asyncio.sleep(0.01)

    for number, wire in enumerate(wires):
        await wire.__aenter__()
        wire.send(head(number))
    dripping = asyncio.ensure_future(drip())
    try:
        yield wires
    finally:
        over = True
        await dripping
        for wire in wires:
            await wire.__aexit__()


async def _probe(gateway: Worker, times: int) -> None:
    """Callers with connections of their own are answered: by the gateway, and by the arm, GET and POST."""
    for _ in range(times):
        nonce = new_nonce()
        async with asyncio.timeout(PATIENCE_SECONDS), Wire(gateway.port) as wire:
            wire.send(b"GET /healthz HTTP/1.1\r\nHost: gateway.test\r\n\r\n")
            assert (await wire.answer()).status == 200
            for raw in (get(nonce), post(nonce, b"x" * 100)):
                wire.send(raw)
                answer = await wire.answer()
                assert (answer.status, answer[b"x-nonce"]) == (200, nonce), answer


def _silent(_: int) -> bytes:
    return b""


def _half_head(_: int) -> bytes:
    return b"GET /r/bid HTTP/1.1\r\nHost: gateway.test\r\nX-Slow: "


def _half_body(_: int) -> bytes:
    return b"POST /r/bid HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1000000\r\n\r\nx"


def _half_chunks(_: int) -> bytes:
    return b"POST /r/bid HTTP/1.1\r\nHost: gateway.test\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\nx"


def _all_kinds(number: int) -> bytes:
    return (_silent, _half_head, _half_body, _half_chunks)[number % 4](number)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(_silent, id="silent"),
        pytest.param(_half_head, id="heads"),
        pytest.param(_half_body, id="bodies"),
        pytest.param(_half_chunks, id="chunks"),
        pytest.param(_all_kinds, id="all kinds"),
    ],
)
async def test_slow_callers_by_the_thousand_hinder_nobody(
    tmp_path: Path, origin: Origin, kind: Callable[[int], bytes]
) -> None:
    """A thousand are connected and drip: every probe is answered, an upload as well, and their memory is
    small. Half of an arm's connections are never for requests that are still to come."""
    limits = {"head_seconds": 20.0, "body_seconds": 20.0}
    with worker(tmp_path, [route(origin.port)], **limits) as gateway:
        await _probe(gateway, 2)
        memory = gateway.memory
        async with _dripping(gateway.port, 1_000, kind, b"" if kind is _silent else b"xy") as wires:
            await until(lambda: gateway.descriptors > 1_000)
            await _probe(gateway, 20)
            nonce = new_nonce()
            async with Wire(gateway.port) as wire:
                await wire.push(post(nonce, bytes(300_000)))
                assert (await wire.answer())[b"x-nonce"] == nonce
            assert gateway.memory - memory < 1_000 * _CONNECTION_BYTES
            assert not any(wire.has_ended for wire in wires)
        await until(lambda: gateway.descriptors < 500)
        await _probe(gateway, 2)
        assert gateway.troubles == []


async def test_slow_callers_are_ended(tmp_path: Path, origin: Origin) -> None:
    """A head or body that is not there in time is 408, whatever drips; who says nothing is hung up on; no
    arm gets a whole request of any of them."""
    with worker(tmp_path, [route(origin.port)], head_seconds=0.5, body_seconds=0.5) as gateway:
        async with (
            _dripping(gateway.port, 40, _all_kinds, b"x" * 40) as wires,
            _dripping(gateway.port, 10, _silent, b"") as silent,
        ):
            for wire in wires[1::4] + wires[2::4] + wires[3::4]:
                answer = await wire.answer()
                assert (answer.status, answer[b"connection"]) == (408, b"close")
            for wire in silent:
                assert await wire.rest() == b""
        await until(lambda: all(link.lost for link in origin.links))
        assert origin.seen == []
        assert gateway.troubles == []


def _in_kernel(*ports: int) -> int:
    """Bytes that the system holds in the sockets of these ports."""
    held = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if {int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)} & set(ports):
            sent, received = fields[4].split(":")
            held += int(sent, 16) + int(received, 16)
    return held


@contextmanager
def _steady(gateway: Worker, streams: int) -> Iterator[None]:
    """What happens inside costs at most so much memory per stream."""
    memory = gateway.memory
    yield
    assert gateway.memory - memory < streams * _STREAM_BYTES


async def _unmoving(value: Callable[[], int]) -> int:
    """A value once it has not changed for a while."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (seen := value()) != await _later(value):
            pass
    return seen


async def _later(value: Callable[[], int]) -> int:
    await asyncio.sleep(0.5)
    return value()


linux = pytest.mark.skipif(sys.platform != "linux", reason="what sockets hold is read from /proc")


@linux
@pytest.mark.parametrize(
    "streams", [pytest.param(4, id="few"), pytest.param(64, id="many", marks=pytest.mark.long)]
)
async def test_a_slow_reader_holds_its_arm_up(
    tmp_path: Path, origin: Origin, quick: Origin, streams: int
) -> None:
    """Of a huge answer that nobody reads the gateway holds at most 512 KiB; the arm waits; one that then
    reads gets all of it, and others are served meanwhile."""
    origin.script = flood(_TOTAL)
    with worker(tmp_path, [route(origin.port), route(quick.port, "quick", 2)]) as gateway:
        wires = [Wire(gateway.port, receive_bytes=_SMALL) for _ in range(streams)]
        for wire in wires:
            await wire.__aenter__()
        with _steady(gateway, streams):
            for wire in wires:
                wire.send(get(new_nonce()))
            await until(lambda: len(origin.links) == streams)
            produced = await _unmoving(lambda: sum(link.produced for link in origin.links))
            held = produced - _in_kernel(gateway.port, origin.port)
            assert held < streams * _STREAM_BYTES
            nonce = new_nonce()
            async with Wire(gateway.port) as other:
                other.send(get(nonce, b"/r/quick"))
                assert (await other.answer())[b"x-nonce"] == nonce
        wires[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        assert len(await _read_all(wires[0])) > _TOTAL
        for wire in wires:
            await wire.__aexit__()
        await until(lambda: all(link.lost or link.is_between for link in origin.links))
        assert gateway.troubles == []


async def _read_all(wire: Wire) -> bytes:
    """A whole answer, however long, without looking at it while it comes."""
    got = bytearray()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(4 * PATIENCE_SECONDS):
        while len(got) < _TOTAL + 100 and (data := await loop.sock_recv(wire.sock, 1024 * 1024)):
            got += data
            if len(got) > _TOTAL:
                break
    return bytes(got)


@linux
@pytest.mark.parametrize(
    "streams", [pytest.param(4, id="few"), pytest.param(64, id="many", marks=pytest.mark.long)]
)
async def test_a_slow_arm_holds_its_callers_up(tmp_path: Path, origin: Origin, streams: int) -> None:
    """Of a huge request that the arm does not read the gateway holds at most 512 KiB; the caller waits."""
    origin.is_deaf = True
    with worker(tmp_path, [route(origin.port)], body_bytes=4 * _TOTAL, drain_seconds=0.5) as gateway:
        sent = [0] * streams
        wires = [Wire(gateway.port) for _ in range(streams)]
        for wire in wires:
            await wire.__aenter__()
        with _steady(gateway, streams):
            pushing = [asyncio.ensure_future(_push(wire, sent, number)) for number, wire in enumerate(wires)]
            await until(lambda: len(origin.links) == streams)
            taken = await _unmoving(lambda: sum(sent))
            held = taken - _in_kernel(gateway.port, origin.port)
            assert 0 < taken < streams * _TOTAL
            assert held < streams * _STREAM_BYTES
        for push in pushing:
            push.cancel()
        await asyncio.gather(*pushing, return_exceptions=True)
        for wire in wires:
            await wire.__aexit__()
        assert gateway.troubles == []


async def _push(wire: Wire, sent: list[int], number: int) -> None:
    """Sends a huge body as fast as it is taken, and counts."""
    loop = asyncio.get_running_loop()
    head = b"POST /r/bid HTTP/1.1\r\nHost: gateway.test\r\nX-Nonce: %b\r\nContent-Length: %d\r\n\r\n"
    await loop.sock_sendall(wire.sock, head % (new_nonce(), _TOTAL))
    piece = bytes(16 * 1024)
    while sent[number] < _TOTAL:
        try:
            sent[number] += wire.sock.send(piece)
        except BlockingIOError:
            await asyncio.sleep(0.01)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise CutOff(b"") from error
        else:
            await asyncio.sleep(0)
