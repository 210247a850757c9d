"""Where does an arm live, and what is it sent besides the caller's request? Worked out once per snapshot."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ssl import SSLContext
from urllib.parse import SplitResult, urlsplit

from app.gateway.tls import BadTls, client_context
from routing.addresses import socket_path
from routing.errors import BadSnapshot
from routing.types import Arm, ArmHeader, Route, Upstream

_FIELD_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_URL = re.compile(r"[\x21-\x7e]+")
_PORTS = {"http": 80, "https": 443}
_SOCKET_SCHEME = "http+unix"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Target:
    """An arm as the gateway calls it. `overrides` are the names of the headers in `lines`, - for _.

    `fixed_lines` are all that are the same in each request: those two and the names of route and arm.

    It is reached over TLS where there is an `ssl`, and then shows a certificate for `server_name`; at a Unix
    socket where there is a `unix_path`; not at all where there is a `fault`, which says why.
    """

    arm: Arm
    host: str
    port: int
    base_path: bytes
    base_query: bytes
    host_line: bytes
    lines: bytes
    fixed_lines: bytes
    overrides: frozenset[bytes]
    limits: Upstream
    unix_path: str | None = None
    ssl: SSLContext | None = None
    server_name: str | None = None
    fault: str | None = None

    @property
    def place(self) -> tuple[object, ...]:
        """What the connections to an arm depend on: where it is, and how it is verified."""
        return self.host, self.port, self.unix_path, self.ssl, self.server_name, self.fault

    def request_target(self, rest: bytes, query: bytes) -> bytes:
        """The request target: the arm's path and the rest of the caller's; the arm's own query first."""
        base = self.base_path
        if rest.startswith(b"//"):
            rest = b"/" + rest.lstrip(b"/")  # or the arm might take what follows for a host
        path = base[:-1] + rest if rest.startswith(b"/") and base.endswith(b"/") else base + rest
        if self.base_query:
            query = b"%b&%b" % (self.base_query, query) if query else self.base_query
        return b"%b?%b" % (path, query) if query else path


def target_of(route: Route, arm: Arm, environment: Mapping[str, str], missing: list[str]) -> Target:
    """The target of an arm. Variables that are unset, empty or not sendable are added to `missing`.

    Raises:
        BadSnapshot: the arm's URL or one of its headers cannot be sent.
    """
    where = f"route {route.name}, arm {arm.name}"
    parts, port = _url_of(where, arm)
    is_socket = parts.scheme == _SOCKET_SCHEME
    host = "localhost" if is_socket else parts.netloc.rpartition("@")[2]
    host_line = f"Host: {host}\r\n".encode()
    context, server_name, fault = _tls_of(where, arm, parts)
    headers = [(header.name, _value(header, environment, missing)) for header in arm.headers]
    sent = [(name, value) for name, value in headers if value is not None]
    lines = b"".join(_line(where, name, value) for name, value in sent)
    name_lines = f"Kingmaker-Route: {route.name}\r\nKingmaker-Arm: {arm.name}\r\n".encode()
    return Target(
        arm=arm,
        host="localhost" if is_socket else parts.hostname or "",
        port=port,
        base_path=parts.path.encode() or b"/",
        base_query=parts.query.encode(),
        host_line=host_line,
        lines=lines,
        fixed_lines=host_line + lines + name_lines,
        overrides=frozenset(name.lower().replace("_", "-").encode() for name, _ in sent),
        limits=route.upstream,
        unix_path=socket_path(parts.netloc) if is_socket else None,
        ssl=context,
        server_name=server_name,
        fault=fault,
    )


def _url_of(where: str, arm: Arm) -> tuple[SplitResult, int]:
    """The parts of the arm's URL, and its port: 0 for a Unix socket."""
    try:
        parts = urlsplit(arm.url)
        port = parts.port
    except ValueError as error:
        raise BadSnapshot(f"{where}: url is not a URL, got {arm.url!r}") from error
    is_plain = _URL.fullmatch(arm.url) is not None
    if parts.scheme == _SOCKET_SCHEME and socket_path(parts.netloc) is not None and is_plain:
        return parts, 0
    if parts.scheme not in _PORTS or not parts.hostname or not is_plain:
        bound = "url must be an http or https URL with a host, or an http+unix URL with a path"
        raise BadSnapshot(f"{where}: {bound}, got {arm.url!r}")
    return parts, port or _PORTS[parts.scheme]


def _tls_of(where: str, arm: Arm, parts: SplitResult) -> tuple[SSLContext | None, str | None, str | None]:
    """How an https arm is verified, by which name, and what is in the way of it.

    An arm whose files cannot be used is out of reach; the snapshot, and the other arms in it, are not.
    """
    if parts.scheme != "https":
        return None, None, None
    named = arm.tls.server_name if arm.tls is not None else None
    name = (named or parts.hostname or "").strip("[]").rstrip(".")
    try:
        return client_context(arm.tls, name), name, None
    except BadTls as error:
        _log.error("arm cannot be called", extra={"fields": {"where": where, "error": str(error)}})
        return None, name, str(error)


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
