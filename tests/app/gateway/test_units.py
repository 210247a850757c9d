"""Claims about which unit a request belongs to, wherever its route looks for it."""

from __future__ import annotations

import asyncio

import pytest

from app.gateway.requests import Request
from app.gateway.scalars import resolve
from app.gateway.settings import GatewaySettings
from app.gateway.units import JSON_BYTES, reader_of
from routing.assignment import Asked, Plan
from routing.features import Source, SourceKind
from tests.app.gateway.stage import Stage, claims_of, read_message, request

BY_USER = Source(kind=SourceKind.HEADER, name="X-User-Id")


def request_of(*headers: tuple[bytes, bytes], query: bytes = b"", body: bytes = b"") -> Request:
    """A request that has been read."""
    request = Request()
    length = (b"Content-Length", b"%d" % len(body))
    lines = [b"%b: %b" % field for field in ((b"Host", b"a"), length, *headers)]
    request.read_head(b"\r\n".join([b"POST /r/bid?%b HTTP/1.1" % query, *lines]), GatewaySettings())
    request.read_body(body, len(body))
    assert request.complete
    return request


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        ((b"u1",), "u1"),
        ((b"u1 \t",), "u1"),
        ((b"u1", b"u2"), "u1"),
        ((b"m\xc3\xbcller",), "m\u00fcller"),
        ((b"\xff",), "\udcff"),
        ((b"",), None),
        ((b"  ",), None),
        ((), None),
    ],
)
def test_a_header(values: tuple[bytes, ...], unit: str | None) -> None:
    """Its first value, without the space around it; an empty one is none. Bytes need not be text."""
    found = reader_of(BY_USER)(request_of(*((b"x-USER-id", value) for value in values)))
    assert found == unit


@pytest.mark.parametrize(
    ("cookie", "unit"),
    [
        (b"uid=u1", "u1"),
        (b"a=b; uid=u1;c=d", "u1"),
        (b'uid="u1"', "u1"),
        (b"uid=a=b==", "a=b=="),
        (b"uid=u1; uid=u2", "u1"),
        (b"xuid=u1; UID=u1", None),
        (b"uid=", None),
        (b"uid", None),
    ],
)
def test_a_cookie(cookie: bytes, unit: str | None) -> None:
    """The first one of exactly that name, without quotes."""
    source = Source(kind=SourceKind.COOKIE, name="uid")
    assert reader_of(source)(request_of((b"Cookie", cookie))) == unit
    assert reader_of(source)(request_of()) is None


@pytest.mark.parametrize(
    ("query", "unit"),
    [
        (b"uid=u1", "u1"),
        (b"a=b&uid=u%31", "u1"),
        (b"%75id=u1", "u1"),
        (b"uid=a+b%2Bc", "a b+c"),
        (b"uid=a=b", "a=b"),
        (b"uid=u1&uid=u2", "u1"),
        (b"uid=&uid=u2", None),
        (b"xuid=u1", None),
        (b"", None),
    ],
)
def test_a_query_parameter(query: bytes, unit: str | None) -> None:
    """The first one of that name, decoded as a form is."""
    assert reader_of(Source(kind=SourceKind.QUERY, name="uid"))(request_of(query=query)) == unit


