"""A context comes to the same values and numbers everywhere and for ever, and nothing in it raises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any
from unicodedata import is_normalized, normalize

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from routing.context import ENCODING_VERSION, Encoder, coerce, problems_of
from routing.errors import BadSnapshot
from routing.features import Feature, FeatureType, Outside, Source, SourceKind, Value

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / f"context-v{ENCODING_VERSION}.json"
GOLD: dict[str, Any] = json.loads(GOLDEN.read_text())
SCHEMAS: list[dict[str, Any]] = GOLD["schemas"]
CATEGORICAL, NUMERIC, BOOLEAN, TEXT, ID = FeatureType


def feature(of: FeatureType, name: str = "f", **properties: Any) -> Feature:
    """A feature with its properties, read from a query parameter of its name."""
    source = Source(kind=SourceKind.QUERY, name=name)
    return Feature(**{"name": name, "source": source, "type": of, **properties})


COUNTRY = feature(CATEGORICAL, "country", values=("DE", "FR", "3", "true"))
HOUR = feature(NUMERIC, "hour", minimum=0.0, maximum=23.0)
STRICT = feature(NUMERIC, "strict", minimum=-1.0, maximum=1.0, outside=Outside.MISSING)
VIP = feature(BOOLEAN, "vip")
QUERY = feature(TEXT, "query", buckets=16)
USER = feature(ID, "user", buckets=8)
ALL = (COUNTRY, HOUR, STRICT, VIP, QUERY, USER)
WITH_DEFAULTS = tuple(
    replace(each, default=default)
    for each, default in zip(ALL, ("FR", 6.0, 0.5, True, "Some WORDS", "nobody"), strict=True)
)

any_text = st.text(st.characters(), max_size=40)  # halves of surrogate pairs too
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)
likely = (
    st.sampled_from(["DE", "fr", "3", "TRUE", "0", ".5", "1e9", "1e999", "", "a b a", "Straße", "x" * 300])
    | st.integers(-30, 30)
    | st.floats(-30, 30)
    | st.integers(-(10**400), 10**400)
)
names = st.sampled_from([each.name for each in ALL])
bounds = st.floats(-1e100, 1e100) | st.integers(-9, 9).map(float)
contexts = st.dictionaries(names | st.just("unknown"), likely | any_json, max_size=8)
schemas = st.permutations(ALL + tuple(replace(each, name=f"{each.name}.d") for each in WITH_DEFAULTS))
plain_or_defaults = st.sampled_from([ALL, WITH_DEFAULTS])


def declared(wire: Mapping[str, Any]) -> Feature:
    """A feature as a golden vector writes it; what it leaves out has its default."""
    ((kind, name),) = wire["from"].items()
    attributes = {"name": "name", "min": "minimum", "max": "maximum", "default": "default"}
    return Feature(
        source=Source(kind=SourceKind(kind), name=name),
        type=FeatureType(wire["type"]),
        values=tuple(wire.get("values", ())),
        outside=Outside(wire.get("outside", "clip")),
        buckets=wire.get("buckets", 0),
        **{attributes[key]: wire[key] for key in attributes.keys() & wire.keys()},
    )


def fallen(feature: Feature, text: str) -> str:
    """The column of a word or id, by BLAKE2b (RFC 7693): 8 bytes, big-endian, multiply and shift."""
    hashed = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=feature.name.encode()).digest()
    bucket = int.from_bytes(hashed, "big") * feature.buckets // 2**64
    return f"{feature.name}#{str(bucket).zfill(len(str(feature.buckets - 1)))}"


def words_of(text: str) -> set[str]:
    """The distinct words among the first 64 of a text."""
    return set("".join(character if character.isalnum() else " " for character in text).split()[:64])


def by_hand(features: Iterable[Feature], values: Mapping[str, Value]) -> dict[str, float]:
    """The columns that are not zero, and what is in them, as the documentation says it."""
    numbers = {"intercept": 1.0}
    for each in features:
        name, value = each.name, values.get(each.name, each.default)
        match each.type, value:
            case ((FeatureType.TEXT | FeatureType.ID), None):
                pass
            case _, None:
                numbers[f"{name}?"] = 1.0
            case FeatureType.CATEGORICAL, str():
                numbers[f"{name}={value if value in each.values else '*'}"] = 1.0
            case FeatureType.NUMERIC, float():
                middle, width = (each.minimum + each.maximum) / 2, each.maximum - each.minimum
                numbers[name] = (value - middle) / (width / sqrt(12))
            case FeatureType.BOOLEAN, bool():
                numbers[name] = float(value)
            case FeatureType.ID, str():
                numbers[fallen(each, value)] = 1.0
            case FeatureType.TEXT, str():
                words = words_of(value.casefold())
                for word in words:
                    numbers[fallen(each, word)] = numbers.get(fallen(each, word), 0.0) + 1 / sqrt(len(words))
            case _:
                raise AssertionError(f"{each.name} cannot be {value!r}")
    return {column: number for column, number in numbers.items() if number}


def found(encoder: Encoder, values: Mapping[str, Value]) -> dict[str, float]:
    """The columns that are not zero, and what is in them."""
    row = encoder.encode(values)
    return {encoder.columns[at]: float(row[at]) for at in np.flatnonzero(row)}


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_a_context_comes_to_what_it_always_did(schema: dict[str, Any]) -> None:
    """Values, version, columns and numbers are fixed for ever, to the bit, for odd contexts too."""
    encoder = Encoder([declared(wire) for wire in schema["features"]])
    assert (encoder.version, list(encoder.columns)) == (schema["version"], schema["columns"])
    for context in schema["contexts"]:
        values = encoder.read(context["raw"])
        assert json.dumps(values) == json.dumps(context["values"])
        assert encoder.encode(values).tolist() == context["vector"]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_the_vectors_follow_from_the_documentation_alone(schema: dict[str, Any]) -> None:
    """Whoever has BLAKE2b can repeat them, the version too: 4 bytes over the canonical JSON, big-endian."""
    features = [declared(wire) for wire in schema["features"]]
    canonical = json.loads(schema["canonical"])
    assert [declared(wire) for wire in canonical["features"]] == features
    assert json.dumps(canonical, sort_keys=True, separators=(",", ":")) == schema["canonical"]
    assert int.from_bytes(blake2b(schema["canonical"].encode()).digest()[:4], "big") == schema["version"]
    for context in schema["contexts"]:
        numbers = by_hand(features, context["values"])
        assert [numbers.get(column, 0.0) for column in schema["columns"]] == context["vector"]


def test_the_vectors_are_of_this_version_and_differ() -> None:
    """A change of the encoding must come with a new version and new vectors, which show every type."""
    assert GOLD["version"] == ENCODING_VERSION
    assert all(json.loads(schema["canonical"])["encoding"] == ENCODING_VERSION for schema in SCHEMAS)
    assert len({schema["version"] for schema in SCHEMAS}) == len(SCHEMAS)
    assert {wire["type"] for schema in SCHEMAS for wire in schema["features"]} == set(FeatureType)


@pytest.mark.parametrize("seed", ["0", "1", "4294967295"])
def test_every_process_encodes_the_same(seed: str) -> None:
    """Neither numbers nor version depend on what Python draws for its own hashes when it starts."""
    text = " ".join(f"word{n}" for n in range(40))
    program = (
        "from tests.routing.test_context import QUERY, Encoder; encoder = Encoder([QUERY]);"
        f"print(encoder.version, *encoder.encode({{'query': {text!r}}}))"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    encoder = Encoder([QUERY])
    assert ran.stdout.split() == [
        str(number) for number in (encoder.version, *encoder.encode({"query": text}))
    ]


@pytest.mark.parametrize("readings", GOLD["readings"], ids=lambda readings: readings["feature"]["type"])
def test_a_raw_value_is_read_as_it_always_was(readings: dict[str, Any]) -> None:
    """Each type takes what is its own, and anything else counts as missing; the encoder reads the same."""
    of = declared(readings["feature"])
    for raw, expected in readings["values"]:
        value = coerce(of, raw)
        assert (raw, value, type(value)) == (raw, expected, type(expected))
        assert Encoder([of]).read({of.name: raw}) == ({} if expected is None else {of.name: expected})


def test_what_json_has_no_word_for_is_missing() -> None:
    """No infinity and no object is a value; an integer that Python refuses to write raises nothing."""
    for of in ALL:
        assert [coerce(of, raw) for raw in (nan, inf, -inf, b"DE", object())] == [None] * 5
    assert [coerce(of, 10**9_999) for of in ALL] == [None, 23.0, None, None, None, None]


@given(raw=likely | any_json, of=st.sampled_from(ALL))
def test_anything_can_be_read(raw: object, of: Feature) -> None:
    """No JSON value and no text raises; what is kept can be stored, and read again it is the same."""
    value = coerce(of, raw)
    if value is None:
        return
    assert coerce(of, value) == value
    assert coerce(of, json.loads(json.dumps(value))) == value
    if isinstance(value, str):
        assert "\0" not in value.encode().decode()


def test_text_is_folded_once_and_for_all() -> None:
    """Whatever the letter, folded text is in NFC and folds to itself."""
    for code in range(1, 0x20000):
        folded = coerce(QUERY, chr(code) + "\u0301")
        assert isinstance(folded, str)
        assert is_normalized("NFC", folded)
        assert coerce(QUERY, folded) == folded


@given(text=st.text(max_size=60))
def test_equivalent_texts_are_the_same(text: str) -> None:
    """Neither case nor the way in which accents are written makes a difference."""
    folded = coerce(QUERY, text)
    assert coerce(QUERY, normalize("NFD", text)) == folded
    assert coerce(QUERY, normalize("NFC", text)) == folded
    assert coerce(QUERY, text.casefold()) == folded


@given(features=schemas, raw=contexts)
def test_any_context_is_encoded_as_documented(features: list[Feature], raw: dict[str, object]) -> None:
    """The numbers are finite, one to a column, and those that one gets by hand, to the bit."""
    encoder = Encoder(features)
    values = encoder.read(raw)
    row = encoder.encode(values)
    assert (row.shape, row.dtype.name) == ((encoder.width,), "float64")
    assert row[0] == 1.0
    assert np.isfinite(row).all()
    assert found(encoder, values) == by_hand(features, values)


@given(features=schemas, raws=st.lists(contexts, max_size=6))
def test_many_are_encoded_as_one_by_one(features: list[Feature], raws: list[dict[str, object]]) -> None:
    """A training set has the very numbers that were decided on."""
    encoder = Encoder(features)
    many = [encoder.read(raw) for raw in raws]
    expected = [encoder.encode(values).tobytes() for values in many]
    rows = encoder.encode_many(many)
    assert (rows.shape, rows.dtype.name) == ((len(raws), encoder.width), "float64")
    assert [row.tobytes() for row in rows] == expected


@given(features=plain_or_defaults, raw=contexts)
def test_to_read_again_changes_nothing(features: tuple[Feature, ...], raw: dict[str, object]) -> None:
    """A logged context reads as it was: through JSON, and with its keys in another order."""
    encoder = Encoder(features)
    values = encoder.read(raw)
    assert encoder.read(values) == values
    assert encoder.read(json.loads(json.dumps(values))) == values
    assert list(encoder.read(dict(reversed(raw.items()))).items()) == list(values.items())


@given(raw=contexts)
def test_what_is_not_declared_or_missing_is_told(raw: dict[str, object]) -> None:
    """Unknown names are ignored, and each feature is either read or missing."""
    encoder = Encoder(ALL)
    values = encoder.read(raw)
    missing = encoder.missing(values)
    assert [each.name for each in ALL] == sorted([*values, *missing], key=[each.name for each in ALL].index)
    assert encoder.read({name: value for name, value in raw.items() if name != "unknown"}) == values


@given(text=any_text.filter(lambda text: text not in ("", *COUNTRY.values)))
def test_an_unknown_value_is_any_other(text: str) -> None:
    """A value that was not declared has one column, whatever it is."""
    encoder = Encoder([COUNTRY])
    assert found(encoder, encoder.read({"country": text})) == {"intercept": 1.0, "country=*": 1.0}


@given(low=bounds, high=bounds, number=bounds | st.floats(-1e300, 1e300))
def test_a_number_stays_within_its_range(low: float, high: float, number: float) -> None:
    """Clipped to the nearest bound, its column is at most √3, or 2√3 where floats end."""
    clipped = feature(NUMERIC, minimum=low, maximum=high)
    assume(not list(problems_of([clipped])))
    value = coerce(clipped, number)
    assert value == min(max(number, low), high)
    assert abs(Encoder([clipped]).encode({"f": float(value)})[1]) <= 3.5
    within = number if low <= number <= high else None
    assert coerce(replace(clipped, outside=Outside.MISSING), number) == within


def test_a_uniform_number_has_mean_0_and_variance_1() -> None:
    """So numbers of any range are of the size of a flag, and one prior fits all columns."""
    for low, high in ((0.0, 23.0), (-1e100, 1e100), (1.0, 1.0 + 1e-9), (0.0, 1e-100)):
        encoder = Encoder([feature(NUMERIC, minimum=low, maximum=high)])
        drawn = np.linspace(low, high, 10_001).tolist()
        column = encoder.encode_many([{"f": value} for value in drawn])[:, 1]
        assert (column.mean(), column.var()) == pytest.approx((0, 1), abs=1e-3)


REPLACED = (
    {"country=FR": 1.0, "hour": -5.5 / (23 / sqrt(12)), "strict": 0.5 / (2 / sqrt(12)), "vip": 1.0}
    | {fallen(QUERY, word): 1 / sqrt(2) for word in ("some", "words")}
    | {fallen(USER, "nobody"): 1.0}
)


@pytest.mark.parametrize(
    ("features", "expected"),
    [(ALL, {"country?": 1.0, "hour?": 1.0, "strict?": 1.0, "vip?": 1.0}), (WITH_DEFAULTS, REPLACED)],
    ids=["told", "replaced"],
)
def test_what_is_missing_is_told_apart_or_replaced(
    features: tuple[Feature, ...], expected: dict[str, float]
) -> None:
    """Without a default it has a column, or no bucket; with one it is as if that had been sent."""
    encoder = Encoder(features)
    assert found(encoder, {}) == {"intercept": 1.0, **expected}
    assert encoder.missing({}) == tuple(each.name for each in features)


def test_a_long_text_weighs_no_more_than_a_short_one() -> None:
    """Of n distinct words each counts 1/√n; those that share a bucket add up; the 65th is not read."""
    encoder = Encoder([feature(TEXT, "q", buckets=2)])
    words = [f"w{number}" for number in range(64)]
    row = encoder.encode({"q": " ".join(words)})
    assert row[1:].sum() == pytest.approx(64 / sqrt(64))
    assert encoder.encode({"q": ", ".join([*words, "and", "more"])}).tolist() == row.tolist()
    assert encoder.encode({"q": "_w0 w0-W0!".lower()})[1:].tolist() in ([1.0, 0.0], [0.0, 1.0])
    assert not encoder.encode({"q": "... _ !"})[1:].any()


def test_a_word_falls_elsewhere_in_another_feature() -> None:
    """Two words that share a bucket in one feature are not bound to share one in the next."""
    first, second = feature(TEXT, "a", buckets=64), feature(TEXT, "b", buckets=64)
    words = [f"w{number}" for number in range(640)]
    same = sum(fallen(first, word)[2:] == fallen(second, word)[2:] for word in words)
    assert same < 30


CHANGES: list[tuple[Feature, dict[str, Any]]] = [
    *((each, {"name": "g"}) for each in ALL),
    *((each, {"source": Source(kind=SourceKind.COOKIE, name=each.source.name)}) for each in ALL),
    *((each, {"source": Source(kind=SourceKind.QUERY, name="g")}) for each in ALL),
    (COUNTRY, {"values": ("DE", "FR", "3")}),
    (COUNTRY, {"values": ("FR", "DE", "3", "true")}),
    (COUNTRY, {"default": "DE"}),
    (HOUR, {"minimum": -0.5}),
    (HOUR, {"maximum": 24.0}),
    (HOUR, {"outside": Outside.MISSING}),
    (HOUR, {"default": 0.0}),
    (VIP, {"default": False}),
    (VIP, {"type": TEXT, "buckets": 16}),
    (QUERY, {"type": ID}),
    (QUERY, {"buckets": 17}),
    (QUERY, {"default": "a"}),
    (USER, {"default": "a"}),
]


@pytest.mark.parametrize(("before", "change"), CHANGES, ids=range(len(CHANGES)))
def test_another_schema_has_another_version(before: Feature, change: dict[str, Any]) -> None:
    """Whatever changes in a feature changes the version, so nothing learned is taken for something else."""
    assert Encoder([replace(before, **change)]).version != Encoder([before]).version


def test_the_same_schema_has_the_same_version() -> None:
    """It depends on features and their order, not on how a number is written; 0 is left for no context."""
    version = Encoder(ALL).version
    assert 0 < version < 2**32
    assert Encoder([replace(each) for each in ALL]).version == version
    assert Encoder([COUNTRY, replace(HOUR, minimum=-0.0, maximum=23), *ALL[2:]]).version == version
    assert version not in (Encoder(ALL[::-1]).version, Encoder(ALL[:-1]).version, Encoder(()).version)


def of_source(kind: SourceKind, name: str) -> Feature:
    """A feature that is read elsewhere."""
    return replace(VIP, source=Source(kind=kind, name=name))


def of_values(*values: str) -> Feature:
    """A categorical with these values."""
    return replace(COUNTRY, values=values)


PROBLEMS: list[tuple[Feature, str, str]] = [
    (replace(VIP, name="Vip"), "name", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'Vip'"),
    (replace(VIP, name="a" * 64), "name", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'aaa"),
    (replace(VIP, name="vip\n"), "name", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'vip\\n'"),
    (of_source(SourceKind.JSON, "a"), "from.json", "must be a JSON pointer such as /user/country, got 'a'"),
    (of_source(SourceKind.HEADER, "X Vip"), "from.header", "must be the name of a header, got 'X Vip'"),
    (of_source(SourceKind.COOKIE, ""), "from.cookie", "must be the name of a cookie, got ''"),
    (of_source(SourceKind.QUERY, ""), "from.query", "must be the name of a query parameter, got ''"),
    (of_values(), "values", "must hold 1 to 256 values, got 0"),
    (of_values(*map(str, range(257))), "values", "must hold 1 to 256 values, got 257"),
    (of_values("a", ""), "values.1", "must be 1 to 128 characters long, got 0"),
    (of_values("a" * 129), "values.0", "must be 1 to 128 characters long, got 129"),
    (of_values("a", "b", "a"), "values.2", "must differ from the others, got 'a' again"),
    (of_values("*"), "values.0", "must not be *, which stands for any other value, got '*'"),
    (of_values("\ud800"), "values.0", "must hold neither NUL nor a lone surrogate, got '\\ud800'"),
    (replace(HOUR, minimum=23.0), "max", "must be above min 23.0 by at least 1e-100, got 23.0"),
    (replace(HOUR, maximum=5e-324), "max", "must be above min 0.0 by at least 1e-100, got 5e-324"),
    (replace(HOUR, minimum=nan), "min", "must be in [-1e+100, 1e+100], got nan"),
    (replace(HOUR, maximum=inf), "max", "must be in [-1e+100, 1e+100], got inf"),
    (replace(QUERY, buckets=1), "buckets", "must be in [2, 1024], got 1"),
    (replace(USER, buckets=1_025), "buckets", "must be in [2, 1024], got 1025"),
    (replace(VIP, values=("a",)), "values", "must be left out for type boolean, got ('a',)"),
    (replace(VIP, minimum=-1.0), "min", "must be left out for type boolean, got -1.0"),
    (replace(QUERY, maximum=2.0), "max", "must be left out for type text, got 2.0"),
    (replace(COUNTRY, outside=Outside.MISSING), "outside", "must be left out for type categorical, got"),
    (replace(HOUR, buckets=8), "buckets", "must be left out for type numeric, got 8"),
    (replace(COUNTRY, default="GB"), "default", "must be one of values, got 'GB'"),
    (replace(COUNTRY, default=True), "default", "must be one of values, got True"),
    (replace(HOUR, default=23.5), "default", "must be a number in [0.0, 23.0], got 23.5"),
    (replace(HOUR, default=nan), "default", "must be a number in [0.0, 23.0], got nan"),
    (replace(HOUR, default=True), "default", "must be a number in [0.0, 23.0], got True"),
    (replace(HOUR, default="5"), "default", "must be a number in [0.0, 23.0], got '5'"),
    (replace(VIP, default=1.0), "default", "must be true or false, got 1.0"),
    (replace(QUERY, default=""), "default", "must be text of 1 to 1024 characters, got ''"),
    (replace(USER, default="x" * 257), "default", "must be text of 1 to 256 characters, got 'xxx"),
    (replace(USER, default=False), "default", "must be text of 1 to 256 characters, got False"),
]


@pytest.mark.parametrize(("bad", "field", "message"), PROBLEMS, ids=range(len(PROBLEMS)))
def test_a_feature_that_cannot_be_is_named(bad: Feature, field: str, message: str) -> None:
    """Field, bound and value of each fault, at its place in the list; no encoder is made of it."""
    faults = dict(problems_of([feature(BOOLEAN, "good"), bad]))
    assert faults.keys() - {""} == {f"1.{field}"}  # some are too wide besides
    assert faults[f"1.{field}"].startswith(message)
    with pytest.raises(BadSnapshot) as refused:
        Encoder([bad])
    assert str(refused.value).startswith(f"context.0.{field} {message}")


def test_features_are_judged_together() -> None:
    """Names differ, and neither the features nor their columns are too many."""
    assert list(problems_of([*ALL, *(replace(each, name=f"{each.name}.d") for each in WITH_DEFAULTS)])) == []
    twice = "must differ from the others, got 'vip' as in 0"
    assert list(problems_of([VIP, HOUR, VIP])) == [("2.name", twice)]
    flags = [feature(BOOLEAN, f"f{number}") for number in range(65)]
    assert list(problems_of(flags[:64])) == []
    assert list(problems_of(flags)) == [("", "must hold at most 64 features, got 65")]
    wide = feature(ID, buckets=255)
    assert len(set(Encoder([wide]).columns)) == Encoder([wide]).width == 256
    message = "must come to at most 256 columns with the intercept, got 258"
    assert list(problems_of([wide, VIP])) == [("", message)]
    with pytest.raises(BadSnapshot, match=f"context {message}"):
        Encoder([wide, VIP])
