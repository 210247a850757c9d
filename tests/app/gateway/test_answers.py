"""Claims about what is read of an arm's answer: exactly framed or malformed, and nothing of its own hop."""

from __future__ import annotations

from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.answers import Answer
from app.gateway.heads import END, BadMessage

OK = b"HTTP/1.1 200 OK"


def read(head: bytes, method: bytes = b"GET") -> Answer:
    """An answer whose head has been read."""
    answer = Answer()
    answer.read_head(head, method)
    return answer


@pytest.mark.parametrize(
    ("line", "status", "reason", "kept"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", True),
        (b"HTTP/1.0 200 OK", 200, b"OK", False),
        (b"HTTP/1.1 404 ", 404, b"", True),
        (b"HTTP/1.1 404", 404, b"", True),
        (b"HTTP/1.1 599 What: \t\xe4\xff is this", 599, b"What: \t\xe4\xff is this", True),
        (b"HTTP/1.1 299 OK", 299, b"OK", True),
    ],
)
def test_a_status_line(line: bytes, status: int, reason: bytes, kept: bool) -> None:
    """Version, three digits, and a reason that may be left out. HTTP/1.0 ends its connections."""
    answer = read(line + b"\r\nContent-Length: 0")
    assert (answer.status, answer.reason, answer.keep_alive) == (status, reason, kept)


MALFORMED = {
    "no HTTP": b"nonsense",
    "empty": b"",
    "2.0": b"HTTP/2.0 200 OK",
    "1.2": b"HTTP/1.2 200 OK",
    "0.9": b"HTTP/0.9 200 OK",
    "lower case": b"http/1.1 200 OK",
    "no status": b"HTTP/1.1",
    "two digits": b"HTTP/1.1 20 OK",
    "four digits": b"HTTP/1.1 2000 OK",
    "600": b"HTTP/1.1 600 No",
    "999": b"HTTP/1.1 999 No",
    "099": b"HTTP/1.1 099 No",
    "two spaces": b"HTTP/1.1  200 OK",
    "space before": b" HTTP/1.1 200 OK",
    "reason with a control character": b"HTTP/1.1 200 O\x01K",
    "reason without a space": b"HTTP/1.1 200OK",
    "two lengths": OK + b"\r\nContent-Length: 1\r\nContent-Length: 1",
    "length list": OK + b"\r\nContent-Length: 1, 1",
    "signed length": OK + b"\r\nContent-Length: +1",
    "empty length": OK + b"\r\nContent-Length:",
    "length and chunks": OK + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "chunks and length": OK + b"\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
    "chunks twice": OK + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "other coding": OK + b"\r\nTransfer-Encoding: gzip, chunked",
    "identity": OK + b"\r\nTransfer-Encoding: identity",
    "204 in chunks": b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked",
    "103 in chunks": b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked",
    "no colon": OK + b"\r\nX",
    "space before the colon": OK + b"\r\nX : y",
    "folded": OK + b"\r\nX: y\r\n z",
    "empty name": OK + b"\r\n: y",
    "bare LF": OK + b"\r\nX: y\nZ: z",
    "bare CR": OK + b"\r\nX: y\rZ: z",
    "NUL": OK + b"\r\nX: \0",
    "201 fields": OK + b"\r\nX: y" * 201,
}


@pytest.mark.parametrize("head", MALFORMED.values(), ids=MALFORMED)
def test_what_is_not_exact_is_malformed(head: bytes) -> None:
    """What could be read in two ways is no answer."""
    with pytest.raises(BadMessage):
        read(head)


def test_two_hundred_fields_are_not_too_many() -> None:
    """The bound holds to one."""
    assert len(read(OK + b"\r\nX: y" * 200).lines) == 200


