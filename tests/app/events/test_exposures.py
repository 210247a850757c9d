"""A confirmed exposure makes a decision that was recorded nowhere, and takes nothing from one that was."""

from __future__ import annotations

import pytest

from app.db import tables
from app.db.tables import DECISIONS
from app.events.types import DecisionEvent
from policies.metrics import ERROR, LATENCY
from routing.claims import decision_id
from tests.app.events.books import Account, Books, values
from tests.app.events.facts import NEW, OLD, claims, made, told

FIRST = claims(1)
EXPOSURE = DecisionEvent(decision=FIRST, served_arm_id=None, status=None, error=None, latency_ms=None)
SERVED = made(FIRST, served_arm_id=OLD, status=200, error=True, latency_ms=2.0)


async def test_an_exposure_is_a_decision(books: Books) -> None:
    """It counts for its arm, however often it is confirmed, and has outcomes as every other."""
    books.write("w0", EXPOSURE, EXPOSURE, told(FIRST, "conversion", 1.0), EXPOSURE)
    books.write("w1", EXPOSURE)
    await books.recorder.drain()
    accounts = await books.accounts()
    assert accounts[Account(NEW, DECISIONS)] == values(1)
    assert accounts[Account(NEW, "conversion")] == values(1)
    assert [row["id"] for row in await books.rows(tables.decisions)] == [decision_id(FIRST)]


@pytest.mark.parametrize("first", [EXPOSURE, SERVED], ids=["exposure", "served"])
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_is_known_of_a_decision_stands(books: Books, first: DecisionEvent, at_once: bool) -> None:
    """Whoever is first: an exposure neither hides how the exchange ended, nor keeps that from being told."""
    second = SERVED if first is EXPOSURE else EXPOSURE
    for group in [(first, second)] if at_once else [(first,), (second,)]:
        books.write("w0", *group)
        await books.recorder.drain()
    (row,) = await books.rows(tables.decisions)
    assert (row["complete"], row["served_arm_id"], row["status"]) == (True, OLD, 200)
    assert (row["error"], row["latency_ms"]) == (True, 2.0)
    accounts = await books.accounts()
    assert accounts[Account(NEW, ERROR)] == values(1)
    assert accounts[Account(NEW, LATENCY)] == values(2)


async def test_of_two_ends_of_an_exchange_the_first_stands(books: Books) -> None:
    """In one batch as in two."""
    again = made(FIRST, served_arm_id=NEW, status=500, error=False, latency_ms=9.0)
    books.write("w0", SERVED, again, EXPOSURE)
    await books.recorder.drain()
    (row,) = await books.rows(tables.decisions)
    assert (row["served_arm_id"], row["status"], row["latency_ms"]) == (OLD, 200, 2.0)
