"""Claims about what callers' bytes mean: the same in any pieces, and the same to another reader of HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.gateway.heads import END, BadMessage
from app.gateway.http1 import ClientConnection
from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings

LIMITS = GatewaySettings()
POST = b"POST / HTTP/1.1\r\nHost: a"


FIRST = [b"GET / HTTP/1.1", b"POST /a?b HTTP/1.1", b"PUT http://b/c HTTP/1.1", b"DELETE /a/%20/b HTTP/1.1"]
FIELDS = [
    b"X: y",
    b"X:\ty z\t",
    b"X: \xff",
    b"Connection: close",
    b"Upgrade: h2c",
    b"Content_Length: 9",
    b"X:",
]
FIELDS += [b"Expect: 100-continue", b"Connection: x, keep-alive", b"x-forwarded-for: c"]
FRAMED = [
    (b"", b""),
    (b"Content-Length: 3\r\n", b"abc"),
    (b"content-length:0\r\n", b""),
    (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    (b"transfer-encoding: Chunked \r\n", b"3;a=b\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX: y\r\n\r\n"),
]
GOOD = st.builds(
    lambda first, fields, framed: b"%b\r\nHost: a\r\n%b%b\r\n%b" % (first, fields, *framed),
    st.sampled_from(FIRST),
    st.lists(st.sampled_from(FIELDS).map(lambda line: line + b"\r\n"), max_size=3).map(b"".join),
    st.sampled_from(FRAMED),
)
NOISE = [
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\x0b",
    b"\xff",
    b";",
    b",",
    b"0",
    b"1",
    b"a",
    b"+",
    b"#",
    b"/..",
]
NOISE += [b"\r\nContent-Length: 3", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: b", b"\r\n\r\n", b""]
EDITS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), st.sampled_from(NOISE)), max_size=2)


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The bytes with some replaced: at a place, so many, by something else."""
    for place, size, noise in edits:
        at = place % len(raw)
        raw = raw[:at] + noise + raw[at + size :]
    return raw or b"\r\n"


MESSAGES = st.builds(edited, st.lists(GOOD, min_size=1, max_size=2).map(b"".join), EDITS)


_DISPUTED = re.compile(rb"content-length|transfer-encoding|[ \t]+;", re.IGNORECASE)
"""h11 judges trailers, which the gateway drops, and takes no space in extensions, which has to be read."""


@dataclass
class Meaning:
    """What a reader makes of the first request in some bytes."""

    method: bytes
    target: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes
    rest: bytes | None


def ours(raw: bytes) -> Meaning | None:
    """As the gateway reads it; None where it refuses. Without a rest where it is not all there."""
    end = raw.find(END)
    if end < 0:
        return None
    try:
        request = Request()
        request.read_head(raw[:end], LIMITS)
        rest = request.read_body(raw[end + 4 :], LIMITS.body_bytes)
    except BadMessage:
        return None
    path = request.path.encode() + (b"?" + request.query if request.query else b"")
    fields = [
        (name.lower(), value.strip(b" \t\r\n"))
        for name, _, value in (line.partition(b":") for line in request.lines)
    ]
    body = b"".join(request.pieces)
    return Meaning(request.method, path, fields, body, rest if request.complete else None)


def theirs(raw: bytes) -> Meaning:
    """As h11 reads it.

    Raises:
        h11.RemoteProtocolError: it refuses.
    """
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    body, rest = b"", None
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    if isinstance(event, h11.EndOfMessage):
        rest = connection.trailing_data[0]
    return Meaning(head.method, head.target, list(head.headers), body, rest)


@settings(max_examples=1_000)
@given(raw=MESSAGES)
@example(raw=b"%b\r\nTransfer-Encoding: Chunked \r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nrest" % POST)
@example(raw=b"PUT http://b/c HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX:\ty z\t\r\n\r\nabcrest")
def test_what_is_accepted_means_the_same_to_another_reader(raw: bytes) -> None:
    """Whatever we read, h11 reads, with the same method, target, fields, body and end."""
    meaning = ours(raw)
    body = raw[raw.find(END) :].removesuffix(meaning.rest or b"") if meaning is not None else b""
    if meaning is None or _DISPUTED.search(body) is not None:
        return
    other = theirs(raw)
    passed_on = {name for name, _ in meaning.fields}
    other.fields = [field for field in other.fields if field[0] in passed_on]
    other.target = re.sub(rb"^https?://[^/?]+/?", b"/", other.target, flags=re.IGNORECASE)
    other.target = re.sub(rb"^([^?]*)\?$", rb"\1", other.target)
    assert meaning == other


@dataclass
class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    written: bytes = b""
    closed: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return ("127.0.0.1", 1)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


@dataclass
class Echo:
    """Answers every request, when it is complete, with what was understood of it."""

    settings: GatewaySettings = LIMITS
    parting: bool = False
    draining: bool = False
    held: int = 0
    refused: list[int] = field(default_factory=list)

    def open(self, connection: ClientConnection, request: Request) -> Echoed:
        return Echoed(connection, request)

    def on_connected(self, connection: ClientConnection) -> bool:
        return True

    def on_lost(self, connection: ClientConnection) -> None: ...

    def on_refused(self, status: int) -> None:
        self.refused.append(status)

    def is_trusted(self, peer: str) -> bool:
        return False


@dataclass
class Echoed:
    """One request that is answered with what was understood of it."""

    client: ClientConnection
    request: Request

    def start(self) -> None:
        self.on_body()

    def on_body(self) -> None:
        request = self.request
        if request.complete:
            body = b"".join(request.take_body())
            head = b"%b %b?%b" % (request.method, request.path.encode(), request.query)
            self.client.answer(200, b"\n".join([head, *request.lines, body]))

    def abandon(self, status: int | None = None) -> None: ...
    def pause_answer(self) -> None: ...
    def resume_answer(self) -> None: ...


def conversation(parts: Sequence[bytes]) -> tuple[bytes, list[int]]:
    """What a caller is answered that sends these parts, and with which status it is refused at last."""
    front, wire = Echo(), Wire()
    connection = ClientConnection(front)
    connection.connection_made(wire)
    for part in parts:
        if not wire.closed:
            connection.data_received(part)
    connection.connection_lost(None)
    answers = wire.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    if front.refused:
        answers = answers[: answers.rindex(b"HTTP/1.1 %d" % front.refused[-1])]
    return answers, front.refused


@given(
    raw=st.lists(st.one_of(MESSAGES, st.just(b"\r\n")), min_size=1, max_size=4).map(b"".join),
    places=st.lists(st.integers(0, 1_000), max_size=20),
)
@example(raw=b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2, places=list(range(70)))
@example(raw=b"\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", places=list(range(40)))
def test_requests_are_read_alike_in_any_pieces(raw: bytes, places: list[int]) -> None:
    """The same answers in the same order, and the same end, however the bytes of a connection are cut."""
    ends = [0, *sorted({place % len(raw) for place in places} - {0}), len(raw)]
    parts = [raw[start:end] for start, end in pairwise(ends)]
    assert conversation(parts) == conversation([raw])


def test_empty_lines_before_a_request_are_ignored_twice() -> None:
    """RFC 9112, 2.2 asks for one; an endless number of them is no request."""
    good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert conversation([b"\r\n\r\n" + good, b"\r\n", b"\r\n" + good])[0].count(b" 200 OK") == 2
    assert conversation([b"\r\n\r\n\r\n" + good]) == (b"", [400])
