"""Which unit does a request belong to? Read from a header, cookie, query or JSON body; often absent."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote_plus

import msgspec

from app.gateway.requests import UNREAD, Request
from routing.features import Source, SourceKind

JSON_BYTES = 1024 * 1024
"""The longest body in which something is looked for."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_decode = msgspec.json.Decoder().decode

Place = Callable[[Request], object]
"""Finds what a request has at a declared place: text, or of a body any JSON value; None: nothing."""


def reader_of(source: Source) -> Callable[[Request], str | None]:
    """What reads the unit of a request; it gives None when the request does not name one.

    Empty counts as absent; numbers as their text.
    """
    if source.kind is not SourceKind.JSON:
        return _text_at(source)
    find = place_of(source)
    return lambda request: _unit_of(find(request))


def place_of(source: Source) -> Place:
    """What finds the value at a place in a request."""
    if source.kind is not SourceKind.JSON:
        return _text_at(source)
    pointer = source.name
    return lambda request: resolve(_document_of(request), pointer)


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


def _document_of(request: Request) -> object:
    """The request's JSON body, decoded once; None where it is no JSON, or too long to be looked into."""
    if request.document is UNREAD:
        request.document = _decoded(request)
    return request.document


def _decoded(request: Request) -> object:
    if not request.complete or request.pending > JSON_BYTES:
        return None
    try:
        return _decode(b"".join(request.pieces))
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None


def resolve(document: object, pointer: str) -> object:
    """What a JSON pointer (RFC 6901) names in a document; None when that is nothing."""
    if not pointer.startswith("/"):
        return document if pointer == "" else None
    for key in _keys(pointer):
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and _INDEX.fullmatch(key) is not None and int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return document


@lru_cache(maxsize=1_024)
def _keys(pointer: str) -> tuple[str, ...]:
    """The keys that a pointer leads through: it is the same in every request."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))
