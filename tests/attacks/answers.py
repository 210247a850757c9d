"""What does an arm say? Answers that are none, and what a caller may see of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.faults.origin import Then

OK = b"HTTP/1.1 200 OK\r\n"
SECOND = OK + b"X-Evil: yes\r\nContent-Length: 4\r\n\r\nevil"
"""An answer that nobody has asked for."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The caller gets a problem of the gateway's own; the connection to the arm is never used again."""

    status: int = 502


@dataclass(frozen=True, slots=True)
class Aborted:
    """The caller's answer is cut off before its end; the connection to the arm is never used again."""


@dataclass(frozen=True, slots=True)
class Passed:
    """The caller gets this answer. `reused`: so does the next request on the same connection to the arm."""

    status: int = 200
    body: bytes = b""
    has: Mapping[bytes, bytes] = field(default_factory=dict)
    lacks: tuple[bytes, ...] = ()
    reused: bool = True


@dataclass(frozen=True, slots=True)
class Garbage:
    """What an arm sends, in pieces with pauses between them, and what must become of it."""

    name: str
    pieces: tuple[bytes, ...]
    wanted: Failed | Aborted | Passed
    then: Then = Then.KEEP
    method: bytes = b"POST"
    hurried: bool = False


def _with(*lines: bytes, start: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return start + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def _length(body: bytes, *lines: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return _with(b"Content-Length: %d" % len(body), *lines, start=start, body=body)


def _chunked(body: bytes) -> bytes:
    return _with(b"Transfer-Encoding: chunked", body=body)


_TE = b"Transfer-Encoding: chunked"
_DONE = b"2\r\nok\r\n0\r\n\r\n"

_STARTS = {
    "status 000": b"HTTP/1.1 000 OK",
    "status 099": b"HTTP/1.1 099 OK",
    "status 600": b"HTTP/1.1 600 OK",
    "status 999": b"HTTP/1.1 999 OK",
    "status of two digits": b"HTTP/1.1 20 OK",
    "status of four digits": b"HTTP/1.1 2000 OK",
    "status with a sign": b"HTTP/1.1 +200 OK",
    "negative status": b"HTTP/1.1 -200 OK",
    "status with a letter": b"HTTP/1.1 2x0 OK",
    "status of full width": b"HTTP/1.1 \xef\xbc\x9200 OK",
    "no status": b"HTTP/1.1 OK",
    "nothing but the version": b"HTTP/1.1",
    "two spaces": b"HTTP/1.1  200 OK",
    "tab": b"HTTP/1.1\t200 OK",
    "space first": b" HTTP/1.1 200 OK",
    "status glued to the phrase": b"HTTP/1.1 200OK",
    "version 0.9": b"HTTP/0.9 200 OK",
    "version 1.2": b"HTTP/1.2 200 OK",
    "version 2.0": b"HTTP/2.0 200 OK",
    "version 2": b"HTTP/2 200 OK",
    "version 1": b"HTTP/1 200 OK",
    "version 1.10": b"HTTP/1.10 200 OK",
    "lower case": b"http/1.1 200 OK",
    "another protocol": b"ICY 200 OK",
    "a request": b"GET / HTTP/1.1",
    "NUL in the phrase": b"HTTP/1.1 200 O\x00K",
    "bare CR in the phrase": b"HTTP/1.1 200 O\rK",
    "ESC in the phrase": b"HTTP/1.1 200 \x1b[2J",
    "an empty line first": b"\r\nHTTP/1.1 200 OK",
    "101 unasked": b"HTTP/1.1 101 Switching Protocols",
    "101 unasked, with an upgrade": b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket",
}

_FIELDS = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 3",
    "two lengths alike": b"Content-Length: 2\r\nContent-Length: 2",
    "list of lengths": b"Content-Length: 2, 2",
    "length and coding": b"Content-Length: 2\r\n" + _TE,
    "coding and length": _TE + b"\r\nContent-Length: 2",
    "negative length": b"Content-Length: -2",
    "signed length": b"Content-Length: +2",
    "hexadecimal length": b"Content-Length: 0x2",
    "length with underscore": b"Content-Length: 0_2",
    "empty length": b"Content-Length:",
    "length over 64 bits": b"Content-Length: 18446744073709551618",
    "length is a word": b"Content-Length: two",
    "gzip coding": b"Transfer-Encoding: gzip",
    "gzip and chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked twice": _TE + b"\r\n" + _TE,
    "chunked, chunked": b"Transfer-Encoding: chunked, chunked",
    "identity": b"Transfer-Encoding: identity",
    "xchunked": b"Transfer-Encoding: xchunked",
    "empty coding": b"Transfer-Encoding:",
    "coding with vertical tab": b"Transfer-Encoding: \x0bchunked",
    "folded": b"X-A: b\r\n c\r\nContent-Length: 2",
    "folded length": b"Content-Length:\r\n 2",
    "NUL in a value": b"X-A: \x00\r\nContent-Length: 2",
    "NUL in a name": b"X\x00A: b\r\nContent-Length: 2",
    "bare CR in a value": b"X-A: b\rSet-Cookie: evil\r\nContent-Length: 2",
    "bare LF in a value": b"X-A: b\nSet-Cookie: evil\r\nContent-Length: 2",
    "ESC in a value": b"X-A: \x1b[2J\r\nContent-Length: 2",
    "space before the colon": b"Content-Length : 2",
    "no colon": b"X-A\r\nContent-Length: 2",
    "empty name": b": b\r\nContent-Length: 2",
    "name beyond ASCII": b"X-\xc3\xa9: b\r\nContent-Length: 2",
    "space first": b" Content-Length: 2",
    "too many fields": b"X-A: b\r\n" * 1_000 + b"Content-Length: 2",
    "too long a field": b"X-A: " + b"b" * 100_000 + b"\r\nContent-Length: 2",
}

_CHUNKS = {
    "no size": b"\r\nok\r\n0\r\n\r\n",
    "negative size": b"-2\r\nok\r\n0\r\n\r\n",
    "size with 0x": b"0x2\r\nok\r\n0\r\n\r\n",
    "size with underscore": b"0_2\r\nok\r\n0\r\n\r\n",
    "space after the size": b"2 \r\nok\r\n0\r\n\r\n",
    "size is no number": b"zz\r\nok\r\n0\r\n\r\n",
    "size over 64 bits": b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "size line ends in LF": b"2\nok\r\n0\r\n\r\n",
    "chunk ends in LF": b"2\r\nok\n0\r\n\r\n",
    "chunk too short": b"5\r\nok\r\n0\r\n\r\n",
    "chunk too long": b"1\r\nok\r\n0\r\n\r\n",
    "extension with LF": b"2;a\nb\r\nok\r\n0\r\n\r\n",
    "trailer folded": b"2\r\nok\r\n0\r\nX: y\r\n z\r\n\r\n",
    "trailer with NUL": b"2\r\nok\r\n0\r\nX: \x00\r\n\r\n",
    "trailer without colon": b"2\r\nok\r\n0\r\nX\r\n\r\n",
    "endless trailer": b"2\r\nok\r\n0\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
    "an answer after the end": _DONE + SECOND,
    "bytes after the end": _DONE + b"\r\n",
}

_INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
_CUT = (Then.CLOSE, Then.RESET)

ANSWERS = [
    *(Garbage(f"line: {name}", (_length(b"ok", start=start),), Failed()) for name, start in _STARTS.items()),
    *(Garbage(f"field: {name}", (_with(line, body=b"ok"),), Failed()) for name, line in _FIELDS.items()),
    *(Garbage(f"chunks: {name}", (_chunked(body),), Failed()) for name, body in _CHUNKS.items()),
    *(
        Garbage(f"later chunk: {name}", (_chunked(b"3\r\nabc\r\n"), body), Aborted())
        for name, body in _CHUNKS.items()
    ),
    Garbage("no bytes, then closed", (), Failed(), Then.CLOSE),
    Garbage("no bytes, then reset", (), Failed(), Then.RESET),
    Garbage("nothing in time", (), Failed(504), hurried=True),
    Garbage("half a head, and nothing more", (OK + b"X-A",), Failed(504), hurried=True),
    Garbage("an endless head", (OK, *(b"X: %b\r\n" % (b"y" * 8_000) for _ in range(12))), Failed()),
    *(Garbage(f"half a status line, then {end}", (b"HTTP/1.1 2",), Failed(), end) for end in _CUT),
    *(Garbage(f"half a head, then {end}", (OK + b"Content-Le",), Failed(), end) for end in _CUT),
    *(Garbage(f"a head without its end, then {end}", (OK + b"X: y\r\n",), Failed(), end) for end in _CUT),
    *(
        Garbage(
            f"too short for its length, then {end}",
            (_with(b"Content-Length: 9", body=b"ok"),),
            Aborted(),
            end,
        )
        for end in _CUT
    ),
    *(
        Garbage(f"a length and no body, then {end}", (_with(b"Content-Length: 9"),), Aborted(), end)
        for end in _CUT
    ),
    *(
        Garbage(f"chunks without end, then {end}", (_chunked(b"2\r\nok\r\n"),), Aborted(), end)
        for end in _CUT
    ),
    *(Garbage(f"half a chunk, then {end}", (_chunked(b"9\r\nok"),), Aborted(), end) for end in _CUT),
    *(
        Garbage(f"half a last chunk, then {end}", (_chunked(b"2\r\nok\r\n0\r\n"),), Aborted(), end)
        for end in _CUT
    ),
    Garbage("no framing, then reset", (_with(body=b"ok"),), Aborted(), Then.RESET),
    Garbage("no framing, then closed", (_with(body=b"ok"),), Passed(200, b"ok", reused=False), Then.CLOSE),
    Garbage("a body that stops", (_with(b"Content-Length: 9", body=b"ok"),), Aborted(), hurried=True),
    Garbage("two answers at once", (_length(b"ok") + SECOND,), Failed()),
    Garbage("two answers, the first without a body", (_length(b"") + SECOND,), Failed()),
    Garbage("a byte too many", (_length(b"ok") + b"!",), Failed()),
    Garbage("a line end too many", (_length(b"ok") + b"\r\n",), Failed()),
    Garbage(
        "more than its length, in two packets", (_with(b"Content-Length: 4", body=b"ok"), b"okok"), Aborted()
    ),
    Garbage("204 with a length and a body", (_length(b"ok", start=b"HTTP/1.1 204 No Content"),), Failed()),
    Garbage("204 with chunks", (_with(_TE, start=b"HTTP/1.1 204 No Content", body=_DONE),), Failed()),
    Garbage("204 and an answer", (_with(start=b"HTTP/1.1 204 No Content") + SECOND,), Failed()),
    Garbage("304 with a body", (_length(b"ok", start=b"HTTP/1.1 304 Not Modified"),), Failed()),
    Garbage("304 and an answer", (_with(start=b"HTTP/1.1 304 Not Modified") + SECOND,), Failed()),
    Garbage("HEAD with a body", (_length(b"ok"),), Failed(), method=b"HEAD"),
    Garbage("HEAD with chunks", (_chunked(_DONE),), Failed(), method=b"HEAD"),
    Garbage("HEAD with both", (_with(b"Content-Length: 2", _TE),), Failed(), method=b"HEAD"),
    Garbage("chunks in HTTP/1.0", (_with(_TE, start=b"HTTP/1.0 200 OK", body=_DONE),), Failed()),
    Garbage("a flood of 103", (_INTERIM * 100 + _length(b"ok"),), Failed()),
    Garbage("a flood of 100", (b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + _length(b"ok"),), Failed()),
    Garbage("103 with coding", (_with(_TE, start=b"HTTP/1.1 103 X") + _length(b"ok"),), Failed()),
    Garbage("103, then garbage", (_INTERIM + b"garbage\r\n\r\n",), Failed()),
    Garbage("103, then closed", (_INTERIM,), Failed(), Then.CLOSE),
    Garbage("103, then nothing", (_INTERIM,), Failed(504), hurried=True),
    Garbage("TLS", (b"\x15\x03\x01\x00\x02\x02\x46",), Failed(), Then.CLOSE),
    Garbage("HTML without a head", (b"<html></html>\n",), Failed(), Then.CLOSE),
    Garbage("NULs", (bytes(5_000),), Failed()),
    # what looks like an attack and is none
    Garbage("no phrase", (_length(b"ok", start=b"HTTP/1.1 200 "),), Passed(200, b"ok")),
    Garbage("no space after the status", (_length(b"ok", start=b"HTTP/1.1 200"),), Passed(200, b"ok")),
    Garbage("an unknown status", (_length(b"ok", start=b"HTTP/1.1 599 X"),), Passed(599, b"ok")),
    Garbage("HTTP/1.0", (_length(b"ok", start=b"HTTP/1.0 200 OK"),), Passed(200, b"ok", reused=False)),
    Garbage(
        "close",
        (_length(b"ok", b"Connection: close"),),
        Passed(200, b"ok", lacks=(b"connection",), reused=False),
    ),
    Garbage("204", (_with(start=b"HTTP/1.1 204 No Content"),), Passed(204)),
    Garbage(
        "204 with a length",
        (_with(b"Content-Length: 2", start=b"HTTP/1.1 204 X"),),
        Passed(204, lacks=(b"content-length",)),
    ),
    Garbage("304 with a length", (_with(b"Content-Length: 2", start=b"HTTP/1.1 304 X"),), Passed(304)),
    Garbage("HEAD with a length", (_with(b"Content-Length: 2"),), Passed(200), method=b"HEAD"),
    Garbage("HEAD without framing", (_with(),), Passed(200), method=b"HEAD"),
    Garbage(
        "chunks with trailers",
        (_chunked(b"2\r\nok\r\n0\r\nX-Evil: 1\r\n\r\n"),),
        Passed(200, b"ok", lacks=(b"x-evil", b"trailer")),
    ),
    Garbage("chunks with extensions", (_chunked(b'2;a="b"\r\nok\r\n0;c\r\n\r\n'),), Passed(200, b"ok")),
    Garbage(
        "a chunk that looks like an answer",
        (_chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SECOND), SECOND)),),
        Passed(200, SECOND),
    ),
    Garbage(
        "a nominated field",
        (_length(b"ok", b"Connection: X-A", b"X-A: b"),),
        Passed(200, b"ok", lacks=(b"x-a", b"connection")),
    ),
    Garbage("a nominated length", (_length(b"ok", b"Connection: Content-Length"),), Passed(200, b"ok")),
    Garbage(
        "hop-by-hop fields",
        (_length(b"ok", b"Keep-Alive: timeout=5", b"Upgrade: h2c", b"Proxy-Authenticate: x", b"Trailer: X"),),
        Passed(200, b"ok", lacks=(b"keep-alive", b"upgrade", b"proxy-authenticate", b"trailer")),
    ),
    Garbage(
        "fields of ours",
        (_length(b"ok", b"Kingmaker-Arm: evil", b"Kingmaker-Decision: evil", b"Kingmaker-X: evil"),),
        Passed(200, b"ok", has={b"kingmaker-arm": b"old"}, lacks=(b"kingmaker-x",)),
    ),
    Garbage("103 and an answer", (_INTERIM + _length(b"ok"),), Passed(200, b"ok", lacks=(b"link",))),
    Garbage("100 and an answer", (b"HTTP/1.1 100 Continue\r\n\r\n" + _length(b"ok"),), Passed(200, b"ok")),
    Garbage(
        "an encoded line end",
        (_length(b"ok", b"Location: /a%0d%0aSet-Cookie: b"),),
        Passed(200, b"ok", lacks=(b"set-cookie",)),
    ),
    Garbage(
        "high bytes in a value",
        (_length(b"ok", b"X-A: \xe9\xff"),),
        Passed(200, b"ok", has={b"x-a": b"\xe9\xff"}),
    ),
    Garbage(
        "a redirect",
        (_length(b"", b"Location: http://127.0.0.1:1/", start=b"HTTP/1.1 302 Found"),),
        Passed(302, has={b"location": b"http://127.0.0.1:1/"}),
    ),
]
"""Every answer."""
