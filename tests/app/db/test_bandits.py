"""What a bandit knows is saved whole or not at all, and by whoever has read its latest state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from app.db import bandits, pending, versions
from app.db.bandits import BanditState
from app.db.errors import Conflict
from app.db.pending import Waiting
from app.db.routes import StoredRoute
from app.db.session import Database
from policies.lessons import Knowledge
from routing.linear_model import Sums
from routing.types import Reason
from tests.app.db.stage import HOUR_MS, START_MS, put_route, route_spec
from tests.app.jobs.school import LATER_MS, bandit_spec, chosen, decided, known, learn, log, open_school


async def state_of(database: Database, route: StoredRoute) -> BanditState:
    """How far a route's bandit is."""
    async with database.read() as connection:
        state = await bandits.find_state(connection, route.id)
    assert state is not None
    return state


async def save(database: Database, state: BanditState, taken: list[str]) -> None:
    """Save that each arm has one more reward."""
    sums = {arm_id: Sums.empty(1).plus([1.0], 1.0, START_MS, 1.0) for arm_id in (1, 2)}
    async with database.transaction() as connection:
        await bandits.save(
            connection, state, Knowledge(sums), sums.keys(), taken, caught_up=False, now_ms=LATER_MS
        )


async def test_a_state_is_saved_once(database: Database) -> None:
    """Who read the same one before is refused, and nothing of theirs is kept."""
    route = await open_school(database)
    state = await state_of(database, route)
    await save(database, state, [])
    with pytest.raises(Conflict, match=f"since version {state.version}"):
        await save(database, state, [])
    assert (await state_of(database, route)).version == state.version + 1


async def test_decisions_that_wait_no_more_are_not_learnt_from(database: Database) -> None:
    """One of those taken is gone: the state stays as it was, and so do the others that were taken."""
    route = await open_school(database)
    one = chosen(route)
    await log(database, decided(route, one))
    state = await state_of(database, route)
    async with database.read() as connection:
        taken = list(await pending.due(connection, route.id, LATER_MS, 9))
    with pytest.raises(Conflict, match="by somebody else"):
        await save(database, state, [*taken, "f" * 28])
    assert await state_of(database, route) == state
    assert (await known(database, route)).sums == {}
    async with database.read() as connection:
        assert (await pending.waiting(connection, route.id)).decisions == 1


async def test_gateways_are_told_once(database: Database) -> None:
    """Of two who find that it is time, the second one finds that there is nothing left to tell."""
    await open_school(database)
    async with database.read() as connection:
        assert await bandits.is_news(connection, LATER_MS)
        before = await versions.current(connection)
    for _ in range(2):
        async with database.transaction() as connection:
            await bandits.publish(connection, LATER_MS)
    async with database.read() as connection:
        assert await versions.current(connection) == before + 1
        assert not await bandits.is_news(connection, LATER_MS + HOUR_MS)


async def test_a_bandits_own_choices_are_counted(database: Database) -> None:
    """By arm, whatever becomes of their rewards, in the batch in which they are recorded; others' are not."""
    route = await put_route(database, bandit_spec())
    await log(
        database, *(decided(route, chosen(route)) for _ in range(2)), decided(route, chosen(route, "old"))
    )
    again = chosen(route)
    await log(database, decided(route, again), decided(route, again))
    await log(database, decided(route, again), decided(route, chosen(route, reason=Reason.SPLIT)))
    await learn(database)
    async with database.read() as connection:
        assert await bandits.pulls(connection, route.id) == {
            route.arm_ids["old"]: 1,
            route.arm_ids["new"]: 3,
        }


async def test_sums_are_read_beside_the_loop(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wide contexts that takes long: those of all arms are read in one go, by a thread that may."""
    route = await open_school(database, bandit_spec(arms=("old", "new", "third")))
    for arm in route.arm_ids:
        await log(database, decided(route, chosen(route, arm)))
    await learn(database)
    reading, going = Sums.from_bytes, asyncio.to_thread
    read: list[threading.Thread] = []
    went: list[object] = []

    def watched(data: bytes, width: int) -> Sums:
        read.append(threading.current_thread())
        return reading(data, width)

    async def noted(work: Callable[..., Any], *given: object) -> Any:
        went.append(work)
        return await going(work, *given)

    monkeypatch.setattr(Sums, "from_bytes", watched)
    monkeypatch.setattr(asyncio, "to_thread", noted)
    assert len((await known(database, route)).sums) == 3
    assert len(read) == 3
    assert threading.main_thread() not in read
    assert len(went) == 1


async def test_a_route_without_a_bandit_waits_for_nothing(database: Database) -> None:
    """Nor does anybody count what its split chooses."""
    route = await put_route(database, route_spec())
    await log(database, decided(route, chosen(route)), decided(route, chosen(route, reason=Reason.SPLIT)))
    async with database.read() as connection:
        assert await pending.waiting(connection, route.id) == Waiting(0, None)
        assert await bandits.pulls(connection, route.id) == {}


async def test_contexts_are_those_of_the_newest_decisions(database: Database) -> None:
    """Of those that have one; the newest first, and only so many."""
    route = await open_school(database)
    for number in range(4):
        event = decided(route, chosen(route, at_ms=START_MS + number), {"hour": float(number)})
        await log(database, event)
    await log(database, decided(route, chosen(route, at_ms=START_MS + 9)))
    other = await open_school(database, bandit_spec("other"))
    await log(database, decided(other, chosen(other), {"hour": 9.0}))
    async with database.read() as connection:
        found = await pending.latest_contexts(connection, route.id, 2)
    assert found == [{"hour": 3.0}, {"hour": 2.0}]


async def test_contexts_are_looked_for_in_so_many_decisions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest 10,000 (here three): a log in which few have one is not read to its beginning."""
    monkeypatch.setattr(pending, "LATEST_DECISIONS", 3)
    route = await open_school(database)
    for number in range(6):
        context = None if number % 2 else {"hour": float(number)}
        await log(database, decided(route, chosen(route, at_ms=START_MS + number), context))
    async with database.read() as connection:
        assert await pending.latest_contexts(connection, route.id, 9) == [{"hour": 4.0}]
