"""What shadow arms answered reaches the database once, and counts for nothing that decides."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import msgspec
import pytest

from app.db import tables
from app.events.types import DecisionEvent, Event, OutcomeEvent, ShadowEvent, decode, encode
from routing.claims import decision_id
from tests.app.events.books import Books
from tests.app.events.facts import NEW, SHADOW, answered, claims, copied, made, told

FIRST = claims(1)


@pytest.mark.parametrize(
    "event",
    [
        made(FIRST),
        told(FIRST, "profit", 1.5),
        copied(FIRST),
        copied(FIRST, answered(SHADOW, predictions={"a": 1.0, "b": "\0é", "c": None})),
        ShadowEvent(decision=FIRST, at_ms=1, shadow=answered(SHADOW, status=None), primary=None),
    ],
)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    """Each kind, through JSON and back."""
    assert decode(encode(event)) == event


def test_an_older_reader_knows_no_copies() -> None:
    """It says so, rather than take them for something else: the recorder counts them as unreadable."""
    older = msgspec.json.Decoder(DecisionEvent | OutcomeEvent)
    with pytest.raises(msgspec.ValidationError, match="Invalid value 'shadow'"):
        older.decode(encode(copied(FIRST)))


async def test_a_copy_is_kept_beside_its_primary(books: Books) -> None:
    """Both answers, with statuses, latencies, hashes and predictions, in one row."""
    shadow = answered(
        SHADOW, status=500, latency_ms=9.5, body_bytes=7, predictions={"label": "\0", "score": None}
    )
    books.write("w0", made(FIRST), copied(FIRST, shadow, answered(NEW, predictions={"score": 0.5})))
    await books.recorder.drain()
    assert await books.rows(tables.shadow_answers) == [
        {
            "decision_id": decision_id(FIRST),
            "arm_id": SHADOW,
            "route_id": 1,
            "at_ms": FIRST.at_ms + 1_000,
            "status": 500,
            "failure": None,
            "latency_ms": 9.5,
            "body_hash": "0" * 32,
            "body_bytes": 7,
            "predictions": '{"label":"\\u0000","score":null}',
            "primary_arm_id": NEW,
            "primary_status": 200,
            "primary_latency_ms": 8.0,
            "primary_body_hash": "0" * 32,
            "primary_body_bytes": 2,
            "primary_predictions": '{"score":0.5}',
        }
    ]


async def test_a_copy_without_a_primary_is_kept(books: Books) -> None:
    """Nobody answered the caller, and the shadow arm did not answer either."""
    failed = answered(SHADOW, status=None, failure="unreachable", body_hash=None, body_bytes=0)
    books.write("w0", ShadowEvent(decision=FIRST, at_ms=5, shadow=failed, primary=None))
    await books.recorder.drain()
    (row,) = await books.rows(tables.shadow_answers)
    assert (row["failure"], row["status"], row["body_hash"]) == ("unreachable", None, None)
    assert {value for name, value in row.items() if name.startswith("primary_")} == {None, "{}"}


async def test_repeats_of_a_copy_count_once(books: Books) -> None:
    """Within a batch, over batches or from another worker, the first stands; another arm's is its own."""
    for name in ("w0", "w0", "w1"):
        books.write(name, copied(FIRST), copied(FIRST, at_ms=2_000), copied(FIRST, answered(SHADOW + 1)))
        await books.recorder.drain()
    found = await books.rows(tables.shadow_answers)
    assert [(row["arm_id"], row["at_ms"] - FIRST.at_ms) for row in found] == [(SHADOW, 1_000), (4, 1_000)]


async def test_copies_add_nothing_to_the_sums(books: Books) -> None:
    """They make no decision, and are in no rollup."""
    books.write("w0", copied(FIRST))
    assert await books.recorder.drain() == 1
    assert await books.accounts() == {}
    assert await books.rows(tables.decisions) == []


async def test_copies_that_cannot_be_used_are_counted(books: Books) -> None:
    """Those of a route that is not there, and those of a kind that a later version writes."""
    path = books.write("w0", copied(claims(2, route_id=99)), copied(FIRST))
    later = encode(copied(FIRST)).replace(b'"shadow"', b'"echo"', 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO events (body) VALUES (?)", (later,))
    books.write("w0", made(FIRST))
    await books.recorder.drain()
    mark = await books.mark("w0")
    assert (mark.seq, mark.unreadable) == (4, 2)
    assert len(await books.rows(tables.shadow_answers)) == 1
