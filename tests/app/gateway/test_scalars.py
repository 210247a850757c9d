"""Of a long text the same is found as of a short one, and what is passed over costs next to nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway import scalars
from app.gateway.scalars import SHORT_BYTES, Scalars, keys_of, resolve

KEYS = st.sampled_from(["a", "b", "0", "1", "", "a/b", "~", 'say "a"', "\\", "\n", "ä", "k0"])
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
POINTERS = st.lists(
    st.lists(KEYS, min_size=1, max_size=3).map(
        lambda keys: "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)
    ),
    min_size=1,
    max_size=6,
    unique=True,
)
LONG = " " * SHORT_BYTES


def is_scalar(value: object) -> bool:
    """Whether it may be a feature, or a unit."""
    return isinstance(value, str | int | float | bool)


@given(document=DOCUMENTS, pointers=POINTERS, dense=st.booleans())
def test_a_long_text_has_what_the_same_short_one_has(
    document: object, pointers: list[str], dense: bool
) -> None:
    """Wherever it is, under whatever keys, and if what leads there is something else."""
    text = json.dumps(document, ensure_ascii=dense).encode("utf-8", "surrogatepass")
    looking = Scalars(pointers)
    short, long = looking.find(text), looking.find(LONG.encode() + text)
    for pointer in pointers:
        expected = short.get(pointer)
        assert long.get(pointer) == (expected if is_scalar(expected) else None)
        assert type(long.get(pointer)) is type(expected) or not is_scalar(expected)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"nothing", b'{"a": 1', b"[1, 2", b"\xff", b'{"a": 01}', b"[" * 500_000, b'{"a":' * 200_000],
)
def test_what_is_no_json_has_nothing(text: bytes) -> None:
    """Short or long."""
    looking = Scalars(["/a", "/0", "/a/a/a"])
    assert looking.find(text) == {}
    assert {found for found in looking.find(LONG.encode() + text).values() if found is not None} == set()


def test_the_last_of_equal_keys_counts() -> None:
    """As it does where the whole text is decoded; an escaped key is the same key."""
    text = b'{"a": 1, "\\u0061": 2}'
    looking = Scalars(["/a"])
    assert looking.find(text) == looking.find(LONG.encode() + text) == {"/a": 2}


def test_of_a_long_list_only_the_beginning_is_looked_through() -> None:
    """Up to its thousandth place."""
    items = list(range(3_000))
    looking = Scalars(["/items/1000", "/items/1001"])
    found = looking.find(json.dumps({"items": items}).encode() + LONG.encode())
    assert (found.get("/items/1000"), found.get("/items/1001")) == (1_000, None)


def test_nothing_is_built_of_what_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text is never decoded whole, whatever it holds."""

    def refuse(_: Any) -> object:
        raise AssertionError("decoded whole")

    monkeypatch.setattr(scalars, "_decode", refuse)
    text = b'{"other": [' + b"{}," * 300_000 + b'{}], "user": {"id": "u1"}}'
    assert Scalars(["/user/id", "/user/name", "/user"]).find(text).get("/user/id") == "u1"


def test_a_pointer_is_taken_apart_as_its_standard_says() -> None:
    """RFC 6901, with its own example."""
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8}
    pointers = {"/foo/0": "bar", "/": 0, "/a~1b": 1, "/c%d": 2, "/m~0n": 8, "/foo/2": None, "/foo/00": None}
    assert {pointer: resolve(document, pointer) for pointer in pointers} == pointers
    assert keys_of("/~01/~10") == ("~1", "/0")
