"""The version of what gateways route by: it rises in the transaction of every change that they must see."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.db.session import upsert
from app.db.tables import snapshot_versions

_ROW = 1


async def bump(connection: AsyncConnection) -> None:
    """Note that gateways need a new snapshot."""
    statement = upsert(connection, snapshot_versions).values(id=_ROW, version=1)
    grown = {"version": snapshot_versions.c.version + 1}
    await connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=grown))


async def current(connection: AsyncConnection) -> int:
    """The version now; 0 before there is anything to route by."""
    return int(await connection.scalar(select(snapshot_versions.c.version)) or 0)
