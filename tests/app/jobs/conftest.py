"""Fixtures of the jobs' tests."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.db.migrate import migrate
from app.db.session import Database


@pytest.fixture(scope="session")
def sqlite_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file without rows: the migrations run once."""
    path = tmp_path_factory.mktemp("tables") / "kingmaker.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
async def sqlite(tmp_path: Path, sqlite_tables: Path) -> AsyncIterator[Database]:
    """A database for claims that do not depend on which one it is."""
    path = shutil.copy(sqlite_tables, tmp_path / "kingmaker.db")
    database = Database(f"sqlite:///{path}")
    yield database
    await database.close()
