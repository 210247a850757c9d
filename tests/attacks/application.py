"""An ASGI application that notes every request it gets, for a real server to stand in front of."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

_seen: list[tuple[str, str]] = []


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers with the nonce of the request; `/_seen` with all requests so far."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    nonce = dict(scope["headers"]).get(b"x-nonce", b"")
    answer = json.dumps(_seen).encode()
    if scope["path"] != "/_seen":
        _seen.append((nonce.decode(), body.decode("latin-1")))
        answer = nonce
    headers = [(b"x-nonce", nonce), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer})
