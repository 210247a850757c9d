"""A unit's hash never changes, spreads units evenly, and divides them anew under another salt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from functools import cache
from hashlib import blake2b
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from routing.bucketing import HASH_VERSION, UNIT_BUCKETS, bucket, unit_bucket, unit_hash
from routing.types import TOTAL_BP

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / f"bucketing-v{HASH_VERSION}.json"
UNITS = 100_000
CHANCE = 1e-3
"""Units are seeded, so a check passes always or never; this is how surprising a fair hash may look."""


class Vector(msgspec.Struct, frozen=True):
    """A unit under a salt, and what must become of it."""

    salt: str
    unit: str
    hash: str
    bucket: int
    unit_bucket: int


# json and not msgspec: one unit is half of a surrogate pair, as a sloppy client may send it
VECTORS = [Vector(**vector) for vector in json.loads(GOLDEN.read_text())["vectors"]]


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_a_hash_is_what_it_always_was(vector: Vector) -> None:
    """Hash and buckets of this version are fixed for ever, for empty, long and odd units too."""
    hash64 = unit_hash(vector.salt, vector.unit)
    assert f"{hash64:016x}" == vector.hash
    assert (bucket(hash64), unit_bucket(hash64)) == (vector.bucket, vector.unit_bucket)


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_the_vectors_follow_from_the_standard_alone(vector: Vector) -> None:
    """Whoever has BLAKE2b (RFC 7693) can repeat them: key salt, 8 bytes, big-endian, multiply and shift."""
    unit = vector.unit.encode("utf-8", "surrogatepass")
    number = int.from_bytes(blake2b(unit, digest_size=8, key=vector.salt.encode()).digest(), "big")
    assert f"{number:016x}" == vector.hash
    assert (number * 10_000 // 2**64, number % 64) == (vector.bucket, vector.unit_bucket)


def test_the_vectors_are_of_this_version_and_differ() -> None:
    """A change of the hash must come with a new version and new vectors."""
    assert json.loads(GOLDEN.read_text())["version"] == HASH_VERSION
    assert len({vector.hash for vector in VECTORS}) == len(VECTORS)


@pytest.mark.parametrize("seed", ["0", "1", "4294967295"])
def test_every_process_hashes_the_same(seed: str) -> None:
    """The hash does not depend on what Python draws for its own hashes when it starts."""
    program = (
        "from routing.bucketing import unit_hash; print(*(unit_hash('1:1', f'u{n}') for n in range(100)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [str(unit_hash("1:1", f"u{n}")) for n in range(100)]


@pytest.mark.parametrize(
    ("hash64", "expected"),
    [
        (0, 0),
        (2**64 // TOTAL_BP, 0),
        (2**64 // TOTAL_BP + 1, 1),
        (2**63 - 1, 4_999),
        (2**63, 5_000),
        (2**64 - 1, 9_999),
    ],
)
def test_buckets_divide_the_hashes_evenly(hash64: int, expected: int) -> None:
    """Each bucket is one ten-thousandth of all hashes, from the first to the last."""
    assert bucket(hash64) == expected


@given(hash64=st.integers(0, 2**64 - 1))
def test_every_hash_has_its_buckets(hash64: int) -> None:
    """Whatever the hash, the buckets are within their bounds."""
    assert 0 <= bucket(hash64) < TOTAL_BP
    assert 0 <= unit_bucket(hash64) < UNIT_BUCKETS


@given(salt=st.text(min_size=1, max_size=16), unit=st.text())
def test_any_unit_can_be_hashed(salt: str, unit: str) -> None:
    """Any text is a unit, and its hash has 64 bits."""
    assert 0 <= unit_hash(salt, unit) < 2**64


@cache
def hashes(salt: str) -> list[int]:
    """The hashes of many units, named as people name them."""
    return [unit_hash(salt, f"user-{number}") for number in range(UNITS)]


def test_units_spread_evenly_over_the_buckets() -> None:
    """Neither the 10,000 buckets of traffic nor the 64 of units have more than chance would give them."""
    drawn = hashes("1:1")
    for buckets, found in (
        (TOTAL_BP, Counter(bucket(hash64) for hash64 in drawn)),
        (UNIT_BUCKETS, Counter(unit_bucket(hash64) for hash64 in drawn)),
    ):
        counts = [found[number] for number in range(buckets)]
        p = chisquare(counts).pvalue
        assert CHANCE < p < 1 - CHANCE


def crossed(rows: list[int], columns: list[int], shape: tuple[int, int]) -> np.ndarray[tuple[int, int]]:
    """How often each pair occurs."""
    table = np.zeros(shape)
    np.add.at(table, (rows, columns), 1)
    return table


def test_another_salt_divides_the_same_units_independently() -> None:
    """Who is in which tenth under one salt says nothing about the tenth under the next."""
    for first, second in (("1:1", "1:2"), ("1:1", "2:1"), ("a", "b")):
        tenths = [[bucket(hash64) // 1_000 for hash64 in hashes(salt)] for salt in (first, second)]
        table = crossed(tenths[0], tenths[1], (10, 10))
        assert CHANCE < chi2_contingency(table).pvalue < 1 - CHANCE
        both = table[0, 0] / UNITS  # a tenth of a tenth meets both challengers
        assert both == pytest.approx(0.01, abs=4 * (0.01 * 0.99 / UNITS) ** 0.5)


def test_the_arm_says_nothing_about_the_unit_bucket() -> None:
    """The buckets that the jackknife leaves out are drawn from bits that the split does not look at."""
    drawn = hashes("1:1")
    table = crossed(
        [bucket(hash64) // 1_000 for hash64 in drawn],
        [unit_bucket(hash64) for hash64 in drawn],
        (10, UNIT_BUCKETS),
    )
    assert CHANCE < chi2_contingency(table).pvalue < 1 - CHANCE
