"""Claims about the end of a worker's life: what is under way ends well, and nobody is cut off in between."""

from __future__ import annotations

import asyncio

import msgspec

from tests.app.gateway.stage import OK, Message, Stage, read_message, request, until


def _drain_within(stage: Stage, seconds: float) -> None:
    """Begin to drain a worker that has so long for it."""
    stage.worker.settings = msgspec.structs.replace(stage.worker.settings, drain_seconds=seconds)
    stage.worker.drain()


async def test_an_idle_connection_is_answered_once_more(stage: Stage) -> None:
    """A request that comes while the worker drains was perhaps on its way before: its answer is the last."""
    reader, writer = await stage.connect()
    writer.write(request(path="/healthz"))
    await read_message(reader)
    _drain_within(stage, 30)
    writer.write(request())
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(stage.worker.quiet.is_set)
    writer.close()


async def test_a_connection_that_stays_idle_is_closed(stage: Stage) -> None:
    """After some of the time there is for draining, and well before its end."""
    reader, writer = await stage.connect()
    writer.write(request(path="/healthz"))
    await read_message(reader)
    fresh, fresh_writer = await stage.connect()
    _drain_within(stage, 1)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert await asyncio.wait_for(fresh.read(), 10) == b""
    await until(stage.worker.quiet.is_set)
    writer.close()
    fresh_writer.close()


async def test_who_connects_at_the_last_moment_is_answered(stage: Stage) -> None:
    """A connection that was waiting to be accepted when the end began gets its one answer."""
    _drain_within(stage, 30)
    answer = await stage.ask()
    assert (answer.status, answer["connection"]) == (200, "close")
    await until(stage.worker.quiet.is_set)


async def test_an_answer_that_has_begun_promises_one_more(stage: Stage) -> None:
    """It had said that the connection is kept: the next request on it is answered too, as the last one."""
    stage.route(0)
    go = asyncio.Event()

    async def stream(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go.wait()
        writer.write(b"0\r\n\r\n")

    stage.champion.script = stream
    reader, writer = await stage.connect()
    writer.write(request())
    head = await asyncio.wait_for(reader.readuntil(b"first\r\n"), 10)
    _drain_within(stage, 30)
    go.set()
    assert b"connection: close" not in head.lower()
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"0\r\n\r\n"
    stage.champion.script = stage.champion.say(OK)
    writer.write(request())
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(stage.worker.quiet.is_set)
    writer.close()


async def test_a_request_that_has_begun_is_answered(stage: Stage) -> None:
    """The rest of it is waited for, and its answer says that it is the last."""
    stage.route(0)
    raw = request("POST", body=b"hello")
    reader, writer = await stage.connect()
    writer.write(raw[:30])
    await until(lambda: any(not connection.is_idle for connection in stage.worker._connections))
    _drain_within(stage, 30)
    writer.write(raw[30:])
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["connection"], stage.champion.seen[0].body) == (200, "close", b"hello")
    writer.close()


async def test_pipelined_requests_end_with_the_first_answer(stage: Stage) -> None:
    """The answer under way says that it is the last: what was sent behind it is not begun."""
    stage.route(0)
    go = asyncio.Event()
    stage.champion.script = stage.champion.say(OK, once=go)
    reader, writer = await stage.connect()
    writer.write(request() * 3)
    await until(lambda: len(stage.champion.seen) == 1)
    _drain_within(stage, 30)
    go.set()
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert (answer.status, answer["connection"]) == (200, "close")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert len(stage.champion.seen) == 1
    writer.close()


async def test_readiness_says_that_the_worker_ends(stage: Stage) -> None:
    """Whoever balances load is told to go elsewhere, while the worker is still alive."""
    stage.worker.drain()
    ready, alive = await stage.ask(path="/readyz"), await stage.ask(path="/healthz")
    assert (ready.status, ready["retry-after"], alive.status) == (503, "1", 200)
