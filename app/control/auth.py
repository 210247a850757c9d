"""Who is calling, and may they? API keys as bearer tokens; without any key, people on this machine only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from app.control.context import Context, context_of
from app.control.errors import Refused
from app.db.keys import KeyRole, any_keys, find_key
from app.listeners import is_loopback

_bearer = HTTPBearer(auto_error=False, description="An API key, as made by `kingmaker keys create`.")
_ALLOWED: dict[KeyRole, frozenset[KeyRole]] = {
    KeyRole.VIEWER: frozenset((KeyRole.VIEWER, KeyRole.OPERATOR, KeyRole.ADMIN)),
    KeyRole.OPERATOR: frozenset((KeyRole.OPERATOR, KeyRole.ADMIN)),
    KeyRole.ADMIN: frozenset((KeyRole.ADMIN,)),
}
"""Which roles satisfy a needed one. `ingest` is for the data plane: it opens nothing here."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the name that the timeline shows, and the role."""

    name: str
    role: KeyRole


LOCAL = Principal("local", KeyRole.ADMIN)
"""Whoever is on this machine, while no key has been made."""

Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def needs(role: KeyRole) -> Callable[..., Awaitable[Principal]]:
    """A dependency: the caller, who must hold this role or a greater one."""

    async def authorise(
        request: Request, credentials: Credentials, context: Annotated[Context, Depends(context_of)]
    ) -> Principal:
        principal = await _principal(context, request, credentials)
        if principal.role not in _ALLOWED[role]:
            raise Refused(
                HTTPStatus.FORBIDDEN, f"role must be {role.value} or above, got {principal.role.value}"
            )
        return principal

    return authorise


Viewer = Annotated[Principal, Depends(needs(KeyRole.VIEWER))]
Operator = Annotated[Principal, Depends(needs(KeyRole.OPERATOR))]
Admin = Annotated[Principal, Depends(needs(KeyRole.ADMIN))]


async def _principal(
    context: Context, request: Request, credentials: HTTPAuthorizationCredentials | None
) -> Principal:
    async with context.database.read() as connection:
        key = await find_key(connection, credentials.credentials) if credentials is not None else None
        has_keys = key is not None or await any_keys(connection)
    if key is not None:
        return Principal(key.name, key.role)
    if has_keys:
        raise Refused(HTTPStatus.UNAUTHORIZED, "a valid API key is needed: Authorization: Bearer KEY")
    if not context.keyless:
        raise Refused(HTTPStatus.UNAUTHORIZED, "no API key exists yet: kingmaker keys create --role admin")
    _refuse_strangers(request)
    return LOCAL


def _refuse_strangers(request: Request) -> None:
    """Without a key, a web page in a browser here must not get in under a name that it made point to us."""
    named = request.headers.get("Host", "")
    try:
        host = urlsplit(f"//{named}").hostname or ""
    except ValueError:
        host = ""
    if not is_loopback(host):
        raise Refused(HTTPStatus.FORBIDDEN, f"Host must be that of this machine's loopback, got {named!r}")
