"""Overrides: flag-style rules that pin traffic to an arm, and the question which arm a request would get."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path

from app.clock import now_ms
from app.control.api.history import unix_ms
from app.control.api.moves import persist
from app.control.api.parameters import IfMatch, Reason, RouteName, Scope
from app.control.auth import Operator, Viewer
from app.control.dry_runs import DryRun, explain, kept_by
from app.control.overrides import (
    OverrideDocument,
    Overrides,
    OverrideView,
    expressions_of,
    override_view,
    require_few_expressions,
    require_room,
    wanted_of,
)
from app.control.questions import DryRunDocument, Question, question_of
from app.db import overrides
from app.db.learned import load_terms
from app.db.overrides import StoredOverride
from app.db.routes import StoredRoute, load_route
from app.db.session import Connection
from app.db.snapshots import route_of
from app.db.timeline import Entry, Kind
from routing.assignment import Plan
from routing.types import Route

router = APIRouter(tags=["overrides"])

_Id = Annotated[int, Path(alias="id", ge=1, lt=2**63, description="The override's id.")]


@router.post("/routes/{route}/overrides", status_code=201)
async def add_override(
    name: RouteName, document: OverrideDocument, context: Scope, caller: Operator, if_match: IfMatch = None
) -> OverrideView:
    """Pin the requests for which all conditions hold to an arm. They count for no verdict from then on."""
    expires_at_ms = _unix_ms("expires_at", document.expires_at)
    made: list[OverrideView] = []

    async def add(connection: Connection, route: StoredRoute, at_ms: int) -> tuple[StoredRoute, Entry]:
        wanted = wanted_of(document, route, caller.name, expires_at_ms, at_ms)
        require_room(await overrides.room(connection, route.id), wanted)
        if expressions_of(wanted):
            require_few_expressions(await overrides.live_overrides(connection, route.id), wanted)
        override = await overrides.insert_override(connection, route.id, wanted)
        made.append(override_view(override, route, at_ms))
        return route, _entry(Kind.OVERRIDE_ADDED, caller.name, document.reason, override)

    await persist(context, name, add, if_match)
    return made[-1]


@router.get("/routes/{route}/overrides")
async def read_overrides(name: RouteName, context: Scope, _: Viewer) -> Overrides:
    """The route's overrides in their order of precedence, with what each has pinned lately."""
    at_ms = now_ms()
    async with context.database.read() as connection:
        route = await load_route(connection, name)
        found = await overrides.live_overrides(connection, route.id)
        matched = await overrides.matches(connection, route.id, at_ms)
    return Overrides(overrides=[override_view(each, route, at_ms, matched[each.id]) for each in found])


@router.delete("/routes/{route}/overrides/{id}", status_code=204)
async def remove_override(
    name: RouteName,
    override_id: _Id,
    reason: Reason,
    context: Scope,
    caller: Operator,
    if_match: IfMatch = None,
) -> None:
    """End an override. Its id is never used again."""

    async def remove(connection: Connection, route: StoredRoute, at_ms: int) -> tuple[StoredRoute, Entry]:
        override = await overrides.find_override(connection, route.id, override_id)
        await overrides.end_overrides(connection, [override_id], at_ms)
        return route, _entry(Kind.OVERRIDE_REMOVED, caller.name, reason, override)

    await persist(context, name, remove, if_match)


@router.post("/routes/{route}/dry-run")
async def dry_run(name: RouteName, document: DryRunDocument, context: Scope, _: Viewer) -> DryRun:
    """Which arm would a request get, and why? Nothing is sent, and nothing is recorded.

    Answered by the code that gateways run, over the route as it is now.
    """
    at_ms = _unix_ms("at", document.at)
    async with context.database.read() as connection:
        stored = await load_route(connection, name)
        live = await overrides.live_overrides(connection, stored.id)
        terms = await load_terms(connection, [stored])
    route = route_of(stored, [override.rule for override in live], terms.get(stored.id))
    at_ms = now_ms() if at_ms is None else at_ms
    plan, question = await asyncio.to_thread(_question, route, document, at_ms)
    kept = await kept_by(context.first_arms, route, question.unit)
    return await asyncio.to_thread(explain, plan, question, live, kept)


def _question(route: Route, document: DryRunDocument, at_ms: int) -> tuple[Plan, Question]:
    plan = Plan(route)
    return plan, question_of(document, plan, at_ms)


def _unix_ms(field: str, at: datetime | None) -> int | None:
    return None if at is None else max(0, unix_ms(field, at))


def _entry(kind: Kind, actor: str, reason: str, override: StoredOverride) -> Entry:
    return Entry(kind, actor, reason, override.arm, evidence=override)
