"""Which unit does a request belong to? Read from a header, cookie, query or JSON body; often absent."""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import unquote_plus

import msgspec

from app.gateway.requests import Request
from app.gateway.scalars import Found, Scalars
from routing.features import Source, SourceKind

JSON_BYTES = 1024 * 1024
"""The longest body in which something is looked for."""

Place = Callable[[Request], object]
"""Finds what a request has at a declared place: text, or of a body a JSON scalar; None: nothing."""


class Body:
    """Looks into the JSON bodies of requests for what is at some places (JSON pointers), once for each."""

    __slots__ = ("_scalars",)

    def __init__(self, pointers: Collection[str]) -> None:
        self._scalars = Scalars(pointers)

    def find(self, request: Request, pointer: str) -> object:
        """The scalar at one of the places; None where the body is no JSON, too long, or has none there."""
        known = request.document
        if not isinstance(known, Looked) or known.by is not self:
            request.document = known = Looked(self, self._read(request))
        return known.found.get(pointer)

    def _read(self, request: Request) -> Found:
        if not request.complete or request.pending > JSON_BYTES:
            return {}
        return self._scalars.find(b"".join(request.pieces))


class Looked:
    """What was found in the body of a request, and by whom."""

    __slots__ = ("by", "found")

    def __init__(self, by: Body, found: Found) -> None:
        self.by = by
        self.found = found


def body_of(sources: Collection[Source]) -> Body:
    """Looks for all of these that are in the body."""
    return Body([source.name for source in sources if source.kind is SourceKind.JSON])


def reader_of(source: Source, body: Body | None = None) -> Callable[[Request], str | None]:
    """What reads the unit of a request; it gives None when the request does not name one.

    Empty counts as absent; numbers as their text. `body` looks for this place and for others.
    """
    if source.kind is not SourceKind.JSON:
        return _text_at(source)
    find = place_of(source, body)
    return lambda request: _unit_of(find(request))


def place_of(source: Source, body: Body | None = None) -> Place:
    """What finds the value at a place in a request; `body` looks for this one and for others."""
    if source.kind is not SourceKind.JSON:
        return _text_at(source)
    pointer, within = source.name, body_of((source,)) if body is None else body
    return lambda request: within.find(request, pointer)


def _text_at(source: Source) -> Callable[[Request], str | None]:
    name, field = source.name, source.name.lower().encode()
    match source.kind:
        case SourceKind.HEADER:
            return lambda request: _text(request.field(field))
        case SourceKind.COOKIE:
            return lambda request: _text(_cookies_of(request).get(name.encode()))
        case _:
            return lambda request: _parameters_of(request).get(name) or None


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "surrogateescape") if value else None


def _cookies_of(request: Request) -> dict[bytes, bytes]:
    """The request's cookies by name, the first of each; read once."""
    if request.cookies is None:
        cookies: dict[bytes, bytes] = {}
        for pair in (request.field(b"cookie") or b"").split(b";"):
            key, _, value = pair.strip().partition(b"=")
            cookies.setdefault(key, value.strip(b'"'))
        request.cookies = cookies
    return request.cookies


def _parameters_of(request: Request) -> dict[str, str]:
    """The parameters of the request's query by name, the first of each; read once."""
    if request.parameters is None:
        parameters: dict[str, str] = {}
        for pair in request.query.decode("latin-1").split("&"):
            key, _, value = pair.partition("=")
            parameters.setdefault(unquote_plus(key), unquote_plus(value))
        request.parameters = parameters
    return request.parameters


def _unit_of(found: object) -> str | None:
    if isinstance(found, str):
        return found or None
    if isinstance(found, int | float) and not isinstance(found, bool):
        return msgspec.json.encode(found).decode()
    return None
