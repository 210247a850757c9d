"""Where does an arm live, and what is it sent besides the caller's request? Worked out once per snapshot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.gateway.requests import Request
from routing.errors import BadSnapshot
from routing.types import Arm, ArmHeader, Route, Upstream

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Target:
    """An arm as the gateway calls it. `overrides` are the lower-case names of the headers in `lines`."""

    arm: Arm
    host: str
    port: int
    base_path: bytes
    base_query: bytes
    host_line: bytes
    lines: bytes
    name_lines: bytes
    overrides: frozenset[bytes]
    limits: Upstream

    def request_target(self, rest: bytes, query: bytes) -> bytes:
        """The request target: the arm's path and the rest of the caller's; the arm's own query first."""
        base = self.base_path
        path = base[:-1] + rest if rest.startswith(b"/") and base.endswith(b"/") else base + rest
        queries = b"&".join(part for part in (self.base_query, query) if part)
        return b"%b?%b" % (path, queries) if queries else path


def request_head(request: Request, route: Route, target: Target, token: bytes, peer: bytes) -> bytes:
    """The head of the request as the arm gets it: hop-by-hop and our own fields replaced, the rest kept."""
    prefix = (route.match.path_prefix or "").rstrip("/")
    rest = request.path[len(prefix) :].encode("latin-1")
    lines = request.lines
    if target.overrides:
        lines = [line for line in lines if line.partition(b":")[0].lower() not in target.overrides]
    return b"%b %b HTTP/1.1\r\n%b%b%b%b%bKingmaker-Decision: %b\r\n%b\r\n" % (
        request.method,
        target.request_target(rest, request.query),
        target.host_line,
        b"".join(lines),
        target.lines,
        _forwarded_lines(request, peer),
        _framing_line(request),
        token,
        target.name_lines,
    )


def _forwarded_lines(request: Request, peer: bytes) -> bytes:
    known = request.forwarded
    chain = known.get(b"x-forwarded-for")
    return b"X-Forwarded-For: %b\r\nX-Forwarded-Host: %b\r\nX-Forwarded-Proto: %b\r\n" % (
        peer if chain is None else chain + b", " + peer,
        known.get(b"x-forwarded-host", request.host or b""),
        known.get(b"x-forwarded-proto", b"http"),
    )


def _framing_line(request: Request) -> bytes:
    if request.chunked:
        return b"Transfer-Encoding: chunked\r\n"
    return b"" if request.length is None else b"Content-Length: %d\r\n" % request.length


def target_of(route: Route, arm: Arm, environment: Mapping[str, str], missing: list[str]) -> Target:
    """The target of an arm. Variables that are unset, empty or not sendable are added to `missing`.

    Raises:
        BadSnapshot: the arm's URL or one of its headers cannot be sent.
    """
    where = f"route {route.name}, arm {arm.name}"
    try:
        parts = urlsplit(arm.url)
        port = parts.port or 80
    except ValueError as error:
        raise BadSnapshot(f"{where}: url is not a URL, got {arm.url!r}") from error
    if parts.scheme != "http" or not parts.hostname or _URL.fullmatch(arm.url) is None:
        raise BadSnapshot(f"{where}: url must be an http URL with a host, got {arm.url!r}")
    headers = [(header.name, _value(header, environment, missing)) for header in arm.headers]
    sent = [(name, value) for name, value in headers if value is not None]
    return Target(
        arm=arm,
        host=parts.hostname,
        port=port,
        base_path=parts.path.encode() or b"/",
        base_query=parts.query.encode(),
        host_line=b"Host: %b\r\n" % parts.netloc.rpartition("@")[2].encode(),
        lines=b"".join(_line(where, name, value) for name, value in sent),
        name_lines=f"Kingmaker-Route: {route.name}\r\nKingmaker-Arm: {arm.name}\r\n".encode(),
        overrides=frozenset(name.lower().encode() for name, _ in sent),
        limits=route.upstream,
    )


def _value(header: ArmHeader, environment: Mapping[str, str], missing: list[str]) -> str | None:
    """The header's value; a secret read from a file often ends in a newline, which is not part of it."""
    if header.env is None:
        return header.value
    value = environment.get(header.env, "").strip()
    if value and _FIELD_VALUE.fullmatch(value) is not None:
        return value
    missing.append(header.env)
    return None


def _line(where: str, name: str, value: str) -> bytes:
    if _FIELD_NAME.fullmatch(name) is None or _FIELD_VALUE.fullmatch(value) is None:
        raise BadSnapshot(f"{where}: header {name!r} must be a field name with a value on one line")
    return f"{name}: {value}\r\n".encode("latin-1")
