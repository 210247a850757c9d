"""Valid requests, and what chance makes of them: the same seed makes the same."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

_HOST = b"Host: gateway.test\r\nX-Nonce: 0123456789abcdef\r\n"
_KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"

VALID = (
    b"GET /r/bid HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"GET /r/bid?a=b&c=%20 HTTP/1.1\r\n" + _HOST + b"Accept: */*\r\nX-User-Id: ann\r\n\r\n",
    b"HEAD /r/bid HTTP/1.1\r\n" + _HOST + b"\r\n",
    b"POST /r/bid HTTP/1.1\r\n"
    + _HOST
    + b"Content-Type: text/plain\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST /r/bid/x/y HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-Trailer: y\r\n\r\n",
    b"POST /r/bid HTTP/1.1\r\n" + _HOST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"PUT /r/bid HTTP/1.0\r\n" + _HOST + b"Connection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://gateway.test/r/bid HTTP/1.1\r\n" + _HOST + b"Connection: X-A, close\r\nX-A: b\r\n\r\n",
    b"GET /r/bid HTTP/1.1\r\n" + _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + _KEY + b"\r\n",
    b"GET /r/bid HTTP/1.1\r\n"
    + _HOST
    + b"X-Forwarded-For: 1.2.3.4\r\nVia: 1.1 x\r\nForwarded: for=1.2.3.4\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    b"POST /v1/outcomes HTTP/1.1\r\n" + _HOST + b"Content-Length: 15\r\n\r\n" + b'{"outcomes":[]}',
    b"POST /v1/decide/bid HTTP/1.1\r\n" + _HOST + b"Content-Length: 12\r\n\r\n" + b'{"unit":"a"}',
    b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n",
)
"""What mutations begin with."""

_PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b"\x00",
        b"\x0b",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b'"',
        b"\xff",
        b"\x85",
    ),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(
        b"Host: other\r\n",
        b"Connection: close\r\n",
        b"Connection: Host\r\n",
        b"Upgrade: h2c\r\n",
        b"TE: trailers\r\n",
    ),
    *(b"Expect: 100-continue\r\n", b"Kingmaker-Arm: x\r\n", b"Content_Length: 1\r\n", b" folded\r\n"),
    *(
        b"0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"99999999999999999999",
        b"-1",
        b"0x5",
        b"%2e%2e/",
        b"../",
        b"//",
    ),
    *(
        b"GET /r/bid HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"PRI * HTTP/2.0\r\n\r\n",
        b"#",
        b"%00",
        b"\xef\xbb\xbf",
    ),
)


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """So many of them."""
    draw = Random(seed)
    for _ in range(count):
        raw = draw.choice(VALID)
        if draw.random() < 0.15:
            raw += draw.choice(VALID)
        for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
            raw = _mutated(raw, draw)
        yield raw


def _mutated(raw: bytes, draw: Random) -> bytes:
    at = draw.randrange(len(raw) + 1)
    to = min(len(raw), at + draw.choice((1, 1, 2, 4, 16, 64)))
    match draw.randrange(8):
        case 0:
            return raw[:at] + bytes([draw.randrange(256)]) + raw[at + 1 :]
        case 1:
            return raw[:at] + raw[to:]
        case 2:
            return raw[:at] + draw.choice(_PIECES) + raw[at:]
        case 3:
            return raw[:to] + raw[at:]
        case 4:
            return raw[:at] + draw.choice(_PIECES) + raw[to:]
        case 5:
            other = draw.choice(VALID)
            return raw[:at] + other[draw.randrange(len(other)) :]
        case 6:
            lines = raw.split(b"\r\n")
            draw.shuffle(lines)
            return b"\r\n".join(lines)
        case _:
            return raw[:at] + draw.choice(_PIECES) * draw.choice((2, 50, 2_000)) + raw[at:]
