"""Claims about where bodies end: in whatever pieces they come, and as other readers of HTTP see it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.gateway.bodies import (
    CHUNK_LINE_BYTES,
    TRAILER_BYTES,
    BodyReader,
    ChunkReader,
    LengthReader,
    StreamReader,
    chunked,
)
from app.gateway.heads import BadMessage

Result = tuple[bytes, bytes] | None
NEXT = b"GET / HTTP/1.1\r\n"


def read(reader: BodyReader, parts: Sequence[bytes]) -> Result:
    """The body and what comes after it; None when it is refused."""
    pieces: list[bytes] = []
    rest = b""
    try:
        for part in parts:
            rest += part if reader.complete else reader.feed(part, pieces)
    except BadMessage:
        return None
    assert all(pieces)
    assert reader.complete or not rest
    return b"".join(pieces), rest


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """The data in parts, none of them empty."""
    ends = [0, *sorted({place % len(data) for place in places} - {0}), len(data)] if data else []
    return [data[start:end] for start, end in pairwise(ends)]


PLACES = st.lists(st.integers(0, 5_000), max_size=12)


@given(body=st.binary(max_size=200), rest=st.binary(max_size=20), places=PLACES)
def test_a_length_is_counted_over_any_pieces(body: bytes, rest: bytes, places: list[int]) -> None:
    """So many bytes are the body, and the next one is not."""
    reader = LengthReader(len(body))
    assert reader.complete is (not body)
    assert read(reader, cut(body + rest, places)) == (body, rest)
    assert reader.complete


def test_a_length_that_is_not_reached_is_not_complete() -> None:
    """One byte less is a body that is still to come."""
    reader = LengthReader(3)
    assert read(reader, [b"ab"]) == (b"ab", b"")
    assert not reader.complete
    assert read(reader, [b"c"]) == (b"c", b"")
    assert reader.complete


def test_a_stream_never_ends_by_itself() -> None:
    """Whatever comes is its body; only its connection's end is its own."""
    reader = StreamReader()
    assert read(reader, [b"0\r\n\r\n", NEXT]) == (b"0\r\n\r\n" + NEXT, b"")
    assert not reader.complete


@given(
    groups=st.lists(st.lists(st.binary(max_size=100), max_size=3), max_size=6),
    rest=st.binary(max_size=20),
    places=PLACES,
)
def test_what_is_framed_in_chunks_is_read_back(
    groups: list[list[bytes]], rest: bytes, places: list[int]
) -> None:
    """As the gateway frames it, with the last chunk alone or together with data."""
    for framed in (
        b"".join(chunked(pieces, last=False) for pieces in groups) + chunked([], last=True),
        b"".join(chunked(pieces, last=pieces is groups[-1]) for pieces in groups) if groups else b"0\r\n\r\n",
    ):
        body = b"".join(map(b"".join, groups))
        reader = ChunkReader()
        assert read(reader, cut(framed + rest, places)) == (body, rest)
        assert reader.complete


SIZES = [b"0", b"1", b"2", b"3", b"0A", b"a", b"00", b"000000000000001", b"f", b"10"]
FRAGMENTS = st.sampled_from(
    [
        *(size + b"\r\n" for size in SIZES),
        *(
            size + extension + b"\r\n"
            for size in (b"1", b"0")
            for extension in (b";a", b";a=b", b';a="\\"\r"')
        ),
        *(
            b"a\r\n",
            b"ab\r\n",
            b"abc\r\n",
            b"0123456789\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b";",
            b"0",
            b"g",
            b"-",
        ),
        *(b"X: y\r\n", b"0\r\n\r\n", b"1\r\na\r\n", b"X : y\r\n", b" y\r\n", b"\0"),
    ]
)
CHUNKS = st.sampled_from([b"1\r\na\r\n", b"002;x\r\nab\r\n", b'A;a="b"\r\n0123456789\r\n'])
ENDS = st.sampled_from([b"0\r\n\r\n", b"000\r\nX: y\r\n\r\n", b"0\r\n\r\n" + NEXT])
NEARLY = st.builds(
    lambda chunks, end, at, size, noise: (chunks + end)[:at] + noise + (chunks + end)[at + size :],
    st.lists(CHUNKS, max_size=3).map(b"".join),
    ENDS,
    st.integers(0, 60),
    st.integers(0, 2),
    FRAGMENTS | st.just(b""),
)
BODIES = st.lists(FRAGMENTS, max_size=8).map(b"".join) | NEARLY


@settings(max_examples=500)
@given(body=BODIES, places=PLACES)
@example(body=b"1\r\na\r\n0\r\n\r\n", places=list(range(20)))
@example(body=b"1\r\naX0\r\n\r\n", places=list(range(20)))
@example(body=b"1\r\na\r\r\n0\r\n\r\n", places=list(range(20)))
@example(body=b"1\r\r\na\r\n0\r\n\r\n", places=list(range(20)))
def test_chunks_are_read_alike_in_any_pieces(body: bytes, places: list[int]) -> None:
    """What is a good body whole is one in parts, with the same content, and what is refused is refused."""
    whole, parted = ChunkReader(), ChunkReader()
    assert read(whole, [body] if body else []) == read(parted, cut(body, places))
    assert whole.complete == parted.complete


