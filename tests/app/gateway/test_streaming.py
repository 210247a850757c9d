"""Claims about bodies in motion: framing is kept, memory is bounded, cut-off answers are seen as cut off."""

from __future__ import annotations

import asyncio
import resource

import pytest

from routing.types import Upstream
from tests.app.gateway.stage import ArmServer, Message, Stage, limits, read_message, request, until

MIB = 1024 * 1024
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_chunked_requests_arrive_whole(stage: Stage) -> None:
    """A body sent in chunks, over time, reaches the arm in order."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for n in range(10):
        writer.write(b"3\r\n%03d\r\n" % n)
        await asyncio.sleep(0.002)
    writer.write(b"0\r\n\r\n")
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert stage.champion.seen[0].body == b"".join(b"%03d" % n for n in range(10))
    assert stage.champion.seen[0]["transfer-encoding"] == "chunked"
    writer.close()


async def test_chunked_answers_are_streamed(stage: Stage) -> None:
    """The caller sees each piece before the next one is sent."""
    stage.route(0)
    go = asyncio.Event()

    async def stream(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED_HEAD + b"5\r\nfirst\r\n")
        await go.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    stage.champion.script = stream
    reader, writer = await stage.connect()
    writer.write(request())
    seen = await asyncio.wait_for(reader.readuntil(b"first\r\n"), 10)
    go.set()
    rest = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 10)
    assert b"transfer-encoding: chunked" in seen.lower()
    assert rest == b"6\r\nsecond\r\n0\r\n\r\n"
    writer.close()


async def test_an_old_caller_gets_no_chunks(stage: Stage) -> None:
    """HTTP/1.0 gets the bytes, and the end of the connection."""
    stage.route(0)

    async def stream(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED_HEAD + b"5\r\nfirst\r\n")
        await asyncio.sleep(0.02)
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    stage.champion.script = stream
    answer = await stage.send(b"GET /r/bid HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert answer.body == b"firstsecond"
    assert (answer["transfer-encoding"], answer["connection"]) == (None, "close")


async def test_an_answer_until_the_end_of_the_connection(stage: Stage) -> None:
    """An arm that frames by closing is passed on in chunks, complete."""
    stage.route(0)

    async def stream(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall ")
        await asyncio.sleep(0.02)
        writer.write(b"of it")
        writer.close()

    stage.champion.script = stream
    answer = await stage.ask()
    assert (answer.body, answer["transfer-encoding"]) == (b"all of it", "chunked")
    assert stage.spool.events[0].error is False


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", CHUNKED_HEAD + b"4\r\nhalf\r\n"]
)
async def test_a_cut_off_answer_looks_cut_off(stage: Stage, head: bytes) -> None:
    """What was promised and cannot be kept ends the caller's connection, and counts against the arm."""
    stage.route(0)

    async def cut(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()

    stage.champion.script = cut
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError, ValueError)):
        await stage.ask()
    await until(lambda: len(stage.spool.events) == 1)
    assert stage.spool.events[0].error is True


@pytest.mark.parametrize("ending", ["cut off", "silent"])
@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", CHUNKED_HEAD])
async def test_a_challenger_that_breaks_off_is_not_noticed(stage: Stage, head: bytes, ending: str) -> None:
    """Until its caller has seen some of it, an answer that does not come is the champion's to give."""
    stage.route(10_000, upstream=Upstream(timeout_ms=600))

    async def cut(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        await writer.drain()
        if ending == "cut off":
            writer.transport.abort()

    stage.challenger.script = cut
    answer = await stage.ask()
    assert (answer.status, answer.body, answer["kingmaker-arm"]) == (200, b"ok", "old")
    assert stage.spool.events[0].error is True


async def test_ten_mebibytes_up_and_down(stage: Stage) -> None:
    """Large bodies pass unharmed in both directions on one connection."""
    stage.route(0)
    body = bytes(range(256)) * (10 * MIB // 256)

    async def echo(seen: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(seen.body))
        writer.write(seen.body)
        await writer.drain()

    stage.champion.script = echo
    answer = await stage.ask("POST", body=body)
    assert answer.body == body


async def test_a_slow_reader_holds_the_arm_back(stage: Stage) -> None:
    """While the caller does not read, the arm cannot send on: little of 64 MiB is held in between."""
    stage.route(0)
    sent = 0

    async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        for _count in range(64 * 16):
            writer.write(b"x" * (MIB // 16))
            await writer.drain()
            sent += MIB // 16

    stage.champion.script = flood
    reader, writer = await stage.connect()
    writer.write(request())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    await settled(lambda: sent)
    assert sent < 48 * MIB
    writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    total = 0
    while total < 64 * MIB:
        total += len(await asyncio.wait_for(reader.read(MIB), 10))
    await until(lambda: len(stage.spool.events) == 1)
    assert stage.spool.events[0].error is False
    writer.close()


async def test_a_caller_that_takes_no_answer_gets_no_further_one(stage: Stage) -> None:
    """Of pipelined requests only as many are asked as fit in between; when it reads, all are."""
    stage.route(0)
    count, size = 3_000, 16 * 1024
    stage.champion.script = ArmServer.say(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, b"x" * size)
    )
    reader, writer = await stage.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    writer.write(request() * count)
    await settled(lambda: len(stage.champion.seen))
    (connection,) = stage.worker._connections
    assert len(stage.champion.seen) < count * 3 // 4
    assert connection._transport.get_write_buffer_size() < MIB
    writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(count)]
    assert {(answer.status, len(answer.body)) for answer in answers} == {(200, size)}
    writer.close()


async def test_a_slow_arm_holds_the_caller_back(stage: Stage) -> None:
    """While the arm does not read, the caller cannot send on, and memory stays as it was."""
    stage.route(0)
    stage.champion.stop_reading = True
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    _, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
    written = 0

    async def push() -> None:
        nonlocal written
        for _ in range(64 * 16):
            writer.write(b"x" * (MIB // 16))
            await writer.drain()
            written += MIB // 16

    pushing = asyncio.create_task(push())
    await settled(lambda: written)
    assert written < 48 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 48 * 1024
    pushing.cancel()
    writer.transport.abort()


async def test_an_early_answer_ends_both_connections(stage: Stage) -> None:
    """An arm that answers before it has the whole request is heard; neither connection is used again."""
    stage.route(0)
    stage.champion.eager = ArmServer.say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nxxxx" % MIB)
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["connection"]) == (413, "close")
    writer.write(b"x" * 1000)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await until(lambda: not stage.champion.open)
    assert stage.spool.events[0].status == 413


async def test_a_slow_caller_is_not_held_against_the_arm(stage: Stage) -> None:
    """The arm's time begins with the last byte of the request."""
    stage.route(0, upstream=limits(timeout_ms=1_000))
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
    for _ in range(4):
        await asyncio.sleep(0.4)
        writer.write(b"x")
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert stage.spool.events[0].error is False
    writer.close()


async def settled(measure: object) -> None:
    """Waits until a number has stopped growing."""
    assert callable(measure)
    last, same = -1, 0
    async with asyncio.timeout(20):
        while same < 5:
            await asyncio.sleep(0.05)
            now = measure()
            same = same + 1 if now == last else 0
            last = now
