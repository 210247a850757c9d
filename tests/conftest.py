"""What every test shares: property tests that take the time they need and draw the same examples each run,
and databases: whoever asks for one is run on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from app.db.migrate import migrate_database
from app.db.session import Database
from tests.app.db.stage import Postgres, running_postgres

settings.register_profile("kingmaker", deadline=None, derandomize=True)
settings.load_profile("kingmaker")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """One server per test process, started when the first test needs it."""
    with running_postgres(tmp_path_factory.getbasetemp().parent / "postgres.lock") as server:
        yield server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that is not there yet."""
    return f"sqlite:///{tmp_path / 'kingmaker.db'}"


@pytest.fixture
async def postgres_url(postgres: Postgres) -> AsyncIterator[str]:
    """A database without tables on PostgreSQL."""
    async with postgres.empty() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_url(
    request: pytest.FixtureRequest, sqlite_url: str, postgres: Postgres
) -> AsyncIterator[str]:
    """A database without tables, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield sqlite_url
        return
    async with postgres.empty() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(
    request: pytest.FixtureRequest, sqlite_url: str, postgres: Postgres
) -> AsyncIterator[Database]:
    """A database with all tables, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        await migrate_database(sqlite_url)
        async with _opened(sqlite_url) as database:
            yield database
        return
    async with postgres.migrated() as url, _opened(url) as database:
        yield database


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()
