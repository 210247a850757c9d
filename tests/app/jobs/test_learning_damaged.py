"""What a bandit knows is damaged just after it began: gateways hear of it at once, people not too often."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from app.db import bandits, tables
from app.db.bandits import BanditState
from app.db.learned import load_terms
from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.timeline import Kind
from app.jobs.learn import CHECK_MS, REPAIR_MS, TELL_MS, Learner
from routing.bandit import Learned
from routing.errors import BadModel
from tests.app.db.stage import timeline_of
from tests.app.jobs.school import LATER_MS, decide, learn, open_school, rebuild, rewards, version

DAMAGES: tuple[dict[str, Any], ...] = (
    {"version": -1},
    {"unusable": -1},
    {"apprentice": "[]"},
    {"refill": "junk"},
)
AGAIN_MS = LATER_MS + CHECK_MS
"""When it is time to look at what is known though there is nothing to learn."""


async def taught(database: Database) -> StoredRoute:
    """A route whose bandit has begun just now, and of which gateways know a reward."""
    route = await open_school(database)
    await decide(database, route, 1)
    await rebuild(database, route)
    await learn(database)
    await Learner(database).publish(LATER_MS)
    assert await told(database, route) is not None
    return route


async def damage(database: Database, **values: Any) -> None:
    """Put something else into the bandit's row."""
    async with database.transaction() as connection:
        await connection.execute(update(tables.bandits).values(**values))


async def told(database: Database, route: StoredRoute) -> Learned | None:
    """What a new snapshot would say of what was learnt."""
    async with database.read() as connection:
        return (await load_terms(connection, [route]))[route.id].learned


async def state_of(database: Database, route: StoredRoute) -> BanditState:
    """How far a route's bandit is."""
    async with database.read() as connection:
        state = await bandits.find_state(connection, route.id)
    assert state is not None
    return state


@pytest.mark.parametrize("damaged", DAMAGES)
async def test_gateways_are_told_at_once_of_damage_that_is_left(
    database: Database, damaged: dict[str, Any]
) -> None:
    """A new snapshot, in which nothing is known: the champion answers. One, however often it is looked at."""
    route = await taught(database)
    before, learner = await version(database), Learner(database)
    await damage(database, **damaged)
    assert await told(database, route) is None
    for second in range(3):
        at_ms = AGAIN_MS + second * 1_000
        try:
            await learner.learn(route, at_ms, at_ms)
        except BadModel:
            assert second == 0
        await learner.publish(at_ms)
        assert await version(database) == before + 1
    assert (await state_of(database, route)).published_version == 0


async def test_people_are_told_of_it_once_and_then_once_a_minute(sqlite: Database) -> None:
    """With the order that mends it. Of what has been mended and is damaged anew they are told at once."""
    route, learner = await taught(sqlite), Learner(sqlite)
    whole = (await state_of(sqlite, route)).apprentice
    said: list[int] = []
    for second in range(90):
        if second in (0, 12):
            await damage(sqlite, apprentice="[]")
        elif second == 11:
            await damage(sqlite, apprentice=whole)
        await damage(sqlite, begun_at_ms=AGAIN_MS + second * 1_000)
        try:
            await learner.learn(route, AGAIN_MS + second * 1_000, AGAIN_MS + second * 1_000)
        except BadModel as error:
            assert "kingmaker bandit rebuild ads" in str(error)  # noqa: PT017 - most turns say nothing
            said.append(second)
    assert said == [0, 12, 12 + TELL_MS // 1_000]


async def test_what_was_mended_by_hand_is_told_to_gateways_again(sqlite: Database) -> None:
    """At once, with all that was known."""
    route, learner = await taught(sqlite), Learner(sqlite)
    whole = (await state_of(sqlite, route)).apprentice
    await damage(sqlite, apprentice="[]")
    with pytest.raises(BadModel):
        await learner.learn(route, AGAIN_MS, AGAIN_MS)
    before = await version(sqlite)
    await damage(sqlite, apprentice=whole)
    await learner.learn(route, AGAIN_MS + 1, AGAIN_MS + 1)
    await learner.publish(AGAIN_MS + 1)
    assert await version(sqlite) == before + 1
    assert await told(sqlite, route) is not None
    assert await rewards(sqlite, route) == {"new": (1, 1.0)}


@pytest.mark.parametrize("damaged", DAMAGES)
async def test_what_is_left_for_a_minute_is_learnt_anew_after_it(
    sqlite: Database, damaged: dict[str, Any]
) -> None:
    """As it would have been at once, had the bandit begun earlier."""
    route, at_ms = await taught(sqlite), LATER_MS + REPAIR_MS
    await damage(sqlite, **damaged)
    with pytest.raises(BadModel):
        await Learner(sqlite).learn(route, at_ms, at_ms)
    await learn(sqlite, at_ms)
    assert await rewards(sqlite, route) == {"new": (1, 1.0)}
    assert await told(sqlite, route) is not None
    assert (await timeline_of(sqlite, route))[-1].kind is Kind.BANDIT_REBUILT


@pytest.mark.parametrize("damaged", DAMAGES)
async def test_a_rebuild_mends_everything_at_once(sqlite: Database, damaged: dict[str, Any]) -> None:
    """Also before the minute is over, and whatever was damaged."""
    route = await taught(sqlite)
    await damage(sqlite, **damaged)
    await rebuild(sqlite, route)
    await learn(sqlite)
    assert await rewards(sqlite, route) == {"new": (1, 1.0)}
    assert await told(sqlite, route) is not None
