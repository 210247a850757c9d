"""Claims about what is read of a request: one meaning or none."""

from __future__ import annotations

import msgspec
import pytest

from app.gateway.heads import BadMessage
from app.gateway.requests import FORWARDING, REPLAY_BYTES, Request
from app.gateway.settings import GatewaySettings

LIMITS = GatewaySettings()
GET = b"GET / HTTP/1.1\r\nHost: a"
POST = b"POST / HTTP/1.1\r\nHost: a"


def read(head: bytes, settings: GatewaySettings = LIMITS) -> Request:
    """A request whose head has been read."""
    request = Request()
    request.read_head(head, settings)
    return request


def status_of(head: bytes, settings: GatewaySettings = LIMITS) -> int:
    """What a caller gets for this head; 0 where nothing is wrong with it."""
    try:
        read(head, settings)
    except BadMessage as bad:
        return bad.status
    return 0


REFUSED = {
    400: {
        "no version": b"GET /\r\nHost: a",
        "HTTP/0.9": b"GET /",
        "two spaces": b"GET  / HTTP/1.1\r\nHost: a",
        "space at the end": b"GET / HTTP/1.1 \r\nHost: a",
        "space in the target": b"GET /a b HTTP/1.1\r\nHost: a",
        "space before": b" GET / HTTP/1.1\r\nHost: a",
        "tabs": b"GET\t/\tHTTP/1.1\r\nHost: a",
        "empty line": b"\r\nGET / HTTP/1.1\r\nHost: a",
        "no method": b" / HTTP/1.1\r\nHost: a",
        "method with a colon": b"GET: / HTTP/1.1\r\nHost: a",
        "method beyond ASCII": b"G\xcbT / HTTP/1.1\r\nHost: a",
        "lower-case version": b"GET / http/1.1\r\nHost: a",
        "another protocol": b"GET / ICAP/1.0\r\nHost: a",
        "long version": b"GET / HTTP/1.10\r\nHost: a",
        "short version": b"GET / HTTP/1\r\nHost: a",
        "signed version": b"GET / HTTP/+1.1\r\nHost: a",
        "no target": b"GET  HTTP/1.1\r\nHost: a",
        "target that is a name": b"GET a HTTP/1.1\r\nHost: a",
        "target that is an authority": b"GET a:80 HTTP/1.1\r\nHost: a",
        "asterisk without OPTIONS": b"GET * HTTP/1.1\r\nHost: a",
        "tab in the target": b"GET /\tHTTP/1.1 HTTP/1.1\r\nHost: a",
        "tab in a URL": b"GET http://a/\tb HTTP/1.1\r\nHost: a",
        "fragment": b"GET /a#b HTTP/1.1\r\nHost: a",
        "target beyond ASCII": b"GET /\xe4 HTTP/1.1\r\nHost: a",
        "another scheme": b"GET ftp://a/ HTTP/1.1\r\nHost: a",
        "scheme without a host": b"GET http:///x HTTP/1.1\r\nHost: a",
        "host without a name": b"GET http://:80/x HTTP/1.1\r\nHost: a",
        "user in the target": b"GET http://u@a/ HTTP/1.1\r\nHost: a",
        "no Host": b"GET / HTTP/1.1",
        "no Host beside a URL": b"GET http://a/ HTTP/1.1",
        "two Hosts": GET + b"\r\nHost: a",
        "two Hosts in 1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b",
        "Host list": b"GET / HTTP/1.1\r\nHost: a, b",
        "Host with a path": b"GET / HTTP/1.1\r\nHost: a/b",
        "Host with a user": b"GET / HTTP/1.1\r\nHost: u@a",
        "Host with a space": b"GET / HTTP/1.1\r\nHost: a b",
        "Host with a bad port": b"GET / HTTP/1.1\r\nHost: a:b",
        "Host with a long port": b"GET / HTTP/1.1\r\nHost: a:123456",
        "Host that is too long": b"GET / HTTP/1.1\r\nHost: " + b"a" * 262,
        "Host beyond ASCII": b"GET / HTTP/1.1\r\nHost: \xe4",
        "Host with an open bracket": b"GET / HTTP/1.1\r\nHost: [::1",
        "name without a colon": GET + b"\r\nX",
        "name alone that is known": GET + b"\r\nContent-Length",
        "space before the colon": GET + b"\r\nX : y",
        "tab before the colon": GET + b"\r\nX\t: y",
        "folded line": GET + b"\r\nX: y\r\n z",
        "folded first line": b"GET / HTTP/1.1\r\n Host: a",
        "empty name": GET + b"\r\n: y",
        "name beyond ASCII": GET + b"\r\n\xe4: y",
        "two lengths": POST + b"\r\nContent-Length: 1\r\nContent-Length: 1",
        "length list": POST + b"\r\nContent-Length: 1, 1",
        "length and chunks": POST + b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        "no length and chunks": POST + b"\r\nContent-Length: 0\r\nTransfer-Encoding: chunked",
        "chunks twice": POST + b"\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "chunks in a list": POST + b"\r\nTransfer-Encoding: chunked, chunked",
        "chunks with a parameter": POST + b"\r\nTransfer-Encoding: chunked;q=1",
        "quoted chunks": POST + b'\r\nTransfer-Encoding: "chunked"',
        "empty coding": POST + b"\r\nTransfer-Encoding:",
        "identity": POST + b"\r\nTransfer-Encoding: identity",
        "coding with a control character": POST + b"\r\nTransfer-Encoding: \x0bchunked",
        "chunks in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked",
    },
    413: {"declared": POST + b"\r\nContent-Length: %d" % (LIMITS.body_bytes + 1)},
    417: {
        "unknown": POST + b"\r\nExpect: magic",
        "two": POST + b"\r\nExpect: 100-continue, magic",
        "empty": POST + b"\r\nExpect:",
    },
    501: {"CONNECT": b"CONNECT a:1 HTTP/1.1\r\nHost: a", "TRACE": b"TRACE / HTTP/1.1\r\nHost: a"},
    505: {
        "2.0": b"GET / HTTP/2.0\r\nHost: a",
        "preface": b"PRI * HTTP/2.0",
        "1.2": b"GET / HTTP/1.2\r\nHost: a",
        "0.9": b"GET / HTTP/0.9",
    },
}
CASES = [
    pytest.param(status, head, id=f"{status} {name}")
    for status, heads in REFUSED.items()
    for name, head in heads.items()
]


