"""The keys that sign decision tokens. The first is made at the first start; the newest signs."""

from __future__ import annotations

import secrets

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.tables import signing_keys
from app.db.versions import bump
from routing.claims import SigningKey

_SECRET_BYTES = 32


async def ensure_key(connection: AsyncConnection, now_ms: int) -> None:
    """Make the first signing key, unless there is one."""
    if await connection.scalar(select(signing_keys.c.id).limit(1)) is not None:
        return
    row = insert(signing_keys).values(secret=secrets.token_bytes(_SECRET_BYTES), created_at_ms=now_ms)
    await connection.execute(row)
    await bump(connection)


async def load_keys(connection: AsyncConnection) -> tuple[SigningKey, ...]:
    """All signing keys, the newest first."""
    rows = (await connection.execute(select(signing_keys).order_by(signing_keys.c.id.desc()))).all()
    return tuple(SigningKey(id=row.id, secret=row.secret) for row in rows)
