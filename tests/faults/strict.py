"""Is this exactly one message? HTTP/1.1 read by the letter, by nothing that the gateway itself reads with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) (/[\x21-\x7e]*) HTTP/1\.1" % _NAME)
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9][0-9]) [\t\x20-\x7e\x80-\xff]*")
_FIELD = re.compile(
    rb"(%b): ((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)" % _NAME
)
_CHUNK_SIZE = re.compile(rb"[1-9A-Fa-f][0-9A-Fa-f]{0,14}")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,17}")
_OURS = (
    *(b"host", b"kingmaker-decision", b"kingmaker-timeout-ms", b"kingmaker-route", b"kingmaker-arm"),
    *(b"x-forwarded-for", b"x-forwarded-proto", b"via"),
)
_HOP_BY_HOP = frozenset(
    (b"keep-alive", b"proxy-connection", b"te", b"trailer", b"proxy-authorization", b"http2-settings")
)


class Broken(Exception):
    """Bytes that are no message: what was read instead."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole message: its first line in parts, fields (names in lower case), body and length on the wire."""

    start: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    size: int

    @property
    def method(self) -> bytes:
        return self.start[0]

    @property
    def target(self) -> bytes:
        return self.start[1]

    @property
    def status(self) -> int:
        return int(self.start[0])

    def all(self, name: bytes) -> list[bytes]:
        """The values of every field with this name, in lower case."""
        return [value for known, value in self.fields if known == name]

    def __getitem__(self, name: bytes) -> bytes:
        """The first value of a field; empty where there is none."""
        return next(iter(self.all(name)), b"")


def read_request(data: bytes) -> Whole | None:
    """The request that these bytes begin with; None when it is not all there.

    Raises:
        Broken: no request can begin like this.
    """
    head = _head_of(data)
    if head is None:
        return None
    line, fields, at = head
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise Broken(f"request line {line!r}")
    body = _body_of(data, at, fields, is_answer=False)
    if body is None:
        return None
    return Whole((found[1], found[2]), fields, *body)


def read_answer(data: bytes, method: bytes = b"GET", *, ended: bool = False) -> Whole | None:
    """The answer that these bytes begin with; None when it is not all there.

    Raises:
        Broken: no answer can begin like this.
    """
    head = _head_of(data)
    if head is None:
        return None
    line, fields, at = head
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise Broken(f"status line {line!r}")
    status = int(found[1])
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return Whole((found[1],), fields, b"", at)
    body = _body_of(data, at, fields, is_answer=True, ended=ended)
    return None if body is None else Whole((found[1],), fields, *body)


def problems_of(request: Whole) -> list[str]:
    """What is wrong with a request that the gateway has sent to an arm."""
    found = [f"{name!r} sent {count} times" for name in _OURS if (count := len(request.all(name))) != 1]
    for name, value in request.fields:
        dashed = name.replace(b"_", b"-")
        if name in _HOP_BY_HOP or (dashed.startswith(b"kingmaker-") and name not in _OURS):
            found.append(f"{name!r} must not reach an arm")
        if b"_" in name and dashed in (b"content-length", b"transfer-encoding", b"host", b"connection"):
            found.append(f"{name!r} may be taken for framing")
        if name in (b"connection", b"upgrade") and value.lower() not in (b"upgrade", b"websocket"):
            found.append(f"{name!r} is {value!r}")
    return found


def _head_of(data: bytes) -> tuple[bytes, tuple[tuple[bytes, bytes], ...], int] | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *rest = data[:end].split(b"\r\n")
    fields = []
    for text in rest:
        found = _FIELD.fullmatch(text)
        if found is None:
            raise Broken(f"field {text!r}")
        fields.append((found[1].lower(), found[2]))
    return line, tuple(fields), end + 4


def _body_of(
    data: bytes,
    at: int,
    fields: Sequence[tuple[bytes, bytes]],
    *,
    is_answer: bool,
    ended: bool = False,
) -> tuple[bytes, int] | None:
    """The body, and where the message ends."""
    lengths = [value for name, value in fields if name == b"content-length"]
    codings = [value for name, value in fields if name == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Broken(f"framing said more than once: {lengths} {codings}")
    if codings:
        if codings != [b"chunked"]:
            raise Broken(f"coding {codings}")
        return _chunks_of(data, at)
    if lengths:
        if _LENGTH.fullmatch(lengths[0]) is None:
            raise Broken(f"length {lengths[0]!r}")
        end = at + int(lengths[0])
        return (data[at:end], end) if len(data) >= end else None
    if is_answer:
        return (data[at:], len(data)) if ended else None
    return b"", at


def _chunks_of(data: bytes, at: int) -> tuple[bytes, int] | None:
    body = b""
    while (end := data.find(b"\r\n", at)) >= 0:
        line = data[at:end]
        if line == b"0":
            if len(data) < end + 4:
                return None
            if data[end + 2 : end + 4] != b"\r\n":
                raise Broken("a trailer")
            return body, end + 4
        if _CHUNK_SIZE.fullmatch(line) is None:
            raise Broken(f"chunk size {line!r}")
        size = int(line, 16)
        at = end + 2 + size + 2
        if len(data) < at:
            return None
        if data[at - 2 : at] != b"\r\n":
            raise Broken("a chunk without its end")
        body += data[end + 2 : at - 2]
    return None
