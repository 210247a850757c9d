"""Fixtures of the gateway's tests."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.app.gateway.shadowed import Shadowed
from tests.app.gateway.stage import ArmServer, Stage


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """The loop that workers run on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """A worker in process, with a champion and a challenger at even shares."""
    stage = Stage()
    await stage.start()
    yield stage
    await stage.stop()


@pytest.fixture
async def shadowed(stage: Stage) -> AsyncIterator[Shadowed]:
    """A shadow arm that is sent a copy of everything."""
    shadow = ArmServer()
    await shadow.start()
    yield Shadowed(stage, shadow)
    await shadow.stop()
