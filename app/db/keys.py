"""API keys: who may do what on the control plane. Only a hash is kept, and a key is shown once."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.errors import Conflict, NotFound
from app.db.tables import api_keys

_PREFIX = "km_"
_SECRET_BYTES = 32

RESERVED_NAMES = ("file", "local", "policy")
"""Actors of the timeline that are nobody's key."""


class KeyRole(StrEnum):
    """What the holder of a key may do."""

    VIEWER = "viewer"
    INGEST = "ingest"
    OPERATOR = "operator"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `name` is the actor that the timeline will show."""

    id: int
    name: str
    role: KeyRole
    created_at_ms: int


async def create_key(
    connection: AsyncConnection, name: str, role: KeyRole, now_ms: int
) -> tuple[ApiKey, str]:
    """Make a key; gives it and its secret, which is nowhere else.

    Raises:
        Conflict: the name is taken, or is one of RESERVED_NAMES.
    """
    if name in RESERVED_NAMES:
        raise Conflict(f"name must not be one that the timeline uses for itself, got {name!r}")
    secret = _PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
    if await connection.scalar(select(api_keys.c.id).where(api_keys.c.name == name)) is not None:
        raise Conflict(f"name must not be that of another key, got {name!r}")
    row = insert(api_keys).values(name=name, role=role.value, sha256=_hash(secret), created_at_ms=now_ms)
    key_id = int((await connection.execute(row.returning(api_keys.c.id))).scalar_one())
    return ApiKey(key_id, name, role, now_ms), secret


async def find_key(connection: AsyncConnection, secret: str) -> ApiKey | None:
    """The key with this secret. A secret has 256 random bits, so one plain hash of it is enough."""
    query = select(api_keys).where(api_keys.c.sha256 == _hash(secret))
    row = (await connection.execute(query)).first()
    return _key(row) if row is not None else None


async def list_keys(connection: AsyncConnection) -> list[ApiKey]:
    """All keys, oldest first."""
    rows = (await connection.execute(select(api_keys).order_by(api_keys.c.id))).all()
    return [_key(row) for row in rows]


async def any_keys(connection: AsyncConnection) -> bool:
    """Whether there is a key at all."""
    return bool(await connection.scalar(select(func.count()).select_from(api_keys)))


async def delete_key(connection: AsyncConnection, key_id: int) -> None:
    """Forget a key.

    Raises:
        NotFound: there is none with this id.
        Conflict: it is the last admin's, and others would be left that nobody could manage.
    """
    keys = {key.id: key for key in await list_keys(connection)}
    if key_id not in keys:
        raise NotFound(f"no key has the id {key_id}")
    admins = [key.id for key in keys.values() if key.role is KeyRole.ADMIN]
    if admins == [key_id] and len(keys) > 1:
        raise Conflict(f"key {keys[key_id].name!r} is the last admin's: create another before it goes")
    await connection.execute(delete(api_keys).where(api_keys.c.id == key_id))


def _hash(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(row.id, row.name, KeyRole(row.role), row.created_at_ms)
