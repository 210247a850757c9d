"""What do the measured requests say of whom they are about? Features in headers and in the body, drawn anew.

Each number and truth value of a header is text, as headers have it; those of the body are JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random

import msgspec

from benchmarks.calls import HEADER, PAYLOAD
from routing.features import Feature, FeatureType, Source, SourceKind, Value

Raw = Mapping[str, Value]
"""What a request has for each feature, by its name."""

_CHOICES = (2, 3, 4, 5, 6, 8, 2, 3, 4, 5, 6, 8)
_NUMBERS = 14
_FLAGS = 4
_LABELS = 2
_BUCKETS = 16
_LABEL_VALUES = 10_000
_SEED = 20_260_101


def _wide() -> Iterator[Feature]:
    for number, choices in enumerate(_CHOICES):
        values = tuple(f"value-{choice}" for choice in range(choices))
        yield _feature(f"category-{number}", number, FeatureType.CATEGORICAL, values=values)
    for number in range(_NUMBERS):
        yield _feature(f"number-{number}", number, FeatureType.NUMERIC, maximum=100.0)
    for number in range(_FLAGS):
        yield _feature(f"flag-{number}", number, FeatureType.BOOLEAN)
    for number in range(_LABELS):
        yield _feature(f"label-{number}", number, FeatureType.ID, buckets=_BUCKETS)


def _feature(
    name: str,
    number: int,
    kind: FeatureType,
    values: tuple[str, ...] = (),
    maximum: float = 1.0,
    buckets: int = 0,
) -> Feature:
    """Of those of a type every other one is in a header."""
    header, pointer = f"X-{name.title()}", f"/context/{name}"
    source = (
        Source(kind=SourceKind.HEADER, name=header)
        if number % 2
        else Source(kind=SourceKind.JSON, name=pointer)
    )
    return Feature(name=name, source=source, type=kind, values=values, maximum=maximum, buckets=buckets)


def _in_header(name: str, kind: FeatureType, values: tuple[str, ...] = (), maximum: float = 1.0) -> Feature:
    source = Source(kind=SourceKind.HEADER, name=f"X-{name.title()}")
    return Feature(name=name, source=source, type=kind, values=values, maximum=maximum)


WIDE = tuple(_wide())
"""32 features: 12 categorical with 2 to 8 values, 14 numeric, 4 boolean, and 2 ids in 16 buckets each."""

COUNTRIES = ("AT", "BE", "CH", "DE", "ES", "FR", "GB", "IT", "NL", "PL")
NARROW = (
    _in_header("country", FeatureType.CATEGORICAL, COUNTRIES),
    _in_header("tier", FeatureType.CATEGORICAL, ("free", "pro", "enterprise")),
    _in_header("platform", FeatureType.CATEGORICAL, ("android", "ios", "web")),
    _in_header("hour", FeatureType.NUMERIC, maximum=23.0),
)
"""Four features in headers."""

UNDECLARED = (
    _in_header("tenant", FeatureType.CATEGORICAL, tuple(f"tenant-{number}" for number in range(20))),
    _in_header("app-version", FeatureType.CATEGORICAL, ("1.4.2", "2.0.0-rc.1", "2.0.1", "2.11.0")),
)
"""What requests also have in headers, though it is no feature of a context."""


def contexts(features: Sequence[Feature], count: int) -> list[Raw]:
    """So many contexts, the same ones each time."""
    draws = Random(_SEED)
    return [{feature.name: _value(feature, draws) for feature in features} for _ in range(count)]


def posts(path: Path, target: str, features: Sequence[Feature], count: int) -> Path:
    """Requests of so many users with these features, in the form that load generators play."""
    raws = contexts(features, count)
    requests = [_post(target, f"user-{user}", features, raw) for user, raw in enumerate(raws)]
    path.write_bytes(b"".join(b"%d\n%b" % (len(request), request) for request in requests))
    return path


def _value(feature: Feature, draws: Random) -> Value:
    value: Value
    match feature.type:
        case FeatureType.CATEGORICAL:
            return draws.choice(feature.values)
        case FeatureType.NUMERIC:
            value = round(draws.uniform(feature.minimum, feature.maximum), 2)
        case FeatureType.BOOLEAN:
            value = draws.random() < 0.5
        case _:
            return f"{feature.name}-{draws.randrange(_LABEL_VALUES)}"
    return str(value).lower() if feature.source.kind is SourceKind.HEADER else value


def _post(target: str, user: str, features: Iterable[Feature], raw: Raw) -> bytes:
    """About as long in its body as the requests without a context are."""
    lines = [f"POST {target} HTTP/1.1", "Host: bench", f"{HEADER}: {user}", "Content-Type: application/json"]
    found: dict[str, Value] = {}
    for feature in features:
        if feature.source.kind is SourceKind.HEADER:
            lines.append(f"{feature.source.name}: {raw[feature.name]}")
        else:
            found[feature.name] = raw[feature.name]
    body = PAYLOAD
    if found:
        document = msgspec.json.encode({"context": found, "features": ""})
        body = document.replace(b'""', b'"%b"' % (b"f" * max(0, len(PAYLOAD) - len(document))))
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body
