"""What is in a spool is read in order, as it was written, by somebody who changes nothing in it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events.spool import Spool, SpoolError, mark_path, read_mark
from app.events.spool_reader import acknowledge, read_batch, spool_id
from app.events.types import DecisionEvent, OutcomeEvent, decode, encode
from tests.app.events.facts import answered, claims, copied, made, told, write
from tests.routing.claimed import CLAIMED, unsigned

FIVE = tuple(made(claims(number)) for number in range(5))
ID = "0" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with five events in as many rows, closed."""
    path = tmp_path / "w0.db"
    for event in FIVE:
        write(path, event)
    return path


@pytest.fixture
def packed(path: Path) -> Path:
    """A spool with the same events in two rows, of two and of three."""
    execute(path, "DELETE FROM events")
    pack(path, 2, FIVE[:2])
    pack(path, 5, FIVE[2:])
    return path


def pack(path: Path, seq: int, events: object) -> None:
    """Adds a row."""
    execute(path, "INSERT INTO events (seq, body) VALUES (?, ?)", seq, encode(events))


def execute(path: Path, statement: str, *values: object) -> None:
    """Changes a spool behind its back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize(
    ("after", "limit", "first", "events"),
    [(0, 10, 1, FIVE), (0, 2, 1, FIVE[:2]), (3, 10, 4, FIVE[3:]), (5, 10, 6, ()), (9, 10, 10, ())],
)
def test_a_batch_is_what_comes_next(
    path: Path, after: int, limit: int, first: int, events: tuple[DecisionEvent, ...]
) -> None:
    """In order of their numbers, above the one that is known, and no more than asked for."""
    batch = read_batch(path, after, limit)
    assert (batch.first_seq, batch.events) == (first, events)
    assert batch.last_seq == after + len(events)
    assert batch.newest_seq == 5
    assert batch.spool_id == spool_id(path)


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
@pytest.mark.parametrize("after", range(7))
def test_rows_are_read_whole(packed: Path, after: int, limit: int) -> None:
    """A batch ends at the end of a row; of a row that is known in part, the rest is read."""
    batch = read_batch(packed, after, limit)
    end = 2 if after < 2 and limit <= 2 - after else 5
    assert batch.events == FIVE[after:end]
    assert (batch.first_seq, batch.newest_seq) == (after + 1, 5)


CLAIMS = """{"route_id":1,"arm_id":2,"unit_hash":%d,"has_unit":false,"reason":"SPLIT","propensity_bp":5000,
"epoch":1,"snapshot":1,"at_ms":1728043200000,"nonce":%d}"""
DECISION = (
    """{"type":"decision","decision":%s,"served_arm_id":2,"status":200,"error":false,"latency_ms":8.0}"""
)
OUTCOME = """{"type":"outcome","decision":%s,"metric":"conversion","value":1.0,"at_ms":1728043201000,
"received_at_ms":1728043202000,"key":"k"}"""


def test_a_spool_of_the_first_version_is_read(path: Path) -> None:
    """There a row holds one event, and everything is an object: also before rows that hold arrays."""
    outcome = told(claims(3), "conversion", 1.0, key="k")
    execute(path, "DELETE FROM events")
    execute(path, "INSERT INTO events VALUES (1, ?)", (DECISION % CLAIMS % (0, 0)).encode())
    execute(path, "INSERT INTO events VALUES (2, ?)", (OUTCOME % CLAIMS % (3, 3)).encode())
    execute(
        path, "INSERT INTO events VALUES (3, ?)", (OUTCOME % CLAIMS % (3, -3)).replace("1.0", '"x"').encode()
    )
    pack(path, 5, FIVE[3:])
    expected = (FIVE[0], outcome, None, *FIVE[3:])
    assert [read_batch(path, after, 10).events for after in range(6)] == [
        expected[after:] for after in range(6)
    ]


def test_a_missing_row_ends_a_batch(packed: Path) -> None:
    """The events after it have their true numbers in the next batch, however many are gone."""
    pack(packed, 9, FIVE[:2])
    first, second = read_batch(packed, 0, 10), read_batch(packed, 5, 10)
    assert (first.first_seq, first.events) == (1, FIVE)
    assert (second.first_seq, second.last_seq, second.events) == (8, 9, FIVE[:2])


@pytest.mark.parametrize("body", [b"[", b"[1,", b"\xff", b"[{}]x"])
def test_a_row_that_cannot_be_read_keeps_the_places_of_its_events(packed: Path, body: bytes) -> None:
    """As many events are read as None as the row must have held, so that the others keep their numbers."""
    execute(packed, "UPDATE events SET body = ? WHERE seq = 5", body)
    pack(packed, 7, FIVE[:2])
    batch = read_batch(packed, 0, 10)
    assert batch.events == (*FIVE[:2], None, None, None, *FIVE[:2])


def test_an_event_that_cannot_be_read_spoils_no_other(packed: Path) -> None:
    """The others of its row are read."""
    known = encode(FIVE[2])
    execute(packed, "UPDATE events SET body = ? WHERE seq = 5", b'[["later",1],7,%b]' % known)
    assert read_batch(packed, 2, 10).events == (None, None, FIVE[2])


def test_a_gap_ends_a_batch(path: Path) -> None:
    """What comes after it has its true number in the next batch."""
    execute(path, "DELETE FROM events WHERE seq = 3")
    batch = read_batch(path, 0, 10)
    assert (batch.first_seq, batch.last_seq, batch.events) == (1, 2, FIVE[:2])
    batch = read_batch(path, 2, 10)
    assert (batch.first_seq, batch.last_seq, batch.events) == (4, 5, FIVE[3:])


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"{}", b'{"type": "other"}', b"{", "text"])
def test_a_body_that_is_no_event_keeps_its_place(path: Path, body: object) -> None:
    """It is read as None, so that the numbers of the others stay right."""
    execute(path, "UPDATE events SET body = ? WHERE seq = 2", body)
    assert read_batch(path, 0, 10).events == (FIVE[0], None, *FIVE[2:])


def test_reading_waits_for_nobody_and_changes_nothing(tmp_path: Path) -> None:
    """While a worker has the spool open, what it has committed can be read, over and over."""
    path = tmp_path / "w0.db"
    write(path, *FIVE[:3])
    spool = Spool(path)
    assert read_batch(path, 0, 10) == read_batch(path, 0, 10)
    assert read_batch(path, 0, 10).events == FIVE[:3]
    spool.append(FIVE[3])
    spool.close()
    assert read_batch(path, 0, 10).events == FIVE[:4]


def test_a_spool_keeps_its_id(path: Path) -> None:
    """Over restarts, and no other spool has it."""
    before = spool_id(path)
    write(path, *FIVE)
    write(path.with_name("w1.db"), *FIVE)
    assert spool_id(path) == before != spool_id(path.with_name("w1.db"))


@pytest.mark.parametrize("content", [None, b"", b"this is no database" * 100])
def test_what_is_no_spool_is_said(tmp_path: Path, content: bytes | None) -> None:
    """A file that is missing, empty or something else is named, and is not made into a spool."""
    path = tmp_path / "w0.db"
    if content is not None:
        path.write_bytes(content)
    for read in (spool_id, lambda path: read_batch(path, 0, 10)):
        with pytest.raises(SpoolError, match=r"cannot read spool .*w0\.db"):
            read(path)
    assert (path.read_bytes() if path.exists() else None) == content


def test_a_spool_without_an_id_cannot_be_read_yet(path: Path) -> None:
    """A worker that has just made it has not named it yet: its numbers would mean nothing."""
    execute(path, "DELETE FROM meta")
    with pytest.raises(SpoolError, match="the spool has no id yet"):
        read_batch(path, 0, 10)


def test_a_mark_says_what_was_acknowledged(path: Path) -> None:
    """The latest number stands, also a lower one, for this spool and no other."""
    assert read_mark(path, ID) == 0
    for seq in (3, 5, 5, 4):
        acknowledge(path, ID, seq)
        assert read_mark(path, ID) == seq
    assert read_mark(path, "1" * 32) == 0
    assert [file.name for file in path.parent.iterdir() if "new" in file.name] == []


@pytest.mark.parametrize("content", [b"", b"5", b"\0\0\0", b"\xff", f"{ID} ".encode(), f"{ID} x".encode()])
def test_a_mark_that_cannot_be_read_is_none(path: Path, content: bytes) -> None:
    """Then nothing is deleted, and the next acknowledgement puts it right."""
    mark_path(path).write_bytes(content)
    assert read_mark(path, ID) == 0
    acknowledge(path, ID, 5)
    assert read_mark(path, ID) == 5


def test_a_mark_that_cannot_be_written_is_said(path: Path) -> None:
    """As a trouble of this spool, which keeps its events."""
    mark_path(path).mkdir()
    with pytest.raises(SpoolError, match="cannot write the mark of spool"):
        acknowledge(path, ID, 5)
    assert read_mark(path, ID) == 0


FINITE = st.floats(allow_nan=False, allow_infinity=False)
EVENTS = st.one_of(
    st.builds(
        DecisionEvent,
        decision=CLAIMED,
        served_arm_id=st.none() | unsigned(32),
        status=st.none() | st.integers(100, 999),
        error=st.none() | st.booleans(),
        latency_ms=st.none() | FINITE,
    ),
    st.builds(
        OutcomeEvent,
        decision=CLAIMED,
        metric=st.text(min_size=1, max_size=63),
        value=FINITE,
        at_ms=unsigned(47),
        received_at_ms=unsigned(47),
        key=st.text(max_size=256),
    ),
)


@given(event=EVENTS)
def test_an_event_comes_back_as_it_was_written(event: DecisionEvent | OutcomeEvent) -> None:
    """Whatever is in it: numbers of 64 bits, every finite value, any text."""
    assert decode(encode(event)) == event


def test_the_format_on_disk_never_changes() -> None:
    """A recorder of a later version reads what an earlier worker wrote."""
    before = [1, 2, 3, False, "SPLIT", 5_000, 1, 1, 1_728_043_200_000, 3]
    said = [*before, False]
    outcome = told(claims(3), "conversion", 1.0, key="k")
    assert msgspec.json.decode(encode(outcome)) == [
        *("outcome", said, "conversion", 1.0, 1_728_043_201_000, 1_728_043_202_000, "k")
    ]
    decision = made(claims(3))
    first = ["decision", said, 2, 200, False, 8.0]
    assert msgspec.json.decode(encode(decision)) == [*first, None, 0, None, None, None, False]
    assert decode(msgspec.json.encode(first)) == decision
    assert decode(msgspec.json.encode(["decision", before, *first[2:]])) == decision
    known = made(
        claims(3), override_id=7, schema=5, context={"country": "DE", "hour": 7.5}, considered_bp=100
    )
    second = [*first, 7, 5, {"country": "DE", "hour": 7.5}, 100]
    assert msgspec.json.decode(encode(known)) == [*second, None, False]
    assert decode(msgspec.json.encode(second)) == known
    kept = msgspec.structs.replace(known, first_at_ms=9, confirmed=True)
    assert msgspec.json.decode(encode(kept)) == [*second, 9, True]
    copy = copied(claims(3), primary=answered(2, status=None, failure="timeout", predictions={"score": None}))
    assert msgspec.json.decode(encode(copy)) == [
        *("shadow", said, 1_728_043_201_000, [3, 200, None, 8.0, "0" * 32, 2, {}]),
        [2, None, "timeout", 8.0, "0" * 32, 2, {"score": None}],
    ]