class _Other:
    """The same body, read by llhttp."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@settings(max_examples=500)
@given(body=BODIES)
@example(body=b'1;a="\\"";b\r\na\r\n0\r\nX: y\r\n\r\n')
def test_what_is_accepted_means_the_same_to_others(body: bytes) -> None:
    """A body that is whole to us is one to llhttp, with the same content: nothing hides in between."""
    reader = ChunkReader()
    result = read(reader, [body] if body else [])
    if result is None or not reader.complete or re.search(rb"[ \t][;=]|[;=][ \t]", body) is not None:
        return  # llhttp takes no space in extensions, which RFC 9112, 7.1.1 says must be read
    content, rest = result
    other = _Other()
    parser = httptools.HttpRequestParser(other)
    parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    parser.feed_data(body[: len(body) - len(rest)])
    assert (other.body, other.complete) == (content, True)


REFUSED = {
    "no size": b"\r\n",
    "sign": b"+1\r\na\r\n",
    "minus": b"-1\r\na\r\n",
    "prefix": b"0x1\r\na\r\n",
    "underscore": b"1_0\r\n",
    "space before": b" 1\r\na\r\n",
    "space after": b"1 \r\na\r\n",
    "tab after": b"1\t\r\na\r\n",
    "sixteen digits": b"0000000000000001\r\na\r\n",
    "beyond ASCII": b"\xb1\r\na\r\n",
    "bare LF after the size": b"1\na\r\n0\r\n\r\n",
    "bare CR after the size": b"1\ra\r\n0\r\n\r\n",
    "bare LF after the data": b"1\r\na\n0\r\n\r\n",
    "no line end after the data": b"1\r\na0\r\n\r\n",
    "CR and something": b"1\r\na\rX0\r\n\r\n",
    "more data than said": b"1\r\nab\r\n0\r\n\r\n",
    "extension without a name": b"1;\r\na\r\n",
    "extension that is no token": b"1;a(\r\na\r\n",
    "extension with an open quote": b'1;a="b\r\na\r\n',
    "extension with a control character": b'1;a="\x01"\r\na\r\n',
    "extension with a bare CR": b'1;a="\r"\r\na\r\n',
    "extension with a bare LF": b"1;a\nb\r\na\r\n",
    "comma for an extension": b"1,a\r\na\r\n",
    "trailer without a colon": b"0\r\nX\r\n\r\n",
    "trailer with a space before the colon": b"0\r\nX : y\r\n\r\n",
    "folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
    "trailer with a NUL": b"0\r\nX: \0\r\n\r\n",
    "trailer with a bare LF": b"0\r\nX: y\nZ: z\r\n\r\n",
    "trailer with a bare CR": b"0\r\nX: y\rZ: z\r\n\r\n",
    "bare LF at the end": b"0\r\n\n",
    "two bare LFs": b"0\n\n",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_chunks_are_exact_or_refused(body: bytes) -> None:
    """Whole, and byte by byte."""
    assert read(ChunkReader(), [body]) is None
    assert read(ChunkReader(), [bytes([byte]) for byte in body]) is None


@pytest.mark.parametrize(
    "line",
    [
        b"1;a",
        b"1;a=b",
        b'1;a="b c"',
        b'1;a="\\"";b;c=d',
        b"1 ; a = b",
        b'1\t;\ta\t=\t""',
        b"00001",
        b'1;A="\xe4"',
    ],
)
def test_extensions_are_dropped(line: bytes) -> None:
    """They say nothing that a gateway has to know, nor to pass on."""
    assert read(ChunkReader(), [line + b"\r\na\r\n0\r\n\r\n"]) == (b"a", b"")


def test_trailers_are_dropped() -> None:
    """The body ends behind them."""
    assert read(ChunkReader(), [b"1\r\na\r\n0;last\r\nX: y\r\nZ:\r\n\r\n" + NEXT]) == (b"a", NEXT)


def size_line(extra: int) -> bytes:
    """A whole body whose first line is so much longer than it may be."""
    return b"1;%b\r\na\r\n0\r\n\r\n" % (b"x" * (CHUNK_LINE_BYTES - 2 + extra))


def trailer_line(extra: int) -> bytes:
    """A whole body with a trailer field that is so much longer than it may be."""
    return b"1\r\na\r\n0\r\nX:%b\r\n\r\n" % (b"y" * (CHUNK_LINE_BYTES - 2 + extra))


def trailers(extra: int) -> bytes:
    """A whole body whose trailer fields are together so much longer than they may be."""
    lines = b"X:%b\r\n" % (b"y" * 508) * 15
    missing = TRAILER_BYTES - len(lines) - 2
    return b"1\r\na\r\n0\r\n%bX:%b\r\n\r\n" % (lines, b"y" * (missing + extra - 4))


@pytest.mark.parametrize("build", [size_line, trailer_line, trailers])
@pytest.mark.parametrize("extra", [0, 1])
def test_bounds_hold_to_the_byte(build: Callable[[int], bytes], extra: int) -> None:
    """The longest that is allowed is read, one byte more is refused, however it is cut where lines end."""
    body = build(extra)
    expected = None if extra else (b"a", b"")
    assert read(ChunkReader(), [body]) == expected
    assert read(ChunkReader(), [bytes([byte]) for byte in body]) == expected
    for end in [place for place, byte in enumerate(body) if byte in b"\r\n"]:
        assert read(ChunkReader(), cut(body, [end])) == expected
        assert read(ChunkReader(), cut(body, [end + 1])) == expected


def test_endless_lines_are_refused_before_they_end() -> None:
    """Nothing is kept of a line that can only be too long."""
    for start, status in ((b"1;", 400), (b"0\r\nX: ", 431)):
        reader = ChunkReader()
        with pytest.raises(BadMessage) as bad:
            reader.feed(start + b"y" * (CHUNK_LINE_BYTES + 2), [])
        assert bad.value.status == status


def test_nothing_is_framed_as_nothing() -> None:
    """An empty chunk would be the end of the body."""
    assert chunked([], last=False) == chunked([b"", b""], last=False) == b""
    assert chunked([b"a", b"b"], last=True) == b"2\r\nab\r\n0\r\n\r\n"
