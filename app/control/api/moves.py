"""How every change of a route in service is made: read, decide, compare-and-set, tell the gateways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from app.clock import now_ms
from app.control.api.parameters import require_version
from app.control.context import Context
from app.db import rollouts
from app.db.errors import Conflict
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection
from app.db.timeline import Entry
from policies.lifecycle import Rollout

_ATTEMPTS = 5

Move = Callable[[StoredRoute, int], tuple[Rollout, Entry] | None]
"""From a route and the time to its next rollout and what to note of it; None when nothing is to change."""

Alter = Callable[[Connection, StoredRoute, int], Awaitable[tuple[StoredRoute, Entry] | None]]
"""As Move, for what is written beside the rollout: gives the route as it is to be."""


async def move(context: Context, name: str, decide: Move, if_match: str | None = None) -> StoredRoute:
    """Carry a person's decision out. If the policy was faster, the decision is taken again on what is there.

    Raises:
        NotFound, IllegalTransition, BadSpec: as `decide` does.
        Refused: the route is not at the version that `if_match` names.
        Conflict: somebody else was faster, again and again.
    """
    return await persist(context, name, _altering(decide), if_match)


async def persist(context: Context, name: str, alter: Alter, if_match: str | None = None) -> StoredRoute:
    """As `change`; if somebody else was faster, once more on what is there, and so on.

    Raises:
        NotFound, IllegalTransition, BadSpec: as `alter` does.
        Refused: the route is not at the version that `if_match` names.
        Conflict: somebody else was faster, again and again.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return await change(context, name, alter, if_match)
        except Conflict:
            if attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


async def change(context: Context, name: str, alter: Alter, if_match: str | None = None) -> StoredRoute:
    """Change a route in one transaction, with its row of the timeline, and tell the gateways.

    Raises:
        NotFound, IllegalTransition, BadSpec: as `alter` does.
        Refused: the route is not at the version that `if_match` names.
        Conflict: somebody else was faster.
    """
    at_ms = now_ms()
    async with context.database.transaction() as connection:
        route = await load_route(connection, name)
        require_version(route, if_match)
        if (found := await alter(connection, route, at_ms)) is None:
            return route
        wanted, entry = found
        before = replace(wanted, rollout=route.rollout)
        saved = await rollouts.save(connection, before, wanted.rollout, entry, at_ms)
    await context.publish()
    return saved


def _altering(decide: Move) -> Alter:
    async def alter(_: Connection, route: StoredRoute, at_ms: int) -> tuple[StoredRoute, Entry] | None:
        if (found := decide(route, at_ms)) is None:
            return None
        rollout, entry = found
        return replace(route, rollout=rollout), entry

    return alter
