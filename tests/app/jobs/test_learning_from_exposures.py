"""What a bulk answer told of teaches a bandit once its use is confirmed: with its context, if it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.db.routes import StoredRoute
from app.db.session import Database
from app.db.snapshots import route_of
from app.events.types import DecisionEvent
from app.gateway.exposures import event_of
from routing.claims import Claims, SigningKey
from routing.context import Encoder
from routing.snapshot import RouteTable, Snapshot
from routing.tokens import sign
from tests.app.db.stage import START_MS
from tests.app.events.facts import told
from tests.app.jobs.school import (
    COUNTRY,
    bandit_spec,
    chosen,
    known,
    learn,
    log,
    open_school,
    rewards,
)

KEY = SigningKey(id=1, secret=b"k" * 32)
IN_GERMANY = {"country": "DE"}


def confirmed(route: StoredRoute, claims: Claims, context: Mapping[str, Any] | None) -> DecisionEvent:
    """What a gateway writes down when a decision's use is confirmed."""
    live = route_of(route, ())
    table = RouteTable(Snapshot(version=1, created_at_ms=0, routes=(live,), keys=(KEY,)))
    entry = {"decision": sign(claims, KEY), **({} if context is None else {"context": context})}
    return event_of(entry, table, START_MS, lambda route: Encoder(route.context) if route.context else None)


async def taught(database: Database, route: StoredRoute, *contexts: Mapping[str, Any] | None) -> Claims:
    """A decision with an outcome, whose use is confirmed with these contexts in turn; all is learnt."""
    one = chosen(route)
    await log(database, told(one, "profit", 2.0))
    for number, context in enumerate(contexts):
        await log(database, confirmed(route, one, context), spool=f"{number:032x}")
    await learn(database)
    return one


@pytest.mark.parametrize("contexts", [[IN_GERMANY], [None, IN_GERMANY], [IN_GERMANY, None], [IN_GERMANY, {}]])
async def test_a_confirmation_with_its_context_teaches(
    sqlite: Database, contexts: list[Mapping[str, Any] | None]
) -> None:
    """Once, also where the outcome came first, or it is confirmed again without one, or with another."""
    route = await open_school(sqlite, bandit_spec(context=(COUNTRY,)))
    await taught(sqlite, route, *contexts)
    assert await rewards(sqlite, route) == {"new": (1, 2.0)}
    sums = (await known(sqlite, route)).sums[route.arm_ids["new"]]
    columns = Encoder((COUNTRY,)).columns
    assert dict(zip(columns, sums.xy.tolist(), strict=True))["country=DE"] == 2.0


async def test_a_confirmation_without_one_teaches_nothing_where_there_are_features(sqlite: Database) -> None:
    """It is counted as unusable; without features it is all that is needed."""
    route = await open_school(sqlite, bandit_spec(context=(COUNTRY,)))
    await taught(sqlite, route, None)
    assert (await rewards(sqlite, route), (await known(sqlite, route)).unusable) == ({}, 1)
    plain = await open_school(sqlite, bandit_spec("plain"))
    await taught(sqlite, plain, IN_GERMANY)
    assert await rewards(sqlite, plain) == {"new": (1, 2.0)}
