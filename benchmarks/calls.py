"""The requests of a measurement, written to a file that every load generator plays in a circle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

USERS = 10_000
"""Distinct values of the sticky header: each request's differs from the one before."""

HEADER = "X-User-Id"
PAYLOAD = b'{"user":"u","features":"' + b"f" * 474 + b'"}'
"""500 bytes of JSON."""


def scores(path: Path, targets: Sequence[str] = ("/r/bench",)) -> Path:
    """Requests for a score: 500 bytes of JSON, a user that varies, the targets in turn."""
    return _write(
        path, (_post(targets[user % len(targets)], PAYLOAD, f"user-{user}") for user in range(USERS))
    )


def posts(path: Path, target: str, bodies: Iterable[bytes]) -> Path:
    """One request for each body."""
    return _write(path, (_post(target, body, "user") for body in bodies))


def read(path: Path) -> list[bytes]:
    """The requests of a file, in order."""
    data = path.read_bytes()
    found, start = [], 0
    while start < len(data):
        line = data.index(b"\n", start)
        end = line + 1 + int(data[start:line])
        found.append(data[line + 1 : end])
        start = end
    return found


def _post(target: str, body: bytes, user: str) -> bytes:
    head = (
        f"POST {target} HTTP/1.1\r\nHost: bench\r\n{HEADER}: {user}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _write(path: Path, requests: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
    return path