@pytest.mark.parametrize(("status", "head"), CASES)
def test_what_is_refused_has_its_status(status: int, head: bytes) -> None:
    """Nothing is repaired, and nothing that can be read in two ways is read."""
    assert status_of(head) == status


DOTS = [b".", b"..", b"%2e", b"%2E", b".%2e", b"%2e.", b"%2E%2e"]
SEPARATORS = [b"/", b"\\", b"%2f", b"%2F", b"%5c", b"%5C"]


@pytest.mark.parametrize("dots", DOTS)
@pytest.mark.parametrize("separator", SEPARATORS)
def test_dot_segments_are_refused_however_they_are_written(dots: bytes, separator: bytes) -> None:
    """An arm might resolve them, and be asked for what is under another route's prefix."""
    for end in (b"", b"/x", b"%5cx", b";x", b"?x"):
        target = b"/a" + separator + dots + end
        assert status_of(b"GET %b HTTP/1.1\r\nHost: a" % target) == 400
        assert status_of(b"GET http://b%b HTTP/1.1\r\nHost: a" % target) == 400


@pytest.mark.parametrize(
    "target",
    [b"/...", b"/a.b", b"/.a", b"/a..", b"/..a/b", b"/%2e%2e%2e", b"/a?b/../c", b"/%252e%252e/a", b"//a"],
)
def test_other_dots_are_none_of_these(target: bytes) -> None:
    """Names that begin or end with dots, and whatever is in the query."""
    request = read(b"GET %b HTTP/1.1\r\nHost: a" % target)
    assert request.path.encode() + (b"?" + request.query if b"?" in target else b"") == target


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://b/x?y=1", b"b", "/x", b"y=1"),
        (b"HTTPS://B:8443/x", b"B:8443", "/x", b""),
        (b"http://b", b"b", "/", b""),
        (b"http://b?y", b"b", "/", b"y"),
        (b"http://[::1]:80/", b"[::1]:80", "/", b""),
        (b"/x?", b"a", "/x", b""),
        (b"/?http://b/", b"a", "/", b"http://b/"),
    ],
)
def test_a_url_as_target_says_the_host(target: bytes, host: bytes, path: str, query: bytes) -> None:
    """RFC 9112, 3.2.2: its authority counts, whatever Host says."""
    request = read(b"GET %b HTTP/1.1\r\nHost: a" % target)
    assert (request.host, request.path, request.query) == (host, path, query)


