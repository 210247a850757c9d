"""A confirmation never stands for what a worker has observed itself, whichever of them is read first."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import select

from app.db.session import Database
from app.db.tables import contexts, decisions
from tests.app.jobs.school import COUNTRY, bandit_spec, chosen, decided, log, open_school
from tests.app.jobs.test_learning_from_exposures import confirmed


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("at_once", [True, False])
async def test_what_was_observed_is_recorded(sqlite: Database, order: int, at_once: bool) -> None:
    """With the context that the worker saw, whatever somebody else says of it."""
    route = await open_school(sqlite, bandit_spec(context=(COUNTRY,)))
    one = chosen(route)
    observed = decided(route, one, {"country": "DE"}, considered_bp=7, latency_ms=3.0)
    events = [confirmed(route, one, {"country": "FR"}), observed][::order]
    for number, some in enumerate([events] if at_once else [[event] for event in events]):
        await log(sqlite, *some, spool=f"{number:032x}")
    async with sqlite.read() as connection:
        row = (await connection.execute(select(decisions))).one()
        features = (await connection.scalars(select(contexts.c.features))).all()
    assert (row.considered_bp, row.latency_ms, features) == (7, 3.0, ['{"country":"DE"}'])


@pytest.mark.parametrize("order", [1, -1])
async def test_what_was_asked_for_by_itself_keeps_its_context(database: Database, order: int) -> None:
    """Of that, too, there is an account of the worker's own, which is no longer than a confirmation."""
    route = await open_school(database, bandit_spec(context=(COUNTRY,)))
    one = chosen(route)
    asked = msgspec.structs.replace(confirmed(route, one, {"country": "DE"}), confirmed=False)
    for number, event in enumerate([confirmed(route, one, {"country": "FR"}), asked][::order]):
        await log(database, event, spool=f"{number:032x}")
    async with database.read() as connection:
        features = (await connection.scalars(select(contexts.c.features))).all()
    assert features == ['{"country":"DE"}']
