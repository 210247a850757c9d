"""Routes: declared whole, read whole."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Response

from app.clock import now_ms
from app.control.api.parameters import (
    IfMatch,
    Reason,
    RouteName,
    Scope,
    etag,
    require_version,
)
from app.control.auth import Operator, Viewer
from app.control.context import Context
from app.control.declare import Author, Declared, Difference, declare
from app.control.documents import document_of, spec_of
from app.control.errors import Refused
from app.control.schemas import RouteDocument
from app.control.views import Applied, Change, Kept, Routes
from app.db import rollouts
from app.db.errors import NotFound
from app.db.overrides import end_all_overrides
from app.db.routes import StoredRoute, delete_route, load_route, load_routes
from app.db.session import Connection
from app.db.timeline import Entry, Kind
from policies.errors import BadSpec
from policies.spec import RouteSpec

router = APIRouter(tags=["routes"])

_ETAG = {"ETag": {"description": "The route's version, for If-Match.", "schema": {"type": "string"}}}
_READ: dict[int | str, dict[str, object]] = {200: {"headers": _ETAG}}
_PUT: dict[int | str, dict[str, object]] = {
    200: {"headers": _ETAG},
    201: {"description": "The route is new.", "model": Applied, "headers": _ETAG},
}
_DryRun = Annotated[bool, Query(description="Only say what would change.")]
_TakeOver = Annotated[bool, Query(description="Role and split as declared, even where a rollout moved them.")]


@router.get("/routes", response_model_exclude_none=True)
async def read_routes(context: Scope, _: Viewer) -> Routes:
    """All routes as files would declare them, with roles and split as they are now."""
    async with context.database.read() as connection:
        found = await load_routes(connection)
    return Routes(routes=[document_of(route.spec) for route in found])


@router.get("/routes/{route}", response_model_exclude_none=True, responses=_READ)
async def read_route(name: RouteName, context: Scope, _: Viewer, response: Response) -> RouteDocument:
    """One route as a file would declare it, with roles and split as they are now."""
    async with context.database.read() as connection:
        route = await load_route(connection, name)
    response.headers["ETag"] = etag(route.version)
    return document_of(route.spec)


@router.put("/routes/{route}", responses=_PUT)
async def put_route(
    name: RouteName,
    document: RouteDocument,
    context: Scope,
    caller: Operator,
    response: Response,
    dry_run: _DryRun = False,
    take_over: _TakeOver = False,
    if_match: IfMatch = None,
) -> Applied:
    """Declare a route: make it, or bring it to what is declared: all of it, or nothing and a refusal."""
    if document.route != name:
        raise BadSpec("route", f"must be {name!r} as in the path, got {document.route!r}")
    spec, author = spec_of(document), Author(caller.name, now_ms())
    await context.places.require_route(spec)
    declared = await _declare(context, spec, author, take_over, dry_run, if_match)
    response.status_code = HTTPStatus.CREATED if declared.created and not dry_run else HTTPStatus.OK
    if not dry_run:
        response.headers["ETag"] = etag(declared.route.version)
    return _applied(declared, dry_run)


@router.delete("/routes/{route}", status_code=204)
async def remove_route(
    name: RouteName, context: Scope, caller: Operator, reason: Reason = "deleted", if_match: IfMatch = None
) -> None:
    """Take a route out of service. Its timeline and evaluations stay, and its name may be used again."""
    at_ms = now_ms()
    async with context.database.transaction() as connection:
        route = await load_route(connection, name)
        require_version(route, if_match)
        entry = Entry(Kind.ROUTE_DELETED, caller.name, reason)
        await rollouts.save(connection, route, route.rollout, entry, at_ms)
        await end_all_overrides(connection, route.id, at_ms)
        await delete_route(connection, route.id, at_ms)
    await context.publish()


async def _declare(
    context: Context, spec: RouteSpec, author: Author, take_over: bool, dry_run: bool, if_match: str | None
) -> Declared:
    database = context.database
    async with database.rehearsal() if dry_run else database.transaction() as connection:
        if if_match is not None:
            require_version(await _existing(connection, spec.name), if_match)
        declared = await declare(connection, spec, author, take_over=take_over)
    if not dry_run:
        await context.publish()
    return declared


async def _existing(connection: Connection, name: str) -> StoredRoute:
    try:
        return await load_route(connection, name)
    except NotFound as error:
        raise Refused(HTTPStatus.PRECONDITION_FAILED, f"{error}, but If-Match asks for one") from error


def _applied(declared: Declared, dry_run: bool) -> Applied:
    return Applied(
        route=declared.route.name,
        created=declared.created,
        dry_run=dry_run,
        changes=[_change(difference) for difference in declared.changes],
        kept=[_kept(difference) for difference in declared.kept],
        document=document_of(declared.route.spec),
    )


def _change(difference: Difference) -> Change:
    return Change(field=difference.field, before=difference.before, after=difference.after)


def _kept(difference: Difference) -> Kept:
    return Kept(field=difference.field, current=difference.before, declared=difference.after)
