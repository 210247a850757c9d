"""What may stand in a message's head? The grammar of RFC 9112 by allow-list; everything else is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Generic, TypeVar

END: Final = b"\r\n\r\n"
"""What ends a head."""

_KNOWN_LINES: Final = 2_048
_KNOWN_LINE_BYTES: Final = 256
_SECRETS: Final = frozenset((b"authorization", b"cookie", b"set-cookie", b"x-api-key"))
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOPELESS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)|(?<!\r)\n")

_Take = TypeVar("_Take")


class BadMessage(Exception):
    """A message that is not forwarded: why, and the status that a caller gets for it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class FieldLines(dict[bytes, tuple[bytes, bytes, bytes, _Take]], Generic[_Take]):
    """What header lines say: name in lower case, value, the line as it is passed on, and who takes it.

    Most lines come again and again, so they are learnt from the messages that come. Only so many are
    remembered, and none that is likely to hold a secret.

    Raises (from a look-up):
        BadMessage: the line is no field.
    """

    def __init__(self, taker: Callable[[bytes], _Take]) -> None:
        super().__init__()
        self._taker = taker

    def __missing__(self, line: bytes) -> tuple[bytes, bytes, bytes, _Take]:
        name, colon, value = line.partition(b":")
        if _CONTROL.search(value) is not None:
            raise BadMessage(400, "a head must not hold control characters, nor CR or LF by themselves")
        if not colon or _TOKEN.fullmatch(name) is None:
            raise BadMessage(400, "a header field must be a token, a colon that follows at once, and a value")
        lower, value = name.lower(), value.strip(b" \t")
        field = (lower, value, b"%b: %b\r\n" % (name, value), self._taker(lower))
        if len(line) <= _KNOWN_LINE_BYTES and lower not in _SECRETS:
            if len(self) >= _KNOWN_LINES:
                self.clear()
            self[line] = field
        return field

    def find(self, lines: list[bytes], name: bytes) -> bytes | None:
        """The value in the first of these lines that has this name (lower case)."""
        for line in lines:
            lower, value, _, _ = self[line]
            if lower == name:
                return value
        return None

    def by_name(self, lines: list[bytes]) -> dict[bytes, bytes]:
        """The values in lines that were looked up before, by name; of equal names the first."""
        values: dict[bytes, bytes] = {}
        for line in reversed(lines):
            known = self.get(line)
            if known is not None:
                values[known[0]] = known[1]
            else:
                name, _, value = line.partition(b":")
                values[name.lower()] = value.strip(b" \t")
        return values


def is_hopeless(part: bytes, looked_at: int = 0) -> bool:
    """Whether a head that is not whole yet can no longer become a good one; `looked_at` bytes of it could."""
    return _HOPELESS.search(part, max(looked_at - 1, 0)) is not None


def is_token(text: bytes) -> bool:
    """Whether a text is a token (RFC 9110, 5.6.2), as methods and field names are."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=1_024)
def length_of(value: bytes) -> int:
    """The value of Content-Length: digits alone, few enough for 64 bits.

    Raises:
        BadMessage: it is anything else.
    """
    if not value.isdigit() or len(value) > 18:
        raise BadMessage(400, "Content-Length must be up to 18 digits, sent once")
    return int(value)


def tokens_of(value: bytes) -> tuple[bytes, ...]:
    """The tokens of a list such as Connection's, in lower case."""
    return _known_tokens(value) if len(value) <= _KNOWN_LINE_BYTES else _tokens(value)


def _tokens(value: bytes) -> tuple[bytes, ...]:
    return tuple(token.strip(b" \t").lower() for token in value.split(b","))


_known_tokens: Final = lru_cache(maxsize=256)(_tokens)


def is_bodiless(method: bytes, status: int) -> bool:
    """Whether an answer has no body whatever its header says (RFC 9112, 6.3)."""
    return method == b"HEAD" or status in (204, 304) or status < 200