@pytest.mark.parametrize(
    ("body", "unit"),
    [
        (b'{"user": {"id": "u1"}}', "u1"),
        (b'{"user": {"id": 7}}', "7"),
        (b'{"user": {"id": -1.5}}', "-1.5"),
        (b'{"user": {"id": 123456789012345678901234567890}}', "123456789012345678901234567890"),
        (b'{"user": {"id": "\\ud83d\\ude00"}}', "\U0001f600"),
        (b'{"user": {"id": "\\ud800"}}', None),
        (b'{"user": {"id": ""}}', None),
        (b'{"user": {"id": true}}', None),
        (b'{"user": {"id": null}}', None),
        (b'{"user": {"id": ["u1"]}}', None),
        (b'{"user": "id"}', None),
        (b'{"user": {"id": %b}}' % (b"9" * 5_000), None),
        (b'{"user": {"id": "u1"}', None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_a_place_in_a_json_body(body: bytes, unit: str | None) -> None:
    """A text, or a number as its text; anything else is no unit, and nothing raises."""
    assert reader_of(Source(kind=SourceKind.JSON, name="/user/id"))(request_of(body=body)) == unit


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", {"a/b": {"~": [1, {"": 2}]}, "0": 3}),
        ("/a~1b/~0/0", 1),
        ("/a~1b/~0/1/", 2),
        ("/0", 3),
        ("/a~1b/~0/2", None),
        ("/a~1b/~0/-1", None),
        ("/a~1b/~0/00", None),
        ("/a~1b/~0/-", None),
        ("a", None),
    ],
)
def test_pointers_are_read_as_their_standard_says(pointer: str, found: object) -> None:
    """RFC 6901: `~1` is a slash, `~0` a tilde, an index has no leading zero."""
    assert resolve({"a/b": {"~": [1, {"": 2}]}, "0": 3}, pointer) == found


def test_a_body_that_is_too_long_has_no_unit() -> None:
    """It is not searched."""
    body = b'{"user": "u1", "x": "%b"}' % (b"x" * JSON_BYTES)
    assert reader_of(Source(kind=SourceKind.JSON, name="/user"))(request_of(body=body)) is None


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        (BY_USER, request(X_User_Id="u1")),
        (Source(kind=SourceKind.COOKIE, name="uid"), request(Cookie="a=b; uid=u1; c=d")),
        (Source(kind=SourceKind.QUERY, name="uid"), request(path="/r/bid?a=b&uid=u%31")),
        (
            Source(kind=SourceKind.JSON, name="/user/ids/0"),
            request("POST", body=b'{"user": {"ids": ["u1"]}}'),
        ),
    ],
)
async def test_the_unit_is_found_wherever_it_is(stage: Stage, source: Source, sent: bytes) -> None:
    """The same unit has the same hash, whether in a header, a cookie, the query or the body."""
    route = stage.route(unit=source)
    claims = claims_of(await stage.send(sent))
    reference = Plan(route).assign(Asked("u1", 0))
    assert (claims.unit_hash, claims.has_unit) == (reference.unit_hash, True)


@pytest.mark.parametrize("body", [b"not json", b"{}", b'{"user": true}', b'{"user": ""}', b"[" * 100_000])
async def test_an_unreadable_unit_is_counted(stage: Stage, body: bytes) -> None:
    """A request without its declared unit is its own unit."""
    stage.route(unit=Source(kind=SourceKind.JSON, name="/user"))
    answer = await stage.ask("POST", body=body)
    assert answer.status == 200
    assert claims_of(answer).has_unit is False
    assert stage.counted("kingmaker_missing_units_total") == 1


async def test_a_unit_in_a_body_is_waited_for(stage: Stage) -> None:
    """A body that comes in chunks, over time, is searched whole, then forwarded whole."""
    route = stage.route(unit=Source(kind=SourceKind.JSON, name="/user"))
    reader, writer = await stage.connect()
    writer.write(b"POST /r/bid HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in (b'{"us', b'er": "u', b'1"}'):
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await asyncio.sleep(0.005)
    assert stage.champion.connections + stage.challenger.connections == 0
    writer.write(b"0\r\n\r\n")
    answer = await asyncio.wait_for(read_message(reader), 10)
    assert claims_of(answer).unit_hash == Plan(route).assign(Asked("u1", 0)).unit_hash
    (seen,) = stage.champion.seen + stage.challenger.seen
    assert seen.body == b'{"user": "u1"}'
    writer.close()


async def test_a_body_beyond_what_is_searched_is_still_forwarded(stage: Stage) -> None:
    """It has no unit, and arrives whole."""
    stage.route(0, unit=Source(kind=SourceKind.JSON, name="/user"))
    body = b'{"user": "u1", "x": "%b"}' % (b"x" * 3 * JSON_BYTES)
    answer = await stage.ask("POST", body=body)
    assert (answer.status, claims_of(answer).has_unit) == (200, False)
    assert stage.champion.seen[0].body == body
