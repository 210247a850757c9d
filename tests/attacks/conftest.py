"""Fixtures of attacks: a worker process that is attacked, and the endpoint behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.attacks.attacked import Attacked
from tests.faults.origin import Origin
from tests.faults.scene import limits, route, worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def attacked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Attacked]:
    """One worker and one origin for all attacks of a file; in the end nothing went wrong in the worker."""
    origin = Origin()
    await origin.start()
    folder: Path = tmp_path_factory.mktemp("attacked")
    hurried = limits(timeout_ms=700)
    routes = [route(origin.port), route(origin.port, "hurried", 2, upstream=hurried)]
    with worker(folder, routes) as running:
        try:
            yield Attacked(running, origin)
        finally:
            await origin.stop()
        assert running.is_alive
        assert running.troubles == []
