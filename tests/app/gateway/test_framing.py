"""Claims about the caller's side: what is refused, in which order answers come, what is never misread."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.gateway.http1 import ClientConnection
from routing.types import Match
from tests.app.gateway.stage import (
    OK,
    ArmServer,
    Stage,
    read_message,
    request,
    until,
)

HOST = b"Host: a\r\n"
GET = b"GET /r/bid HTTP/1.1\r\n" + HOST
POST = b"POST /r/bid HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
ATTACKS = {
    "bare line feeds": b"GET /r/bid HTTP/1.1\nHost: a\n\n",
    "one bare line feed": b"GET /r/bid HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare carriage return": b"GET /r/bid HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "folded header": GET + b"X: y\r\n z\r\n\r\n",
    "space before colon": b"GET /r/bid HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL in value": GET + b"X: \x00\r\n\r\n",
    "empty name": GET + b": y\r\n\r\n",
    "length and chunks": POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": CHUNKED + b"Content-Length: 1\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length list": POST + b"Content-Length: 1, 1\r\n\r\na",
    "signed length": POST + b"Content-Length: +1\r\n\r\na",
    "negative length": POST + b"Content-Length: -1\r\n\r\na",
    "huge length": POST + b"Content-Length: 99999999999999999999999\r\n\r\na",
    "empty length": POST + b"Content-Length:\r\n\r\n",
    "chunks twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "stacked coding": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity coding": POST + b"Transfer-Encoding: identity\r\n\r\n",
    "chunks in 1.0": b"POST /r/bid HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk size": CHUNKED + b"\r\n0x1\r\na\r\n0\r\n\r\n",
    "space in chunk size": CHUNKED + b"\r\n1 \r\na\r\n0\r\n\r\n",
    "chunk ends in line feed": CHUNKED + b"\r\n1\na\n0\n\n",
    "no host": b"GET /r/bid HTTP/1.1\r\n\r\n",
    "two hosts": GET + b"Host: b\r\n\r\n",
    "host with a path": b"GET /r/bid HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "dot segments": b"GET /r/bid/../x HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded dot segments": b"GET /r/bid/%2e%2E/x HTTP/1.1\r\nHost: a\r\n\r\n",
    "no slash": b"GET r/bid HTTP/1.1\r\nHost: a\r\n\r\n",
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "no method": b" /r/bid HTTP/1.1\r\nHost: a\r\n\r\n",
    "method that is no token": b"G(T /r/bid HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_malformed_request_is_refused(stage: Stage, attack: str) -> None:
    """It gets 400 and the end of the connection; no arm hears of it."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(ATTACKS[attack])
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert answer.status == 400
    assert answer["connection"] == "close"
    assert await asyncio.wait_for(reader.read(), 10) == b""
    assert stage.champion.seen == []
    writer.close()


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET /r/bid HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET /r/bid HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417),
        (b"GET /r/bid HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /r/bid HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 400_000, 431),
        (b"DELETE /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ],
)
async def test_what_is_not_supported_is_named(stage: Stage, raw: bytes, status: int) -> None:
    """Each has its own status."""
    assert (await stage.send(raw)).status == status


async def test_endless_trailers_are_refused(stage: Stage) -> None:
    """Fields after the last chunk are bounded, too."""
    stage.route(0)
    assert (await stage.send(CHUNKED + b"\r\n1\r\na\r\n0\r\nX: " + b"y" * 400_000)).status == 431


async def test_trailers_do_not_reach_the_arm(stage: Stage) -> None:
    """Neither as header of this request nor of the next one on the connection."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(CHUNKED + b"\r\n1\r\na\r\n0\r\nX-Evil: 1\r\n\r\n" + request())
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert [seen["x-evil"] for seen in stage.champion.seen] == [None, None]
    assert stage.champion.seen[0].body == b"a"
    writer.close()


async def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    """A hundred requests sent at once get a hundred answers, each its own, in order."""
    stage.route(0)

    async def echo(seen: object, writer: asyncio.StreamWriter) -> None:
        body = stage.champion.seen[-1].body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    stage.champion.script = echo
    reader, writer = await stage.connect()
    writer.write(b"".join(request("POST", body=b"%d" % n) for n in range(100)))
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(100)]
    assert [answer.body for answer in answers] == [b"%d" % n for n in range(100)]
    assert stage.champion.connections == 1
    writer.close()


async def test_a_flood_of_own_answers_needs_no_stack(stage: Stage) -> None:
    """Five thousand pipelined requests to an endpoint that answers at once are all answered."""
    reader, writer = await stage.connect()
    writer.write(request(path="/healthz") * 5_000)
    for _ in range(5_000):
        assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    writer.close()


async def test_a_bad_request_after_good_ones_is_refused_last(stage: Stage) -> None:
    """What came before it is answered first."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(request() + ATTACKS["folded header"])
    statuses = [(await asyncio.wait_for(read_message(reader), 10)).status for _ in range(2)]
    assert statuses == [200, 400]
    writer.close()


async def test_connections_of_callers_are_kept_and_closed_as_asked(stage: Stage) -> None:
    """HTTP/1.1 keeps the connection unless told otherwise; HTTP/1.0 closes it unless told otherwise."""
    stage.route(0)
    kept = await stage.ask()
    closed = await stage.ask(Connection="close")
    old = await stage.send(b"GET /r/bid HTTP/1.0\r\n\r\n")
    old_kept = await stage.send(b"GET /r/bid HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    seen = [answer["connection"] for answer in (kept, closed, old, old_kept)]
    assert seen == [None, "close", "close", "keep-alive"]


def offer(method: str, body: bytes | None) -> bytes:
    """A request that offers to go on in another protocol."""
    return request(method, body=body, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="x")


async def test_upgrades_are_ignored(stage: Stage) -> None:
    """A request that offers another protocol is answered in this one, its body read as a body."""
    stage.route(0)
    hidden = b"GET /r/bid/hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    reader, writer = await stage.connect()
    writer.write(offer("POST", hidden) + offer("GET", None) + request(path="/r/bid/last"))
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [seen.line.split(" ")[1] for seen in stage.champion.seen] == ["/score", "/score", "/score/last"]
    assert stage.champion.seen[0].body == hidden
    assert stage.champion.seen[0]["upgrade"] is stage.champion.seen[0]["http2-settings"] is None
    writer.close()


async def test_a_flood_of_upgrades_needs_no_stack(stage: Stage) -> None:
    """A thousand pipelined offers of another protocol are all answered in this one."""
    reader, writer = await stage.connect()
    writer.write(request(path="/healthz", Connection="upgrade", Upgrade="x") * 1_000)
    for _ in range(1_000):
        assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    writer.close()


async def test_space_around_a_value_is_not_part_of_it(stage: Stage) -> None:
    """Space before and after a field's value is dropped (RFC 9112, 5.1), of callers' and of arms' fields."""
    stage.route(0)
    framed = b"HTTP/1.1 200 OK\r\nX: a \t \r\nTransfer-Encoding: chunked  \r\n\r\n2\r\nok\r\n0\r\n\r\n"
    stage.champion.script = ArmServer.say(framed)
    spaced = (
        b"POST /r/bid HTTP/1.1\r\nHost:  a \r\nTransfer-Encoding: chunked \r\nX: \t b \t\r\n\r\n0\r\n\r\n"
    )
    reader, writer = await stage.connect()
    writer.write(spaced)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b"\r\nX: a\r\n" in head
    assert (stage.champion.seen[0]["x"], stage.champion.seen[0]["x-forwarded-host"]) == ("b", "a")
    writer.close()


async def test_a_body_is_asked_for_when_the_caller_waits(stage: Stage) -> None:
    """`Expect: 100-continue` is answered by the gateway, and not passed on."""
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hello")
    assert (await asyncio.wait_for(read_message(reader), 10)).status == 200
    assert stage.champion.seen[0].body == b"hello"
    assert stage.champion.seen[0]["expect"] is None
    writer.close()


@pytest.mark.parametrize(
    ("method", "raw", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", "1000"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", "1000"),
    ],
)
async def test_answers_without_a_body(stage: Stage, method: str, raw: bytes, length: str | None) -> None:
    """Their length is passed on, nothing waits for a body, and both connections go on."""
    stage.route(0)
    stage.champion.script = ArmServer.say(raw)
    reader, writer = await stage.connect()
    for _ in range(3):
        writer.write(request(method))
        answer = await asyncio.wait_for(read_message(reader, bodiless=True), 10)
        assert (answer.status, answer["content-length"]) == (int(raw.split()[1]), length)
    assert stage.champion.connections == 1
    writer.close()


@pytest.mark.parametrize(
    ("limit", "partial", "errors"),
    [
        ("head_seconds", b"GET /r/bid HTTP/1.1\r\nHos", []),
        ("body_seconds", POST + b"Content-Length: 9\r\n\r\nx", [None]),
    ],
)
async def test_a_silent_caller_is_sent_away(
    stage: Stage, limit: str, partial: bytes, errors: list[None]
) -> None:
    """A head or a body that does not come in time is answered 408; it is not held against the arm."""
    stage.limit(**{limit: 0.05})
    stage.route(0)
    assert (await stage.send(partial)).status == 408
    assert [event.error for event in stage.spool.events] == errors


async def test_an_idle_connection_ends_without_a_word(stage: Stage) -> None:
    """After its last answer it is kept for a while, then closed."""
    stage.limit(idle_seconds=0.05)
    stage.route(0)
    reader, writer = await stage.connect()
    writer.write(request())
    assert (await read_message(reader)).status == 200
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nKingmaker-Arm: x\r\nX-Hop: 1\r\nConnection: x-hop\r\n\r\n"


async def test_informational_answers_are_passed_on(stage: Stage) -> None:
    """Before the answer and in order, without what is of one hop; but not 100: the gateway says that."""
    stage.route(0)
    both = HINTS + HINTS.replace(b"/a", b"/b")
    stage.champion.script = ArmServer.say(b"HTTP/1.1 100 Continue\r\n\r\n" + both + OK)
    reader, writer = await stage.connect()
    for _ in range(2):
        writer.write(request())
        first, second, answer = [await asyncio.wait_for(read_message(reader), 10) for _ in range(3)]
        assert first.fields == [("link", "</a>")]
        assert second.fields == [("link", "</b>")]
        assert (first.status, answer.status, answer.body, answer["link"]) == (103, 200, b"ok", None)


async def test_an_old_caller_hears_no_informational_answer(stage: Stage) -> None:
    """HTTP/1.0 knows none (RFC 9110, 15.2)."""
    stage.route(0)
    stage.champion.script = ArmServer.say(HINTS + OK)
    assert (await stage.send(b"GET /r/bid HTTP/1.0\r\n\r\n")).status == 200


@pytest.mark.parametrize("extra", [0, 1])
async def test_informational_answers_have_a_bound(stage: Stage, extra: int) -> None:
    """An arm that sends them for ever has not answered."""
    stage.route(0)
    stage.champion.script = ArmServer.say(HINTS * (16 + extra) + OK)
    reader, writer = await stage.connect()
    writer.write(request())
    answers = [await asyncio.wait_for(read_message(reader), 10) for _ in range(17)]
    assert [answer.status for answer in answers] == [103] * 16 + [502 if extra else 200]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST /nowhere HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", 404),
        (POST + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n", 413),
        (b"POST /r/bid HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 200),
        (POST + b"Expect: 100-Continue\r\nContent-Length: 0\r\n\r\n", 200),
        (POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx", 200),
    ],
)
async def test_no_body_is_asked_for_in_vain(stage: Stage, raw: bytes, status: int) -> None:
    """Where the answer is decided, the body is there, or the caller knows no 100, the answer comes first."""
    stage.route(0)
    assert (await stage.send(raw)).status == status


async def test_a_loop_is_seen(stage: Stage) -> None:
    """A request that comes back to the gateway is answered 508, and goes no further."""
    stage.route(0)
    await stage.ask()
    via = stage.champion.seen[0]["via"] or ""
    assert (await stage.ask(Via=f"1.0 other, {via}, 1.1 another")).status == 508
    assert (await stage.ask(Via="1.1 other")).status == 200
    assert stage.champion.seen[1]["via"] == f"1.1 other, {via}"


async def test_any_method_is_passed_on(stage: Stage) -> None:
    """As it is; OPTIONS for the whole server is for the whole arm."""
    stage.route(0, match=Match(host="gateway.test"))
    for method in ("BREW", "get", "M-SEARCH"):
        assert (await stage.ask(method, "/x")).status == 200
    await stage.ask("OPTIONS", "*")
    lines = [seen.line for seen in stage.champion.seen]
    assert lines[:3] == [f"{method} /score/x HTTP/1.1" for method in ("BREW", "get", "M-SEARCH")]
    assert lines[3] == "OPTIONS /score HTTP/1.1"


async def test_no_connection_is_left_behind(stage: Stage) -> None:
    """After every kind of attack the worker knows of no connection."""
    stage.route(0)
    for attack in ATTACKS.values():
        await stage.send(attack)
    await until(stage.worker.quiet.is_set)


class Silent(asyncio.Transport):
    """A transport that takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def abort(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


TOKENS = [
    b"GET ",
    b"POST ",
    b"/r/bid",
    b"/healthz",
    b" HTTP/1.1\r\n",
    HOST,
    b"\r\n",
    b"\n",
    b" ",
    b":",
    b"0\r\n\r\n",
]
TOKENS += [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"5\r\nhello\r\n",
]
BYTES = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(TOKENS)), max_size=30)


async def survives(stage: Stage, pieces: list[bytes]) -> None:
    """A connection takes any bytes, in any pieces, and can be ended afterwards."""
    connection = ClientConnection(stage.worker)
    connection.connection_made(Silent())
    for piece in pieces:
        connection.data_received(piece)
    connection.expire(float("inf"))
    connection.connection_lost(None)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=BYTES)
async def test_arbitrary_bytes_never_raise(stage: Stage, pieces: list[bytes]) -> None:
    """Whatever a caller sends, nothing escapes to the loop."""
    await survives(stage, pieces)


@pytest.mark.long
@settings(max_examples=20_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=BYTES)
async def test_arbitrary_bytes_never_raise_for_long(stage: Stage, pieces: list[bytes]) -> None:
    """The same, over many more inputs."""
    await survives(stage, pieces)
