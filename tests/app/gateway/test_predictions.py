"""What an answer predicts is read in bounded time, and whatever it holds can be written down."""

from __future__ import annotations

import gzip
from hashlib import blake2b

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.predictions import (
    HASHED_BYTES,
    KEPT_BYTES,
    LABEL_CHARACTERS,
    Reading,
    Value,
    predictions_of,
)
from routing.types import Prediction

SCORE = Prediction(name="score", pointer="/out/0/score", numeric=True)
LABEL = Prediction(name="label", pointer="/label", numeric=False)


def read(*pieces: bytes) -> Reading:
    """A body that has come in these pieces."""
    reading = Reading()
    reading.add(pieces)
    return reading


@pytest.mark.parametrize(
    ("body", "score", "label"),
    [
        (b'{"out": [{"score": 0.25}], "label": "cat"}', 0.25, "cat"),
        (b'{"out": [{"score": 3}], "label": 7}', 3.0, "7"),
        (b'{"out": [{"score": true}], "label": false}', None, "false"),
        (b'{"out": [{"score": "0.5"}], "label": 0.5}', None, None),
        (b'{"out": [], "label": null}', None, None),
        (b'{"out": {"0": {"score": 1}}, "label": ["cat"]}', 1.0, None),
        (b'{"out": [{"score": %b}], "label": %b}' % (b"9" * 400, b"9" * 30), None, None),
        (b'{"out": [{"score": 1e999}], "label": "cat"}', None, None),
        (b'{"label": "%b"}' % (b"x" * LABEL_CHARACTERS), None, "x" * LABEL_CHARACTERS),
        (b'{"label": "%b"}' % (b"x" * (LABEL_CHARACTERS + 1)), None, None),
        (b'{"label": "\\u0000"}', None, "\0"),
        (b'{"label": "\\ud800"}', None, None),
        (b'{"label": "\xff"}', None, None),
        (b"[" * 30_000, None, None),
        (b"NaN", None, None),
        (b"<html>", None, None),
        (b"", None, None),
    ],
)
def test_declared_fields_are_read(body: bytes, score: Value, label: Value) -> None:
    """Finite numbers and short labels; whatever else an answer holds in their place is nothing."""
    assert predictions_of((SCORE, LABEL), body) == {"score": score, "label": label}


def test_a_compressed_answer_is_read() -> None:
    """What gzip unpacks to counts, as far as a plain body would have been looked into."""
    document = b'{"out": [{"score": 0.5}], "label": "cat"}'
    assert predictions_of((LABEL,), gzip.compress(document)) == {"label": "cat"}
    bomb = gzip.compress(b'{"label": "cat", "rest": "%b"}' % (b"x" * 10_000_000))
    assert len(bomb) < KEPT_BYTES
    for broken in (bomb, gzip.compress(document)[:20], b"\x1f\x8b" + document):
        assert predictions_of((LABEL,), broken) == {"label": None}


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: msgspec.json.encode({"label": text})))
def test_whatever_a_body_holds_can_be_written_down(body: bytes) -> None:
    """No bytes make it raise, and what it gives is JSON."""
    found = predictions_of((SCORE, LABEL), body)
    assert msgspec.json.decode(msgspec.json.encode(found)) == found


def test_a_body_is_hashed_however_it_is_cut() -> None:
    """By BLAKE2b with 16 bytes, whether it comes in one piece or in many."""
    expected = blake2b(b"hello, world", digest_size=16).hexdigest()
    assert read(b"hello, world").digest() == read(b"hello", b"", b", ", b"world").digest() == expected
    assert read().digest() == blake2b(digest_size=16).hexdigest()


def test_a_long_body_is_hashed_and_not_looked_into() -> None:
    """Up to 64 KiB are kept, up to 1 MiB hashed; the rest is counted, and nothing is said of it."""
    body = b'{"label": "cat"}'
    kept = body + b" " * (KEPT_BYTES - len(body))
    assert read(kept).predictions((LABEL,)) == {"label": "cat"}
    assert read(kept, b" ").predictions((LABEL,)) == {"label": None}
    whole = read(b"x" * HASHED_BYTES)
    assert (whole.is_too_long, whole.digest() is None) == (False, False)
    longer = read(b"x" * HASHED_BYTES, b"x")
    assert (longer.is_too_long, longer.digest(), longer.length) == (True, None, HASHED_BYTES + 1)


def test_nothing_declared_is_nothing_read() -> None:
    """An answer of a route without predictions is not decoded."""
    assert read(b"{").predictions(()) == {}
