"""What did the caller send? One request, read by an allow-list and kept in parts, never as it came."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from app.gateway.bodies import BodyReader, ChunkReader, LengthReader
from app.gateway.heads import BadMessage, FieldLines, is_token, length_of, tokens_of
from app.gateway.settings import GatewaySettings

REPLAY_BYTES: Final = 1024 * 1024
"""The longest body that is kept for another arm."""

HOLD_BYTES: Final = 64 * 1024
"""Body bytes that wait for an arm before the caller is paused."""

SMALL_BYTES: Final = 4 * 1024
"""A piece, or a body, that is not worth being counted or kept by itself."""

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"))
FORWARDING = (
    *(b"forwarded", b"via", b"x-real-ip", b"traceparent", b"tracestate", b"baggage"),
    *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"),
    *(b"x-forwarded-port", b"x-forwarded-prefix"),
)
"""Fields that say where a request has been; what becomes of them depends on who sent them."""

_REFUSED_METHODS = frozenset((b"CONNECT", b"TRACE"))
_PATH = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*+")
_QUERY = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?\[\]|{}^\\`-]|%[0-9A-Fa-f]{2})*+")
_SEPARATOR = rb"(?:/|%2f|%5c)"
_BAD_PATH = re.compile(
    rb"%%0[0ad]|(?:^|%b)(?:\.|%%2e){1,2}(?:%b|;|%%3b|$)" % (_SEPARATOR, _SEPARATOR), re.IGNORECASE
)
_WEBSOCKET_KEY = re.compile(rb"sec-websocket-key: [A-Za-z0-9+/]{21}[AQgw]==\r\n", re.IGNORECASE)
_HOST_BYTES = 261  # the longest name (RFC 1035, 2.3.4), a colon and a port
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]*|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
_PORTS = 65_536
_ABSOLUTE = re.compile(rb"https?://([^:/?#][^/?#]*)([^#]*)", re.IGNORECASE)
_KNOWN_BYTES: Final = 256
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_HARMLESS: Final = frozenset((b"keep-alive", b"close", b"upgrade", b"te"))


_UNINDEXED: Final[dict[bytes, bytes]] = {}
"""That one field was looked for, which is often all; an index is made for the second."""


class Request:
    """One request as it is read. `lines`: the header fields an arm may see; `pieces`: body not taken yet.

    `received` is how much of the body has come; `kept` is what was taken of it, for another arm, where that
    was asked for and it is not too long.
    """

    __slots__ = (
        "_authority",
        "_body",
        "_came",
        "_fields",
        "_taken_bytes",
        "chunked",
        "complete",
        "cookies",
        "document",
        "expects_continue",
        "forced",
        "forwarded",
        "hold_bytes",
        "host",
        "http10",
        "keep_alive",
        "kept",
        "length",
        "lines",
        "max_forwards",
        "method",
        "named",
        "parameters",
        "path",
        "pieces",
        "query",
        "received",
        "stops_here",
        "timeout_ms",
        "upgrade",
    )

    def __init__(self) -> None:
        self.method = b""
        self.path = ""
        self.query = b""
        self.forwarded: Mapping[bytes, bytes] = MappingProxyType({})
        self.host: bytes | None = None
        self.http10 = False
        self.keep_alive = True
        self.length: int | None = None
        self.chunked = False
        self.expects_continue = False
        self.upgrade: bytes | None = None
        self.forced: bytes | None = None
        self.hold_bytes = HOLD_BYTES
        self.received = 0
        self.complete = True
        self.timeout_ms: int | None = None
        self.max_forwards: bytes | None = None
        self.stops_here = False
        self.document: object = None
        self.parameters: dict[str, str] | None = None
        self.cookies: dict[bytes, bytes] | None = None
        self.kept: list[bytes] | None = None
        self.named: tuple[bytes, ...] = ()
        self._taken_bytes = 0
        self._body: BodyReader | None = None
        self._authority: bytes | None = None
        self._came: list[bytes] = []
        self._fields: dict[bytes, bytes] | None = None
        self.lines: list[bytes] = []
        self.pieces: list[bytes] = []

    @property
    def idempotent(self) -> bool:
        """Whether repeating it on the same arm can do no harm (RFC 9110, 9.2.2)."""
        return self.method in IDEMPOTENT

    @property
    def pending(self) -> int:
        """How much of the body has come that nobody has taken."""
        return self.received - self._taken_bytes

    def read_head(self, head: bytes, settings: GatewaySettings) -> None:
        """Takes the whole head, which comes without the empty line at its end.

        Raises:
            BadMessage: it must not be forwarded.
        """
        lines = head.split(b"\r\n")
        if len(lines) > settings.head_fields + 1:
            raise BadMessage(
                431, f"a head must have at most {settings.head_fields} fields, got {len(lines) - 1}"
            )
        if len(lines[0]) > settings.target_bytes:
            _check_target(lines[0], settings.target_bytes)
        read = _known_request_line if len(lines[0]) <= _KNOWN_BYTES else _read_request_line
        self.method, self.path, self.query, self.http10, self._authority = read(lines[0])
        if self.http10:
            self.keep_alive = False
        del lines[0]
        kept = self.lines
        for line in lines:
            _, value, passed_on, take = _LINES[line]
            if take is None:
                kept.append(passed_on)
            else:
                take(self, value)
        self._came = lines
        self._check_head(settings.body_bytes)

    def field(self, name: bytes) -> bytes | None:
        """The value of the first field with this name (lower case), as it came."""
        fields = self._fields
        if fields is None:
            self._fields = _UNINDEXED
            return _LINES.find(self._came, name)
        if not fields:
            self._fields = fields = _LINES.by_name(self._came)
        return fields.get(name)

    def forget(self) -> None:
        """Drops what was worked out of head and body: a document is many times its text."""
        self.document = None
        self.parameters = self.cookies = self._fields = None

    def read_body(self, data: bytes, most: int) -> bytes:
        """Takes what there is of the body; gives what came after its end.

        Raises:
            BadMessage: its framing is broken, or it is too long.
        """
        body = self._body
        if self.complete:
            return data
        if body is None:
            length = self.length
            if length is not None and len(data) >= length:
                self.pieces.append(data if len(data) == length else data[:length])
                self.received, self.complete = length, True
                return data[length:]
            self._body = body = ChunkReader() if length is None else LengthReader(length)
        rest = body.feed(data, self.pieces)
        _merge_last(self.pieces)
        self.received = body.received
        if self.received > most:
            raise BadMessage(413, f"body must be at most {most} bytes, got more")
        self.complete = body.complete
        return rest

    def take_body(self) -> list[bytes]:
        """The pieces of the body that nobody has taken yet; forgotten here, unless `keep` was called."""
        pieces, self.pieces = self.pieces, []
        if pieces:
            self._taken_bytes = self.received
            if self.received > REPLAY_BYTES:
                self.kept = None
            elif self.kept is not None:
                self.kept.append(b"".join(pieces))
                _merge_last(self.kept)
        return pieces

    @property
    def held(self) -> int:
        """How much of the body is in memory."""
        return self.received if self.kept is not None else self.pending

    @property
    def can_replay(self) -> bool:
        """Whether another arm can have what was taken of the body."""
        return self.kept is not None or not self._taken_bytes

    def keep(self) -> None:
        """Keeps what will be taken of the body, so that another arm can have it."""
        self.kept = []

    def _check_head(self, longest: int) -> None:
        if self.host is None and not self.http10:
            raise BadMessage(400, "Host must be sent exactly once, got none")
        if self._authority is not None:
            self.host = _checked_host(self._authority)
        if self.upgrade is not None and not self._is_websocket():
            self.upgrade = None
        if self.max_forwards is not None:
            self._count_forwards(self.max_forwards)
        if self.named and not _HARMLESS.issuperset(self.named):
            self._drop_named()
        if self.chunked:
            if self.length is not None or self.http10:
                raise BadMessage(400, "Transfer-Encoding must not go with Content-Length, nor with HTTP/1.0")
            self.complete = False
        elif self.length:
            if self.length > longest:
                raise BadMessage(413, f"body must be at most {longest} bytes, got {self.length}")
            self.complete = False

    def _is_websocket(self) -> bool:
        """Whether it is the one upgrade that is passed on (RFC 6455, 4.1)."""
        is_bare = self.method == b"GET" and not (self.http10 or self.chunked or self.length)
        if not is_bare or self.upgrade != b"websocket" or b"upgrade" not in self.named:
            return False
        keys = [line for line in self.lines if line[:18].lower() == b"sec-websocket-key:"]
        if len(keys) != 1 or _WEBSOCKET_KEY.fullmatch(keys[0]) is None:
            raise BadMessage(400, "Sec-WebSocket-Key must be 16 bytes in base64, sent once")
        if self.field(b"sec-websocket-version") != b"13":
            raise BadMessage(426, "Sec-WebSocket-Version must be 13")
        return True

    def _count_forwards(self, most: bytes) -> None:
        """Max-Forwards is for OPTIONS (RFC 9110, 7.6.2): at 0 the answer is ours, else it is one less."""
        if self.method != b"OPTIONS" or not most.isdigit() or len(most) > 9:
            self.lines.append(b"Max-Forwards: %b\r\n" % most)
        elif int(most) == 0:
            self.stops_here = True
        else:
            self.lines.append(b"Max-Forwards: %d\r\n" % (int(most) - 1))

    def _drop_named(self) -> None:
        self.lines = [line for line in self.lines if line.partition(b":")[0].lower() not in self.named]
        kept = {name: value for name, value in self.forwarded.items() if name not in self.named}
        self.forwarded = {**kept, b"via": self.forwarded[b"via"]} if b"via" in self.forwarded else kept


RequestLine = tuple[bytes, str, bytes, bool, bytes | None]
"""Method, path, query, whether it is HTTP/1.0, and the authority of an absolute target."""


def _read_request_line(line: bytes) -> RequestLine:
    parts = line.split(b" ")
    if len(parts) != 3 or not is_token(parts[0]):
        raise BadMessage(400, "a request line must be method, target and version, one space between")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        is_version = _VERSION.fullmatch(version) is not None
        raise BadMessage(505 if is_version else 400, "the version must be HTTP/1.0 or HTTP/1.1")
    if method in _REFUSED_METHODS:
        raise BadMessage(501, f"method {method.decode()} is not supported")
    authority, target = _origin_form(method, target)
    path, _, query = target.partition(b"?")
    if _PATH.fullmatch(path) is None or _QUERY.fullmatch(query) is None:
        raise BadMessage(400, "a request target must be a path and a query in the characters of URLs")
    if (b"." in path or b"%" in path) and _BAD_PATH.search(path) is not None:
        raise BadMessage(400, "a path must not hold dot segments, or an encoded NUL or line end")
    return method, path.decode(), query, version == b"HTTP/1.0", authority


_known_request_line: Final = lru_cache(maxsize=1_024)(_read_request_line)
"""Most request lines come again and again."""


def _origin_form(method: bytes, target: bytes) -> tuple[bytes | None, bytes]:
    """The authority of an absolute URL, which counts instead of the Host field, and its path and query."""
    if target.startswith(b"/"):
        return None, target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        return absolute[1], absolute[2] if absolute[2].startswith(b"/") else b"/" + absolute[2]
    if method == b"OPTIONS" and target == b"*":
        return None, target
    raise BadMessage(400, "a request target must be a path or an http URL")


def _check_target(line: bytes, longest: int) -> None:
    parts = line.split(b" ")
    if len(parts) == 3 and len(parts[1]) > longest:
        raise BadMessage(414, f"a request target must be at most {longest} bytes, got {len(parts[1])}")


def too_long(part: bytes, settings: GatewaySettings) -> BadMessage:
    """Why a head that does not end within its bounds is refused."""
    line, _, fields = part.partition(b"\r\n")
    if not fields or len(line) > settings.target_bytes + 64:
        return BadMessage(414, f"a request target must be at most {settings.target_bytes} bytes, got more")
    return BadMessage(431, f"a request head must be at most {settings.head_bytes} bytes, got more")


def _merge_last(pieces: list[bytes]) -> None:
    """Puts a piece that follows a small one into it: many small ones would take many times their size."""
    if len(pieces) > 1 and len(pieces[-2]) < SMALL_BYTES:
        last = pieces.pop()
        pieces[-1] += last


def is_reserved(lower: bytes) -> bool:
    """Whether a header name (lower case) is ours, or one that a server may take for ours or for framing."""
    if lower.startswith(b"kingmaker-"):
        return True
    if b"_" not in lower:
        return False
    dashed = lower.replace(b"_", b"-")
    return dashed in _TAKE or dashed.startswith(b"kingmaker-")


Take = Callable[[Request, bytes], None]


def _drop(request: Request, value: bytes) -> None:
    pass


def _upgrade(request: Request, value: bytes) -> None:
    request.upgrade = value.lower()


def _host(request: Request, value: bytes) -> None:
    if request.host is not None:
        raise BadMessage(400, "Host must be sent exactly once, got it twice")
    request.host = _checked_host(value)


@lru_cache(maxsize=1_024)
def _checked_host(value: bytes) -> bytes:
    found = _HOST.fullmatch(value) if len(value) <= _HOST_BYTES else None
    if found is None or int(found[1] or 0) >= _PORTS:
        raise BadMessage(400, "Host must be a host name or address with an optional port")
    return value


def _content_length(request: Request, value: bytes) -> None:
    if request.length is not None:
        raise BadMessage(400, "Content-Length must be sent once, got it twice")
    request.length = length_of(value)


def _transfer_encoding(request: Request, value: bytes) -> None:
    if value.lower() != b"chunked" or request.chunked:
        raise BadMessage(400, "Transfer-Encoding must be chunked, sent once")
    request.chunked = True


def _connection(request: Request, value: bytes) -> None:
    tokens = tokens_of(value)
    if b"close" in tokens:
        request.keep_alive = False
    elif b"keep-alive" in tokens and b"close" not in request.named:
        request.keep_alive = True
    request.named += tokens


def _expect(request: Request, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise BadMessage(417, "Expect must be 100-continue")
    request.expects_continue = True


def _max_forwards(request: Request, value: bytes) -> None:
    request.max_forwards = value


def _force(request: Request, value: bytes) -> None:
    request.forced = value


def _timeout(request: Request, value: bytes) -> None:
    if value.isdigit() and len(value) <= 9:
        request.timeout_ms = int(value)


def _forwarded(name: bytes) -> Take:
    def take(request: Request, value: bytes) -> None:
        known = request.forwarded.get(name)
        request.forwarded = {**request.forwarded, name: value if known is None else known + b", " + value}

    return take


_TAKE: Final[dict[bytes, Take]] = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"connection": _connection,
    b"expect": _expect,
    b"upgrade": _upgrade,
    b"max-forwards": _max_forwards,
    b"kingmaker-force-arm": _force,
    b"kingmaker-timeout-ms": _timeout,
    b"keep-alive": _drop,
    b"http2-settings": _drop,
    b"proxy-connection": _drop,
    b"proxy-authenticate": _drop,
    b"proxy-authorization": _drop,
    b"te": _drop,
    b"trailer": _drop,
    **{name: _forwarded(name) for name in FORWARDING},
}


def _taker(lower: bytes) -> Take | None:
    return _TAKE.get(lower, _drop if is_reserved(lower) else None)


_LINES: Final = FieldLines(_taker)
