"""What does a declared context come to, as values and as numbers?

Asked by whoever meets a context: a live request, decide, replay, the learner, a training set. All of them get
the same values and the same numbers from here. Golden vectors fix the numbers for ever.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from math import inf, isfinite, sqrt
from typing import Final, TypeAlias, cast
from unicodedata import normalize

import numpy as np
from msgspec.structs import fields
from numpy.typing import NDArray

from routing.errors import BadSnapshot
from routing.features import Feature, FeatureType, Outside, SourceKind, Value

ENCODING_VERSION: Final = 1
"""Raised when the same features come to other columns or numbers: it is part of every schema version."""

MAX_FEATURES: Final = 64
MAX_WIDTH: Final = 256
MAX_VALUES: Final = 256
MAX_BUCKETS: Final = 1_024
VALUE_CHARACTERS: Final = 128
ID_CHARACTERS: Final = 256
TEXT_CHARACTERS: Final = 1_024
MAX_WORDS: Final = 64

Vector = NDArray[np.float64]
Row: TypeAlias = "memoryview[float]"

_FURTHEST: Final = 1e100
"""Bounds of numbers are within ± this, and their distance is at least its inverse: all sums stay finite."""
_HASHED_TYPES: Final = (FeatureType.TEXT, FeatureType.ID)
_TRUTHS: Final = {"true": True, "false": False, "1": True, "0": False}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_WORD: Final = re.compile(r"[^\W_]+")
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")
_SOURCES: Final = {
    SourceKind.HEADER: (_TOKEN, "the name of a header"),
    SourceKind.JSON: (re.compile(r"(/([^~/]|~[01])*)+"), "a JSON pointer such as /user/country"),
    SourceKind.COOKIE: (_TOKEN, "the name of a cookie"),
    SourceKind.QUERY: (re.compile(r"(?s).+"), "the name of a query parameter"),
}
_DEFAULTS: Final = {info.name: info.default for info in fields(Feature)}
_PROPERTIES: Final = {
    "values": ("values", (FeatureType.CATEGORICAL,)),
    "min": ("minimum", (FeatureType.NUMERIC,)),
    "max": ("maximum", (FeatureType.NUMERIC,)),
    "outside": ("outside", (FeatureType.NUMERIC,)),
    "buckets": ("buckets", _HASHED_TYPES),
}
"""Properties by their names on the wire: the attribute, and the types that it belongs to."""


def problems_of(features: Sequence[Feature]) -> Iterator[tuple[str, str]]:
    """Everything in declared features that cannot be: fields and messages, `("3.min", "must be …, got …")`.

    Fields are named as on the wire. What is wrong with all the features together has an empty one.
    """
    if len(features) > MAX_FEATURES:
        yield "", f"must hold at most {MAX_FEATURES} features, got {len(features)}"
    known: dict[str, int] = {}
    for index, feature in enumerate(features):
        if (first := known.setdefault(feature.name, index)) != index:
            yield f"{index}.name", f"must differ from the others, got {feature.name!r} as in {first}"
        for field, message in _problems(feature):
            yield f"{index}.{field}", message
    if (width := 1 + sum(_width(feature) for feature in features)) > MAX_WIDTH:
        yield "", f"must come to at most {MAX_WIDTH} columns with the intercept, got {width}"


def coerce(feature: Feature, raw: object) -> Value | None:
    """The value that a feature has by text of a header, cookie or query, or by any JSON value.

    None where it is missing, or is no such value; nothing raises. Empty text is missing. In what is kept of
    a text, NUL and lone surrogates become U+FFFD: no store takes them.

    - categorical: text as it came; an integer or a truth value as its JSON text (`3`, `true`). At most 128
      characters. One that is not declared stays as it is.
    - numeric: a finite JSON number, or decimal text of at most 128 characters, as in `-3`, `.5` or `1e3`.
      What lies outside its range, as all does that no float holds, is the nearest bound, or missing.
    - boolean: true and false, 1 and 0, as JSON or as text in any case.
    - text: text alone. Its first 1,024 characters in NFC, case-folded, in NFC again, cut to 1,024 once more.
    - id: text as it came, or an integer as its JSON text. At most 256 characters.
    """
    match feature.type:
        case FeatureType.CATEGORICAL:
            return _category(raw)
        case FeatureType.NUMERIC:
            return _number(raw, feature.minimum, feature.maximum, feature.outside is Outside.CLIP)
        case FeatureType.BOOLEAN:
            return _truth(raw)
        case FeatureType.TEXT:
            return _text(raw)
        case FeatureType.ID:
            return _label(raw, ID_CHARACTERS)


class Encoder:
    """The values and numbers that contexts come to under declared features.

    `columns` names the `width` numbers: `intercept`; `country=DE`, `country=*` for any other value; `hour`;
    `mail#07` for a hash bucket; `hour?` says that the feature is missing. `version` is that of the schema,
    from 1 to 2³² − 1 (0 is for no context): the first 4 bytes of BLAKE2b over the features as JSON.

    Raises:
        BadSnapshot: the features have a problem.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        if (problem := next(problems_of(features), None)) is not None:
            field, message = problem
            raise BadSnapshot(f"context.{field} {message}" if field else f"context {message}")
        self.features = tuple(features)
        self.version = _version(self.features)
        self._parts: list[_Columns] = []
        columns = ["intercept"]
        for feature in self.features:
            self._parts.append(_COLUMNS[feature.type](feature, len(columns)))
            columns += _names(feature)
        self.columns = tuple(columns)
        self.width = len(columns)
        self._blank: Vector = np.eye(1, self.width)[0]

    def read(self, raw: Mapping[str, object]) -> dict[str, Value]:
        """The declared features that are there and valid, in their order. Values can be read again."""
        found: dict[str, Value] = {}
        for part in self._parts:
            given = raw.get(part.name)
            if given is not None:
                value = part.read(given)
                if value is not None:
                    found[part.name] = value
        return found

    def encode(self, values: Mapping[str, Value]) -> Vector:
        """The numbers of one context, shape (width,), by its values as `read` gives them."""
        row = self._blank.copy()
        self._fill(row, values)
        return row

    def encode_many(self, contexts: Sequence[Mapping[str, Value]]) -> Vector:
        """The numbers of many, shape (n, width): each row is what `encode` gives, to the bit."""
        rows = np.tile(self._blank, (len(contexts), 1))
        for row, values in zip(rows, contexts, strict=True):
            self._fill(row, values)
        return rows

    def missing(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        """The names of the features that a context lacks, whether or not a default stands in for them."""
        return tuple(feature.name for feature in self.features if feature.name not in values)

    def _fill(self, numbers: Vector, values: Mapping[str, Value]) -> None:
        row = cast(Row, numbers.data)  # written to in half the time
        for part in self._parts:
            value = values.get(part.name, part.default)
            if value is not None:
                part.put(row, value)
            elif part.absent:
                row[part.absent] = 1.0


class _Columns(ABC):
    """The columns of one feature: where they begin, and which one says that it is missing (0: none)."""

    def __init__(self, feature: Feature, first: int) -> None:
        self.name = feature.name
        self.first = first
        self.default = None if feature.default is None else coerce(feature, feature.default)
        self.absent = first + _width(feature) - 1 if _tells_missing(feature) else 0

    @abstractmethod
    def read(self, raw: object) -> Value | None:
        """What `coerce` says of the feature."""

    @abstractmethod
    def put(self, row: Row, value: Value) -> None:
        """Write the numbers of a value into a row of zeros."""


class _OneHot(_Columns):
    """Of a categorical: one per declared value, and one for any other."""

    def __init__(self, feature: Feature, first: int) -> None:
        super().__init__(feature, first)
        self._places: dict[Value, int] = {value: first + at for at, value in enumerate(feature.values)}
        self._other = first + len(feature.values)

    def read(self, raw: object) -> Value | None:
        return raw if isinstance(raw, str) and raw in self._places else _category(raw)

    def put(self, row: Row, value: Value) -> None:
        row[self._places.get(value, self._other)] = 1.0


class _Scaled(_Columns):
    """Of a number: (v − (min + max) / 2) / ((max − min) / √12).

    Of a number that is uniform on its range, that has mean 0 and variance 1, so columns are of one size.
    """

    def __init__(self, feature: Feature, first: int) -> None:
        super().__init__(feature, first)
        self._low, self._high = float(feature.minimum), float(feature.maximum)
        self._clips = feature.outside is Outside.CLIP
        self._middle = (self._low + self._high) / 2
        self._deviation = (self._high - self._low) / sqrt(12)

    def read(self, raw: object) -> Value | None:
        return _number(raw, self._low, self._high, self._clips)

    def put(self, row: Row, value: Value) -> None:
        if not isinstance(value, str):
            row[self.first] = (value - self._middle) / self._deviation


class _Flag(_Columns):
    """Of a truth value: 1 or 0."""

    def read(self, raw: object) -> Value | None:
        return raw if isinstance(raw, bool) else _truth(raw)

    def put(self, row: Row, value: Value) -> None:
        if value:
            row[self.first] = 1.0


class _Whole(_Columns):
    """Of an id: 1 in the bucket that it is hashed into."""

    def __init__(self, feature: Feature, first: int) -> None:
        super().__init__(feature, first)
        self._bucket = _buckets_of(feature.name, feature.buckets)

    def read(self, raw: object) -> Value | None:
        return _label(raw, ID_CHARACTERS)

    def put(self, row: Row, value: Value) -> None:
        row[self.first + self._bucket(str(value))] = 1.0


class _Words(_Whole):
    """Of a text: each of its first 64 words is hashed; of n distinct ones each counts 1 / √n."""

    def read(self, raw: object) -> Value | None:
        return _text(raw)

    def put(self, row: Row, value: Value) -> None:
        text = str(value)
        found = text.split() if text.replace(" ", "").isalnum() else _WORD.findall(text)
        words = set(found[:MAX_WORDS])
        amount = 1 / sqrt(len(words) or 1)
        for bucket in map(self._bucket, words):
            row[self.first + bucket] += amount


_COLUMNS: Final[Mapping[FeatureType, type[_Columns]]] = {
    FeatureType.CATEGORICAL: _OneHot,
    FeatureType.NUMERIC: _Scaled,
    FeatureType.BOOLEAN: _Flag,
    FeatureType.TEXT: _Words,
    FeatureType.ID: _Whole,
}


def _tells_missing(feature: Feature) -> bool:
    """Whether a column of its own says so: a text or an id that is missing is no bucket at all."""
    return feature.default is None and feature.type not in _HASHED_TYPES


def _width(feature: Feature) -> int:
    known = feature.buckets if feature.type in _HASHED_TYPES else len(feature.values) + 1
    return known + _tells_missing(feature)


def _names(feature: Feature) -> Iterator[str]:
    name, buckets = feature.name, feature.buckets
    if feature.type in _HASHED_TYPES:
        yield from (f"{name}#{bucket:0{len(str(buckets - 1))}}" for bucket in range(buckets))
    elif feature.type is FeatureType.CATEGORICAL:
        yield from (f"{name}={value}" for value in (*feature.values, "*"))
    else:
        yield name
    if _tells_missing(feature):
        yield f"{name}?"


def _version(features: Sequence[Feature]) -> int:
    schema = {"encoding": ENCODING_VERSION, "features": [_wire(feature) for feature in features]}
    canonical = json.dumps(schema, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(blake2b(canonical.encode()).digest()[:4], "big") or 1


def _wire(feature: Feature) -> dict[str, object]:
    default = feature.default
    return {
        "name": feature.name,
        "from": {feature.source.kind.value: feature.source.name},
        "type": feature.type.value,
        "values": feature.values,
        "min": feature.minimum + 0.0,  # 1 is 1.0, and −0 is 0
        "max": feature.maximum + 0.0,
        "outside": feature.outside.value,
        "buckets": feature.buckets,
        "default": default if default is None or isinstance(default, (str, bool)) else default + 0.0,
    }


@lru_cache(maxsize=MAX_FEATURES)
def _buckets_of(name: str, buckets: int) -> Callable[[str], int]:
    """The buckets of a feature, which remember what they were asked for and outlive an encoder.

    Keyed, so that two words that share a bucket in one feature are apart in the next.
    """
    keyed = blake2b(digest_size=8, key=name.encode())
    return lru_cache(maxsize=256)(partial(_bucket, keyed, buckets))


def _bucket(keyed: blake2b, buckets: int, text: str) -> int:
    """In which of n buckets a text falls: keyed BLAKE2b (RFC 7693), 8 bytes, big-endian, (hash · n) >> 64."""
    state = keyed.copy()
    state.update(text.encode("utf-8", "surrogatepass"))
    return (int.from_bytes(state.digest(), "big") * buckets) >> 64


def _category(raw: object) -> str | None:
    return _label(str(raw).lower() if isinstance(raw, bool) else raw, VALUE_CHARACTERS)


def _label(raw: object, longest: int) -> str | None:
    if isinstance(raw, int) and not isinstance(raw, bool) and raw.bit_length() < 1_024:
        raw = str(raw)
    return _storable(raw) if isinstance(raw, str) and 0 < len(raw) <= longest else None


def _number(raw: object, low: float, high: float, clips: bool) -> float | None:
    number = _finite_or_far(raw)
    if number is None or low <= number <= high:
        return number
    if not clips:
        return None
    return float(low if number < low else high)


def _finite_or_far(raw: object) -> float | None:
    """The number, if it is one. What is finite but too large for a float comes to an infinity."""
    if isinstance(raw, float):
        return raw if isfinite(raw) else None
    if isinstance(raw, str):
        return float(raw) if len(raw) <= VALUE_CHARACTERS and _DECIMAL.fullmatch(raw) else None
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None
    try:
        return float(raw)
    except OverflowError:
        return inf if raw > 0 else -inf


def _truth(raw: object) -> bool | None:
    if isinstance(raw, str):
        return _TRUTHS.get(raw.lower()) if len(raw) <= len("false") else None
    return raw == 1 if isinstance(raw, (int, float)) and raw in (0, 1) else None


def _text(raw: object) -> str | None:
    if not isinstance(raw, str) or not raw:
        return None
    text = _storable(raw[:TEXT_CHARACTERS])
    if text.isascii():
        return text.lower()
    return normalize("NFC", normalize("NFC", text).casefold())[:TEXT_CHARACTERS]


def _storable(text: str) -> str:
    return text if text.isprintable() else _UNSTORABLE.sub("\ufffd", text)


def _problems(feature: Feature) -> Iterator[tuple[str, str]]:
    if not _NAME.fullmatch(feature.name):
        yield "name", f"must match {_NAME.pattern}, got {feature.name!r}"
    pattern, bound = _SOURCES[feature.source.kind]
    if not pattern.fullmatch(feature.source.name):
        yield f"from.{feature.source.kind.value}", f"must be {bound}, got {feature.source.name!r}"
    for field, (attribute, types) in _PROPERTIES.items():
        value = getattr(feature, attribute)
        if feature.type not in types and value != _DEFAULTS[attribute]:
            yield field, f"must be left out for type {feature.type.value}, got {value!r}"
    if feature.type is FeatureType.CATEGORICAL:
        yield from _values_problems(feature.values)
    if feature.type is FeatureType.NUMERIC:
        yield from _range_problems(feature.minimum, feature.maximum)
    if feature.type in _HASHED_TYPES and not 2 <= feature.buckets <= MAX_BUCKETS:
        yield "buckets", f"must be in [2, {MAX_BUCKETS}], got {feature.buckets}"
    if feature.default is not None:
        yield from _default_problems(feature, feature.default)


def _values_problems(values: Sequence[str]) -> Iterator[tuple[str, str]]:
    if not 1 <= len(values) <= MAX_VALUES:
        yield "values", f"must hold 1 to {MAX_VALUES} values, got {len(values)}"
    known: set[str] = set()
    for index, value in enumerate(values):
        field = f"values.{index}"
        if not 1 <= len(value) <= VALUE_CHARACTERS:
            yield field, f"must be 1 to {VALUE_CHARACTERS} characters long, got {len(value)}"
        if _storable(value) != value:
            yield field, f"must hold neither NUL nor a lone surrogate, got {value!r}"
        if value == "*":
            yield field, "must not be *, which stands for any other value, got '*'"
        if value in known:
            yield field, f"must differ from the others, got {value!r} again"
        known.add(value)


def _range_problems(low: float, high: float) -> Iterator[tuple[str, str]]:
    for field, bound in (("min", low), ("max", high)):
        if not -_FURTHEST <= bound <= _FURTHEST:
            yield field, f"must be in [{-_FURTHEST}, {_FURTHEST}], got {bound}"
    if high - low < 1 / _FURTHEST:
        yield "max", f"must be above min {low} by at least {1 / _FURTHEST}, got {high}"


def _default_problems(feature: Feature, default: Value) -> Iterator[tuple[str, str]]:
    match feature.type:
        case FeatureType.CATEGORICAL:
            fits, bound = default in feature.values, "one of values"
        case FeatureType.NUMERIC:
            fits = not isinstance(default, (str, bool)) and feature.minimum <= default <= feature.maximum
            bound = f"a number in [{feature.minimum}, {feature.maximum}]"
        case FeatureType.BOOLEAN:
            fits, bound = isinstance(default, bool), "true or false"
        case FeatureType.TEXT | FeatureType.ID:
            longest = TEXT_CHARACTERS if feature.type is FeatureType.TEXT else ID_CHARACTERS
            fits = isinstance(default, str) and 1 <= len(default) <= longest
            bound = f"text of 1 to {longest} characters"
    if not fits:
        yield "default", f"must be {bound}, got {default!r}"
