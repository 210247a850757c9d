"""Claims about limits and deadlines: each holds exactly, says so, and is held against no arm."""

from __future__ import annotations

import asyncio
import json

import pytest

from routing.features import Source, SourceKind
from routing.types import Upstream
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Message,
    Script,
    Stage,
    claims_of,
    close_at_once,
    limits,
    read_message,
    request,
    say_nothing,
    until,
)

GET = b"GET /r/bid HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /r/bid HTTP/1.1\r\nHost: a\r\n"


def padded(size: int) -> bytes:
    """A request whose head has so many bytes, with the empty line at its end."""
    return GET + b"X: %b\r\n\r\n" % (b"y" * (size - len(GET) - 7))


@pytest.mark.parametrize("parts", [1, 2, 7])
async def test_a_head_may_be_so_long(stage: Stage, parts: int) -> None:
    """To the byte, in whatever pieces it comes."""
    stage.limit(head_bytes=500)
    stage.route(0)
    for size, status in ((500, 200), (501, 431), (5_000, 431)):
        raw = padded(size)
        assert len(raw) == size
        reader, writer = await stage.connect()
        for start in range(0, size, -(-size // parts)):
            writer.write(raw[start : start - (-size // parts)])
            await asyncio.sleep(0.005)
        assert (await asyncio.wait_for(read_message(reader), 10)).status == status


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_target_may_be_so_long(stage: Stage, extra: int) -> None:
    """To the byte; a first line without an end is taken for a target that is too long."""
    stage.limit(target_bytes=100, head_bytes=1_000)
    stage.route(0)
    path = "/r/bid/" + "x" * (93 + extra)
    answer = await stage.ask(path=path)
    assert answer.status == (414 if extra else 200)
    assert (await stage.send(b"GET /" + b"x" * 2_000)).status == 414


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_head_may_have_so_many_fields(stage: Stage, extra: int) -> None:
    """To the field."""
    stage.limit(head_fields=10)
    stage.route(0)
    raw = GET + b"X: y\r\n" * (9 + extra) + b"\r\n"
    assert (await stage.send(raw)).status == (431 if extra else 200)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_may_be_so_long(stage: Stage, chunked: bool, extra: int) -> None:
    """To the byte, said in advance or not; of a longer one no arm gets the end."""
    stage.limit(body_bytes=1_000)
    stage.route(0)
    body = b"x" * (1_000 + extra)
    if chunked:
        raw = POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        raw = POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    answer = await stage.send(raw)
    assert answer.status == (413 if extra else 200)
    assert len(stage.champion.seen) == 1 - extra
    assert stage.counted("kingmaker_refused_requests_total") == extra


async def test_a_body_that_turns_out_too_long_ends_at_the_arm(stage: Stage) -> None:
    """The arm has had some of it: its connection is cut, so that it cannot take that for all."""
    stage.limit(body_bytes=100)
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await until(lambda: stage.champion.connections == 1)
    writer.write(b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n")
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 413
    await until(lambda: not stage.champion.open)
    assert stage.champion.seen == []
    assert [event.error for event in stage.spool.events] == [None]


async def test_a_refused_caller_can_read_why(stage: Stage) -> None:
    """It may still be sending: what it sends is ignored for a while, so that the answer is not lost."""
    stage.route(0)
    stage.limit(body_bytes=100)
    reader, writer = await stage.connect()
    writer.write(POST + b"Content-Length: 500000\r\n\r\n")
    for _ in range(50):
        writer.write(b"x" * 10_000)
        await asyncio.sleep(0.001)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 413
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(stage.worker.quiet.is_set)


async def test_who_does_not_stop_is_cut_off(stage: Stage) -> None:
    """A caller that goes on and on after its refusal is not listened to for ever."""
    stage.route(0)
    _, writer = await stage.connect()
    writer.write(GET + b"Content-Length: x\r\n\r\n")

    async def go_on() -> None:
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await asyncio.wait_for(go_on(), 20)
    await until(stage.worker.quiet.is_set)


async def test_who_comes_as_one_too_many_is_told(stage: Stage) -> None:
    """503 at once, with Retry-After; those who are there are served, and when one leaves there is room."""
    stage.limit(connections=2)
    stage.route(0)
    pairs = [await stage.connect() for _ in range(2)]
    await until(lambda: len(stage.worker._connections) == 2)
    reader, writer = await stage.connect()
    refused = await asyncio.wait_for(read_message(reader), 10)
    assert (refused.status, refused["retry-after"], refused["connection"]) == (503, "1", "close")
    writer.close()
    for reader, writer in pairs:
        writer.write(request())
        assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    pairs[0][1].close()
    await until(lambda: len(stage.worker._connections) == 1)
    assert (await stage.ask()).status == 200


async def test_a_slow_head_has_its_time_once(stage: Stage) -> None:
    """Byte by byte is no way to keep a connection: the time runs from the first one."""
    stage.limit(head_seconds=0.5)
    reader, writer = await stage.connect()
    writer.write(request(path="/healthz"))
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200

    async def drip() -> None:
        for byte in GET * 100:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 408
    dripping.cancel()


async def test_who_says_nothing_is_not_answered(stage: Stage) -> None:
    """A connection without a request ends without a word when the time for a head is over."""
    stage.limit(head_seconds=0.1)
    reader, _ = await stage.connect()
    assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_body_has_more_time_the_more_has_come(stage: Stage) -> None:
    """One that comes faster than the least rate is not cut off, however long it takes."""
    stage.limit(body_seconds=0.2, body_rate=100)
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(POST + b"Content-Length: 1000\r\n\r\n")
    for _ in range(10):
        writer.write(b"x" * 100)
        await asyncio.sleep(0.25)
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    slow, slow_writer = await stage.connect()
    slow_writer.write(POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 10)
    assert (await asyncio.wait_for(read_message(slow), 10)).status == 408
    await until(lambda: len(stage.spool.events) == 2)
    assert [event.error for event in stage.spool.events] == [False, None]


async def test_an_arm_that_is_slow_to_read_is_not_the_callers_fault(stage: Stage) -> None:
    """While the gateway itself does not listen, a body's time does not run."""
    stage.limit(body_seconds=0.2, body_rate=1_000_000_000)
    go = asyncio.Event()
    body = b"x" * (8 * 1024 * 1024)

    async def arm(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await reader.readexactly(len(body))
        writer.write(OK)
        writer.close()

    server = await asyncio.start_server(arm, "127.0.0.1", 0, limit=1_024)
    port = server.sockets[0].getsockname()[1]
    champion, challenger = stage.arms()
    stage.route(
        0,
        arms=(
            type(champion)(id=1, name="old", url=f"http://127.0.0.1:{port}", role=champion.role),
            challenger,
        ),
    )
    reader, writer = await stage.connect()
    writer.write(request("POST", body=body))
    (connection,) = stage.worker._connections
    await until(lambda: not connection.is_reading)
    await asyncio.sleep(2.2)
    go.set()
    assert (await asyncio.wait_for(read_message(reader), 20)).status == 200
    server.close()


async def test_who_does_not_take_its_answer_is_cut_off(stage: Stage) -> None:
    """After the time for writing: its connection and the arm's end, and the arm is not blamed."""
    stage.limit(write_seconds=0.2)
    stage.route(0)
    size = 64 * 1024 * 1024

    async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _count in range(size // 65_536):
            writer.write(b"x" * 65_536)
            await writer.drain()

    stage.champion.script = flood
    reader, writer = await stage.connect()
    writer.write(request())
    await reader.readuntil(b"\r\n\r\n")
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    await until(stage.worker.quiet.is_set)
    await until(lambda: not stage.champion.open)
    (event,) = stage.spool.events
    assert (event.status, event.error, event.served_arm_id) == (200, None, 1)


async def test_a_short_answer_that_is_not_taken_ends_too(stage: Stage) -> None:
    """The last one on its connection, too little to fill anything."""
    stage.limit(write_seconds=0.2)
    stage.route(0)
    reader, writer = await stage.connect()
    writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport can read, too
    writer.write(request(Connection="close"))
    await until(stage.worker.quiet.is_set)
    assert reader is not None


@pytest.mark.parametrize(("asked", "status"), [("300", 504), ("0", 504), ("20000", 200), ("nonsense", 200)])
async def test_a_caller_may_shorten_the_deadline(stage: Stage, asked: str, status: int) -> None:
    """`Kingmaker-Timeout-Ms` is what is left of the caller's own; what is no number is ignored."""
    stage.route(0)

    async def late(_: Message, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1)
        writer.write(OK)

    stage.champion.script = late
    assert (await stage.ask(Kingmaker_Timeout_Ms=asked)).status == status


async def test_a_caller_cannot_lengthen_the_deadline(stage: Stage) -> None:
    """The route's own is the longest."""
    stage.route(0, upstream=Upstream(timeout_ms=200))
    stage.champion.script = say_nothing
    assert (await stage.ask(Kingmaker_Timeout_Ms="20000")).status == 504


async def test_arms_are_told_what_is_left(stage: Stage) -> None:
    """A challenger its half, the champion what remains; of the caller's deadline where that is shorter."""
    stage.route(10_000, upstream=limits(timeout_ms=2_000))
    stage.challenger.script = say_nothing
    await stage.ask()
    challenger, champion = (
        int(arm.seen[0]["kingmaker-timeout-ms"] or 0) for arm in (stage.challenger, stage.champion)
    )
    assert 900 <= challenger <= 1_000
    assert 700 <= champion <= 1_000
    stage.route(0, upstream=limits(timeout_ms=2_000))
    await stage.ask()
    await stage.ask(Kingmaker_Timeout_Ms="1500")
    told = [int(seen["kingmaker-timeout-ms"] or 0) for seen in stage.champion.seen[1:]]
    assert 1_900 <= told[0] <= 2_000
    assert 1_400 <= told[1] <= 1_500
    assert [len(seen.all("kingmaker-timeout-ms")) for seen in stage.champion.seen] == [1, 1, 1]


async def test_a_body_in_which_a_unit_is_looked_for_has_its_time(stage: Stage) -> None:
    """A caller that does not send it is refused; no decision was made, and none is recorded."""
    stage.limit(body_seconds=0.1)
    stage.route(unit=Source(kind=SourceKind.JSON, name="/user"))
    assert (await stage.send(POST + b'Content-Length: 20\r\n\r\n{"us')).status == 408
    assert stage.spool.events == []
    assert stage.champion.connections + stage.challenger.connections == 0


async def test_an_endpoint_of_the_gateway_has_its_own_bound(stage: Stage) -> None:
    """Its exact limit is taken, one byte more is not; said in advance or not."""
    unit = json.dumps({"unit": "u"}).encode()
    for extra, status in ((0, 200), (1, 413)):
        body = unit + b" " * (1024 * 1024 - len(unit) + extra)
        assert (await stage.ask("POST", "/v1/decide/bid", body)).status == status
        raw = b"POST /v1/decide/bid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert (await stage.send(raw + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))).status == status


async def test_a_thousand_silent_callers_hold_nobody_up(stage: Stage) -> None:
    """Half a head each: the next caller is answered, and in the end they are all sent away."""
    stage.limit(head_seconds=1)
    stage.route(0)
    pairs = [await stage.connect() for _ in range(300)]
    for _, writer in pairs:
        writer.write(GET)
    answers = [await stage.ask() for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    gone = await asyncio.gather(*(asyncio.wait_for(read_message(reader), 20) for reader, _ in pairs))
    assert {answer.status for answer in gone} == {408}
    await until(stage.worker.quiet.is_set)
    assert {claims_of(answer).arm_id for answer in answers} == {1}


@pytest.mark.parametrize("script", [ArmServer.say(OK), close_at_once], ids=["answered", "refused"])
async def test_a_caller_may_end_its_side(stage: Stage, script: Script) -> None:
    """Who has said all that it wanted gets its answer, and the end; also to what was sent ahead."""
    stage.route(0)
    stage.champion.script = script
    reader, writer = await stage.connect()
    writer.write(request("POST", body=b"x") + request(path="/healthz"))
    writer.write_eof()
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(2)]
    assert [answer.status for answer in answers] == [200 if script is not close_at_once else 502, 200]
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(stage.worker.quiet.is_set)


async def test_who_ends_its_side_is_not_waited_for(stage: Stage) -> None:
    """Most of them have left: the arm is, if its answer has not begun after a second."""
    stage.route(0)
    stage.champion.script = say_nothing
    reader, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.champion.seen) == 1)
    writer.write_eof()
    await until(stage.worker.quiet.is_set)
    await until(lambda: not stage.champion.open)
    assert [event.status for event in stage.spool.events] == [499]
    assert reader is not None


@pytest.mark.parametrize(
    "part", [b"", b"GET /r/bid HTTP/1.1\r\nHos", POST + b"Content-Length: 9\r\n\r\nhalf"]
)
async def test_who_ends_its_side_in_the_middle_has_asked_nothing(stage: Stage, part: bytes) -> None:
    """Half a request is none: the connection ends, and the arm's with it."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(part)
    await asyncio.sleep(0.05)
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    await until(lambda: not stage.champion.open)
    assert stage.champion.seen == []
    assert [event.error for event in stage.spool.events] == [None] * len(stage.spool.events)
