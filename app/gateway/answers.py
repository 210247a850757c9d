"""What did an arm say? One answer, read by an allow-list and kept in parts, never as it came."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from app.gateway.bodies import BodyReader, ChunkReader, LengthReader, StreamReader
from app.gateway.heads import BadMessage, FieldLines, is_bodiless, length_of, tokens_of

ANSWER_HEAD_BYTES: Final = 64 * 1024
"""The longest header block an arm may send; more is a malformed answer."""

_MOST_FIELDS: Final = 200
_KNOWN_BYTES: Final = 256
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_HARMLESS: Final = frozenset((b"keep-alive", b"close"))


class Answer:
    """An arm's answer while it is read. `lines`: what the caller may see; `pieces`: body not yet taken."""

    __slots__ = (
        "_body",
        "chunked",
        "complete",
        "dated",
        "head_complete",
        "keep_alive",
        "length",
        "lines",
        "named",
        "pieces",
        "reason",
        "status",
        "upgrade",
    )

    def __init__(self) -> None:
        self.status = 0
        self.reason = b""
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = True
        self.upgrade = b""
        self.head_complete = False
        self.complete = False
        self.dated = False
        self.named: tuple[bytes, ...] = ()
        self._body: BodyReader | None = None
        self.lines: list[bytes] = []
        self.pieces: list[bytes] = []

    def read_head(self, head: bytes, method: bytes) -> None:
        """Takes the whole head of an answer to a request with this method.

        Raises:
            BadMessage: it is not well-formed HTTP/1.0 or 1.1, or its framing is not clear.
        """
        lines = head.split(b"\r\n")
        if len(lines) > _MOST_FIELDS + 1:
            raise BadMessage(502, f"an answer must have at most {_MOST_FIELDS} fields, got {len(lines) - 1}")
        read = _known_status_line if len(lines[0]) <= _KNOWN_BYTES else _read_status_line
        self.status, self.reason, self.keep_alive = read(lines[0])
        http10 = not self.keep_alive
        kept = self.lines
        del lines[0]
        for line in lines:
            _, value, passed_on, take = _LINES[line]
            if take is None:
                kept.append(passed_on)
            else:
                take(self, value)
        if http10 and self.chunked:
            raise BadMessage(502, "Transfer-Encoding must not go with HTTP/1.0")
        self._end_head(method)

    def read_body(self, data: bytes) -> bytes:
        """Takes what there is of the body; gives what came after its end.

        Raises:
            BadMessage: its framing is broken.
        """
        body = self._body
        if body is None:
            length = self.length
            if self.complete:
                return data
            if length is not None and len(data) >= length:
                self.pieces.append(data if len(data) == length else data[:length])
                self.complete = True
                return data[length:]
            self._body = body = self._new_reader()
        rest = body.feed(data, self.pieces)
        self.complete = body.complete
        return rest

    def end(self) -> bool:
        """The arm has closed the connection; whether that was the end of the answer."""
        if self.head_complete and not self.chunked and self.length is None:
            self.complete = True
        return self.complete

    def take_body(self) -> list[bytes]:
        """The pieces of the body that nobody has taken yet; they are forgotten here."""
        pieces, self.pieces = self.pieces, []
        return pieces

    def _end_head(self, method: bytes) -> None:
        if self.chunked and (self.length is not None or self.status < 200 or self.status == 204):
            raise BadMessage(502, "Transfer-Encoding must not go with Content-Length or without a body")
        if self.named and not _HARMLESS.issuperset(self.named):
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in self.named]
        self.head_complete = True
        if is_bodiless(method, self.status) or self.length == 0:
            self.complete = True
        elif self.length is None and not self.chunked:
            self.keep_alive = False

    def _new_reader(self) -> BodyReader:
        if self.chunked:
            return ChunkReader()
        return StreamReader() if self.length is None else LengthReader(self.length)


Take = Callable[[Answer, bytes], None]


def _read_status_line(line: bytes) -> tuple[int, bytes, bool]:
    """Status, reason, and whether the version keeps connections."""
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise BadMessage(502, "an answer must begin with a status line of HTTP/1.0 or 1.1")
    return int(found[2]), found[3] or b"", found[1] == b"1"


_known_status_line: Final = lru_cache(maxsize=256)(_read_status_line)


def _drop(answer: Answer, value: bytes) -> None:
    pass


def _content_length(answer: Answer, value: bytes) -> None:
    if answer.length is not None:
        raise BadMessage(502, "Content-Length must be sent once, got it twice")
    answer.length = length_of(value)


def _transfer_encoding(answer: Answer, value: bytes) -> None:
    if value.lower() != b"chunked" or answer.chunked:
        raise BadMessage(502, "Transfer-Encoding must be chunked, sent once")
    answer.chunked = True


def _connection(answer: Answer, value: bytes) -> None:
    tokens = tokens_of(value)
    answer.named += tokens
    answer.keep_alive = b"close" not in answer.named and (answer.keep_alive or b"keep-alive" in tokens)


def _date(answer: Answer, value: bytes) -> None:
    answer.dated = True
    answer.lines.append(b"Date: %b\r\n" % value)


def _upgrade(answer: Answer, value: bytes) -> None:
    answer.upgrade = value.lower()


_TAKE: Final[dict[bytes, Take]] = {
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"upgrade": _upgrade,
    b"date": _date,
    b"keep-alive": _drop,
    b"proxy-authenticate": _drop,
    b"proxy-connection": _drop,
    b"te": _drop,
    b"trailer": _drop,
}


def _taker(lower: bytes) -> Take | None:
    is_ours = lower.replace(b"_", b"-").startswith(b"kingmaker-")
    return _TAKE.get(lower, _drop if is_ours else None)


_LINES: Final = FieldLines(_taker)
