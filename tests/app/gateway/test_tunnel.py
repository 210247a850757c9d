"""Claims about WebSocket: real peers on both sides, nothing before a true handshake, and no side overrun."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from hashlib import sha1

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from routing.types import Arm, Role, Upstream
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Stage,
    limits,
    read_message,
    request,
    until,
)

MIB = 1024 * 1024
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = request(
    Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=KEY, Sec_WebSocket_Version="13"
)


def accept(key: str = KEY, **changes: str) -> bytes:
    """The answer to a handshake with this key."""
    proof = b64encode(
        sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False).digest()
    )
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Accept": proof.decode(),
        **changes,
    }
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


@asynccontextmanager
async def speaking(
    stage: Stage, handler: Callable[[ServerConnection], Awaitable[None]], challenger_bp: int = 0
) -> AsyncIterator[Server]:
    """The champion speaks WebSocket."""
    async with serve(handler, "127.0.0.1", 0, subprotocols=None) as server:
        port = server.sockets[0].getsockname()[1]
        champion = Arm(id=1, name="old", url=f"http://127.0.0.1:{port}/", role=Role.CHAMPION)
        stage.route(challenger_bp, arms=(champion, stage.arms()[1]))
        yield server


@asynccontextmanager
async def calling(stage: Stage) -> AsyncIterator[ClientConnection]:
    """A caller that speaks WebSocket."""
    async with connect(f"ws://127.0.0.1:{stage.port}/r/bid/chat?a=1", proxy=None, max_size=None) as caller:
        yield caller


async def echo(connection: ServerConnection) -> None:
    """Sends back whatever comes."""
    async for message in connection:
        await connection.send(message)


async def test_what_both_say_is_relayed(stage: Stage) -> None:
    """Text, binary, empty and fragmented messages, pings from both sides, and the close with its code."""
    pinged = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        await (await connection.ping(b"arm"))
        pinged.set()
        await echo(connection)

    async with speaking(stage, handler), calling(stage) as caller:
        await asyncio.wait_for(pinged.wait(), 10)
        for message in ("text", b"\0\xff", "", b"", "x" * 70_000, b"y" * 300_000):
            await caller.send(message)
            assert await asyncio.wait_for(caller.recv(), 10) == message
        await caller.send(["frag", "ments"])
        assert await asyncio.wait_for(caller.recv(), 10) == "fragments"
        await asyncio.wait_for(await caller.ping(b"caller"), 10)
        await caller.close(4_001, "enough")
        assert (caller.close_code, caller.close_reason) == (4_001, "enough")
    await until(stage.worker.quiet.is_set)


async def test_a_switch_is_a_decision_like_any_other(stage: Stage) -> None:
    """It is answered with the decision's headers, sent on as a handshake, and recorded once, as 101."""
    seen: list[ServerConnection] = []

    async def handler(connection: ServerConnection) -> None:
        seen.append(connection)
        await echo(connection)

    async with speaking(stage, handler):
        async with calling(stage) as caller:
            (event,) = stage.spool.events
            assert caller.response is not None
            headers = caller.response.headers
            assert (headers["Kingmaker-Arm"], headers["Kingmaker-Reason"]) == ("old", "STATIC")
            assert (event.served_arm_id, event.status, event.error) == (1, 101, False)
            assert seen[0].request is not None
            assert seen[0].request.path == "/chat?a=1"
            assert seen[0].request.headers["Kingmaker-Decision"] == headers["Kingmaker-Decision"]
        await until(stage.worker.quiet.is_set)
    assert len(stage.spool.events) == 1


@pytest.mark.parametrize("code", [1_000, 4_000])
async def test_the_arm_may_end_it(stage: Stage, code: int) -> None:
    """The caller gets all that was said before, and the close."""

    async def handler(connection: ServerConnection) -> None:
        await connection.send("last words")
        await connection.close(code, "bye")

    async with speaking(stage, handler), calling(stage) as caller:
        assert await asyncio.wait_for(caller.recv(), 10) == "last words"
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(caller.recv(), 10)
        assert (caller.close_code, caller.close_reason) == (code, "bye")


