"""Which web pages may call the gateway? Those of the named origins, as the Fetch standard has it (CORS).

Only what the gateway itself answers is shared in this way; an arm's answers say for themselves who may see
them. No page is ever allowed to send cookies along.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.gateway.requests import Request

ANY = "*"
"""In place of an origin: pages of every one."""

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?")
_IMPLIED_PORTS = {"http": "80", "https": "443"}
_PORTS = 65_536

_VARY = b"Vary: Origin\r\n"
_EXPOSED = b"Access-Control-Expose-Headers: ETag, Retry-After\r\n"
_TAKEN = (
    b"Access-Control-Allow-Methods: POST\r\n"
    b"Access-Control-Allow-Headers: content-type, if-none-match, kingmaker-key, authorization\r\n"
    b"Access-Control-Max-Age: 7200\r\n"
)


def is_origin(text: str) -> bool:
    """Whether a browser could send this as an Origin (RFC 6454, 6.2), or it stands for every one.

    Browsers write scheme and host in lower case, and leave out the port that the scheme implies.
    """
    if text == ANY:
        return True
    found = _ORIGIN.fullmatch(text)
    return found is not None and found[3] != _IMPLIED_PORTS.get(found[1], "") and int(found[3] or 0) < _PORTS


def is_preflight(request: Request) -> bool:
    """Whether a browser asks, before it sends a page's request, if it may."""
    if request.method != b"OPTIONS" or request.field(b"origin") is None:
        return False
    return request.field(b"access-control-request-method") is not None


def shared_lines(origins: tuple[str, ...], request: Request) -> bytes:
    """The fields of an answer by which a page of one of the origins may see it; pages of others may not."""
    if not origins:
        return b""
    allowed = _allowed(origins, request)
    return allowed + _EXPOSED + _VARY if allowed else _VARY


def preflight_lines(origins: tuple[str, ...], request: Request) -> bytes:
    """The fields that tell a browser what a page may send; none for a page that may send nothing."""
    allowed = _allowed(origins, request)
    return allowed + _TAKEN + _VARY if allowed else b""


def _allowed(origins: tuple[str, ...], request: Request) -> bytes:
    origin = request.field(b"origin")
    if not origin or not (ANY in origins or origin.decode("latin-1") in origins):
        return b""
    return b"Access-Control-Allow-Origin: %b\r\n" % origin
