"""Fixtures of the control plane's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from app.control.context import Context
from app.control.main import create_app
from app.db.migrate import migrate
from app.db.session import Database
from app.publisher import Publisher
from tests.app.control.stage import Stage, staged


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A migrated database without rows, as a file: the migrations run once."""
    path = tmp_path_factory.mktemp("tables") / "kingmaker.db"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """The application, which each stage puts over its own database."""
    folder = tmp_path_factory.mktemp("nowhere")
    database = Database(f"sqlite:///{folder / 'kingmaker.db'}")
    return create_app(Context(database, Publisher(database, folder), keyless=True))


@pytest.fixture
async def stage(tmp_path: Path, tables: bytes, app: FastAPI) -> AsyncIterator[Stage]:
    """A control plane that lets this machine in without a key."""
    async with staged(tmp_path, tables, app) as stage:
        yield stage


@pytest.fixture
async def ads(stage: Stage) -> Stage:
    """A control plane with the route `ads`, whose challenger is on trial."""
    answer = await stage.put()
    assert answer.status_code == 201, answer.text
    return stage
