"""Claims about the grammar of heads: what is in them is allowed by name, and hope is given up at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.answers import Answer
from app.gateway.heads import (
    BadMessage,
    FieldLines,
    is_bodiless,
    is_hopeless,
    is_token,
    length_of,
    tokens_of,
)
from app.gateway.requests import Request
from app.gateway.settings import GatewaySettings

TOKEN_BYTES = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
LINE = st.binary(max_size=20).map(
    lambda data: data.translate(None, bytes(range(9)) + bytes(range(10, 32)) + b"\x7f")
)
NOISE = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"\0", b"\t", b" ", b":", b"a", b"\x7f", b"\x80"]))


def request_lines(head: bytes) -> list[bytes]:
    """What is passed on of a request with this head."""
    request = Request()
    request.read_head(head, GatewaySettings())
    return request.lines


def answer_lines(head: bytes) -> list[bytes]:
    """What is passed on of an answer with this head."""
    answer = Answer()
    answer.read_head(head, b"GET")
    return answer.lines


Read = Callable[[bytes], list[bytes]]
START: dict[Read, bytes] = {
    request_lines: b"GET / HTTP/1.1\r\nHost: h",
    answer_lines: b"HTTP/1.1 200 OK",
}
either = pytest.mark.parametrize("read", START)


@either
@given(values=st.lists(LINE, min_size=1))
def test_lines_are_passed_on_as_they_were_joined(read: Read, values: list[bytes]) -> None:
    """Text, tabs and bytes beyond ASCII are the content of lines; CRLF alone ends one."""
    lines = [START[read], *(b"X: " + value for value in values)]
    assert read(b"\r\n".join(lines)) == [b"X: %b\r\n" % value.strip(b" \t") for value in values]


@either
@pytest.mark.parametrize("control", [*range(9), *range(10, 32), 127])
@pytest.mark.parametrize("place", ["%b", "a: %b", "a: b%b", "a%b: b\r\nc: d", "a: b\r\n%b", "a: b\r\n%b: c"])
def test_no_control_character_passes(read: Read, control: int, place: str) -> None:
    """Wherever it stands, a CR or LF by itself among them; the tab is the only one that may."""
    with pytest.raises(BadMessage) as bad:
        read(START[read] + b"\r\n" + place.encode() % bytes([control]))
    assert bad.value.status == 400


@either
@pytest.mark.parametrize("control", [*range(32), 127])
def test_no_control_character_passes_in_the_first_line(read: Read, control: int) -> None:
    """Neither in a request line nor in a status line, but for the tab in a reason."""
    first, _, rest = START[read].partition(b"\r\n")
    for at in range(len(first) + 1):
        if control == 9 and read is answer_lines and at > len(b"HTTP/1.1 200"):
            continue
        with pytest.raises(BadMessage) as bad:
            read(first[:at] + bytes([control]) + first[at:] + b"\r\n" + rest)
        assert bad.value.status == (400 if read is request_lines else 502)


@either
@given(part=NOISE.map(b"".join), rest=NOISE.map(b"".join))
def test_a_hopeless_head_never_becomes_a_good_one(read: Read, part: bytes, rest: bytes) -> None:
    """Whatever may still come, it would be refused, alone and behind a good start."""
    for head in (part, START[read] + b"\r\n" + part):
        if is_hopeless(head):
            with pytest.raises(BadMessage):
                read(head + rest)


@given(lines=st.lists(LINE, min_size=1), cut=st.integers(0, 100))
def test_a_good_head_is_hopeful_all_along(lines: list[bytes], cut: int) -> None:
    """Cut anywhere, also between CR and LF."""
    assert not is_hopeless(b"\r\n".join(lines)[:cut])


@pytest.mark.parametrize("byte", range(256))
def test_a_token_is_made_of_what_the_standard_lists(byte: int) -> None:
    """RFC 9110, 5.6.2: 77 characters, and no others."""
    assert is_token(b"a%b" % bytes([byte])) is (byte in TOKEN_BYTES)
    assert not is_token(b"")
    assert not is_token(b"a\n")


def lines(asked: list[bytes]) -> FieldLines[int]:
    """What header lines say; `asked` are the names that were looked up."""

    def taker(lower: bytes) -> int:
        asked.append(lower)
        return len(lower)

    return FieldLines(taker)


def test_a_line_says_name_and_value_and_is_learnt() -> None:
    """Without the space around the value; the name keeps its spelling where it is passed on."""
    asked: list[bytes] = []
    known = lines(asked)
    for _ in range(2):
        assert known[b"X-a: \tb c\xff \t"] == (b"x-a", b"b c\xff", b"X-a: b c\xff\r\n", 3)
    assert known[b"X-A:"] == (b"x-a", b"", b"X-A: \r\n", 3)
    assert known[b"x:a:b"] == (b"x", b"a:b", b"x: a:b\r\n", 1)
    assert asked == [b"x-a", b"x-a", b"x"]


@pytest.mark.parametrize(
    "line",
    [b"", b":", b": y", b"a b: y", b" a: y", b"a : y", b"a\t: y", b"a\x80: y", b"(a): y", b"a", b"\ta: y"],
)
def test_what_is_no_field_is_refused(line: bytes) -> None:
    """Each time, and it is not remembered."""
    known = lines([])
    for _ in range(2):
        with pytest.raises(BadMessage, match="a header field must be"):
            known[line]
    assert len(known) == 0


def test_what_is_learnt_is_bounded_and_holds_no_secrets() -> None:
    """Only so many lines, no long ones, and none of those in which callers say who they are."""
    known = lines([])
    for name in (b"Authorization", b"COOKIE", b"Set-Cookie", b"x-api-key"):
        assert known[name + b": s3cret"][1] == b"s3cret"
    assert known[b"x: " + b"y" * 300][1] == b"y" * 300
    assert len(known) == 0
    for number in range(10_000):
        assert known[b"x: %d" % number][1] == b"%d" % number
    assert 0 < len(known) <= 2_048


@given(st.lists(st.tuples(st.sampled_from([b"A", b"a", b"X-B", b"Cookie", b"AUTHORIZATION"]), LINE)))
def test_the_first_of_a_name_counts_however_it_is_looked_for(fields: list[tuple[bytes, bytes]]) -> None:
    """By walking the lines, and by their index, also where they are not remembered."""
    known = lines([])
    heads = [b"%b:%b" % field for field in fields]
    said = [known[line][:2] for line in heads]
    index = known.by_name(heads)
    assert index == dict(reversed(said))
    for name in (b"a", b"x-b", b"cookie", b"authorization", b"absent"):
        assert known.find(heads, name) == index.get(name)


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"007", 7), (b"9" * 18, int("9" * 18)), (b"0" * 18, 0)],
)
def test_a_length_is_digits(value: bytes, length: int) -> None:
    """Up to 18 of them, which is below 2^63."""
    assert length_of(value) == length


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"+1",
        b"-1",
        b"1,1",
        b"1, 1",
        b"0x1",
        b"1_0",
        b"1.0",
        b" 1",
        b"1\t",
        b"\xb2",
        b"1" * 19,
        b"0" * 19,
    ],
)
def test_anything_else_is_no_length(value: bytes) -> None:
    """No sign, space, list, base or separator, and no digit beyond ASCII."""
    with pytest.raises(BadMessage) as bad:
        length_of(value)
    assert bad.value.status == 400


def test_a_list_of_tokens_is_read_without_spaces_and_case() -> None:
    """As Connection's value is."""
    assert tokens_of(b"Keep-Alive ,\tCLOSE,,x") == (b"keep-alive", b"close", b"", b"x")


@pytest.mark.parametrize(
    ("method", "status", "bodiless"),
    [
        (b"GET", 200, False),
        (b"HEAD", 200, True),
        (b"HEAD", 404, True),
        (b"head", 200, False),
        (b"GET", 204, True),
        (b"POST", 304, True),
        (b"GET", 205, False),
        (b"GET", 103, True),
        (b"GET", 500, False),
    ],
)
def test_which_answers_have_no_body(method: bytes, status: int, bodiless: bool) -> None:
    """RFC 9112, 6.3: answers to HEAD, and 1xx, 204 and 304. Methods are told apart by case."""
    assert is_bodiless(method, status) is bodiless


@given(lines=NOISE.map(b"".join), looked_at=st.integers(0, 30))
def test_what_was_looked_at_need_not_be_again(lines: bytes, looked_at: int) -> None:
    """Of a head whose beginning was hopeful, the rest tells: so that a head in single bytes costs little."""
    looked_at = min(looked_at, len(lines))
    if not is_hopeless(lines[:looked_at]):
        assert is_hopeless(lines, looked_at) is is_hopeless(lines)
