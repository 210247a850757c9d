"""What did the caller send? One request, filtered and serialised for an arm while the parser reads it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

HEAD_BYTES = 32 * 1024
"""The longest request line plus header block; more is answered 431."""

HOLD_BYTES = 64 * 1024
"""Body bytes that wait for an arm before the caller is paused."""

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_DOT_SEGMENT = re.compile(rb"(?:^|/)(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
_HOST = re.compile(rb"[A-Za-z0-9._~:%\-\[\]]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)([^#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a request is refused before any arm sees it."""

    status: int
    detail: str


class Request:
    """One parsed request. `lines` are what an arm may see of its header; `pieces`: body not taken yet."""

    __slots__ = (
        "chunked",
        "complete",
        "expects_continue",
        "fault",
        "fields",
        "forced",
        "forwarded",
        "has_upgrade",
        "head_bytes",
        "hold_bytes",
        "host",
        "http10",
        "keep_alive",
        "length",
        "lines",
        "method",
        "named",
        "path",
        "pending",
        "pieces",
        "query",
        "target",
    )

    def __init__(self) -> None:
        self.method = b""
        self.target = b""
        self.path = ""
        self.query = b""
        self.host: bytes | None = None
        self.http10 = False
        self.keep_alive = True
        self.fields: dict[bytes, bytes] = {}
        self.lines: list[bytes] = []
        self.named: list[bytes] = []
        self.forwarded: dict[bytes, bytes] = {}
        self.forced: bytes | None = None
        self.length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.has_upgrade = False
        self.head_bytes = 0
        self.hold_bytes = HOLD_BYTES
        self.pieces: list[bytes] = []
        self.pending = 0
        self.complete = False
        self.fault: Fault | None = None

    @property
    def idempotent(self) -> bool:
        """Whether repeating it on the same arm can do no harm (RFC 9110, 9.2.2)."""
        return self.method in IDEMPOTENT

    def add_header(self, name: bytes, value: bytes) -> None:
        """Takes one header field: kept for arms, or understood and dropped."""
        lower = name.lower()
        self.head_bytes += len(name) + len(value) + 4
        if self.head_bytes > HEAD_BYTES:
            self.refuse(431, f"request head must be at most {HEAD_BYTES} bytes, got more")
            return
        value = value.rstrip(b" \t")
        take = _TAKE.get(lower)
        if take is not None:
            take(self, value)
        elif not is_reserved(lower):
            self.lines.append(b"%b: %b\r\n" % (name, value))
        self.fields.setdefault(lower, value)

    def add_body(self, piece: bytes) -> None:
        """Keeps a piece of the body until somebody takes it."""
        self.pieces.append(piece)
        self.pending += len(piece)

    def take_body(self) -> list[bytes]:
        """The pieces of the body that nobody has taken yet; they are forgotten here."""
        pieces, self.pieces, self.pending = self.pieces, [], 0
        return pieces

    def refuse(self, status: int, detail: str) -> None:
        """Marks the request as one that must not be forwarded; the first reason stands."""
        if self.fault is None:
            self.fault = Fault(status, detail)

    def end_head(self, method: bytes, version: str, keep_alive: bool) -> None:
        """Checks the head as a whole, once the parser has read it."""
        self.method, self.keep_alive, self.http10 = method, keep_alive, version == "1.0"
        if version not in ("1.0", "1.1"):
            self.refuse(505, f"HTTP version must be 1.0 or 1.1, got {version}")
        elif method == b"CONNECT":
            self.refuse(501, "method CONNECT is not supported")
        elif self.chunked and self.http10:
            self.refuse(400, "Transfer-Encoding must not be sent with HTTP/1.0")
        self._split_target()
        if self.host is None and not self.http10:
            self.refuse(400, "Host must be sent exactly once, got none")
        if self.named:
            self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in self.named]

    def _split_target(self) -> None:
        target = self.target
        if not target.startswith(b"/"):
            if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
                self.host, target = _checked_host(self, absolute[1]), absolute[2]
                target = target if target.startswith(b"/") else b"/" + target
            elif self.method != b"OPTIONS" or target != b"*":
                self.refuse(400, "request target must be a path or an http URL")
        path, _, self.query = target.partition(b"?")
        if b"." in path or b"%" in path:
            self._check_path(path)
        self.path = path.decode("latin-1")

    def _check_path(self, path: bytes) -> None:
        if _DOT_SEGMENT.search(path) is not None:
            self.refuse(400, "path must not hold dot segments")


def is_reserved(lower: bytes) -> bool:
    """Whether a header name (lower case) is ours, or one that a server may take for ours or for framing."""
    if lower.startswith(b"kingmaker-"):
        return True
    if b"_" not in lower:
        return False
    dashed = lower.replace(b"_", b"-")
    return dashed in _TAKE or dashed.startswith(b"kingmaker-")


def _drop(request: Request, value: bytes) -> None:
    pass


def _upgrade(request: Request, value: bytes) -> None:
    request.has_upgrade = True


def _host(request: Request, value: bytes) -> None:
    if request.host is not None:
        request.refuse(400, "Host must be sent exactly once, got it twice")
    request.host = _checked_host(request, value)


def _checked_host(request: Request, value: bytes) -> bytes:
    if _HOST.fullmatch(value) is None:
        request.refuse(400, "Host must be a host name or address with an optional port")
    return value


def _content_length(request: Request, value: bytes) -> None:
    request.length = int(value)


def _transfer_encoding(request: Request, value: bytes) -> None:
    if value.lower() != b"chunked":
        request.refuse(400, "Transfer-Encoding must be chunked")
    request.chunked = True


def _connection(request: Request, value: bytes) -> None:
    if value.lower() not in (b"keep-alive", b"close"):
        request.named += [token.strip().lower() for token in value.split(b",")]


def _expect(request: Request, value: bytes) -> None:
    if value.lower() != b"100-continue":
        request.refuse(417, "Expect must be 100-continue")
    request.expects_continue = True


def _force(request: Request, value: bytes) -> None:
    request.forced = value


def _forwarded(name: bytes) -> Callable[[Request, bytes], None]:
    def take(request: Request, value: bytes) -> None:
        known = request.forwarded.get(name)
        request.forwarded[name] = value if known is None else known + b", " + value

    return take


_TAKE: dict[bytes, Callable[[Request, bytes], None]] = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"expect": _expect,
    b"upgrade": _upgrade,
    b"kingmaker-force-arm": _force,
    b"x-forwarded-for": _forwarded(b"x-forwarded-for"),
    b"x-forwarded-host": _forwarded(b"x-forwarded-host"),
    b"x-forwarded-proto": _forwarded(b"x-forwarded-proto"),
    b"keep-alive": _drop,
    b"proxy-connection": _drop,
    b"proxy-authenticate": _drop,
    b"proxy-authorization": _drop,
    b"te": _drop,
    b"trailer": _drop,
}
