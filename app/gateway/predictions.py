"""What does an arm's answer predict? Its body is hashed as it comes, and read for the declared fields."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import msgspec

from app.gateway.scalars import resolve
from routing.types import Prediction

KEPT_BYTES = 64 * 1024
"""The longest body that is looked into; decoding that much JSON takes less than a millisecond."""

HASHED_BYTES = 1024 * 1024
"""The longest body that is hashed."""

LABEL_CHARACTERS = 128
"""The longest text that counts as a label."""

_HASH_BYTES = 16
_WHOLE_NUMBERS = 1 << 63
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31
_decode = msgspec.json.Decoder().decode

Value = float | str | None


class Reading:
    """An answer's body as it comes. Mutable state: its length, its hash, and itself while it is short."""

    __slots__ = ("_hash", "_kept", "length")

    def __init__(self) -> None:
        self.length = 0
        self._hash = blake2b(digest_size=_HASH_BYTES)
        self._kept = bytearray()

    @property
    def is_too_long(self) -> bool:
        """Whether more has come than is ever hashed: no hash will be known."""
        return self.length > HASHED_BYTES

    def add(self, pieces: Iterable[bytes]) -> None:
        """Takes more of the body; beyond the bounds it is counted only."""
        for piece in pieces:
            self.length += len(piece)
            if self.length <= HASHED_BYTES:
                self._hash.update(piece)
            if self.length <= KEPT_BYTES:
                self._kept += piece
            else:
                self._kept.clear()

    def digest(self) -> str | None:
        """The BLAKE2b hash of the body, 16 bytes, hexadecimal; None when the body was too long."""
        return None if self.is_too_long else self._hash.hexdigest()

    def predictions(self, declared: Sequence[Prediction]) -> dict[str, Value]:
        """What the whole body predicts; a body that is too long to be looked into predicts nothing."""
        if not declared:
            return {}
        return predictions_of(declared, bytes(self._kept))


def predictions_of(declared: Sequence[Prediction], body: bytes) -> dict[str, Value]:
    """Each declared field: a finite number, a short label, or None where the body does not name one.

    A body that is compressed with gzip is read as what it unpacks to.
    """
    document = _document(body)
    return {field.name: _value(resolve(document, field.pointer), field.numeric) for field in declared}


def _document(body: bytes) -> object:
    try:
        return _decode(_unpacked(body) if body.startswith(_GZIP_MAGIC) else body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError, zlib.error):
        return None


def _unpacked(body: bytes) -> bytes:
    """What a gzip stream holds, as far as it would have been kept: a longer document is cut, so no JSON."""
    return zlib.decompressobj(_GZIP_WINDOW).decompress(body, KEPT_BYTES)


def _value(found: object, numeric: bool) -> Value:
    if numeric:
        return _number(found)
    if isinstance(found, str):
        return found if len(found) <= LABEL_CHARACTERS else None
    if isinstance(found, bool):
        return "true" if found else "false"
    if isinstance(found, int):
        return str(found) if abs(found) < _WHOLE_NUMBERS else None
    return None


def _number(found: object) -> float | None:
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    try:
        number = float(found)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
