"""What an attack is: bytes, and what a gateway that is not fooled makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NONCE = b"N" * 16
"""Stands for the nonce of the attacker's own request."""

SMUGGLED = b"S" * 16
"""Stands for the nonce of a request that must not come to be."""

SPOOFED = b"x-spoofed"
"""A value that must not reach an arm."""

_NOTHING: Mapping[bytes, bytes] = {}


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway answers with this status and ends the connection; no arm gets a whole request."""

    status: int = 400


@dataclass(frozen=True, slots=True)
class Clean:
    """An arm gets exactly one clean request, and what follows on the connection is another one.

    `target` and `body` are what it gets, `has` and `lacks` fields of it. `twice`: what was smuggled is a
    request by every reading. `last`: the connection ends with the answer; `spoilt`: with a refusal after it.
    """

    body: bytes = b""
    target: bytes = b"/score"
    method: bytes | None = None
    has: Mapping[bytes, bytes] = field(default_factory=lambda: _NOTHING)
    lacks: tuple[bytes, ...] = ()
    twice: bool = False
    last: bool = False
    spoilt: bool = False


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A request that never ends: no arm gets a whole one, and the caller gets no answer, or a refusal."""


@dataclass(frozen=True, slots=True)
class Own:
    """The gateway answers itself, and goes on with what follows; no arm is asked.

    `early`: without waiting for the body, so that it may end the connection instead.
    """

    status: int
    early: bool = False


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes that a caller sends, and what must become of them."""

    name: str
    raw: bytes
    wanted: Refused | Clean | Unfinished | Own


EVIL = b"GET /r/bid/evil HTTP/1.1\r\nHost: gateway.test\r\nX-Nonce: %b\r\n\r\n" % SMUGGLED
"""The request that is smuggled."""

_HEAD = b"Host: gateway.test\r\nX-Nonce: %b\r\n" % NONCE


def request(*lines: bytes, start: bytes = b"GET /r/bid HTTP/1.1", body: bytes = b"") -> bytes:
    """A request with these further header lines."""
    return start + b"\r\n" + _HEAD + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """A POST with these further header lines."""
    return request(*lines, start=b"POST /r/bid HTTP/" + version, body=body)


def chunked(body: bytes) -> bytes:
    """A POST in chunks, whose body is just these bytes."""
    return post(b"Transfer-Encoding: chunked", body=body)


def chunks(*parts: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
