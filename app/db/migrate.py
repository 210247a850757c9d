"""Brings a database to the tables of this version."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection, text

import migrations
from app.db.errors import UnknownRevision
from app.db.session import Database

_LOCK = 0x6B696E676D616B65
"""The advisory lock of whoever migrates a PostgreSQL database; no other program is likely to use this one."""


def migrate(url: str) -> tuple[str | None, str]:
    """Migrate; gives the revision before (None: an empty database) and after.

    Raises:
        BadDatabaseUrl, DatabaseUnavailable: there is no database to migrate.
        UnknownRevision: a later version has migrated it.
    """
    return asyncio.run(migrate_database(url))


async def migrate_database(url: str) -> tuple[str | None, str]:
    """As `migrate`, from within an event loop."""
    database = Database(url)
    try:
        async with database.transaction() as connection:
            return await connection.run_sync(_upgrade)
    finally:
        await database.close()


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__path__[0])))
    config.attributes["connection"] = connection
    before = MigrationContext.configure(connection).get_current_revision()
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownRevision(
            f"the database is at revision {before!r}, which this version does not know: "
            "run the version that migrated it, or a later one"
        ) from error
    after = MigrationContext.configure(connection).get_current_revision()
    return before, str(after)
