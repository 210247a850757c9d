"""How the database is reached: one engine; every read sees one state; on SQLite writers take turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Insert, Table, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.db.errors import BadDatabaseUrl, Conflict, DatabaseUnavailable

Connection = AsyncConnection
"""What those who pass a connection on call it; they need not know SQLAlchemy."""

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_BUSY_SECONDS = 30


class Database:
    """A SQLite file or a PostgreSQL server, by its URL.

    Raises:
        BadDatabaseUrl: the URL names neither.
    """

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection that sees one state of the data and writes nothing."""
        with _OurErrors():
            async with self.engine.connect() as connection:
                if connection.dialect.name == "sqlite":
                    await connection.execute(text("BEGIN"))
                else:
                    connection = await connection.execution_options(isolation_level="REPEATABLE READ")
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose writes are kept together or, on any exception, not at all."""
        async with self.rehearsal() as connection:
            yield connection
            await connection.commit()

    @asynccontextmanager
    async def rehearsal(self) -> AsyncIterator[AsyncConnection]:
        """A connection that may write, and whose writes are undone at the end."""
        with _OurErrors():
            async with self.engine.connect() as connection:
                if connection.dialect.name == "sqlite":
                    await connection.execute(text("BEGIN IMMEDIATE"))
                yield connection

    async def close(self) -> None:
        """Give back all connections."""
        await self.engine.dispose()


class _OurErrors:
    """Turns what the driver raises into our own errors."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, IntegrityError):
            raise Conflict(str(error.orig)) from error
        if isinstance(error, DBAPIError | NoConnectionFree | OSError):
            raise DatabaseUnavailable(str(error)) from error


def make_engine(url: str) -> AsyncEngine:
    """The engine of a database URL; plain `sqlite:` and `postgresql:` get their asynchronous drivers.

    Raises:
        BadDatabaseUrl: it is malformed, of another kind of database, or its driver is not installed.
    """
    scheme, _, rest = url.partition("://")
    driver = _DRIVERS.get(scheme.partition("+")[0])
    if driver is None:
        raise BadDatabaseUrl(f"database_url must start with sqlite:// or postgresql://, got {scheme!r}://…")
    try:
        if driver.startswith("sqlite"):
            return _sqlite_engine(f"{driver}://{rest}")
        return create_async_engine(f"{driver}://{rest}", pool_pre_ping=True)
    except (ArgumentError, ValueError) as error:
        raise BadDatabaseUrl(f"database_url is not a URL: {error}") from error
    except ModuleNotFoundError as error:
        raise BadDatabaseUrl(f'database_url needs {error.name}: pip install "kingmaker[postgres]"') from error


def upsert(connection: AsyncConnection, table: Table) -> Any:
    """An insert of the connection's dialect, which knows `on_conflict_do_nothing` and `…_do_update`."""
    insert: Insert = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    return insert


def _sqlite_engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url, connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None})

    @event.listens_for(engine.sync_engine, "do_connect")
    def require_folder(*_: object) -> None:
        """Said here, because the driver's thread leaves a trace on stderr when a file cannot be opened."""
        if engine.url.database and not Path(engine.url.database).parent.is_dir():
            raise FileNotFoundError(f"there is no folder for the database {engine.url.database}")

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
