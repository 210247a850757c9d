"""Which texts, numbers and truth values are at some places of a JSON text?

A short text is decoded whole. Of a long one nothing is built but what leads to those places, so that nobody's
body stalls the loop: the rest is passed over at a gigabyte a second or so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

import msgspec

SHORT_BYTES = 16 * 1024
"""So long a text is decoded whole, in less than a millisecond whatever it holds."""

LARGEST_INDEX = 1_000
"""Up to this place of a list something is found in a long text."""

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_LIST = re.compile(rb"[ \t\r\n]*\[")
_UNNAMEABLE = re.compile(r'["\\\x00-\x1f]')
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeError)
_NOTHING = msgspec.Raw(b"")
_decode = msgspec.json.Decoder().decode
_scalar = msgspec.json.Decoder(str | int | float | bool | None).decode
_every_key = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Found = dict[str, object]
"""Scalars by their pointers; what is not there, or no scalar, is left out, or None."""


class Scalars:
    """Looks for scalars at some places (JSON pointers, RFC 6901)."""

    def __init__(self, pointers: Collection[str]) -> None:
        self._pointers = tuple(pointers)
        self._top = _Level([(pointer, keys_of(pointer)) for pointer in self._pointers])

    def find(self, text: bytes) -> Found:
        """What a text has there; nothing where it is no JSON."""
        if len(text) > SHORT_BYTES:
            found: Found = {}
            self._top.collect(text, found)
            return found
        try:
            document = _decode(text)
        except _UNREADABLE:
            return {}
        return {pointer: resolve(document, pointer) for pointer in self._pointers}


class _Level:
    """What is looked for below one place of a text: the pointers that end here, and the keys that lead on."""

    def __init__(self, wanted: Collection[tuple[str, tuple[str, ...]]]) -> None:
        self._ends = [pointer for pointer, keys in wanted if not keys]
        below: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
        for pointer, keys in wanted:
            if keys:
                below.setdefault(keys[0], []).append((pointer, keys[1:]))
        self._below = {key: _Level(rest) for key, rest in below.items()}
        self._in_object = _in_object(tuple(below))
        indexes = [int(key) for key in below if _INDEX.fullmatch(key) and int(key) <= LARGEST_INDEX]
        self._in_list = _in_list(indexes) if indexes else None

    def collect(self, text: bytes | msgspec.Raw, found: Found) -> None:
        """Adds what is here and below. A text that is not what it should be here has nothing."""
        for pointer in self._ends:
            found[pointer] = _scalar_in(text)
        if self._below:
            for key, part in self._parts(text).items():
                self._below[key].collect(part, found)

    def _parts(self, text: bytes | msgspec.Raw) -> Mapping[str, msgspec.Raw]:
        parts_of = self._in_object if _LIST.match(memoryview(text)) is None else self._in_list
        try:
            return {} if parts_of is None else parts_of(text)
        except _UNREADABLE:
            return {}


Parts = Callable[[bytes | msgspec.Raw], Mapping[str, msgspec.Raw]]


def _in_object(keys: tuple[str, ...]) -> Parts:
    """Finds the values of some keys of an object."""
    if any(_UNNAMEABLE.search(key) for key in keys):
        return lambda text: {key: part for key, part in _every_key(text).items() if key in keys}
    names = {f"k{place}": key for place, key in enumerate(keys)}
    fields = [(name, msgspec.Raw, msgspec.field(default=_NOTHING, name=key)) for name, key in names.items()]
    shape = msgspec.defstruct("Shape", fields)
    decode = msgspec.json.Decoder(shape).decode
    return lambda text: _named(decode(text), names)


def _in_list(indexes: Collection[int]) -> Parts:
    """Finds the values at some places of a list, which are passed over one by one up to the last of them."""
    names = {f"k{place}": str(place) for place in range(max(indexes) + 1)}
    shape = msgspec.defstruct("Row", [(name, msgspec.Raw, _NOTHING) for name in names], array_like=True)
    decode = msgspec.json.Decoder(shape).decode
    wanted = {f"k{index}": str(index) for index in indexes}
    return lambda text: _named(decode(text), wanted)


def _named(shape: msgspec.Struct, names: Mapping[str, str]) -> Mapping[str, msgspec.Raw]:
    parts = {key: getattr(shape, name) for name, key in names.items()}
    return {key: part for key, part in parts.items() if part}


def _scalar_in(text: bytes | msgspec.Raw) -> object:
    try:
        return _scalar(text)
    except _UNREADABLE:
        return None


def resolve(document: object, pointer: str) -> object:
    """What a JSON pointer names in a document; None when that is nothing."""
    if not pointer.startswith("/"):
        return document if pointer == "" else None
    for key in keys_of(pointer):
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and _INDEX.fullmatch(key) is not None and int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return document


@lru_cache(maxsize=1_024)
def keys_of(pointer: str) -> tuple[str, ...]:
    """The keys that a pointer leads through: it is the same in every request."""
    return tuple(token.replace("~1", "/").replace("~0", "~") for token in pointer[1:].split("/"))
