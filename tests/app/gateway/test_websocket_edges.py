"""Claims about the edges of WebSocket: handshakes that are none, callers that do not read, ends, places."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.app.gateway.stage import OK, ArmServer, Message, Stage, limits, read_message, request, until
from tests.app.gateway.test_tunnel import HANDSHAKE, KEY, accept

MIB = 1024 * 1024


async def switch_and_hang(_: Message, writer: asyncio.StreamWriter) -> None:
    """The script of an arm that agrees, and says nothing more."""
    writer.write(accept())
    await asyncio.Event().wait()


async def tunnelled(stage: Stage) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A caller behind whose handshake bytes are relayed."""
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101 ")
    return reader, writer


@asynccontextmanager
async def narrow_caller(stage: Stage) -> AsyncIterator[socket.socket]:
    """A caller that reads nothing by itself, and for whom the system takes little."""
    with socket.socket() as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        caller.setblocking(False)
        await stage.loop.sock_connect(caller, ("127.0.0.1", stage.port))
        yield caller


@pytest.mark.parametrize(
    "key",
    [
        *("", "short", "dGhlIHNhbXBsZSBub25jZQ", f"{KEY}=", f"{KEY}{KEY}", f"{KEY}, {KEY}"),
        *("dGhlIHNhbXBsZSBub25j!Q==", "dGhlIHNhbXBsZSBub25jZR==", KEY.replace("=", "A")),
    ],
)
async def test_a_key_that_is_none_is_refused(stage: Stage, key: str) -> None:
    """Sixteen bytes in base64 (RFC 6455, 4.1) or 400; the arm hears nothing of it."""
    stage.route(0)
    raw = request(
        Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=key, Sec_WebSocket_Version="13"
    )
    assert (await stage.send(raw)).status == 400
    assert stage.champion.seen == []


@pytest.mark.parametrize("second", [KEY, "b3RoZXIgc2FtcGxlIGtleQ=="])
async def test_two_keys_are_refused(stage: Stage, second: str) -> None:
    """Also where they are the same."""
    stage.route(0)
    raw = HANDSHAKE[:-2] + f"sec-websocket-key: {second}\r\n\r\n".encode()
    assert (await stage.send(raw)).status == 400
    assert stage.champion.seen == []


async def test_no_key_is_refused(stage: Stage) -> None:
    """It could not be answered rightly."""
    stage.route(0)
    raw = request(Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Version="13")
    assert (await stage.send(raw)).status == 400


@pytest.mark.parametrize("version", ["8", "14", "013", "13, 8", ""])
async def test_another_version_is_refused(stage: Stage, version: str) -> None:
    """There is one that is passed on."""
    stage.route(0)
    raw = request(
        Connection="Upgrade", Upgrade="websocket", Sec_WebSocket_Key=KEY, Sec_WebSocket_Version=version
    )
    assert (await stage.send(raw)).status == 426
    assert stage.champion.seen == []


async def test_what_comes_with_the_switch_counts_as_unread(stage: Stage) -> None:
    """A caller that reads nothing from the start holds the arm back, and what is held is bounded."""
    stage.route(0)
    sent = 0

    async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(accept() + b"x" * 200_000)
        for _count in range(64 * 16):
            writer.write(b"y" * (MIB // 16))
            await writer.drain()
            sent += MIB // 16

    stage.champion.script = flood
    async with narrow_caller(stage) as caller:
        await stage.loop.sock_sendall(caller, HANDSHAKE)
        await until(lambda: len(stage.champion.seen) == 1)
        pool = stage.worker._pools[1]
        await until(lambda: any(arm._paused for arm in pool.tunnels))
        before = -1
        while before < sent:
            before = sent
            await asyncio.sleep(0.2)
        (connection,) = stage.worker._connections
        assert connection._transport.get_write_buffer_size() < 2 * MIB
        assert sent < 48 * MIB
    await until(lambda: not pool.tunnels)
    await until(stage.worker.quiet.is_set)


@pytest.mark.parametrize("early", [True, False], ids=["before the switch", "after it"])
async def test_a_half_closed_caller_has_ended_its_tunnel(stage: Stage, early: bool) -> None:
    """WebSocket has no half: whoever says its last, before the switch or after it, leaves nothing open."""
    stage.route(0)
    agree = asyncio.Event()

    async def script(_: Message, writer: asyncio.StreamWriter) -> None:
        await agree.wait()
        writer.write(accept())
        await asyncio.Event().wait()

    stage.champion.script = script
    reader, writer = await stage.connect()
    writer.write(HANDSHAKE)
    await until(lambda: len(stage.champion.seen) == 1)
    if early:
        writer.write_eof()
        await until(lambda: all(c._half_closed_at < float("inf") for c in stage.worker._connections))
    agree.set()
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 101
    if not early:
        writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(stage.worker.quiet.is_set)
    await until(lambda: not stage.worker._pools[1].tunnels and not stage.worker._pools[1].open)


async def test_a_tunnel_on_which_nothing_is_said_ends(stage: Stage) -> None:
    """After the time for that, on both sides."""
    stage.limit(tunnel_idle_seconds=1.0)
    stage.route(0)
    stage.champion.script = switch_and_hang
    reader, _ = await tunnelled(stage)
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(reader.read(), 10)
    await until(lambda: not stage.worker._pools[1].tunnels)
    assert stage.worker.quiet.is_set()


@pytest.mark.parametrize("speaker", ["caller", "arm"])
async def test_a_word_of_either_side_keeps_a_tunnel(stage: Stage, speaker: str) -> None:
    """It is as good as new with each: what counts is when something was said last."""
    stage.limit(tunnel_idle_seconds=2.0)
    stage.route(0)
    stage.champion.script = switch_and_hang
    _, writer = await tunnelled(stage)
    (arm,) = stage.champion.open
    (connection,) = stage.worker._connections
    tunnel = connection._tunnel
    assert tunnel is not None
    before = tunnel.used_at
    for _ in range(5):
        await asyncio.sleep(0.6)
        (writer if speaker == "caller" else arm).write(b"\x89\x00")
    await until(lambda: tunnel.used_at > before + 2.5)
    assert not stage.worker.quiet.is_set()
    assert len(stage.worker._pools[1].tunnels) == 1


async def test_tunnels_take_no_places_of_requests(stage: Stage) -> None:
    """As many tunnels as there may be connections, and just as many requests beside them."""
    stage.route(0, upstream=limits(max_connections=2))
    stage.champion.script = switch_and_hang
    for _ in range(2):
        await tunnelled(stage)
    pool = stage.worker._pools[1]
    assert (len(pool.tunnels), pool.open) == (2, 0)
    hold = asyncio.Event()

    async def held(_: Message, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.write(OK)

    stage.champion.script = held
    asking = [asyncio.create_task(stage.ask()) for _ in range(2)]
    await until(lambda: len(stage.champion.seen) == 4)
    hold.set()
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200]
    assert stage.champion.connections == 4


async def test_a_tunnel_too_many_is_asked_to_come_back(stage: Stage) -> None:
    """Until another one ends."""
    stage.route(0, upstream=limits(max_connections=1))
    stage.champion.script = ArmServer.say(accept())
    _, writer = await tunnelled(stage)
    answer = await stage.send(HANDSHAKE)
    assert (answer.status, answer["retry-after"]) == (503, "1")
    writer.close()
    await until(lambda: not stage.worker._pools[1].tunnels)
    await tunnelled(stage)