async def test_an_end_without_a_close_is_passed_on(stage: Stage) -> None:
    """Whichever side dies, the other one sees its connection end."""
    ended = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        if await connection.recv() == "die":
            connection.transport.abort()
            return
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
        ended.set()

    async with speaking(stage, handler):
        async with calling(stage) as caller:
            await caller.send("die")
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(caller.recv(), 10)
        async with calling(stage) as caller:
            await caller.send("live")
            caller.transport.abort()
            await asyncio.wait_for(ended.wait(), 10)
    await until(stage.worker.quiet.is_set)


async def test_nothing_is_sent_ahead_of_the_switch(stage: Stage) -> None:
    """What the caller says before the arm has agreed waits for that; then the arm hears it first."""
    heard = bytearray()
    agreed = asyncio.Event()

    async def arm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.write(accept() + b"early")
        heard.extend(await reader.readexactly(8))
        agreed.set()
        writer.close()

    server = await asyncio.start_server(arm, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    stage.route(0, arms=(Arm(id=1, name="old", url=url, role=Role.CHAMPION), stage.arms()[1]))
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE + b"\x81\x00secr")
    await asyncio.sleep(0.05)
    writer.write(b"et")
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert await asyncio.wait_for(reader.readexactly(5), 10) == b"early"
    await asyncio.wait_for(agreed.wait(), 10)
    assert heard == b"\x81\x00secret"
    server.close()


async def test_an_arm_that_refuses_answers(stage: Stage) -> None:
    """Its answer is the caller's, and the connection goes on in HTTP/1.1."""
    stage.route(0)
    stage.champion.script = ArmServer.say(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE + request(path="/healthz"))
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(2)]
    assert [(answer.status, answer.body) for answer in answers] == [(403, b"no"), (200, b'{"status":"ok"}')]
    assert stage.champion.seen[0]["upgrade"] == "websocket"


FALSE = {
    "wrong proof": accept("b3RoZXIgc2FtcGxlIGtleQ=="),
    "proof in another case": accept().replace(
        b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", b"S3PPLMBITXAQ9KYGZZHZRBK+XOO="
    ),
    "proof as the end of another": accept().replace(b"Accept: ", b"Accept: x"),
    "no proof": accept().replace(b"Sec-WebSocket-Accept", b"X"),
    "another protocol": accept(Upgrade="h2c"),
    "no protocol": accept().replace(b"Upgrade: websocket\r\n", b""),
    "no Connection": accept(Connection="close"),
}


@pytest.mark.parametrize("answer", FALSE.values(), ids=FALSE)
async def test_a_false_handshake_is_a_bad_answer(stage: Stage, answer: bytes) -> None:
    """502, and not a byte that the arm sent; nothing of the caller's goes to an arm that did not agree."""
    stage.route(0)
    stage.champion.script = ArmServer.say(answer + b"smuggled")
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    message = await asyncio.wait_for(read_message(reader), 10)
    assert (message.status, message["sec-websocket-accept"]) == (502, None)
    assert b"smuggled" not in message.body
    await until(lambda: not stage.champion.open)
    assert [event.error for event in stage.spool.events] == [True]


@pytest.mark.parametrize(
    "raw",
    [
        request(Connection="Upgrade", Upgrade="h2c"),
        request(Upgrade="websocket", Sec_WebSocket_Key=KEY),
        request("POST", body=b"x", Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=KEY),
        request(),
    ],
)
async def test_nobody_is_switched_unasked(stage: Stage, raw: bytes) -> None:
    """An arm that answers 101 to anything but a WebSocket handshake has failed."""
    stage.route(0)
    stage.champion.script = ArmServer.say(accept())
    assert (await stage.send(raw)).status == 502


async def test_the_champion_speaks_for_a_challenger_that_does_not(stage: Stage) -> None:
    """A handshake that fails at the challenger is the champion's, and the caller is told."""
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
    async with speaking(stage, echo, 10_000), calling(stage) as caller:
        await caller.send("hello")
        assert await asyncio.wait_for(caller.recv(), 10) == "hello"
        assert caller.response is not None
        assert caller.response.headers["Kingmaker-Reason"] == "FALLBACK"
        assert caller.response.headers["Kingmaker-Assigned-Arm"] == "new"
    (event,) = stage.spool.events
    assert (event.served_arm_id, event.status, event.error) == (1, 101, True)