@pytest.mark.parametrize(
    ("method", "head"),
    [
        (b"HEAD", OK + b"\r\nContent-Length: 5"),
        (b"HEAD", OK + b"\r\nTransfer-Encoding: chunked"),
        (b"HEAD", OK),
        (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked"),
        (b"GET", OK + b"\r\nContent-Length: 0"),
    ],
)
def test_an_answer_without_a_body_is_complete(method: bytes, head: bytes) -> None:
    """With its head, whatever that says; what comes then is not part of it."""
    answer = read(head, method)
    assert answer.complete
    assert answer.keep_alive
    assert answer.read_body(b"x") == b"x"
    assert answer.take_body() == []


def test_an_answer_without_framing_ends_with_its_connection() -> None:
    """Which is not kept, then; for framed ones the end of the connection is no end."""
    answer = read(OK)
    assert answer.read_body(b"all ") == answer.read_body(b"of it") == b""
    assert (answer.complete, answer.keep_alive) == (False, False)
    assert answer.end()
    assert answer.take_body() == [b"all ", b"of it"]
    assert answer.take_body() == []
    for framed in (OK + b"\r\nContent-Length: 1", OK + b"\r\nTransfer-Encoding: chunked"):
        assert not read(framed).end()
    assert not Answer().end()


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: x, Close\r\n", False),
        (b"1.1", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: x\r\n", False),
    ],
)
def test_which_connections_are_kept(version: bytes, connection: bytes, kept: bool) -> None:
    """By the version, and by Connection; `close` has the last word."""
    assert read(b"HTTP/%b 200 OK\r\n%bContent-Length: 0" % (version, connection)).keep_alive is kept


@pytest.mark.parametrize(
    "name",
    [
        *(
            b"Connection",
            b"Keep-Alive",
            b"Proxy-Connection",
            b"Proxy-Authenticate",
            b"TE",
            b"Trailer",
            b"Upgrade",
        ),
        *(b"Kingmaker-Decision", b"kingmaker-arm", b"KINGMAKER-Anything"),
    ],
)
def test_what_is_of_this_connection_or_ours_is_dropped(name: bytes) -> None:
    """An arm speaks for itself alone."""
    assert read(OK + b"\r\nSet-Cookie: a\r\n%b: x\r\nset-cookie: b" % name).lines == [
        b"Set-Cookie: a\r\n",
        b"set-cookie: b\r\n",
    ]


def test_what_connection_names_is_dropped() -> None:
    """But for what frames the body."""
    answer = read(
        OK + b"\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 2\r\nConnection: x-a, Content-Length, keep-alive"
    )
    assert (answer.lines, answer.length) == ([b"X-B: 2\r\n"], 2)


HEADS = [
    b"",
    b"Content-Length: 3\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"X: y\r\n",
]
HEADS += [b"Connection: close\r\n", b"Content-Length: 3 \r\n", b"transfer-encoding:Chunked\r\n", b"X : y\r\n"]
LINES = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 200 OK\r\n",
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 304\r\n",
    b"HTTP/1.1 502 \r\n",
]
CONTENT = [
    b"",
    b"abc",
    b"abcd",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"3\r\nab",
    b"0\r\nX: y\r\n\r\n",
    b"3\nabc",
]
RAW = st.builds(
    lambda line, fields, content: line + b"".join(fields) + b"\r\n" + content,
    st.sampled_from(LINES),
    st.lists(st.sampled_from(HEADS), max_size=3),
    st.sampled_from(CONTENT),
)


def outcome(raw: bytes, method: bytes, places: list[int]) -> tuple[int, bytes, bool, bytes] | None:
    """Status, body, whether it is complete at the end, and what came after it; None: it is malformed."""
    end = raw.find(END) + 4
    try:
        answer = read(raw[: end - 4], method)
        body, rest = raw[end:], b""
        ends = [0, *sorted({place % len(body) for place in places} - {0}), len(body)] if body else []
        for start, stop in pairwise(ends):
            rest += body[start:stop] if answer.complete else answer.read_body(body[start:stop])
    except BadMessage:
        return None
    return answer.status, b"".join(answer.pieces), answer.end(), rest


@settings(max_examples=400)
@given(raw=RAW, method=st.sampled_from([b"GET", b"HEAD"]), places=st.lists(st.integers(0, 50), max_size=6))
def test_an_answer_means_the_same_in_any_pieces_and_to_others(
    raw: bytes, method: bytes, places: list[int]
) -> None:
    """However its body is cut; and what is an answer to us is one to h11, with the same body and end."""
    ours = outcome(raw, method, places)
    assert ours == outcome(raw, method, [])
    if ours is None:
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    connection.receive_data(b"")
    head = connection.next_event()
    assert isinstance(head, h11.Response)
    body, complete, rest = b"", False, b""
    try:
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
        complete = isinstance(event, h11.EndOfMessage)
        rest = connection.trailing_data[0]
    except h11.RemoteProtocolError:
        complete = False
    assert ours == (head.status_code, body, complete, rest)
