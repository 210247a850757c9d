"""Versions are ordered as semver.org says."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.semver import MAX_VERSION, Precedence, precedence

ORDERED = [
    "0.0.0-0",
    "0.0.0",
    "0.9.10",
    "0.10.9",
    "1.0.0-0",
    "1.0.0-0.0",
    "1.0.0-9",
    "1.0.0-10",
    "1.0.0--",
    "1.0.0-1-0",
    "1.0.0-Alpha",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "2.0.0",
    "2.1.0",
    "2.1.1",
]
"""Among them the examples of semver.org §11."""


def key(text: str) -> Precedence:
    """What a version is ordered by."""
    found = precedence(text)
    assert found is not None, text
    return found


def test_the_examples_of_the_specification_are_in_order() -> None:
    """Numbers before words, fewer identifiers before more, a pre-release before its release."""
    assert all(key(before) < key(after) for before, after in pairwise(ORDERED))


@pytest.mark.parametrize("text", ["v1.2.3-rc.1", "1.2.3-rc.1+5", "1.2.3-rc.1+exp.sha-1.001", "v1.2.3-rc.1+0"])
def test_a_leading_v_and_build_metadata_have_no_say(text: str) -> None:
    """Versions that differ in nothing else are equal."""
    assert key(text) == key("1.2.3-rc.1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v",
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.02.3",
        "1.2.03",
        "1.2.3-",
        "1.2.3-01",
        "1.2.3-a..b",
        "1.2.3+",
        "1.2.3+a+b",
        "1.2.3-ü",
        "١.2.3",
        "-1.2.3",
        "V1.2.3",
        "vv1.2.3",
        " 1.2.3",
        "1.2.3\n",
        "1.2.3-\ud800",
        "1.0." + "9" * MAX_VERSION,
    ],
)
def test_what_is_no_version(text: str) -> None:
    """No zeros in front, no empty identifiers, ASCII alone, nothing around it, and not too long."""
    assert precedence(text) is None


def test_numbers_have_no_size_of_their_own() -> None:
    """They are compared as numbers, beyond any machine word."""
    assert key("1.0." + "9" * 200) < key("1.0.1" + "0" * 200)


@given(st.text(alphabet="v0123456789.-+ab") | st.text())
def test_every_text_is_a_version_or_none(text: str) -> None:
    """Nothing raises, and a version is equal to itself with metadata."""
    found = precedence(text)
    if found is not None and "+" not in text and len(text) < MAX_VERSION - 1:
        assert precedence(f"{text}+b") == found
