"""Fixtures of the gateway's tests."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.app.gateway.shadowed import Shadowed
from tests.app.gateway.stage import ArmServer, Stage
from tests.app.gateway.sticky import Sticky


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


@pytest.fixture
async def sticky() -> AsyncIterator[Sticky]:
    """A worker in process whose route keeps first arms, with even shares."""
    stage = Sticky()
    await stage.start()
    await stage.up()
    yield stage
    assert stage.worker.first_arms is not None
    await stage.stop()
    await stage.worker.first_arms.close()
