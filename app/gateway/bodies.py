"""Where does a message's body end? Readers for bodies of known length, in chunks, or up to a stream's end.

A reader is fed bytes as they come. It gives pieces of the body, and, once the body is complete, what came
after it.
"""

from __future__ import annotations

import re
from typing import Protocol

from app.gateway.heads import BadMessage

CHUNK_LINE_BYTES = 1_024
"""The longest line of a chunk's size and its extensions."""

TRAILER_BYTES = 8 * 1024
"""The longest block of trailer fields; they are read, and dropped."""

_TEXT = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,15})(?:[ \t]*+;[ \t]*+%b(?:[ \t]*+=[ \t]*+(?:%b|%b))?)*+" % (_TEXT, _TEXT, _QUOTED)
)
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class BodyReader(Protocol):
    """What reads a body. `received` counts its bytes; it is `complete` once its end has been seen."""

    received: int
    complete: bool

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        """Adds what there is of the body to `pieces`; gives what came after its end."""


class LengthReader:
    """A body of `length` bytes."""

    __slots__ = ("_length", "complete", "received")

    def __init__(self, length: int) -> None:
        self._length = length
        self.received = 0
        self.complete = length == 0

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        missing = self._length - self.received
        if len(data) < missing:
            self.received += len(data)
            pieces.append(data)
            return b""
        self.received, self.complete = self._length, True
        if len(data) == missing:
            pieces.append(data)
            return b""
        if missing:
            pieces.append(data[:missing])
        return data[missing:]


class StreamReader:
    """A body that ends with its connection."""

    __slots__ = ("complete", "received")

    def __init__(self) -> None:
        self.received = 0
        self.complete = False

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        self.received += len(data)
        pieces.append(data)
        return b""


class ChunkReader:
    """A body in the chunked transfer coding, exactly as RFC 9112, 7.1 has it.

    Mutable state: `_missing`, the bytes to come of the current chunk with its line end; `_rest`, a line that
    is not whole yet; `_in_trailer`.

    Raises (from `feed`):
        BadMessage: a size line, a chunk's end or a trailer field is not what it must be.
    """

    __slots__ = ("_in_trailer", "_missing", "_rest", "_trailer_bytes", "complete", "received")

    def __init__(self) -> None:
        self.received = 0
        self._missing = 0
        self._rest = b""
        self._in_trailer = False
        self._trailer_bytes = 0
        self.complete = False

    def feed(self, data: bytes, pieces: list[bytes]) -> bytes:
        chunks: list[bytes] = []
        rest = self._read(data, chunks)
        if chunks:
            pieces.append(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        return rest

    def _read(self, data: bytes, pieces: list[bytes]) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        at = 0
        while at < len(data) and not self.complete:
            if self._missing:
                at = self._take_chunk(data, at, pieces)
                if at < 0:
                    return b""
                continue
            end = data.find(b"\r\n", at, at + CHUNK_LINE_BYTES + 2)
            if end < 0:
                self._keep(data[at:])
                return b""
            self._take_line(data[at:end])
            at = end + 2
        return data[at:] if self.complete else b""

    def _take_chunk(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Takes what there is of a chunk and its line end; gives the place behind it; -1: more is to come."""
        content = self._missing - 2
        end = at + content
        if content > 0:
            piece = data[at:end]
            self.received += len(piece)
            pieces.append(piece)
        if len(data) >= end + 2:
            if data[end : end + 2] != b"\r\n":
                raise BadMessage(400, "a chunk must end with CRLF after as many bytes as its size says")
            self._missing = 0
            return end + 2
        if len(data) <= end:
            self._missing = 2 + end - len(data)
        else:
            self._missing, self._rest = 2, data[end:]
            if self._rest != b"\r":
                raise BadMessage(400, "a chunk must end with CRLF after as many bytes as its size says")
        return -1

    def _take_line(self, line: bytes) -> None:
        if self._in_trailer:
            self._take_trailer(line)
            return
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise BadMessage(400, "a chunk must begin with its size in up to 15 hexadecimal digits and CRLF")
        size = int(found[1], 16)
        if size:
            self._missing = size + 2
        else:
            self._in_trailer = True

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > TRAILER_BYTES:
            raise BadMessage(431, f"trailer fields must be at most {TRAILER_BYTES} bytes, got more")
        if not line:
            self.complete = True
        elif _TRAILER.fullmatch(line) is None:
            raise BadMessage(400, "a trailer field must be a token, a colon and a value on one line")

    def _keep(self, part: bytes) -> None:
        if len(part) - part.endswith(b"\r") > CHUNK_LINE_BYTES:
            status = 431 if self._in_trailer else 400
            raise BadMessage(status, f"a line in a chunked body must be at most {CHUNK_LINE_BYTES} bytes")
        if b"\n" in part or b"\r" in part[:-1]:
            raise BadMessage(400, "a line in a chunked body must end with CRLF")
        self._rest = part


def chunked(pieces: list[bytes], last: bool) -> bytes:
    """Body pieces as one chunk of the chunked transfer coding, and its end when `last`."""
    data = b"".join(pieces)
    framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
    return framed + b"0\r\n\r\n" if last else framed
