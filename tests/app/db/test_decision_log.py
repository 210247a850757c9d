"""Decisions that were drawn are read newest first, each with what belongs to it, on both databases."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from app.db import decision_log
from app.db.decision_log import Span, count_kept, newest
from app.db.routes import StoredRoute, arm_ids, insert_arm, retire_arm
from app.db.session import Database
from app.db.tables import contexts
from app.decision_logs import Logged
from policies.spec import ArmSpec
from routing.types import Reason
from tests.app.db.stage import START_MS, get_route, put_route
from tests.app.logged_world import SPEC, Visit, record, visits

ALL = Span(0, 2**62, 1_000)


async def read(database: Database, route: StoredRoute, span: Span = ALL) -> list[list[Logged]]:
    """The pages."""
    async with database.read() as connection:
        return [list(page) async for page in newest(connection, route, span)]


async def filled(database: Database, n: int = 5, every_ms: int = 1_000) -> tuple[StoredRoute, list[Visit]]:
    """A route with a log."""
    route = await put_route(database, SPEC)
    log = visits(route.arm_ids, n, every_ms=every_ms, units=3, route_id=route.id)
    await record(database, route, log)
    return route, log


def numbers(pages: list[list[Logged]]) -> list[list[int]]:
    """Which visits are on which page."""
    return [[int(decision.id[12:], 16) for decision in page] for page in pages]


async def test_decisions_come_with_all_that_belongs_to_them(database: Database) -> None:
    """Arm, unit, propensity, time, context, and outcomes by metric."""
    route, log = await filled(database)
    (page,) = await read(database, route)
    for decision, visit in zip(page[::-1], log, strict=True):
        assert decision.arm == visit.arm
        assert decision.unit == f"{visit.claims.unit_hash:016x}"
        assert decision.propensity == visit.claims.propensity_bp / 10_000
        assert decision.at_ms == visit.claims.at_ms
        assert decision.context == visit.context
        found = {name: [each.value for each in told] for name, told in decision.outcomes.items()}
        assert found == {name: [value] for name, value in visit.outcomes.items()}
    assert any(decision.outcomes for decision in page)


@pytest.mark.parametrize("every_ms", [1_000, 0], ids=["apart", "at-once"])
async def test_pages_follow_one_another(
    database: Database, monkeypatch: pytest.MonkeyPatch, every_ms: int
) -> None:
    """The newest first, of one millisecond by their ids, none twice, and no more than are asked for."""
    monkeypatch.setattr(decision_log, "PAGE_DECISIONS", 2)
    route, _ = await filled(database, 5, every_ms)
    assert numbers(await read(database, route)) == [[4, 3], [2, 1], [0]]
    assert numbers(await read(database, route, replace(ALL, most=4))) == [[4, 3], [2, 1]]
    assert numbers(await read(database, route, replace(ALL, most=3))) == [[4, 3], [2]]


async def test_a_span_has_both_its_ends(database: Database) -> None:
    """In milliseconds; before and after there is nothing."""
    route, _ = await filled(database)
    second = START_MS + 1_000
    assert numbers(await read(database, route, Span(second, second + 2_000, 9))) == [[3, 2, 1]]
    assert numbers(await read(database, route, Span(second + 1, second + 1_999, 9))) == [[2]]
    assert numbers(await read(database, route, Span(second, second - 1, 9))) == [[]]


async def test_only_what_was_drawn_is_read(database: Database) -> None:
    """Of this route, by weights or by a bandit: an arm that was certain, or wanted, tells of no other."""
    route = await put_route(database, SPEC)
    other = await put_route(database, replace(SPEC, name="other"))
    for number, reason in enumerate(Reason):
        visit = visits(route.arm_ids, 1, reason=reason, route_id=route.id, first=number)
        await record(database, route, visit)
    await record(database, other, visits(other.arm_ids, 3, route_id=other.id, first=100))
    (page,) = numbers(await read(database, route))
    assert {list(Reason)[number] for number in page} == {Reason.SPLIT, Reason.BANDIT}


async def test_what_was_drawn_for_an_earlier_decision_is_counted_instead(database: Database) -> None:
    """Its propensity is not of this context. Of the route, of the span, and drawn at all."""
    route = await put_route(database, SPEC)
    first_at_ms = START_MS - 1
    for number in range(6):
        (visit,) = visits(route.arm_ids, 1, route_id=route.id, first=number)
        await record(database, route, [replace(visit, first_at_ms=first_at_ms if number % 3 else None)])
    forced = visits(route.arm_ids, 1, route_id=route.id, first=6, reason=Reason.FORCED)
    await record(database, route, [replace(forced[0], first_at_ms=first_at_ms)])
    assert numbers(await read(database, route)) == [[3, 0]]
    for from_ms, to_ms, count in ((0, 2**62, 4), (START_MS + 2_000, START_MS + 4_000, 2)):
        async with database.read() as connection:
            assert await count_kept(connection, route, Span(from_ms, to_ms, 1)) == count


async def test_an_arm_that_is_gone_is_told_apart_from_its_heir(database: Database) -> None:
    """A retired arm keeps its name, unless a live one has it."""
    route, _ = await filled(database, 40)
    async with database.transaction() as connection:
        await retire_arm(connection, route.arm_ids["new"], START_MS)
    gone = await get_route(database)
    assert {decision.arm for page in await read(database, gone) for decision in page} == {"old", "new"}
    async with database.transaction() as connection:
        await insert_arm(connection, route.id, ArmSpec("new", "http://127.0.0.1:9000/new"), START_MS)
        assert (await arm_ids(connection, route.id))["new"] != route.arm_ids["new"]
    heir = await get_route(database)
    assert {decision.arm for page in await read(database, heir) for decision in page} == {
        "old",
        "new (retired)",
    }


async def test_a_context_that_is_missing_or_damaged_is_not_known(database: Database) -> None:
    """The decision is there all the same."""
    route, log = await filled(database, 1)
    (later,) = visits(route.arm_ids, 1, route_id=route.id, first=1)
    await record(database, route, [replace(later, context=None)])
    async with database.transaction() as connection:
        await connection.execute(update(contexts).values(features="[1"))
    (page,) = await read(database, route)
    assert [decision.context for decision in page] == [None, None]
    assert len(log) == 1
