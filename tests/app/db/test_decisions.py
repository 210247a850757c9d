"""Decisions and outcomes are here once, whoever told of them first; marks say how far each spool is read."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace
from sqlalchemy import select

from app.db import decisions
from app.db.decisions import SpoolMark
from app.db.errors import Conflict
from app.db.session import Database
from app.db.tables import contexts
from app.db.tables import decisions as decision_rows
from app.events.types import DecisionEvent, OutcomeEvent
from policies.metrics import Outcome
from routing.claims import Claims, decision_id
from routing.types import Reason

CLAIMS = Claims(
    route_id=2**31,
    arm_id=5,
    unit_hash=2**64 - 1,
    has_unit=True,
    reason=Reason.SPLIT,
    propensity_bp=9_000,
    epoch=3,
    snapshot=2**40,
    at_ms=1_736_121_600_123,
    nonce=2**63 + 1,
)


def observed(claims: Claims = CLAIMS) -> DecisionEvent:
    """How a decision ended."""
    return DecisionEvent(
        decision=claims,
        served_arm_id=4,
        status=200,
        error=True,
        latency_ms=12.25,
        override_id=2**31,
        considered_bp=2_500,
        first_at_ms=1_736_000_000_000,
    )


def told(
    claims: Claims = CLAIMS, metric: str = "conversion", key: str = "", value: float = 1.0
) -> OutcomeEvent:
    """An outcome of a decision."""
    return OutcomeEvent(
        decision=claims,
        metric=metric,
        value=value,
        at_ms=claims.at_ms + 5,
        received_at_ms=claims.at_ms + 9,
        key=key,
    )


def numbered(count: int) -> list[Claims]:
    """Claims of as many decisions."""
    return [replace(CLAIMS, nonce=number) for number in range(count)]


async def stored(database: Database) -> list[dict[str, object]]:
    """All decisions as they are stored."""
    async with database.read() as connection:
        rows = await connection.execute(select(decision_rows).order_by(decision_rows.c.id))
        return [dict(row) for row in rows.mappings()]


CLAIMED = {
    "id": "019438e9487b8000000000000001",
    "route_id": 2**31,
    "assigned_arm_id": 5,
    "epoch": 3,
    "snapshot": 2**40,
    "reason": "SPLIT",
    "propensity_bp": 9_000,
    "unit_hash": "f" * 16,
    "at_ms": 1_736_121_600_123,
}
OBSERVED = {
    "served_arm_id": 4,
    "status": 200,
    "error": True,
    "latency_ms": 12.25,
    "override_id": 2**31,
    "considered_bp": 2_500,
    "first_at_ms": 1_736_000_000_000,
    "complete": True,
}
BLANK = {**dict.fromkeys(OBSERVED), "complete": False}
CONTEXT = {"country": "DE", "hour": 7.5, "app": True}


async def test_a_decision_is_stored_with_all_that_is_known_of_it(database: Database) -> None:
    """A whole one holds what its token claims and how it ended; one known from a token, what that claims."""
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [observed()], [])
    assert await stored(database) == [{**CLAIMED, **OBSERVED}]
    from_token = replace(CLAIMS, nonce=CLAIMS.nonce + 1)
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [], [from_token])
    assert (await stored(database))[1] == {**CLAIMED, **BLANK, "id": decision_id(from_token)}


async def test_the_context_of_a_decision_is_kept(database: Database) -> None:
    """With its schema's version, also where the decision's token had come first; of others there is none."""
    seen = [replace(observed(claims), schema=2**32 - 1, context=CONTEXT) for claims in numbered(2)]
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [seen[0], observed()], [seen[1].decision])
        await decisions.complete_decisions(connection, [seen[1]])
        rows = (await connection.execute(select(contexts).order_by(contexts.c.decision_id))).all()
    assert [(row.decision_id, row.route_id, row.schema_version) for row in rows] == [
        (decision_id(event.decision), CLAIMS.route_id, 2**32 - 1) for event in seen
    ]
    assert [msgspec.json.decode(row.features) for row in rows] == [CONTEXT, CONTEXT]


async def test_a_request_of_its_own_has_no_unit(database: Database) -> None:
    """Without a unit none is stored, even where the hash is not nothing."""
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [], [replace(CLAIMS, has_unit=False)])
    assert (await stored(database))[0]["unit_hash"] is None


async def test_whole_decisions_and_those_of_tokens_go_together(database: Database) -> None:
    """One call writes both kinds; none of either writes nothing."""
    first, second, third = numbered(3)
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [], [])
        await decisions.insert_decisions(connection, [observed(second)], [first, third])
    assert [row["complete"] for row in await stored(database)] == [False, True, False]


async def test_a_decision_known_from_a_token_is_completed(database: Database) -> None:
    """When the record of a decision comes after its outcome, it adds how the decision ended, and no more."""
    other = replace(CLAIMS, nonce=1)
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [], [CLAIMS, other])
        await decisions.complete_decisions(connection, [])
        await decisions.complete_decisions(connection, [observed()])
    assert await stored(database) == [
        {**CLAIMED, **BLANK, "id": decision_id(other)},
        {**CLAIMED, **OBSERVED},
    ]


async def test_a_decision_is_here_once(database: Database) -> None:
    """Writing a decision again is a Conflict, and the batch that holds it is undone."""
    async with database.transaction() as connection:
        await decisions.insert_decisions(connection, [observed()], [])
    with pytest.raises(Conflict):
        async with database.transaction() as connection:
            await decisions.insert_decisions(connection, [observed(replace(CLAIMS, nonce=1))], [CLAIMS])
    assert len(await stored(database)) == 1


async def test_what_is_known_is_found_however_many_are_asked_for(database: Database) -> None:
    """Of 1,203 decisions asked for at once, exactly those that are here are told, complete or not."""
    every = numbered(1_203)
    async with database.transaction() as connection:
        whole = [observed(claims) for claims in every[::3]]
        await decisions.insert_decisions(connection, whole, every[1::3])
        known = await decisions.known_decisions(connection, {decision_id(claims) for claims in every})
        assert await decisions.known_decisions(connection, set()) == {}
    assert known == {
        **{decision_id(claims): True for claims in every[::3]},
        **{decision_id(claims): False for claims in every[1::3]},
    }


async def test_outcomes_are_found_by_decision_metric_and_key(database: Database) -> None:
    """Outcomes of many decisions are told apart, with their values, times and places in the log."""
    every = numbered(600)
    events = [(told(claims, value=number / 8), f"spool:{number:016d}") for number, claims in enumerate(every)]
    events += [
        (told(every[0], key="k"), "spool:a"),
        (told(every[0], metric="cost", key="é" * 256), "spool:b"),
    ]
    async with database.transaction() as connection:
        await decisions.write_outcomes(connection, [])
        await decisions.write_outcomes(connection, events)
        known = await decisions.known_outcomes(connection, {decision_id(claims) for claims in every[:-1]})
    received_ms = CLAIMS.at_ms + 9
    first = decision_id(every[0])
    assert known[first, "conversion"] == {
        "": Outcome(0.0, CLAIMS.at_ms + 5, received_ms, "spool:0000000000000000"),
        "k": Outcome(1.0, CLAIMS.at_ms + 5, received_ms, "spool:a"),
    }
    assert list(known[first, "cost"]) == ["é" * 256]
    assert known[decision_id(every[598]), "conversion"][""].value == 598 / 8
    assert len(known) == 600
    assert (decision_id(every[599]), "conversion") not in known


async def test_an_outcome_is_here_once(database: Database) -> None:
    """The same decision, metric and key again takes the place of what was there; others stay as they are."""
    async with database.transaction() as connection:
        await decisions.write_outcomes(connection, [(told(), "a:1"), (told(key="other"), "a:2")])
        await decisions.write_outcomes(connection, [(told(value=0.0), "a:0"), (told(key="new"), "a:3")])
    async with database.read() as connection:
        known = await decisions.known_outcomes(connection, {decision_id(CLAIMS)})
    found = {key: (one.value, one.event) for key, one in known[decision_id(CLAIMS), "conversion"].items()}
    assert found == {"": (0.0, "a:0"), "other": (1.0, "a:2"), "new": (1.0, "a:3")}


async def test_a_mark_says_how_far_a_spool_is_read(database: Database) -> None:
    """A spool that was never read is at 0; afterwards its mark is what was noted last for it."""
    async with database.transaction() as connection:
        assert await decisions.spool_mark(connection, "a") == SpoolMark(0, 0, 0)
        await decisions.set_spool_mark(connection, "a", SpoolMark(5, 1, 2))
        await decisions.set_spool_mark(connection, "b", SpoolMark(2**40))
        await decisions.set_spool_mark(connection, "a", SpoolMark(9, 1, 3))
    async with database.read() as connection:
        assert await decisions.spool_mark(connection, "a") == SpoolMark(9, 1, 3)
        assert await decisions.spool_mark(connection, "b") == SpoolMark(2**40)


async def test_a_mark_moves_with_what_was_written_or_not_at_all(database: Database) -> None:
    """When a batch is undone, its spool's mark stays where it was."""

    async def write_and_fail() -> None:
        async with database.transaction() as connection:
            await decisions.insert_decisions(connection, [observed()], [])
            await decisions.set_spool_mark(connection, "a", SpoolMark(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await write_and_fail()
    assert await stored(database) == []
    async with database.read() as connection:
        assert await decisions.spool_mark(connection, "a") == SpoolMark()
