"""What does the caller get? Heads of answers, problem documents, and the framing of streamed bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus

import msgspec

from app.gateway.requests import Request

ANSWER_HEAD_BYTES = 64 * 1024
"""The longest header block an arm may send; more is a malformed answer."""

JSON = b"application/json"
PROBLEM = b"application/problem+json"

_HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    )
)
_LAST_CHUNK = b"0\r\n\r\n"


class Answer:
    """An arm's answer while it is read. `pieces` are body bytes not yet taken."""

    __slots__ = (
        "chunked",
        "complete",
        "head_bytes",
        "head_complete",
        "length",
        "lines",
        "malformed",
        "named",
        "pieces",
        "reason",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.named: list[bytes] = []
        self.length: int | None = None
        self.chunked = False
        self.head_bytes = 0
        self.head_complete = False
        self.malformed = False
        self.pieces: list[bytes] = []
        self.complete = False

    def add_header(self, name: bytes, value: bytes) -> None:
        """Takes one header field: kept for the caller, or understood and dropped."""
        lower = name.lower()
        self.head_bytes += len(name) + len(value) + 4
        value = value.rstrip(b" \t")
        if lower == b"content-length":
            self.length = int(value)
        elif lower == b"transfer-encoding":
            self.chunked = True
            self.malformed = self.malformed or value.lower() != b"chunked"
        elif lower == b"connection":
            self.named += [token.strip().lower() for token in value.split(b",")]
        elif lower not in _HOP_BY_HOP and not lower.startswith(b"kingmaker-"):
            self.lines.append(b"%b: %b\r\n" % (name, value))

    def end_head(self, status: int) -> None:
        """Checks the head as a whole, once the parser has read it."""
        self.status = status
        self.head_complete = True
        if status < 100 or status == 101 or self.head_bytes > ANSWER_HEAD_BYTES:
            self.malformed = True
        if len(self.named) > 1 or self.named not in ([], [b"close"], [b"keep-alive"]):
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in self.named]

    def keeps_alive(self, version: str) -> bool:
        """Whether the arm's connection outlives an answer that has no body (RFC 9112, 9.3)."""
        return b"close" not in self.named and (version != "1.0" or b"keep-alive" in self.named)

    def take_body(self) -> list[bytes]:
        """The pieces of the body that nobody has taken yet; they are forgotten here."""
        pieces, self.pieces = self.pieces, []
        return pieces


class Framing:
    """How an answer is framed for its caller: by its length, chunked, until the connection ends, or bare."""

    __slots__ = ("_bodiless", "_chunked", "_line", "_request", "keep_alive")

    def __init__(self, request: Request, answer: Answer, keep_alive: bool) -> None:
        self._request = request
        self._bodiless = is_bodiless(request.method, answer.status)
        self._chunked = False
        self.keep_alive = keep_alive
        length = answer.length
        if length is None and answer.complete and not self._bodiless:
            length = sum(map(len, answer.pieces))
        if length is not None and answer.status != 204:
            self._line = b"Content-Length: %d\r\n" % length
        elif self._bodiless:
            self._line = b""
        elif request.http10:
            self._line, self.keep_alive = b"", False
        else:
            self._line, self._chunked = b"Transfer-Encoding: chunked\r\n", True

    def head(self, answer: Answer, lines: bytes) -> bytes:
        """Status line and header block, with `lines` of our own."""
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (
            answer.status,
            answer.reason,
            b"".join(answer.lines),
            lines,
            self._line,
            connection_line(self._request, self.keep_alive),
        )

    def frame(self, answer: Answer) -> bytes:
        """What there is of the body, and its end when it is complete."""
        pieces = answer.take_body()
        if self._bodiless:
            return b""
        return chunked(pieces, answer.complete) if self._chunked else b"".join(pieces)


def is_bodiless(method: bytes, status: int) -> bool:
    """Whether an answer has no body whatever its headers say (RFC 9112, 6.3)."""
    return method == b"HEAD" or status in (204, 304) or status < 200


def chunked(pieces: list[bytes], last: bool) -> bytes:
    """Body pieces as one chunk of the chunked transfer coding, and its end when `last`."""
    data = b"".join(pieces)
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + _LAST_CHUNK if last else framed


def connection_line(request: Request, keep_alive: bool) -> bytes:
    """The Connection line of an answer: only where it differs from what the caller's version implies."""
    if not keep_alive:
        return b"Connection: close\r\n"
    return b"Connection: keep-alive\r\n" if request.http10 else b""


def own_answer(
    request: Request,
    status: int,
    body: bytes,
    content_type: bytes,
    lines: bytes,
    keep_alive: bool,
) -> bytes:
    """A whole answer of the gateway's own."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status,
        HTTPStatus(status).phrase.encode(),
        content_type,
        len(body),
        lines,
        connection_line(request, keep_alive),
    )
    return head if request.method == b"HEAD" else head + body


def problem(status: int, detail: str, errors: Iterable[Mapping[str, str]] = ()) -> bytes:
    """A problem document (RFC 9457)."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors := list(errors):
        document["errors"] = errors
    return msgspec.json.encode(document)
