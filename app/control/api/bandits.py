"""A route's bandit: what it has learnt, and the order to learn it anew."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from fastapi import APIRouter

from app.clock import now_ms
from app.control.api.parameters import RouteName, Scope
from app.control.auth import Operator, Viewer
from app.control.bandits import RECENT_CONTEXTS, Account, BanditView, bandit_view
from app.control.schemas import Because
from app.db import bandits, pending
from app.db.errors import NotFound
from app.db.learned import load_terms
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection
from app.db.timeline import Entry, Kind
from policies.lessons import Knowledge, Lessons, lessons_of
from routing.errors import BadModel

router = APIRouter(tags=["bandit"])


@router.get("/routes/{route}/bandit")
async def read_bandit(name: RouteName, context: Scope, _: Viewer) -> BanditView:
    """What the bandit has learnt of each arm, and how it divides the traffic, also segment by segment."""
    async with context.database.read() as connection:
        account = await _account(connection, await load_route(connection, name))
    return await asyncio.to_thread(bandit_view, account)


@router.post("/routes/{route}/bandit/rebuild")
async def rebuild_bandit(name: RouteName, action: Because, context: Scope, caller: Operator) -> BanditView:
    """Forget what the bandit has learnt, and learn it anew from the last 90 days of the log.

    At most the newest 500,000 decisions. Until they have been learnt the champion answers.
    """
    at_ms = now_ms()
    async with context.database.transaction() as connection:
        route = await load_route(connection, name)
        entry = Entry(Kind.BANDIT_REBUILT, caller.name, action.reason)
        await bandits.rebuild(connection, route, _lessons(route), entry, at_ms)
    await context.publish()
    return await read_bandit(name, context, caller)


def _lessons(route: StoredRoute) -> Lessons:
    if (lessons := lessons_of(route.spec)) is None:
        raise NotFound(f"route {route.name!r} has no bandit: weights divide its traffic")
    return lessons


async def _recent_contexts(
    connection: Connection, route: StoredRoute, lessons: Lessons
) -> list[Mapping[str, object]]:
    """The latest, over which shares are shown; a bandit without features has the same in all of them."""
    if not lessons.schema:
        return []
    return await pending.latest_contexts(connection, route.id, RECENT_CONTEXTS)


async def _account(connection: Connection, route: StoredRoute) -> Account:
    lessons = _lessons(route)
    state = await bandits.find_state(connection, route.id)
    known, damage = Knowledge({}), None
    if state is not None and state.meaning == lessons.meaning:
        arm_ids = set(route.arm_ids.values())
        try:
            known = await bandits.load_knowledge(connection, state, arm_ids, lessons.width)
        except BadModel as error:
            damage = str(error)
    return Account(
        route=route,
        lessons=lessons,
        terms=(await load_terms(connection, [route]))[route.id],
        state=state,
        known=known,
        at_ms=now_ms(),
        damage=damage,
        waiting=await pending.waiting(connection, route.id),
        pulls=await bandits.pulls(connection, route.id),
        contexts=await _recent_contexts(connection, route, lessons),
    )