async def test_a_refusal_of_a_challenger_is_the_callers(stage: Stage) -> None:
    """What is no 5xx is an answer."""
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    async with speaking(stage, echo, 10_000):
        with pytest.raises(InvalidStatus, match="401"):
            async with calling(stage):
                pass


async def settled(measure: Callable[[], int]) -> int:
    """What a number has come to once it has stopped growing."""
    last, same = -1, 0
    async with asyncio.timeout(20):
        while same < 5:
            await asyncio.sleep(0.05)
            same = same + 1 if measure() == last else 0
            last = measure()
    return last


async def test_a_caller_that_does_not_read_holds_the_arm_back(stage: Stage) -> None:
    """Little of 64 MiB is held in between; when it reads, it gets all of it."""
    stage.route(0)
    sent = 0

    async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(accept())
        for _count in range(64 * 16):
            writer.write(b"x" * (MIB // 16))
            await writer.drain()
            sent += MIB // 16

    stage.champion.script = flood
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    assert await settled(lambda: sent) < 48 * MIB
    (connection,) = stage.worker._connections
    assert connection._transport.get_write_buffer_size() < MIB
    writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
    total = 0
    while total < 64 * MIB:
        total += len(await asyncio.wait_for(reader.read(MIB), 10))


async def test_an_arm_that_does_not_read_holds_the_caller_back(stage: Stage) -> None:
    """As the other way round; and when it has read nothing for too long, both connections end."""
    stage.limit(write_seconds=3)
    stage.route(0)
    hold = asyncio.Event()

    async def script(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(accept())
        await hold.wait()

    stage.champion.script = script
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    sent = 0

    async def push() -> None:
        nonlocal sent
        for _ in range(64 * 16):
            writer.write(b"x" * (MIB // 16))
            await writer.drain()
            sent += MIB // 16

    pushing = asyncio.create_task(push())
    assert await settled(lambda: sent) < 48 * MIB
    pool = stage.worker._pools[1]
    (connection,) = pool.tunnels
    assert not connection.closed
    assert connection._transport.get_write_buffer_size() < MIB
    pushing.cancel()
    await until(stage.worker.quiet.is_set)
    await until(lambda: not pool.tunnels)


async def test_a_caller_that_never_reads_is_left_when_the_arm_has_ended(stage: Stage) -> None:
    """Nobody waits for it for ever, however little it has not taken."""
    stage.limit(write_seconds=0.1)
    stage.route(0)

    async def script(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(accept())
        while await settled_write(writer):
            pass
        writer.close()

    async def settled_write(writer: asyncio.StreamWriter) -> bool:
        writer.write(b"x" * 4096)
        await asyncio.sleep(0)
        (connection,) = stage.worker._connections
        return connection._transport.get_write_buffer_size() < 8_192

    stage.champion.script = script
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    await until(stage.worker.quiet.is_set)


async def test_a_tunnel_outlasts_every_deadline(stage: Stage) -> None:
    """Silence on both sides is no end: neither the route's time nor the caller's counts any more."""
    stage.limit(head_seconds=0.1, idle_seconds=0.1, body_seconds=0.1)
    async with speaking(stage, echo):
        routed = stage.worker.routing
        assert routed is not None
        arms = routed.table.snapshot.routes[0].arms
        stage.route(0, arms=arms, upstream=Upstream(timeout_ms=200))
        async with calling(stage) as caller:
            await asyncio.sleep(2.2)
            await caller.send("still there")
            assert await asyncio.wait_for(caller.recv(), 10) == "still there"


async def test_a_pool_does_not_get_a_tunnel_back(stage: Stage) -> None:
    """A tunnel takes no place of a request's, and there may be as many as there may be connections."""
    stage.route(0, upstream=limits(max_connections=1, timeout_ms=400))
    stage.champion.script = ArmServer.say(accept())
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    assert (await stage.send(HANDSHAKE)).status == 503
    stage.champion.script = ArmServer.say(OK)
    assert (await stage.ask()).status == 200
    writer.close()
    await until(lambda: not stage.worker._pools[1].tunnels)
    assert (await stage.ask()).status == 200
    assert stage.champion.connections == 2
