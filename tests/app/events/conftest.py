"""Fixtures of the event log's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.app.events.books import Books, open_books


@pytest.fixture
async def books(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Books]:
    """A migrated SQLite database with one route, and no events yet."""
    books = await open_books(tmp_path, tmp_path_factory.getbasetemp() / "migrated.db")
    yield books
    await books.database.close()
