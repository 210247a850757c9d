"""What does an arm get to read? The head of the request as it is passed on: replaced where it is ours."""

from __future__ import annotations

from typing import Final

from app.gateway.requests import Request
from app.gateway.targets import Target

_UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


def _key(name: bytes) -> bytes:
    """A field name as servers compare them, some of which read _ as -."""
    return name.lower().replace(b"_", b"-")


def request_head(request: Request, rest: str, target: Target, lines: bytes) -> bytes:
    """The head of the request as the arm gets it: to the arm's URL and the rest of the caller's path.

    `lines` are the fields of our own: where the request has been, and which decision it belongs to.
    """
    kept = request.lines
    if target.overrides:
        kept = [line for line in kept if _key(line.partition(b":")[0]) not in target.overrides]
    if request.chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    else:
        framing = b"" if request.length is None else b"Content-Length: %d\r\n" % request.length
    return b"%b %b HTTP/1.1\r\n%b%b%b%b%b\r\n" % (
        request.method,
        target.request_target(b"" if rest == "*" else rest.encode(), request.query),
        target.fixed_lines,
        b"".join(kept),
        framing,
        lines,
        b"" if request.upgrade is None else _UPGRADE,
    )
