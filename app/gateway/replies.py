"""What does the caller get? Heads of answers, problem documents, and the framing of streamed bodies."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

import msgspec

from app.gateway.answers import Answer
from app.gateway.bodies import chunked
from app.gateway.heads import is_bodiless
from app.gateway.requests import Request

JSON = b"application/json"
PROBLEM = b"application/problem+json"

_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}


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
        """Status line and header block, with `lines` of our own; with a date, if the arm sent none."""
        return b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n" % (
            answer.status,
            answer.reason,
            b"".join(answer.lines),
            b"" if answer.dated else _date_line(int(time.time())),
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


def interim_head(answer: Answer) -> bytes:
    """An informational answer as the caller gets it."""
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (answer.status, answer.reason, b"".join(answer.lines))


def switching_head(answer: Answer, lines: bytes) -> bytes:
    """The answer that changes the protocol, with `lines` of our own."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %b\r\n%b%b\r\n"
    return head % (answer.upgrade, b"".join(answer.lines), lines)


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
    head = b"HTTP/1.1 %d %b\r\n%bContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status,
        _phrase(status).encode(),
        _date_line(int(time.time())),
        content_type,
        len(body),
        lines,
        connection_line(request, keep_alive),
    )
    return head if request.method == b"HEAD" else head + body


def _phrase(status: int) -> str:
    """The name of a status (RFC 9110, 15), of which Python knows some by older ones."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


@lru_cache(maxsize=2)
def _date_line(second: int) -> bytes:
    return b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()


def problem(status: int, detail: str, errors: Iterable[Mapping[str, str]] = ()) -> bytes:
    """A problem document (RFC 9457)."""
    document: dict[str, object] = {
        "type": "about:blank",
        "title": _phrase(status),
        "status": status,
        "detail": detail,
    }
    if errors := list(errors):
        document["errors"] = errors
    return msgspec.json.encode(document)
