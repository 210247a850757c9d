"""Claims about what is held in memory, and whose place it is: bodies, tiny chunks, callers too many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings
from tests.app.gateway.stage import OK, Message, Stage, read_message, request, say_nothing, until

MIB = 1024 * 1024
PART = 500_000
TINY = 2
CHUNKED = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked"
LONG = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000"


def begun(head: bytes) -> Request:
    """A request whose body is still to come, kept for another arm."""
    request = Request()
    request.read_head(head, GatewaySettings())
    request.keep()
    return request


def put(length: int) -> bytes:
    """The head of an upload that another arm could have."""
    return request("PUT", Content_Length=str(length))


async def upload(stage: Stage, length: int, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A caller that has sent its head, and then so much of its body."""
    reader, writer = await stage.connect()
    before = len(stage.spool.events), stage.champion.connections
    writer.write(put(length))
    await until(lambda: (len(stage.spool.events), stage.champion.connections) != before)
    writer.write(b"x" * sent)
    return reader, writer


@pytest.mark.parametrize(
    ("head", "part"), [(CHUNKED, b"2\r\nab\r\n"), (LONG, b"ab")], ids=["chunks", "length"]
)
@pytest.mark.parametrize("taken", [False, True], ids=["pending", "taken"])
def test_tiny_parts_are_kept_as_few_pieces(head: bytes, part: bytes, taken: bool) -> None:
    """Two bytes at a time: what waits for an arm, and what is kept of what it took, is one in 4 KiB."""
    request = begun(head)
    for _ in range(20_000):
        request.read_body(part, MIB)
        if taken:
            request.take_body()
    pieces = request.kept if taken else request.pieces
    assert pieces is not None
    assert b"".join(pieces) == b"ab" * 20_000
    assert len(pieces) <= TINY * 20_000 // 4_096 + 2


def test_many_chunks_at_once_are_one_piece() -> None:
    """However many come in one read."""
    request = begun(CHUNKED)
    request.read_body(b"2\r\nab\r\n" * 8_000, MIB)
    assert request.pieces == [b"ab" * 8_000]
    assert (request.held, request.pending) == (16_000, 16_000)


async def test_bodies_in_memory_are_bounded_over_all_callers(stage: Stage) -> None:
    """Who would hold much more is asked to come back; who was there before is served."""
    stage.limit(held_bytes=MIB)
    stage.route(0)
    reader, writer = await upload(stage, 2 * PART, PART)
    await until(lambda: stage.worker.held == PART)
    other, other_writer = await stage.connect()
    other_writer.write(put(2 * PART) + b"x" * (2 * PART))
    refused = await asyncio.wait_for(read_message(other), 10)
    assert (refused.status, refused["retry-after"], refused["connection"]) == (503, "1", "close")
    assert stage.worker.held == PART
    writer.write(b"x" * PART)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert stage.worker.held == 0
    assert (await stage.ask("PUT", body=b"x" * 2 * PART)).status == 200


async def test_who_holds_little_is_served_when_there_is_too_much(stage: Stage) -> None:
    """Small bodies go on: it is the large ones that fill the memory."""
    stage.limit(held_bytes=MIB)
    stage.route(0)
    for _ in range(2):
        await upload(stage, 2 * PART, PART)
    reader, writer = await upload(stage, 50_000, 49_000)
    await until(lambda: stage.worker.held == 2 * PART + 49_000 > MIB)
    writer.write(b"x" * 1_000)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200


async def test_what_a_caller_held_is_free_when_it_is_answered(stage: Stage) -> None:
    """Many, one after another, on one connection and on others."""
    stage.limit(held_bytes=MIB)
    stage.route(0)
    reader, writer = await stage.connect()
    for _ in range(5):
        writer.write(put(PART))
        writer.write(b"x" * PART)
        assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
        assert (await stage.ask("PUT", body=b"x" * PART)).status == 200
        await until(lambda: stage.worker.held == 0)


async def leave(_: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The caller is gone."""
    writer.transport.abort()


async def be_slow(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The caller sends no more."""
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 408


async def break_off(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The arm is gone, and so are others."""
    await stage.champion.stop()
    assert (await asyncio.wait_for(read_message(reader), 10)).status in (502, 503)


async def end_early(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The caller says that there is no more."""
    writer.write_eof()
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await asyncio.wait_for(read_message(reader), 10)


@pytest.mark.parametrize("end", [leave, be_slow, break_off, end_early])
async def test_what_a_caller_held_is_free_however_it_ends(stage: Stage, end: Callable[..., object]) -> None:
    """Gone, refused, failed by its arm, or cut short by itself."""
    stage.limit(body_seconds=1.0 if end is be_slow else 60.0, body_rate=MIB)
    stage.route(0)
    reader, writer = await upload(stage, 2 * PART, PART)
    await until(lambda: stage.worker.held == PART)
    ending = end(stage, reader, writer)
    assert asyncio.iscoroutine(ending)
    await ending
    await until(lambda: stage.worker.held == 0)


async def test_what_is_held_for_an_arm_that_hangs_is_free_with_the_answer(stage: Stage) -> None:
    """A whole upload is held until its arm has had its time."""
    stage.route(0)
    stage.champion.script = say_nothing
    reader, _ = await upload(stage, PART, PART)
    await until(lambda: len(stage.champion.seen) == 1)
    assert stage.worker.held == PART
    for arm in list(stage.champion.open):
        arm.write(OK)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert stage.worker.held == 0


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 100\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_cut_off_answer_ends_with_a_reset(stage: Stage, head: bytes, version: str) -> None:
    """To HTTP/1.0 the end of the connection is the end of the answer: there must be none."""
    stage.route(0)
    cut = asyncio.Event()

    async def script(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        await cut.wait()
        writer.close()

    stage.champion.script = script
    reader, writer = await stage.connect()
    writer.write(f"GET /r/bid HTTP/{version}\r\nHost: a\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"half"), 10)
    cut.set()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)


async def test_callers_too_many_hold_no_places(stage: Stage) -> None:
    """One that was refused and stays takes nobody's place when another one leaves."""
    stage.limit(connections=1)
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(request())
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    refused, _ = await stage.connect()
    answer = await asyncio.wait_for(read_message(refused), 10)
    assert (answer.status, answer["retry-after"]) == (503, "1")
    assert len(stage.worker._connections) == 2
    writer.close()
    await until(lambda: len(stage.worker._connections) == 1)
    assert (await stage.ask()).status == 200
    await until(stage.worker.quiet.is_set)


async def test_a_body_that_comes_with_its_head_is_counted(stage: Stage) -> None:
    """As any other, and forgotten with its caller."""
    stage.route(0)
    stage.champion.script = say_nothing
    _, writer = await stage.connect()
    writer.write(put(50_000) + b"x" * 50_000)
    await until(lambda: stage.worker.held == 50_000)
    writer.transport.abort()
    await until(lambda: stage.worker.held == 0)
