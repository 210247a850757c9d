"""What is read of a request, and where? The declared features of a context. All frozen."""

from __future__ import annotations

from enum import StrEnum

import msgspec

Value = str | float | bool
"""What a feature can be: the text of a categorical, text or id, a number, or a truth value."""


class SourceKind(StrEnum):
    """Where in a request something is found."""

    HEADER = "header"
    JSON = "json"
    COOKIE = "cookie"
    QUERY = "query"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is read in a request; for `json`, `name` is an RFC 6901 pointer."""

    kind: SourceKind
    name: str


class FeatureType(StrEnum):
    """How a feature becomes numbers."""

    CATEGORICAL = "categorical"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    TEXT = "text"
    ID = "id"


class Outside(StrEnum):
    """What a number outside its range counts as: the nearest bound, or as if it were missing."""

    CLIP = "clip"
    MISSING = "missing"


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """A declared feature of the context.

    `values` are a categorical's; any other is *other*. `minimum` and `maximum` are a numeric's range.
    `buckets` is into how many a text's words, or a whole id, are hashed. `default` stands in for a missing
    value; without one a missing value is told apart.
    """

    name: str
    source: Source
    type: FeatureType
    values: tuple[str, ...] = ()
    minimum: float = 0.0
    maximum: float = 1.0
    outside: Outside = Outside.CLIP
    buckets: int = 0
    default: Value | None = None