def test_any_method_is_a_method() -> None:
    """Case counts, and only CONNECT and TRACE are not passed on."""
    assert [
        read(b"%b / HTTP/1.1\r\nHost: a" % method).method for method in (b"BREW", b"get", b"M-SEARCH")
    ] == [
        b"BREW",
        b"get",
        b"M-SEARCH",
    ]
    assert [
        read(b"%b / HTTP/1.1\r\nHost: a" % method).idempotent for method in (b"PUT", b"put", b"POST")
    ] == [
        True,
        False,
        False,
    ]
    assert read(b"OPTIONS * HTTP/1.1\r\nHost: a").path == "*"


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: Keep-Alive, CLOSE\r\n", False),
        (b"1.1", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: keep-alive\r\n", True),
        (b"1.0", b"Connection: close\r\nConnection: keep-alive\r\n", False),
        (b"1.0", b"Connection: x\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_who_wants_the_connection_kept(version: bytes, connection: bytes, kept: bool) -> None:
    """By the version, and by Connection where it is sent; `close` has the last word."""
    assert read(b"GET / HTTP/%b\r\n%bHost: a" % (version, connection)).keep_alive is kept


def test_the_host_may_be_left_out_of_1_0_only() -> None:
    """And it may be empty: a request need not be for a host."""
    assert read(b"GET / HTTP/1.0").host is None
    assert read(b"GET / HTTP/1.1\r\nHost:").host == b""


STRIPPED = [
    *(b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Proxy-Connection", b"HTTP2-Settings"),
    *(b"Proxy-Authorization", b"Proxy-Authenticate", b"Expect", b"Host", b"Content-Length"),
    *(
        b"Kingmaker-Decision",
        b"KINGMAKER-Anything",
        b"Kingmaker_Route",
        b"Content_Length",
        b"Transfer_Encoding",
    ),
    *FORWARDING,
]


@pytest.mark.parametrize("name", STRIPPED)
def test_what_is_of_this_connection_or_ours_stays_here(name: bytes) -> None:
    """Also in a spelling that some servers take for it. What we say about it is said anew."""
    value = {b"Content-Length": b"0", b"Expect": b"100-continue"}.get(name, b"x")
    head = b"GET / HTTP/1.1\r\n" + (b"" if name == b"Host" else b"Host: a\r\n")
    request = read(head + b"Keep: this\r\n%b: %b" % (name, value))
    assert request.lines == [b"Keep: this\r\n"]


def test_what_connection_names_is_dropped() -> None:
    """RFC 9110, 7.6.1: in any case, over several fields; but neither what frames the body, nor Via."""
    head = (
        POST
        + b"\r\nX-A: 1\r\nX-B: 2\r\nVia: c\r\nX-Forwarded-For: d\r\nContent-Length: 3"
        + b"\r\nConnection: HOST, x-a"
    )
    request = read(head + b"\r\nConnection: x-forwarded-for,via, Content-Length\r\nX-C: 3\r\nx-A: 4")
    assert request.lines == [b"X-B: 2\r\n", b"X-C: 3\r\n"]
    assert (request.forwarded, request.length, request.host) == ({b"via": b"c"}, 3, b"a")


def test_values_are_kept_to_the_byte() -> None:
    """But for the space around them; names keep their spelling, and fields their order."""
    request = read(GET + b"\r\nx-B: \t a \xff\tb \r\nX-a:\r\nx-B: c")
    assert request.lines == [b"x-B: a \xff\tb\r\n", b"X-a: \r\n", b"x-B: c\r\n"]
    assert request.field(b"x-b") == b"a \xff\tb"


def test_a_field_is_the_first_of_its_name_each_time_it_is_asked_for() -> None:
    """Whether it is the only one that anybody asks for, one of many, or asked for once more later on."""
    request = read(GET + b"\r\nX-A: 1\r\nCookie: c=1\r\nx-a: 2\r\nX-B:\r\nTE: trailers\r\nCookie: c=2")
    wanted = {b"x-a": b"1", b"cookie": b"c=1", b"x-b": b"", b"x-c": None, b"te": b"trailers", b"host": b"a"}
    for _ in range(2):
        for _ in range(2):
            assert {name: request.field(name) for name in wanted} == wanted
        request.forget()
    assert read(b"GET / HTTP/1.0").field(b"host") is None


def test_fields_are_indexed_for_whoever_asks_for_a_second_one() -> None:
    """Most requests are asked for one field, or for none: they pay for no index. It is not kept for long."""
    request = read(GET + b"\r\nX-A: 1")
    request.field(b"x-a")
    assert not request._fields
    request.field(b"x-a")
    assert request._fields == {b"host": b"a", b"x-a": b"1"}
    request.forget()
    assert request._fields is None


def test_fields_about_the_way_are_joined() -> None:
    """One list, in order, however many there were (RFC 9110, 5.3)."""
    request = read(GET + b"\r\nVia: 1.1 a\r\nVIA: 1.1 b\r\nX-Forwarded-For: c")
    assert request.forwarded == {b"via": b"1.1 a, 1.1 b", b"x-forwarded-for": b"c"}


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (b"1500", 1_500),
        (b"0", 0),
        (b"999999999", 999_999_999),
        (b"1000000000", None),
        (b"-1", None),
        (b"1.5", None),
    ],
)
def test_a_callers_deadline_is_a_number_or_ignored(value: bytes, milliseconds: int | None) -> None:
    """A nonsensical one must not fail a request."""
    assert read(GET + b"\r\nKingmaker-Timeout-Ms: " + value).timeout_ms == milliseconds


HANDSHAKE = (
    b"\r\nConnection: Upgrade\r\nUpgrade: websocket"
    b"\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13"
)


@pytest.mark.parametrize(
    ("head", "upgrade"),
    [
        (GET + HANDSHAKE, b"websocket"),
        (GET + HANDSHAKE.replace(b"websocket", b"WebSocket"), b"websocket"),
        (GET + HANDSHAKE + b"\r\nContent-Length: 0", b"websocket"),
        (GET + HANDSHAKE + b"\r\nContent-Length: 1", None),
        (GET + HANDSHAKE + b"\r\nTransfer-Encoding: chunked", None),
        (POST + HANDSHAKE, None),
        (GET + HANDSHAKE.replace(b"Connection: Upgrade", b"Connection: close"), None),
        (GET + HANDSHAKE.replace(b"websocket", b"h2c"), None),
        (GET + HANDSHAKE.replace(b"websocket", b"h2c, websocket"), None),
        (GET.replace(b"1.1", b"1.0") + HANDSHAKE, None),
    ],
)
def test_only_a_bare_websocket_handshake_is_an_upgrade(head: bytes, upgrade: bytes | None) -> None:
    """RFC 6455, 4.1; any other offer is ignored, as it may be (RFC 9110, 7.8)."""
    assert read(head).upgrade == upgrade


@pytest.mark.parametrize("extra", [0, 1])
def test_bounds_of_a_head_hold_to_one(extra: int) -> None:
    """As many fields, and as long a target, as the settings say; one more is refused."""
    settings = msgspec.structs.replace(LIMITS, head_fields=3, target_bytes=20, body_bytes=10)
    assert status_of(GET + b"\r\nX: y" * (2 + extra), settings) == 431 * extra
    target = b"/" + b"x" * (19 + extra)
    assert status_of(b"GET %b HTTP/1.1\r\nHost: a" % target, settings) == 414 * extra
    assert status_of(POST + b"\r\nContent-Length: %d" % (10 + extra), settings) == 413 * extra


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("sizes", [(10,), (5, 5), (1,) * 10])
def test_the_bound_of_a_body_without_a_length_holds_to_the_byte(sizes: tuple[int, ...], extra: int) -> None:
    """Its content counts, not its framing."""
    request = read(POST + b"\r\nTransfer-Encoding: chunked")
    body = b"".join(b"%x;%b\r\n%b\r\n" % (size, b"e" * 99, b"x" * size) for size in sizes)
    if extra:
        with pytest.raises(BadMessage) as bad:
            request.read_body(body + b"1\r\nx\r\n", 10)
        assert bad.value.status == 413
    else:
        assert request.read_body(body + b"0\r\n\r\n", 10) == b""
        assert (request.complete, request.received, request.pending) == (True, 10, 10)


def test_what_is_taken_of_a_body_is_kept_where_wanted() -> None:
    """Up to a bound; beyond it nobody else can have the request."""
    request = read(POST + b"\r\nContent-Length: %d" % (REPLAY_BYTES + 1))
    request.keep()
    request.read_body(b"x" * REPLAY_BYTES, LIMITS.body_bytes)
    assert (b"".join(request.take_body()), request.pending, request.can_replay) == (
        b"x" * REPLAY_BYTES,
        0,
        True,
    )
    assert request.kept == [b"x" * REPLAY_BYTES]
    request.read_body(b"y", LIMITS.body_bytes)
    assert (request.take_body(), request.can_replay, request.complete) == ([b"y"], False, True)
    unkept = read(POST + b"\r\nContent-Length: 2")
    assert unkept.can_replay
    unkept.read_body(b"x", LIMITS.body_bytes)
    assert unkept.take_body() == [b"x"]
    assert not unkept.can_replay
